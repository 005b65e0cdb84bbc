"""A persona's lore as pages: its files, one of them, and what a message finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from bot.card_room import count_of
from bot.lore import MAX_FILE_BYTES, MAX_FILES, file_name
from bot.web.frame import Fault, back_to, page
from bot.web.here import Route
from bot.web.personas.asking import as_problem, form_of, text_in, uploaded
from bot.web.personas.found import Found, lore_owner_at, server_name, standing_of
from bot.web.personas.lore_files import files_of, guilds_of, is_plain, lore_of, shipped_text
from bot.web.personas.lore_rest import LONGEST_QUESTION, remove_file, text_of, weighed_in, write_file
from bot.web.problems import Problem
from personas.errors import LoreError
from personas.for_everybody import OPERATOR
from personas.lore import FOUND, LORE_PASSAGES, WORLD, Passage, guild_owner

MOST_SHOWN = 6
"""How many passages are shown at once; the others can be unfolded."""
LABELS = {"ask": "Message", "name": "Title", "text": "Text", "file": "File"}


@dataclass
class Draft:
    """What stands in the page's forms: a message to ask with, a file to add; and what is wrong there, by field."""

    question: str = ""
    guild: str = ""
    name: str = ""
    text: str = ""
    wrong: dict[str, str] = field(default_factory=dict)


async def lore_page(request: web.Request) -> web.Response:
    """The files, and forms to ask and to add."""
    return await _shown(request, lore_owner_at(request), Draft())


async def lore_form(request: web.Request) -> web.Response:
    """What is written in the page: a message, to see what it finds, or a new file."""
    found, form = lore_owner_at(request), await form_of(request)
    if "ask" not in form:
        return await _add(request, found, Draft(name=text_in(form, "name").strip(), text=text_in(form, "text")))
    draft = Draft(text_in(form, "ask").strip()[:LONGEST_QUESTION], text_in(form, "guild"))
    if not draft.question:
        draft.wrong = {"ask": "Write what is to be looked for."}
    return await _shown(request, found, draft, 422 if draft.wrong else 200)


async def file_page(request: web.Request) -> web.Response:
    """One file, to be written anew."""
    found, guild_id, name = _file(request)
    text = await asyncio.to_thread(_text_or_none, found, guild_id, name)
    earlier = await asyncio.to_thread(lore_of(found.house).earlier(guild_id, found.id, name).all)
    if text is None and not earlier:
        raise Problem("not-found", f"{found.persona.name} has no lore {name[:80]!r}.", "The list names what there is.")
    return await _file_shown(request, text or "", "")


async def save_file(request: web.Request) -> web.Response:
    """Keep the form's text as the file."""
    found, guild_id, name = _file(request)
    text = text_in(await form_of(request), "text")
    try:
        name, passages = await write_file(found, guild_id, name, text)
    except Problem as problem:
        return await _file_shown(request, text, str(problem), 422)
    return back_to(request, f"{found.page}/lore", _kept(name, passages))


async def bring_file(request: web.Request) -> web.Response:
    """Keep a markdown file that was chosen."""
    found = lore_owner_at(request)
    try:
        sent = await uploaded(request, MAX_FILE_BYTES)
        if not sent.content:
            raise Problem("invalid-request", "No file was chosen, or an empty one.", "Choose a markdown file in UTF-8.")
        with as_problem("invalid-request"):
            name, passages = await lore_of(found.house).add(found.guild_id, found.id, sent.name, sent.content)
    except Problem as problem:
        return await _shown(request, found, Draft(wrong={"file": str(problem)}), problem.status)
    return back_to(request, f"{found.page}/lore", _kept(name, passages))


async def remove(request: web.Request) -> web.Response:
    """Find nothing of it any more."""
    found, guild_id, name = _file(request)
    await remove_file(found, guild_id, name)
    return back_to(request, f"{found.page}/lore", f"{found.persona.name} knows nothing of {name} any more.")


async def bring_back(request: web.Request) -> web.Response:
    """Let a file hold again what it held before; without a number, what ships."""
    found, guild_id, name = _file(request)
    number = text_in(await form_of(request), "number")
    lore = lore_of(found.house)
    with as_problem("not-found"):
        if number:
            before = await asyncio.to_thread(lore.earlier(guild_id, found.id, name).read, number)
            await lore.add(guild_id, found.id, name, before)
        else:
            _require_shipped(found, guild_id, name)
            await lore.remove(guild_id, found.id, name)
    return back_to(request, f"{found.page}/lore", f"{name} reads as it did before.")


# ------------------------------------------------------------------------------------------------ parts of it


async def _add(request: web.Request, found: Found, draft: Draft) -> web.Response:
    """Keep a new file: the form's text under its title."""
    text = draft.text
    if text and not text.lstrip().startswith("#"):
        text = f"# {draft.name}\n\n{text}"
    try:
        name, passages = await write_file(found, found.guild_id, draft.name, text)
    except Problem as problem:
        draft.wrong = {"text" if _can_be_called(draft.name) else "name": str(problem)}
        return await _shown(request, found, draft, problem.status)
    return back_to(request, f"{found.page}/lore", _kept(name, passages))


async def _shown(request: web.Request, found: Found, draft: Draft, status: int = 200) -> web.Response:
    files = await asyncio.to_thread(files_of, found)
    asked_in = _guild(found, draft.guild or str(found.guild_id))
    weighed, matches = await weighed_in(found, draft.question, asked_in) if draft.question else (None, [])
    return page(
        request,
        "personas/lore.html",
        title=f"{found.persona.name}: lore",
        section="personas",
        status=status,
        faults=[Fault(said, name, LABELS[name]) for name, said in draft.wrong.items()],
        tab="lore",
        found=found,
        standing=standing_of(found.house, found.id),
        files=files,
        removed=lore_of(found.house).removed(found.guild_id, found.id),
        world=sum(passage.owner in (WORLD, guild_owner(OPERATOR, WORLD)) for passage in _all(found)),
        draft=draft,
        asked_in=asked_in,
        guilds=[(guild_id, server_name(found.house, guild_id)) for guild_id in guilds_of(found) if guild_id],
        weighed=weighed,
        matches=matches,
        shown=MOST_SHOWN,
        threshold=FOUND,
        most=LORE_PASSAGES,
        longest=LONGEST_QUESTION,
        most_files=MAX_FILES,
    )


def _all(found: Found) -> Sequence[Passage]:
    return found.house.conversations.lore.passages


async def _file_shown(request: web.Request, text: str, wrong: str, status: int = 200) -> web.Response:
    found, guild_id, name = _file(request)
    earlier = await asyncio.to_thread(lore_of(found.house).earlier(guild_id, found.id, name).all)
    ships = guild_id == OPERATOR and await asyncio.to_thread(shipped_text, found, name) is not None
    return page(
        request,
        "personas/lore_file.html",
        title=f"{name} of {found.persona.name}",
        section="personas",
        status=status,
        faults=[Fault(wrong, "text", "Text")] if wrong else (),
        found=found,
        name=name,
        path=f"{found.page}/lore/{guild_id}/{name}",
        back=f"{found.page}/lore",
        server=server_name(found.house, guild_id) if guild_id else "",
        text=text,
        tokens=await asyncio.to_thread(lambda: count_of(found.house.base_model)(text)),
        wrong=wrong,
        ships=ships,
        is_there=name in lore_of(found.house).files(guild_id, found.id),
        earlier=earlier,
    )


def _file(request: web.Request) -> tuple[Found, int, str]:
    """The persona, the server and the file that the address names. Raises `Problem`."""
    found, name = lore_owner_at(request), request.match_info["file"]
    if not is_plain(name):
        raise Problem("not-found", f"No file here is called {name[:80]!r}.", "The list names what there is.")
    return found, _guild(found, request.match_info["guild"]), name


def _guild(found: Found, text: str) -> int:
    """A server that has lore for the persona. Raises `Problem` for any other."""
    known = guilds_of(found)
    if text not in map(str, known):
        raise Problem("not-found", f"No server {text[:30]!r} has lore for {found.persona.name}.", "Look at the list.")
    return int(text)


def _text_or_none(found: Found, guild_id: int, name: str) -> str | None:
    try:
        return text_of(found, guild_id, name)
    except Problem:
        return None


def _can_be_called(name: str) -> bool:
    try:
        return bool(file_name(name))
    except LoreError:
        return False


def _require_shipped(found: Found, guild_id: int, name: str) -> None:
    if guild_id != OPERATOR or shipped_text(found, name) is None:
        raise Problem("not-found", f"No {name[:80]!r} came with the bot.", "Nothing was changed.")


def _kept(name: str, passages: int) -> str:
    count = "1 passage is" if passages == 1 else f"{passages} passages are"
    return f"{name} is kept; {count} found of it from now on."


FILE = "/dashboard/personas/{persona_id}/lore/{guild}/{file}"
ROUTES: tuple[Route, ...] = (
    ("GET", "/dashboard/personas/{persona_id}/lore", lore_page),
    ("POST", "/dashboard/personas/{persona_id}/lore", lore_form),
    ("POST", "/dashboard/personas/{persona_id}/lore-file", bring_file),
    ("GET", FILE, file_page),
    ("POST", FILE, save_file),
    ("POST", f"{FILE}/remove", remove),
    ("POST", f"{FILE}/bring-back", bring_back),
)
