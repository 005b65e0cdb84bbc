"""`/personas/ID/lore`: lore files, and why a message matches a passage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from bot.personas.base_model_compat import token_counter_or_estimate
from bot.personas.guild_lore import MAX_FILE_BYTES, GuildLore, lore_file_name
from bot.personas.registry import short_id
from bot.services import Services
from bot.web.api.openapi import ApiModel, BodySpec, Json, ResponseSpec, describe_operation
from bot.web.api.personas.card_routes import NO_PERSONA_TEXT, PERSONAS_TAG
from bot.web.api.personas.persona_lookup import OwnedPersona, guild_name, require_lore_owner
from bot.web.app_context import Route
from bot.web.problems import Problem
from bot.web.request_body import errors_as_problems, parse_body, read_json_object
from personas.errors import LoreError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore import MAX_LORE_PASSAGES, MIN_SCORE, LoreRanking, Passage, PassageMatch, guild_owner
from personas.lore.index import MIN_SHARE_OF_BEST

MeasureFile = Callable[[str, str], tuple[int, int]]
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


def lore_store(services: Services) -> GuildLore:
    """All files of lore, as they are changed here: what they held before is kept."""
    return GuildLore(services.home, services.request_builder.lore, services.catalogue.shipped.lore, keeping=True)


def lore_guild_ids(found: OwnedPersona) -> list[int]:
    """The servers whose lore the persona has: 0, and those that have added some; its own alone where it has one."""
    if found.guild_id:
        return [found.guild_id]
    folders = (found.services.home / "lore").glob(f"[1-9]*/{found.id}/")
    return [OPERATOR_GUILD_ID, *sorted(int(folder.parent.name) for folder in folders if folder.parent.name.isdecimal())]


def list_lore_files(found: OwnedPersona) -> list[LoreFile]:
    """Every file, those that ship first. To be read in a thread."""
    by_source = _passages_by_source(found.services.request_builder.lore.passages)
    count = token_counter_or_estimate(found.services.base_model)

    def measured(owner: str, name: str) -> tuple[int, int]:
        passages = by_source.get((owner, f"{short_id(found.persona, found.guild_id)}/{name}"), [])
        return len(passages), sum(count(passage.text) for passage in passages)

    own = [file for guild_id in lore_guild_ids(found) for file in _added_files(found, guild_id, measured)]
    written = {file.name for file in own if file.guild_id == OPERATOR_GUILD_ID}
    return [*(file for file in _shipped_files(found, by_source, measured) if file.name not in written), *own]


def shipped_text(found: OwnedPersona, name: str) -> str | None:
    """What a file that ships holds, where it can be written anew; None where there is none."""
    path = _shipped_file(found, name)
    return path.read_text(encoding="utf-8-sig") if path else None


def _shipped_file(found: OwnedPersona, name: str) -> Path | None:
    path = found.services.catalogue.shipped.lore / found.id / name
    return path if found.ships and is_plain_file_name(name) and path.is_file() else None


def _added_files(found: OwnedPersona, guild_id: int, measured: MeasureFile) -> Iterator[LoreFile]:
    lore, whose = lore_store(found.services), guild_owner(guild_id, found.id)
    for name in lore.files(guild_id, found.id):
        ships = guild_id == OPERATOR_GUILD_ID and _shipped_file(found, name) is not None
        empty = not lore.text(guild_id, found.id, name)
        origin = (
            guild_name(found.services, guild_id) if guild_id else "the operator" + (", in place of what ships" * ships)
        )
        yield LoreFile(guild_id, name, "left out" if empty else origin, *measured(whose, name), ships, left_out=empty)


def _shipped_files(found: OwnedPersona, by_source: Mapping[tuple[str, str], Sequence[Passage]], measured: MeasureFile
             ) -> Iterator[LoreFile]:  # fmt: skip
    for owner, source in sorted(by_source):
        if owner == found.id:
            name = source.partition("/")[2]
            can_edit = _shipped_file(found, name) is not None
            yield LoreFile(
                OPERATOR_GUILD_ID, name, "came with the bot", *measured(owner, name), ships=True, can_edit=can_edit
            )


def _passages_by_source(passages: Sequence[Passage]) -> dict[tuple[str, str], list[Passage]]:
    found: dict[tuple[str, str], list[Passage]] = {}
    for passage in passages:
        found.setdefault((passage.owner, passage.source), []).append(passage)
    return found


def is_plain_file_name(name: str) -> bool:
    """Whether a file can have this name here: others would be written under another one."""
    try:
        return lore_file_name(name) == name
    except LoreError:
        return False


MatchOutcome = Literal["given", "left over", "not found"]


@dataclass(frozen=True)
class MatchExplanation:
    """A passage beside a message: what became of it, why in a sentence, and how many tokens it takes or would take."""

    match: PassageMatch
    outcome: MatchOutcome
    why: str
    tokens: int

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words that both have with their weights, the heaviest first."""
        return sorted(self.match.words.items(), key=lambda word: -word[1])


def explain_matches(weighed: LoreRanking, count: Callable[[str], int]) -> list[MatchExplanation]:
    """Every passage, best first."""
    given = {id(match) for match in weighed.given()}
    return [
        _explain_match(match, place, weighed, id(match) in given, count) for place, match in enumerate(weighed.matches)
    ]


def explanation_json(one: MatchExplanation) -> dict[str, Any]:
    """The published object."""
    match = one.match
    return {
        "outcome": one.outcome,
        "why": one.why,
        "score": match.score,
        "by_words": match.by_words,
        "by_meaning": match.by_meaning,
        "cosine": match.cosine,
        "words": match.words,
        "tokens": one.tokens,
        "source": match.passage.source,
        "heading": match.passage.heading,
        "text": match.passage.text,
    }


def _explain_match(
    match: PassageMatch, place: int, weighed: LoreRanking, is_given: bool, count: Callable[[str], int]
) -> MatchExplanation:
    tokens = count(f"[{match.passage.heading}] {match.passage.text}")
    if is_given:
        why = f"A score of {MIN_SCORE:g} or more is found, and it is among the best {MAX_LORE_PASSAGES}."
        return MatchExplanation(match, "given", why, tokens)
    if match.found:
        return MatchExplanation(match, "left over", _left_over_reason(place), tokens)
    return MatchExplanation(match, "not found", _not_found_reason(match), tokens)


def _left_over_reason(place: int) -> str:
    if place >= MAX_LORE_PASSAGES:
        return f"Found, but a prompt has room for {MAX_LORE_PASSAGES} passages, and others match better."
    return f"Found, but it scores less than {MIN_SHARE_OF_BEST:.0%} of the best: it says little beside that."


def _not_found_reason(match: PassageMatch) -> str:
    meaning = "its meaning was not compared, as one of the two is not English"
    if match.cosine is not None:
        far = "far off" if match.by_meaning < 0 else "near, but not near enough" if match.by_meaning else "no nearer"
        meaning = f"in meaning it is {far} ({match.by_meaning:+.2f})"
    shared = f"the shared words weigh {match.by_words:.2f}" if match.words else "they share no word that tells anything"
    return f"It takes {MIN_SCORE:g}: {shared}, and {meaning}."


MAX_QUESTION_CHARS = 4000
NO_FILE_TEXT = "There is no such persona, or no such file."
GuildId = Annotated[str, Limit(pattern=r"^[0-9]{1,20}$", description="its id; the persona's own if left out")]


class LoreQuery(BaseModel):
    """A message, and the server in which it is asked: what that has added counts there."""

    model_config = ConfigDict(extra="forbid")
    message: Annotated[str, Limit(min_length=1, max_length=MAX_QUESTION_CHARS)]
    guild: GuildId | None = None


class LoreFileBody(BaseModel):
    """What a file is to hold: markdown."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Limit(max_length=MAX_FILE_BYTES)]


class LoreFileSummary(BaseModel):
    """A file's name, and how many passages are found of it."""

    name: str
    passages: int


class LoreMatches(ApiModel):
    """The passages that a message matches, best first."""

    threshold: float
    """Passages with at least this score are found."""
    most: int
    """Number of found passages that a prompt is given."""
    words: list[str]
    """The words that were looked for."""
    small_talk: float | None
    """Similarity to small talk; null if it was not compared."""
    matches: list[Json]


async def match_lore(found: OwnedPersona, message: str, guild_id: int) -> tuple[LoreRanking, list[MatchExplanation]]:
    """A message against all lore that the persona has in a server, best first."""
    weighed = found.services.request_builder.lore.weigh(
        found.id, message, guild_id
    )  # on the event loop, as the index asks
    return weighed, await asyncio.to_thread(
        lambda: explain_matches(weighed, token_counter_or_estimate(found.services.base_model))
    )


@describe_operation(
    "What a message finds",
    {200: ResponseSpec("Every passage, best first, with what decided.", LoreMatches), 404: NO_PERSONA_TEXT},
    tag=PERSONAS_TAG,
    body=BodySpec(LoreQuery, {"message": "do you ever rust?"}),
)
async def post_lore_query(request: web.Request) -> web.Response:
    """Which passages a prompt would be given, which were found but left over, which were not found, and why."""
    found = require_lore_owner(request)
    question = parse_body(LoreQuery, await read_json_object(request))
    guild_id = int(question.guild) if question.guild else found.guild_id
    weighed, matches = await match_lore(found, question.message, guild_id)
    return LoreMatches(
        threshold=MIN_SCORE,
        most=MAX_LORE_PASSAGES,
        words=weighed.terms,
        small_talk=weighed.small_talk,
        matches=[explanation_json(one) for one in matches],
    ).response()


@describe_operation(
    "A persona's lore", {200: "Its files, with passages and tokens.", 404: NO_PERSONA_TEXT}, tag=PERSONAS_TAG
)
async def get_lore_files(request: web.Request) -> web.Response:
    """What ships, what the operator has in its place or beside it, what servers have added."""
    found = require_lore_owner(request)
    files = await asyncio.to_thread(list_lore_files, found)
    return web.json_response({"files": [_file_json(found, file) for file in files]})


def _file_json(found: OwnedPersona, file: LoreFile) -> dict[str, Any]:
    told = {**vars(file), "guild": str(file.guild_id)}
    del told["guild_id"]
    return told | {"links": {"self": f"/personas/{found.id}/lore/{file.name}"}}


@describe_operation("A file of lore", {200: "Its text.", 404: NO_FILE_TEXT}, tag=PERSONAS_TAG)
async def get_lore_file(request: web.Request) -> web.Response:
    """The operator's file, or for a server's own persona the server's; else the one that ships."""
    found, name = require_lore_owner(request), _file_name_in_path(request)
    text = await asyncio.to_thread(read_lore_file, found, found.guild_id, name)
    return web.json_response({"name": name, "text": text})


@describe_operation(
    "Write a file of lore",
    {
        200: ResponseSpec("What is found of it from now on.", LoreFileSummary),
        404: NO_PERSONA_TEXT,
        422: "The file cannot be.",
    },
    tag=PERSONAS_TAG,
    body=BodySpec(LoreFileBody, {"text": "# The hook\n\nIt was replaced in 1911."}),
)
async def put_lore_file(request: web.Request) -> web.Response:
    """Written anew or added; what it held is kept. One that ships stays, and is not found any more."""
    found = require_lore_owner(request)
    text = parse_body(LoreFileBody, await read_json_object(request, 2 * MAX_FILE_BYTES)).text
    if not is_plain_file_name(wanted := _file_name_in_path(request)):
        advice = "Use small letters, digits, - and _, and .md at the end or nothing."
        raise Problem("invalid-request", f"No file of lore can be called {wanted[:80]!r}.", advice)
    name, passages = await write_lore_file(found, found.guild_id, wanted, text)
    return web.json_response(LoreFileSummary(name=name, passages=passages).model_dump())


@describe_operation("Remove a file of lore", {200: "It is found no more.", 404: NO_FILE_TEXT}, tag=PERSONAS_TAG)
async def delete_lore_file(request: web.Request) -> web.Response:
    """What it held is kept. One that ships stays where it is, and is left out."""
    found, name = require_lore_owner(request), _file_name_in_path(request)
    await remove_lore_file(found, found.guild_id, name)
    return web.json_response({"removed": name})


def _file_name_in_path(request: web.Request) -> str:
    """The file that the address names, with `.md` at its end."""
    return f"{request.match_info['file'].removesuffix('.md')}.md"


def read_lore_file(found: OwnedPersona, guild_id: int, name: str) -> str:
    """What a file holds. In a thread. Raises `Problem` where there is none."""
    text = lore_store(found.services).text(guild_id, found.id, name)
    if text is None and guild_id == OPERATOR_GUILD_ID:
        text = shipped_text(found, name)
    if text is None:
        raise Problem("not-found", f"{found.persona.name} has no lore {name[:80]!r}.", "The list names what there is.")
    return text


async def write_lore_file(found: OwnedPersona, guild_id: int, name: str, text: str) -> tuple[str, int]:
    """Keep a file; gives its name and its passages. Raises `Problem`."""
    with errors_as_problems("invalid-request"):
        return await lore_store(found.services).add(guild_id, found.id, name, text.encode())


async def remove_lore_file(found: OwnedPersona, guild_id: int, name: str) -> None:
    """Find nothing any more of a file; doing so again changes nothing. Raises `Problem` where there is none."""
    lore = lore_store(found.services)
    text = await asyncio.to_thread(read_lore_file, found, guild_id, name)
    ships = guild_id == OPERATOR_GUILD_ID and await asyncio.to_thread(shipped_text, found, name) is not None
    if not ships:
        await lore.remove(guild_id, found.id, name)
    elif text:
        await lore.exclude_file(found.id, name)


ROUTES: tuple[Route, ...] = (
    ("POST", "/personas/{persona_id}/lore/ask", post_lore_query),
    ("GET", "/personas/{persona_id}/lore", get_lore_files),
    ("GET", "/personas/{persona_id}/lore/{file}", get_lore_file),
    ("PUT", "/personas/{persona_id}/lore/{file}", put_lore_file),
    ("DELETE", "/personas/{persona_id}/lore/{file}", delete_lore_file),
)
