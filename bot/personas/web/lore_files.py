"""Lists, reads and writes the lore files of a persona."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bot.personas.base_model_compat import token_counter_or_estimate
from bot.personas.guild_lore import GuildLore, lore_file_name, set_choice_text
from bot.personas.lore_upload import AddedLore, add_lore
from bot.personas.web.lookup import OwnedPersona, guild_name
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.request_origin import OPERATOR_ORIGIN
from bot.platform.trash import require_entry
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems
from bot.services import Services
from personas.errors import LoreError
from personas.home.lore_sets import LoreSet
from personas.home.persona_ids import short_id
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore.index import guild_owner
from personas.lore.passages import Passage

MeasureFile = Callable[[str, str], tuple[int, int]]
"""Returns passages and tokens of an owner's file."""


@dataclass(frozen=True)
class LoreFile:
    """A lore file. `guild_id` 0 is for all servers; `origin` names its owner.

    `can_edit` is false for what lies where it cannot be written anew; of what `ships` a copy is
    made. One that is `left_out` ships, and the operator wants nothing found of it.
    """

    guild_id: int
    name: str
    origin: str
    passages: int
    tokens: int
    ships: bool = False
    can_edit: bool = True
    left_out: bool = False


def lore_store(services: Services) -> GuildLore:
    """The store of lore files, which keeps revisions of changed files."""
    return GuildLore(services.home, services.lore, services.catalogue.shipped.lore, keeping=True)


def lore_guild_ids(owned: OwnedPersona) -> list[int]:
    """Guilds with lore for the persona: 0 and those that added some; only its own for a guild's
    persona.
    """
    if owned.guild_id:
        return [owned.guild_id]
    lore = owned.services.home / "lore"
    own = []
    # A glob would read the folders of all guilds, and a Path for each takes as long again.
    for name in os.listdir(lore) if lore.is_dir() else ():  # noqa: PTH208
        if name.isdecimal() and int(name) and os.path.isdir(f"{lore}/{name}/{owned.id}"):  # noqa: PTH112
            own.append(int(name))
    return [OPERATOR_GUILD_ID, *sorted(own)]


@dataclass(frozen=True)
class SharedSet:
    """A set of lore beside a persona's own: whether it uses the set, and the names of the servers
    in which that is otherwise.
    """

    set: LoreSet
    passages: int
    is_taken: bool
    others: list[str]


def shared_sets(owned: OwnedPersona, guild_id: int) -> list[SharedSet]:
    """Every set, and whether the persona uses it in a guild (0: where nothing else was chosen)."""
    services = owned.services
    taken = services.lore_sets.taken(owned.id, guild_id)
    guilds = services.client.guilds if services.client and not guild_id else []
    elsewhere = [(guild.name, services.lore_sets.taken(owned.id, guild.id)) for guild in guilds]
    shared = []
    for lore_set in services.lore_sets.sets.values():
        owners = (lore_set.id, guild_owner(OPERATOR_GUILD_ID, lore_set.id))
        is_taken = lore_set.id in taken
        others = [name for name, ids in elsewhere if (lore_set.id in ids) != is_taken]
        passages = len(services.lore.passages_of(*owners))
        shared.append(SharedSet(lore_set, passages, is_taken=is_taken, others=others))
    return shared


def set_users(services: Services, set_id: str) -> list[str]:
    """The names of the personas that use a set of lore."""
    users = []
    for guild_id, persona in services.personas.everybody():
        if set_id in services.lore_sets.taken(persona.id, guild_id):
            users.append(persona.name)
    return users


def choose_set(owned: OwnedPersona, set_id: str, is_taken: bool | None, guild_id: int) -> LoreSet:
    """Have a persona use a set in a guild, or not; None forgets the choice. Raises `Problem`."""
    sets = owned.services.lore_sets
    with errors_as_problems("not-found"):
        lore_set = sets.find(set_id)
    with errors_as_problems("conflict"):
        sets.choose(lore_set.id, is_taken, guild_id=guild_id, persona_id=owned.id)
    _record(
        owned, guild_id, set_choice_text(f"**{markdown_name(owned.persona)}**", is_taken, lore_set)
    )
    return lore_set


def _record(owned: OwnedPersona, guild_id: int, what: str) -> None:
    owned.services.audit.record(guild_id, OPERATOR_ORIGIN.user_id, what)


def require_own_set(services: Services, set_id: str) -> LoreSet:
    """Return a set of lore that was made here. Raises `Problem` for one that ships, and for none."""
    with errors_as_problems("not-found"):
        services.lore_sets.find(set_id)
    with errors_as_problems("conflict"):
        return services.lore_sets.require_own(set_id)


async def remove_set(services: Services, set_id: str) -> LoreSet:
    """Remove a set of lore, which `bring_back_set` brings back within a day. Raises `Problem`."""
    lore_set = require_own_set(services, set_id)
    await asyncio.to_thread(services.lore_sets.remove, lore_set.id)
    await lore_store(services).refresh(OPERATOR_GUILD_ID, lore_set.id)
    removed = gettext_lazy("removed the lore {set}", set=f"**{lore_set.name}**")
    services.audit.record(OPERATOR_GUILD_ID, OPERATOR_ORIGIN.user_id, removed)
    return lore_set


async def bring_back_set(services: Services, set_id: str, stamp: str) -> LoreSet:
    """Bring a removed set of lore back. Raises `Problem`."""
    with errors_as_problems("conflict"):
        entry = require_entry(
            services.home, OPERATOR_GUILD_ID, kind="lore-set", id=set_id, stamp=stamp
        )
        lore_set = await asyncio.to_thread(services.lore_sets.bring_back, entry)
    await lore_store(services).refresh(OPERATOR_GUILD_ID, set_id)
    restored = gettext_lazy("brought back the lore {set}", set=f"**{lore_set.name}**")
    services.audit.record(OPERATOR_GUILD_ID, OPERATOR_ORIGIN.user_id, restored)
    return lore_set


def list_lore_files(owned: OwnedPersona) -> list[LoreFile]:
    """Every file, shipped ones first. To be called in a thread."""
    owners = [owned.id, *(guild_owner(guild_id, owned.id) for guild_id in lore_guild_ids(owned))]
    by_source = _passages_by_source(owned.services.lore.passages_of(*owners))
    count = token_counter_or_estimate(owned.services.base_model)

    def measured(owner: str, name: str) -> tuple[int, int]:
        passages = by_source.get((owner, f"{short_id(owned.persona, owned.guild_id)}/{name}"), [])
        return len(passages), sum(count(passage.text) for passage in passages)

    added = list[LoreFile]()
    for guild_id in lore_guild_ids(owned):
        added += _added_files(owned, guild_id, measured)
    replaced = {file.name for file in added if file.guild_id == OPERATOR_GUILD_ID}
    shipped = [
        file for file in _shipped_files(owned, by_source, measured) if file.name not in replaced
    ]
    return shipped + added


def shipped_text(owned: OwnedPersona, name: str) -> str | None:
    """The text of an editable shipped file; None if there is none."""
    path = _shipped_file(owned, name)
    return path.read_text(encoding="utf-8-sig") if path else None


def _shipped_file(owned: OwnedPersona, name: str) -> Path | None:
    path = owned.services.catalogue.shipped.lore / owned.id / name
    if owned.ships and is_plain_file_name(name) and path.is_file():
        return path
    return None


def _added_files(owned: OwnedPersona, guild_id: int, measured: MeasureFile) -> Iterator[LoreFile]:
    lore = lore_store(owned.services)
    owner = guild_owner(guild_id, owned.id)
    for name in lore.files(guild_id, owned.id):
        ships = guild_id == OPERATOR_GUILD_ID and _shipped_file(owned, name) is not None
        is_left_out = not lore.text(guild_id, owned.id, name)
        if is_left_out:
            origin = "left out"
        elif guild_id:
            origin = guild_name(owned.services, guild_id)
        elif ships:
            origin = "the operator, in place of the file that ships"
        else:
            origin = "the operator"
        passages, tokens = measured(owner, name)
        yield LoreFile(
            guild_id=guild_id,
            name=name,
            origin=origin,
            passages=passages,
            tokens=tokens,
            ships=ships,
            left_out=is_left_out,
        )


def _shipped_files(
    owned: OwnedPersona,
    by_source: Mapping[tuple[str, str], Sequence[Passage]],
    measured: MeasureFile,
) -> Iterator[LoreFile]:
    for owner, source in sorted(by_source):
        if owner == owned.id:
            name = source.partition("/")[2]
            passages, tokens = measured(owner, name)
            yield LoreFile(
                guild_id=OPERATOR_GUILD_ID,
                name=name,
                origin="came with the bot",
                passages=passages,
                tokens=tokens,
                ships=True,
                can_edit=_shipped_file(owned, name) is not None,
            )


def _passages_by_source(passages: Sequence[Passage]) -> dict[tuple[str, str], list[Passage]]:
    by_source: dict[tuple[str, str], list[Passage]] = {}
    for passage in passages:
        by_source.setdefault((passage.owner, passage.source), []).append(passage)
    return by_source


def is_plain_file_name(name: str) -> bool:
    """True for a valid lore file name; others would be stored under another name."""
    try:
        return lore_file_name(name) == name
    except LoreError:
        return False


def read_lore_file(owned: OwnedPersona, guild_id: int, name: str) -> str:
    """Read a file; to be called in a thread. Raises `Problem` if there is none."""
    text = lore_store(owned.services).text(guild_id, owned.id, name)
    if text is None and guild_id == OPERATOR_GUILD_ID:
        text = shipped_text(owned, name)
    if text is None:
        raise Problem(
            "not-found",
            f"{owned.persona.name} has no lore {name[:80]!r}.",
            "The list names what there is.",
        )
    return text


async def write_lore_file(
    owned: OwnedPersona, guild_id: int, name: str, *, content: bytes, replace: bool
) -> AddedLore:
    """Store a file, or a lorebook as files, under a free name unless it is to `replace` the one of
    its name; returns what was added. Raises `Problem`.
    """
    lore = lore_store(owned.services)
    with errors_as_problems("invalid-request"):
        added = await add_lore(
            lore,
            guild_id,
            persona=owned.persona,
            name=name,
            content=content,
            store=partial(lore.add, guild_id, owned.id),
            replace=replace,
        )
    record_lore_change(owned, guild_id, *added.files)
    return added


async def restore_lore_file(owned: OwnedPersona, guild_id: int, name: str, *, number: str) -> None:
    """Restore a revision of a file; without a number, the shipped text. Raises `Problem`."""
    lore = lore_store(owned.services)
    with errors_as_problems("not-found"):
        if number:
            before = await asyncio.to_thread(lore.earlier(guild_id, owned.id, name).read, number)
            await lore.add(guild_id, owned.id, name, before)
        elif guild_id == OPERATOR_GUILD_ID and shipped_text(owned, name) is not None:
            await lore.remove(guild_id, owned.id, name)
        else:
            raise Problem(
                "not-found",
                f"No {name[:80]!r} came with the bot.",
                "Nothing was changed.",
            )
    record_lore_change(owned, guild_id, name)


def record_lore_change(owned: OwnedPersona, guild_id: int, *files: str) -> None:
    """Tell that files of a persona's lore were changed."""
    names = ", ".join(f"`{file}`" for file in files)
    what = gettext_lazy(
        "changed the lore of {persona} ({files})",
        persona=f"**{markdown_name(owned.persona)}**",
        files=names,
    )
    _record(owned, guild_id, what)


async def remove_lore_file(owned: OwnedPersona, guild_id: int, name: str) -> None:
    """Remove a file, or exclude a shipped one. Raises `Problem` if there is none."""
    lore = lore_store(owned.services)
    text = await asyncio.to_thread(read_lore_file, owned, guild_id, name)
    shipped = None
    if guild_id == OPERATOR_GUILD_ID:
        shipped = await asyncio.to_thread(shipped_text, owned, name)
    if shipped is None:
        await lore.remove(guild_id, owned.id, name)
    elif text:
        await lore.exclude_file(owned.id, name)
    what = gettext_lazy(
        "removed {file} from the lore of {persona}",
        file=f"`{name}`",
        persona=f"**{markdown_name(owned.persona)}**",
    )
    _record(owned, guild_id, what)
