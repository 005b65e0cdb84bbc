"""A persona's lore as files: what ships, what the operator has in its place or beside it, what servers have added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.card_room import count_of
from bot.house import House
from bot.lore import GuildLore, file_name
from bot.personas import short_id
from bot.web.personas.found import Found, server_name
from personas.errors import LoreError
from personas.for_everybody import OPERATOR
from personas.lore import Passage, guild_owner

Measure = Callable[[str, str], tuple[int, int]]
"""Passages and tokens of an owner's file."""


@dataclass(frozen=True)
class LoreFile:
    """A file of lore. `guild_id` 0 is everybody's; `origin` says whose it is, for people.

    `can_edit` is false for what lies where it cannot be written anew; of what `ships` a copy is made. One that is
    `left_out` ships, and the operator wants nothing found of it.
    """

    guild_id: int
    name: str
    origin: str
    passages: int
    tokens: int
    ships: bool = False
    can_edit: bool = True
    left_out: bool = False


def lore_of(house: House) -> GuildLore:
    """All files of lore, as they are changed here: what they held before is kept."""
    return GuildLore(house.home, house.conversations.lore, house.catalogue.shipped.lore, keeping=True)


def guilds_of(found: Found) -> list[int]:
    """The servers whose lore the persona has: 0, and those that have added some; its own alone where it has one."""
    if found.guild_id:
        return [found.guild_id]
    folders = (found.house.home / "lore").glob(f"[1-9]*/{found.id}/")
    return [OPERATOR, *sorted(int(folder.parent.name) for folder in folders if folder.parent.name.isdecimal())]


def files_of(found: Found) -> list[LoreFile]:
    """Every file, those that ship first. To be read in a thread."""
    by_source = _by_source(found.house.conversations.lore.passages)
    count = count_of(found.house.base_model)

    def measured(owner: str, name: str) -> tuple[int, int]:
        passages = by_source.get((owner, f"{short_id(found.persona, found.guild_id)}/{name}"), [])
        return len(passages), sum(count(passage.text) for passage in passages)

    own = [file for guild_id in guilds_of(found) for file in _added(found, guild_id, measured)]
    written = {file.name for file in own if file.guild_id == OPERATOR}
    return [*(file for file in _shipped(found, by_source, measured) if file.name not in written), *own]


def shipped_text(found: Found, name: str) -> str | None:
    """What a file that ships holds, where it can be written anew; None where there is none."""
    path = _shipped_file(found, name)
    return path.read_text(encoding="utf-8-sig") if path else None


def _shipped_file(found: Found, name: str) -> Path | None:
    path = found.house.catalogue.shipped.lore / found.id / name
    return path if found.ships and is_plain(name) and path.is_file() else None


def _added(found: Found, guild_id: int, measured: Measure) -> Iterator[LoreFile]:
    lore, whose = lore_of(found.house), guild_owner(guild_id, found.id)
    for name in lore.files(guild_id, found.id):
        ships = guild_id == OPERATOR and _shipped_file(found, name) is not None
        empty = not lore.text(guild_id, found.id, name)
        origin = (
            server_name(found.house, guild_id) if guild_id else "the operator" + (", in place of what ships" * ships)
        )
        yield LoreFile(guild_id, name, "left out" if empty else origin, *measured(whose, name), ships, left_out=empty)


def _shipped(found: Found, by_source: Mapping[tuple[str, str], Sequence[Passage]], measured: Measure
             ) -> Iterator[LoreFile]:  # fmt: skip
    for owner, source in sorted(by_source):
        if owner == found.id:
            name = source.partition("/")[2]
            can_edit = _shipped_file(found, name) is not None
            yield LoreFile(OPERATOR, name, "came with the bot", *measured(owner, name), ships=True, can_edit=can_edit)


def _by_source(passages: Sequence[Passage]) -> dict[tuple[str, str], list[Passage]]:
    found: dict[tuple[str, str], list[Passage]] = {}
    for passage in passages:
        found.setdefault((passage.owner, passage.source), []).append(passage)
    return found


def is_plain(name: str) -> bool:
    """Whether a file can have this name here: others would be written under another one."""
    try:
        return file_name(name) == name
    except LoreError:
        return False
