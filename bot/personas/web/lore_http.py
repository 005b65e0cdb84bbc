"""`/personas/ID/lore`: lore files, and why a message matches a passage."""

import asyncio
from typing import Annotated

from aiohttp import web
from pydantic import Field as Limit

from bot.personas.web import lore_files, lore_matches
from bot.personas.web.card_http import NO_PERSONA_TEXT
from bot.personas.web.lookup import OwnedPersona, require_lore_owner, require_persona_in_path
from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import ApiModel, ApiRoutes, BodySpec, Json, ResponseSpec
from bot.platform.web_kit.paging import require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import errors_as_problems
from bot.platform.web_kit.validation import read_model
from personas.home.lore_sets import LoreSet
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore.ranking import MAX_LORE_PASSAGES, MIN_SCORE
from personas.schemas.base import FrozenModel

MAX_LOREBOOK_CHARS = 2 * 2**20
MAX_ID_DIGITS = 20
MAX_SET_NAME_CHARS = 200
NO_SET_TEXT = "There is no such set of lore."
SHIPPED_SET_TEXT = "It came with the bot."
NO_FILE_TEXT = "There is no such persona, or no such file."
GuildId = Annotated[
    str, Limit(pattern=r"^[0-9]{1,20}$", description="its id; the persona's own if left out")
]
routes = ApiRoutes("personas")


class LoreQuery(FrozenModel):
    """A message, and the server whose lore counts."""

    message: Annotated[str, Limit(min_length=1, max_length=lore_matches.MAX_QUESTION_CHARS)]
    guild: GuildId | None = None


class LoreSetBody(FrozenModel):
    """Whether a persona uses a set of lore in a server; null forgets the choice."""

    taken: bool | None
    guild: GuildId | None = None


class LoreSetName(FrozenModel):
    """The name of a set of lore."""

    name: Annotated[str, Limit(max_length=MAX_SET_NAME_CHARS)]


class LoreSetSummary(ApiModel):
    """A set of lore; `id` stays when it is renamed."""

    id: str
    name: str
    about: str


class LoreSetState(ApiModel):
    """A set of lore for several personas, and whether this persona uses it."""

    id: str
    name: str
    about: str
    passages: int
    taken: bool


class LoreSetList(ApiModel):
    """The sets of lore."""

    sets: list[LoreSetState]


class LoreFileBody(FrozenModel):
    """The new text of a lore file: markdown of at most 100 KB, or a lorebook of another program
    (JSON).
    """

    text: Annotated[str, Limit(max_length=MAX_LOREBOOK_CHARS)]


class LoreFileSummary(ApiModel):
    """A file's name, and how many passages are found of it.

    A lorebook may become several `files`; `imported` then says what became of its entries: `as_is`,
    `other_meaning` and `not_taken`, each a list of `what` and `why`.
    """

    name: str
    passages: int
    files: list[str] | None = None
    imported: Json | None = None


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
    weight: float
    """Factor of the scores; below 1 for a message that asks nothing."""
    matches: list[Json]


@routes.operation(
    "POST /personas/{persona_id}/lore/ask",
    "Search lore by a message",
    {
        200: ResponseSpec("All passages, best first, with their scores.", LoreMatches),
        404: NO_PERSONA_TEXT,
    },
    body=BodySpec(LoreQuery, {"message": "do you ever rust?"}),
)
async def post_lore_query(request: web.Request) -> web.Response:
    """Tells which passages a prompt would get, which matched but are left over, which did not
    match, and why.
    """
    owned = require_lore_owner(request)
    question = await read_model(request, LoreQuery)
    guild_id = int(question.guild) if question.guild else owned.guild_id
    ranking, matches = await lore_matches.match_lore(owned, question.message, guild_id)
    return LoreMatches(
        threshold=MIN_SCORE,
        most=MAX_LORE_PASSAGES,
        words=ranking.terms,
        small_talk=ranking.small_talk,
        weight=ranking.weight,
        matches=[lore_matches.explanation_json(match) for match in matches],
    ).response()


@routes.operation(
    "GET /personas/{persona_id}/lore",
    "List a persona's lore",
    {200: "Its files, with passages and tokens.", 404: NO_PERSONA_TEXT},
)
async def get_lore_files(request: web.Request) -> web.Response:
    """Lists shipped files, the operator's and those that servers have added."""
    owned = require_lore_owner(request)
    files = []
    for file in await asyncio.to_thread(lore_files.list_lore_files, owned):
        described: Json = dict(vars(file))
        # Discord's ids are text, as they exceed JSON's numbers.
        del described["guild_id"]
        described["guild"] = str(file.guild_id)
        described["links"] = {"self": f"/personas/{owned.id}/lore/{file.name}"}
        files.append(described)
    return web.json_response({"files": files})


@routes.operation(
    "GET /personas/{persona_id}/lore/{file}",
    "Get a lore file",
    {200: "Its text.", 404: NO_FILE_TEXT},
)
async def get_lore_file(request: web.Request) -> web.Response:
    """Returns the operator's file, or the server's for its own persona, or else the shipped one."""
    owned = require_lore_owner(request)
    name = _file_name_in_path(request)
    text = await asyncio.to_thread(lore_files.read_lore_file, owned, owned.guild_id, name)
    return web.json_response({"name": name, "text": text})


@routes.operation(
    "PUT /personas/{persona_id}/lore/{file}",
    "Write a lore file",
    {
        200: ResponseSpec("The file's passages as they are searched from now on.", LoreFileSummary),
        404: NO_PERSONA_TEXT,
        422: "The file cannot be.",
    },
    body=BodySpec(LoreFileBody, {"text": "# The hook\n\nIt was replaced in 1911."}),
)
async def put_lore_file(request: web.Request) -> web.Response:
    """Adds or replaces a file; its previous text is stored. A shipped file is excluded instead."""
    owned = require_lore_owner(request)
    body = await read_model(request, LoreFileBody, 2 * MAX_LOREBOOK_CHARS)
    wanted = _file_name_in_path(request)
    if not lore_files.is_plain_file_name(wanted):
        advice = "Use small letters, digits, - and _, and .md at the end or nothing."
        raise Problem("invalid-request", f"No file of lore can be called {wanted[:80]!r}.", advice)
    added = await lore_files.write_lore_file(
        owned, owned.guild_id, name=wanted, content=body.text.encode(), replace=True
    )
    more: Json = {}
    if added.report:
        more = {"files": list(added.files), "imported": added.report.as_json()}
    return LoreFileSummary(name=added.files[0], passages=added.passages, **more).response()


@routes.operation(
    "DELETE /personas/{persona_id}/lore/{file}",
    "Delete a lore file",
    {200: "It is found no more.", 404: NO_FILE_TEXT},
)
async def delete_lore_file(request: web.Request) -> web.Response:
    """Its text is stored as a revision. A shipped file stays on disk and is excluded."""
    owned = require_lore_owner(request)
    name = _file_name_in_path(request)
    await lore_files.remove_lore_file(owned, owned.guild_id, name)
    return web.json_response({"removed": name})


@routes.operation(
    "POST /lore-sets",
    "Create a set of lore",
    {
        201: ResponseSpec("The set, which nobody uses yet.", LoreSetSummary),
        422: "The name is taken, or it cannot be one.",
    },
    body=BodySpec(LoreSetName, {"name": "Salt Marsh"}),
)
async def create_lore_set(request: web.Request) -> web.Response:
    """Creates a set of lore for several personas. `PUT /personas/{id}/lore/{file}` with the set's id
    writes its lore.
    """
    body = await read_model(request, LoreSetName)
    with errors_as_problems("invalid-request"):
        created = get_services(request).lore_sets.create(body.name)
    return _set_summary(created).response(201)


@routes.operation(
    "PATCH /lore-sets/{set}",
    "Rename a set of lore",
    {
        200: ResponseSpec("The set.", LoreSetSummary),
        404: NO_SET_TEXT,
        409: SHIPPED_SET_TEXT,
        422: "The name is taken, or it cannot be one.",
    },
    body=BodySpec(LoreSetName, {"name": "The Salt Marsh"}),
)
async def rename_lore_set(request: web.Request) -> web.Response:
    """Its id, its lore and the personas that use it stay as they are."""
    body = await read_model(request, LoreSetName)
    services = get_services(request)
    owned = lore_files.require_own_set(services, request.match_info["set"])
    with errors_as_problems("invalid-request"):
        return _set_summary(services.lore_sets.rename(owned.id, body.name)).response()


@routes.operation(
    "DELETE /lore-sets/{set}",
    "Remove a set of lore",
    {200: "Nobody finds it any more.", 404: NO_SET_TEXT, 409: SHIPPED_SET_TEXT},
)
async def delete_lore_set(request: web.Request) -> web.Response:
    """It is kept for a day: the page of personas brings it back."""
    removed = await lore_files.remove_set(get_services(request), request.match_info["set"])
    return web.json_response({"removed": removed.id})


def _set_summary(lore_set: LoreSet) -> LoreSetSummary:
    return LoreSetSummary(id=lore_set.id, name=lore_set.name, about=lore_set.about)


@routes.operation(
    "GET /personas/{persona_id}/lore-sets",
    "List the sets of lore",
    {
        200: ResponseSpec("Each set, and whether the persona uses it.", LoreSetList),
        404: "There is no such persona or server.",
        422: "The server's id is no number.",
    },
    query={"guild": "The server; the persona's own if left out."},
)
async def get_lore_sets(request: web.Request) -> web.Response:
    """Lists the sets of lore for several personas, such as a world's."""
    owned = require_persona_in_path(request)
    require_known_parameters(request, "guild")
    return _lore_sets_response(owned, _guild_id(owned, request.query.get("guild")))


@routes.operation(
    "PUT /personas/{persona_id}/lore-sets/{set}",
    "Use a set of lore",
    {
        200: ResponseSpec("Each set, and whether the persona uses it.", LoreSetList),
        404: "There is no such persona, set or server.",
    },
    body=BodySpec(LoreSetBody, {"taken": True}),
)
async def put_lore_set(request: web.Request) -> web.Response:
    """Has a persona use a set from the next reply on, or not: in one server, or, for a persona of
    all servers, in those that have not chosen.
    """
    owned = require_persona_in_path(request)
    body = await read_model(request, LoreSetBody)
    guild_id = _guild_id(owned, body.guild)
    lore_files.choose_set(owned, request.match_info["set"], body.taken, guild_id)
    return _lore_sets_response(owned, guild_id)


def _guild_id(owned: OwnedPersona, text: str | None) -> int:
    """The id of a server that the bot is in, or the persona's own. Raises `Problem`."""
    if not text:
        return owned.guild_id
    if not text.isdecimal() or len(text) > MAX_ID_DIGITS:
        raise Problem("invalid-request", f"There is no server {text[:30]!r}.", "Send its id.")
    guild_id = int(text)
    client = owned.services.client
    if guild_id not in (OPERATOR_GUILD_ID, owned.guild_id) and not (
        client and client.get_guild(guild_id)
    ):
        raise Problem("not-found", f"The bot is in no server {guild_id}.", "Choose another one.")
    return guild_id


def _lore_sets_response(owned: OwnedPersona, guild_id: int) -> web.Response:
    states = []
    for shared in lore_files.shared_sets(owned, guild_id):
        states.append(
            LoreSetState(
                id=shared.set.id,
                name=shared.set.name,
                about=shared.set.about,
                passages=shared.passages,
                taken=shared.is_taken,
            )
        )
    return LoreSetList(sets=states).response()


def _file_name_in_path(request: web.Request) -> str:
    return f"{request.match_info['file'].removesuffix('.md')}.md"
