"""Lists, reads and writes the lore files of a persona, and explains which passages a message
matches.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bot.personas.base_model_compat import token_counter_or_estimate
from bot.personas.guild_lore import GuildLore, lore_file_name
from bot.personas.lore_upload import AddedLore, add_lore
from bot.personas.registry import short_id
from bot.personas.web.lookup import OwnedPersona, guild_name
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems
from bot.services import Services
from personas.errors import LoreError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore.entry_rules import MAX_ALWAYS_WORDS
from personas.lore.index import guild_owner
from personas.lore.passages import Passage
from personas.lore.ranking import (
    MAX_LORE_PASSAGES,
    MIN_SCORE,
    MIN_SHARE_OF_BEST,
    LoreRanking,
    PassageMatch,
)

MeasureFile = Callable[[str, str], tuple[int, int]]
"""Returns passages and tokens of an owner's file."""
MatchOutcome = Literal["given", "left over", "not found"]
MAX_QUESTION_CHARS = 4000


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


def lore_guild_ids(found: OwnedPersona) -> list[int]:
    """Guilds with lore for the persona: 0 and those that added some; only its own for a guild's
    persona.
    """
    if found.guild_id:
        return [found.guild_id]
    lore = found.services.home / "lore"
    names = [folder.name for folder in lore.iterdir()] if lore.is_dir() else []
    own = [  # a glob would read the folders of all guilds
        int(name)
        for name in names
        if name.isdecimal() and int(name) and os.path.isdir(f"{lore}/{name}/{found.id}")  # noqa: PTH112
    ]
    return [OPERATOR_GUILD_ID, *sorted(own)]


def list_lore_files(found: OwnedPersona) -> list[LoreFile]:
    """Every file, shipped ones first. To be called in a thread."""
    owners = [found.id, *(guild_owner(guild_id, found.id) for guild_id in lore_guild_ids(found))]
    by_source = _passages_by_source(found.services.lore.passages_of(*owners))
    count = token_counter_or_estimate(found.services.base_model)

    def measured(owner: str, name: str) -> tuple[int, int]:
        passages = by_source.get((owner, f"{short_id(found.persona, found.guild_id)}/{name}"), [])
        return len(passages), sum(count(passage.text) for passage in passages)

    own = [
        file
        for guild_id in lore_guild_ids(found)
        for file in _added_files(found, guild_id, measured)
    ]
    written = {file.name for file in own if file.guild_id == OPERATOR_GUILD_ID}
    return [
        *(file for file in _shipped_files(found, by_source, measured) if file.name not in written),
        *own,
    ]


def shipped_text(found: OwnedPersona, name: str) -> str | None:
    """The text of an editable shipped file; None if there is none."""
    path = _shipped_file(found, name)
    return path.read_text(encoding="utf-8-sig") if path else None


def _shipped_file(found: OwnedPersona, name: str) -> Path | None:
    path = found.services.catalogue.shipped.lore / found.id / name
    return path if found.ships and is_plain_file_name(name) and path.is_file() else None


def _added_files(found: OwnedPersona, guild_id: int, measured: MeasureFile) -> Iterator[LoreFile]:
    lore = lore_store(found.services)
    owner = guild_owner(guild_id, found.id)
    for name in lore.files(guild_id, found.id):
        ships = guild_id == OPERATOR_GUILD_ID and _shipped_file(found, name) is not None
        empty = not lore.text(guild_id, found.id, name)
        origin = (
            guild_name(found.services, guild_id)
            if guild_id
            else "the operator" + (", in place of what ships" * ships)
        )
        yield LoreFile(
            guild_id,
            name,
            "left out" if empty else origin,
            *measured(owner, name),
            ships,
            left_out=empty,
        )


def _shipped_files(found: OwnedPersona, by_source: Mapping[tuple[str, str], Sequence[Passage]], measured: MeasureFile
             ) -> Iterator[LoreFile]:  # fmt: skip
    for owner, source in sorted(by_source):
        if owner == found.id:
            name = source.partition("/")[2]
            can_edit = _shipped_file(found, name) is not None
            yield LoreFile(
                OPERATOR_GUILD_ID,
                name,
                "came with the bot",
                *measured(owner, name),
                ships=True,
                can_edit=can_edit,
            )


def _passages_by_source(passages: Sequence[Passage]) -> dict[tuple[str, str], list[Passage]]:
    found: dict[tuple[str, str], list[Passage]] = {}
    for passage in passages:
        found.setdefault((passage.owner, passage.source), []).append(passage)
    return found


def is_plain_file_name(name: str) -> bool:
    """True for a valid lore file name; others would be stored under another name."""
    try:
        return lore_file_name(name) == name
    except LoreError:
        return False


@dataclass(frozen=True)
class MatchExplanation:
    """A passage compared with a message: the outcome, the reason, and the passage's tokens."""

    match: PassageMatch
    outcome: MatchOutcome
    why: str
    tokens: int

    @property
    def words(self) -> list[tuple[str, float]]:
        """Shared words with their weights, heaviest first."""
        return sorted(self.match.words.items(), key=lambda word: -word[1])


def explain_matches(ranking: LoreRanking, count: Callable[[str], int]) -> list[MatchExplanation]:
    given = {id(match) for match in ranking.selected()}
    return [
        _explain_match(match, rank, id(match) in given, count)
        for rank, match in enumerate(ranking.matches)
    ]


def explanation_json(one: MatchExplanation) -> dict[str, Any]:
    fields = (
        (one, ("outcome", "why", "tokens")),
        (
            one.match,
            ("score", "by_words", "by_meaning", "by_keys", "cosine", "words", "keys", "is_always"),
        ),
        (one.match.passage, ("source", "heading", "text")),
    )
    return {name: getattr(holder, name) for holder, names in fields for name in names}


def _explain_match(
    match: PassageMatch, rank: int, is_given: bool, count: Callable[[str], int]
) -> MatchExplanation:
    tokens = count(f"[{match.passage.heading}] {match.passage.text}")
    if is_given and match.by_keys:
        return MatchExplanation(match, "given", _key_reason(match), tokens)
    if is_given:
        why = (
            f"A score of {MIN_SCORE:g} or more is found, and it is among the best "
            f"{MAX_LORE_PASSAGES}."
        )
        return MatchExplanation(match, "given", why, tokens)
    if match.is_match:
        why = _crowded_reason(match) if match.by_keys else _left_over_reason(rank)
        return MatchExplanation(match, "left over", why, tokens)
    return MatchExplanation(match, "not found", _not_found_reason(match), tokens)


def _key_reason(match: PassageMatch) -> str:
    if match.is_always:
        return (
            "It is given with every message, as all such passages are that have room in "
            f"{MAX_ALWAYS_WORDS} words."
        )
    return f"The message has its keys: {', '.join(match.keys)}."


def _crowded_reason(match: PassageMatch) -> str:
    return (
        f"{_key_reason(match)} Others have precedence by their keys: a prompt has room for "
        f"{MAX_LORE_PASSAGES}."
    )


def _left_over_reason(rank: int) -> str:
    if rank >= MAX_LORE_PASSAGES:
        return (
            f"Found, but a prompt has room for {MAX_LORE_PASSAGES} passages, and others match "
            "better."
        )
    return (
        f"Found, but it scores less than {MIN_SHARE_OF_BEST:.0%} of the best: it says little "
        "beside that."
    )


def _not_found_reason(match: PassageMatch) -> str:
    if match.is_ruled_out:
        return "It has secondary keys, so only its keys give it, and they do not match."
    meaning = "its meaning was not compared, as one of the two is not English"
    if match.cosine is not None:
        far = (
            "far off"
            if match.by_meaning < 0
            else "near, but not near enough"
            if match.by_meaning
            else "no nearer"
        )
        meaning = f"in meaning it is {far} ({match.by_meaning:+.2f})"
    shared = (
        f"the shared words weigh {match.by_words:.2f}"
        if match.words
        else "they share no meaningful word"
    )
    return f"It takes {MIN_SCORE:g}: {shared}, and {meaning}."


async def match_lore(
    found: OwnedPersona, message: str, guild_id: int
) -> tuple[LoreRanking, list[MatchExplanation]]:
    """Match a message against all lore of the persona in a server, best first."""
    ranking = await asyncio.to_thread(found.services.lore.rank, found.id, message, guild_id)
    count = await asyncio.to_thread(token_counter_or_estimate, found.services.base_model)
    return ranking, await asyncio.to_thread(explain_matches, ranking, count)


def read_lore_file(found: OwnedPersona, guild_id: int, name: str) -> str:
    """Read a file; to be called in a thread. Raises `Problem` if there is none."""
    text = lore_store(found.services).text(guild_id, found.id, name)
    if text is None and guild_id == OPERATOR_GUILD_ID:
        text = shipped_text(found, name)
    if text is None:
        raise Problem(
            "not-found",
            f"{found.persona.name} has no lore {name[:80]!r}.",
            "The list names what there is.",
        )
    return text


async def write_lore_file(
    found: OwnedPersona, guild_id: int, name: str, content: bytes
) -> AddedLore:
    """Store a file, or a lorebook as files; returns what was added. Raises `Problem`."""
    lore = lore_store(found.services)
    with errors_as_problems("invalid-request"):
        return await add_lore(
            lore,
            guild_id,
            found.persona,
            name,
            content=content,
            store=partial(lore.add, guild_id, found.id),
        )


async def remove_lore_file(found: OwnedPersona, guild_id: int, name: str) -> None:
    """Remove a file, or exclude a shipped one. Raises `Problem` if there is none."""
    lore = lore_store(found.services)
    text = await asyncio.to_thread(read_lore_file, found, guild_id, name)
    ships = (
        guild_id == OPERATOR_GUILD_ID
        and await asyncio.to_thread(shipped_text, found, name) is not None
    )
    if not ships:
        await lore.remove(guild_id, found.id, name)
    elif text:
        await lore.exclude_file(found.id, name)
