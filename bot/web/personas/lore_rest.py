"""`/personas/ID/lore`: its files, one of them, and what a message finds."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limit

from bot.card_room import count_of
from bot.lore import MAX_FILE_BYTES
from bot.web.bodies import json_object, parsed
from bot.web.here import Route
from bot.web.openapi import Answer, Body, described
from bot.web.personas.asking import as_problem
from bot.web.personas.card_rest import NO_PERSONA, TAG
from bot.web.personas.debugger import Explained, explained, explained_json
from bot.web.personas.found import Found, lore_owner_at
from bot.web.personas.lore_files import LoreFile, files_of, is_plain, lore_of, shipped_text
from bot.web.problems import Problem
from personas.for_everybody import OPERATOR
from personas.lore import FOUND, LORE_PASSAGES, Weighed

LONGEST_QUESTION = 4000
NO_FILE = "There is no such persona, or no such file."
GuildId = Annotated[str, Limit(pattern=r"^[0-9]{1,20}$", description="its id; the persona's own if left out")]


class Question(BaseModel):
    """A message, and the server in which it is asked: what that has added counts there."""

    model_config = ConfigDict(extra="forbid")
    message: Annotated[str, Limit(min_length=1, max_length=LONGEST_QUESTION)]
    guild: GuildId | None = None


class Text(BaseModel):
    """What a file is to hold: markdown."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Limit(max_length=MAX_FILE_BYTES)]


class Passages(BaseModel):
    """A file's name, and how many passages are found of it."""

    name: str
    passages: int


MATCHES: dict[str, Any] = {
    "type": "object",
    "required": ["threshold", "most", "words", "small_talk", "matches"],
    "properties": {
        "threshold": {"type": "number", "description": "The score from which on a passage is found."},
        "most": {"type": "integer", "description": "How many of those a prompt is given."},
        "words": {"type": "array", "items": {"type": "string"}, "description": "The words looked for."},
        "small_talk": {"type": ["number", "null"], "description": "Nearness to small talk; null where not compared."},
        "matches": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    },
}


async def weighed_in(found: Found, message: str, guild_id: int) -> tuple[Weighed, list[Explained]]:
    """A message against all lore that the persona has in a server, best first."""
    weighed = found.house.conversations.lore.weigh(found.id, message, guild_id)  # on the event loop, as the index asks
    return weighed, await asyncio.to_thread(lambda: explained(weighed, count_of(found.house.base_model)))


@described(
    "What a message finds",
    {200: Answer("Every passage, best first, with what decided.", MATCHES), 404: NO_PERSONA},
    tag=TAG,
    body=Body(Question, {"message": "do you ever rust?"}),
)
async def ask_lore(request: web.Request) -> web.Response:
    """Which passages a prompt would be given, which were found but left over, which were not found, and why."""
    found = lore_owner_at(request)
    question = parsed(Question, await json_object(request))
    guild_id = int(question.guild) if question.guild else found.guild_id
    weighed, matches = await weighed_in(found, question.message, guild_id)
    return web.json_response(
        {
            "threshold": FOUND,
            "most": LORE_PASSAGES,
            "words": weighed.terms,
            "small_talk": weighed.small_talk,
            "matches": [explained_json(one) for one in matches],
        }
    )


@described("A persona's lore", {200: "Its files, with passages and tokens.", 404: NO_PERSONA}, tag=TAG)
async def get_files(request: web.Request) -> web.Response:
    """What ships, what the operator has in its place or beside it, what servers have added."""
    found = lore_owner_at(request)
    files = await asyncio.to_thread(files_of, found)
    return web.json_response({"files": [_file_json(found, file) for file in files]})


def _file_json(found: Found, file: LoreFile) -> dict[str, Any]:
    told = {**vars(file), "guild": str(file.guild_id)}
    del told["guild_id"]
    return told | {"links": {"self": f"/personas/{found.id}/lore/{file.name}"}}


@described("A file of lore", {200: "Its text.", 404: NO_FILE}, tag=TAG)
async def get_file(request: web.Request) -> web.Response:
    """The operator's file, or for a server's own persona the server's; else the one that ships."""
    found, name = lore_owner_at(request), _file_at(request)
    text = await asyncio.to_thread(text_of, found, found.guild_id, name)
    return web.json_response({"name": name, "text": text})


@described(
    "Write a file of lore",
    {200: Answer("What is found of it from now on.", Passages), 404: NO_PERSONA, 422: "The file cannot be."},
    tag=TAG,
    body=Body(Text, {"text": "# The hook\n\nIt was replaced in 1911."}),
)
async def put_file(request: web.Request) -> web.Response:
    """Written anew or added; what it held is kept. One that ships stays, and is not found any more."""
    found = lore_owner_at(request)
    text = parsed(Text, await json_object(request, 2 * MAX_FILE_BYTES)).text
    if not is_plain(wanted := _file_at(request)):
        advice = "Use small letters, digits, - and _, and .md at the end or nothing."
        raise Problem("invalid-request", f"No file of lore can be called {wanted[:80]!r}.", advice)
    name, passages = await write_file(found, found.guild_id, wanted, text)
    return web.json_response(Passages(name=name, passages=passages).model_dump())


@described("Remove a file of lore", {200: "It is found no more.", 404: NO_FILE}, tag=TAG)
async def delete_file(request: web.Request) -> web.Response:
    """What it held is kept. One that ships stays where it is, and is left out."""
    found, name = lore_owner_at(request), _file_at(request)
    await remove_file(found, found.guild_id, name)
    return web.json_response({"removed": name})


def _file_at(request: web.Request) -> str:
    """The file that the address names, with `.md` at its end."""
    return f"{request.match_info['file'].removesuffix('.md')}.md"


def text_of(found: Found, guild_id: int, name: str) -> str:
    """What a file holds. In a thread. Raises `Problem` where there is none."""
    text = lore_of(found.house).text(guild_id, found.id, name)
    if text is None and guild_id == OPERATOR:
        text = shipped_text(found, name)
    if text is None:
        raise Problem("not-found", f"{found.persona.name} has no lore {name[:80]!r}.", "The list names what there is.")
    return text


async def write_file(found: Found, guild_id: int, name: str, text: str) -> tuple[str, int]:
    """Keep a file; gives its name and its passages. Raises `Problem`."""
    with as_problem("invalid-request"):
        return await lore_of(found.house).add(guild_id, found.id, name, text.encode())


async def remove_file(found: Found, guild_id: int, name: str) -> None:
    """Find nothing any more of a file; doing so again changes nothing. Raises `Problem` where there is none."""
    lore = lore_of(found.house)
    text = await asyncio.to_thread(text_of, found, guild_id, name)
    ships = guild_id == OPERATOR and await asyncio.to_thread(shipped_text, found, name) is not None
    if not ships:
        await lore.remove(guild_id, found.id, name)
    elif text:
        await lore.leave_out(found.id, name)


ROUTES: tuple[Route, ...] = (
    ("POST", "/personas/{persona_id}/lore/ask", ask_lore),
    ("GET", "/personas/{persona_id}/lore", get_files),
    ("GET", "/personas/{persona_id}/lore/{file}", get_file),
    ("PUT", "/personas/{persona_id}/lore/{file}", put_file),
    ("DELETE", "/personas/{persona_id}/lore/{file}", delete_file),
)
