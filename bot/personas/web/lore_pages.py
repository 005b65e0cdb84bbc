"""`/dashboard/personas/ID/lore`: lore files, and which passages a message matches."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from bot.personas.base_model_compat import token_counter_or_estimate
from bot.personas.guild_lore import MAX_FILES, lore_file_name
from bot.personas.lore_upload import AddedLore, beside_text, max_upload_bytes, titled_text
from bot.personas.web import lore_files, lore_matches
from bot.personas.web.lookup import (
    OwnedPersona,
    guild_name,
    persona_status,
    require_lore_owner,
    require_persona_in_path,
)
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem, field_problem
from bot.platform.web_kit.request_body import errors_as_problems, read_file_form, read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from personas.errors import LoreError
from personas.home.shared_personas import OPERATOR_GUILD_ID, list_shipped_lore
from personas.lore.entry_rules import MAX_ALWAYS_WORDS
from personas.lore.lorebooks import MAX_LOREBOOK_BYTES
from personas.lore.ranking import MAX_LORE_PASSAGES, MIN_SCORE

MAX_SHOWN_MATCHES = 6
"""Passages that are shown at once; the others are folded."""
LORE_SET_PATH = "/dashboard/lore-sets/{persona_id}"
LORE_FILE_PATH = "/dashboard/personas/{persona_id}/lore/{guild}/{file}"
routes = Routes()


@dataclass
class LoreDraft:
    """Contents of the page's forms: a message to match, a file to add, the name of a set."""

    question: str = ""
    guild: str = ""
    name: str = ""
    text: str = ""
    set_name: str = ""
    added: AddedLore | None = None


@routes.add("GET /dashboard/personas/{persona_id}/lore")
async def get_lore_page(request: web.Request) -> web.Response:
    """Page of a persona's lore files."""
    owned = require_lore_owner(request)
    return await _render_lore(request, owned, LoreDraft())


@routes.add("POST /dashboard/personas/{persona_id}/lore")
async def post_lore_form(request: web.Request) -> web.Response:
    """Match a message against the lore, or add a new file."""
    owned = require_lore_owner(request)
    form = await read_form(request)
    if "ask" not in form:
        return await _add_file(
            request, owned, LoreDraft(name=form.get("name", "").strip(), text=form.get("text", ""))
        )
    draft = LoreDraft(
        form.get("ask", "").strip()[: lore_matches.MAX_QUESTION_CHARS], form.get("guild", "")
    )
    problem = None
    if not draft.question:
        problem = field_problem("ask", "Write what is to be looked for.")
    return await _render_lore(request, owned, draft, problem)


@routes.add("POST /dashboard/personas/{persona_id}/lore-sets/{set}")
async def post_lore_set(request: web.Request) -> web.Response:
    """Have a persona use the set of lore in the address, or not."""
    owned = require_persona_in_path(request)
    is_taken = (await read_form(request)).get("taken", "") == "yes"
    chosen = lore_files.choose_set(owned, request.match_info["set"], is_taken, owned.guild_id)
    message = f"{owned.persona.name} does not use {chosen.name} from the next reply on."
    if is_taken:
        message = f"{owned.persona.name} uses {chosen.name} from the next reply on."
    return redirect_to(request, f"{owned.page}/lore#shared-title", message)


@routes.add(f"GET {LORE_SET_PATH}/rename")
async def return_to_set(request: web.Request) -> web.Response:
    """Lead back to the set from the address of a refused name."""
    return redirect_to(request, f"{_require_set(request).page}/lore#set-title")


@routes.add(f"POST {LORE_SET_PATH}/rename")
async def post_set_name(request: web.Request) -> web.Response:
    """Rename a set of lore; a refused name is shown beside its field."""
    owned = _require_set(request)
    name = (await read_form(request)).get("name", "").strip()
    try:
        with errors_as_problems("invalid-request", field="set-name"):
            renamed = owned.services.lore_sets.rename(owned.id, name)
    except Problem as problem:
        return await _render_lore(request, owned, LoreDraft(set_name=name), problem)
    return redirect_to(
        request,
        f"{owned.page}/lore",
        f"The set is called {renamed.name} now.",
    )


@routes.add(f"GET {LORE_SET_PATH}/remove")
async def confirm_remove_set(request: web.Request) -> web.Response:
    """Page that lists what is removed with a set of lore."""
    owned = _require_set(request)
    files = await asyncio.to_thread(lore_files.list_lore_files, owned)
    return render_page(
        request,
        "personas/remove_set.html",
        title=f"Remove {owned.persona.name}",
        owned=owned,
        files=files,
        users=lore_files.set_users(owned.services, owned.id),
    )


@routes.add(f"POST {LORE_SET_PATH}/remove")
async def post_remove_set(request: web.Request) -> web.Response:
    owned = _require_set(request)
    removed = await lore_files.remove_set(owned.services, owned.id)
    message = f"{removed.name} is removed. It can be brought back below for a day."
    return redirect_to(request, "/dashboard/personas#trash", message)


def _require_set(request: web.Request) -> OwnedPersona:
    """The set of lore in the address. Raises `Problem` if there is none, or if it ships."""
    lore_files.require_own_set(get_services(request), request.match_info["persona_id"])
    return require_lore_owner(request)


@routes.add(f"GET {LORE_FILE_PATH}")
async def get_lore_file_page(request: web.Request) -> web.Response:
    """Page of the lore file in the address, or of one that was removed and has revisions."""
    owned = require_lore_owner(request)
    guild_id, name = _file_in_path(request, owned)
    try:
        text = await asyncio.to_thread(lore_files.read_lore_file, owned, guild_id, name)
    except Problem:
        revisions = lore_files.lore_store(owned.services).earlier(guild_id, owned.id, name)
        if not await asyncio.to_thread(revisions.all):
            raise
        text = ""
    return await _render_file(request, owned, text)


@routes.add(f"POST {LORE_FILE_PATH}")
async def post_lore_file(request: web.Request) -> web.Response:
    """Save the lore file in the address; a refused text is shown beside its field."""
    owned = require_lore_owner(request)
    guild_id, name = _file_in_path(request, owned)
    text = (await read_form(request)).get("text", "")
    try:
        with errors_as_problems("invalid-request", field="text"):
            added = await lore_files.write_lore_file(
                owned, guild_id, name=name, content=text.encode(), replace=True
            )
    except Problem as problem:
        return await _render_file(request, owned, text, problem)
    return await _answer_saved(request, owned, added)


@routes.add("GET /dashboard/personas/{persona_id}/lore-file")
async def return_to_lore(request: web.Request) -> web.Response:
    """Lead back to the lore from the address of a refused file."""
    return redirect_to(request, f"{require_lore_owner(request).page}/lore#choose-title")


@routes.add("POST /dashboard/personas/{persona_id}/lore-file")
async def upload_lore_file(request: web.Request) -> web.Response:
    owned = require_lore_owner(request)
    try:
        with errors_as_problems("invalid-request", field="file"):
            form = await read_file_form(request, MAX_LOREBOOK_BYTES)
            if not form.content:
                raise Problem(
                    "invalid-request",
                    "No file was chosen, or an empty one.",
                    "Choose a markdown file in UTF-8.",
                )
            if len(form.content) > (most := max_upload_bytes(form.name)):
                raise Problem(
                    "too-large",
                    f"{form.name} has more than {most // 1000} KB.",
                    "Send less.",
                )
            added = await lore_files.write_lore_file(
                owned, owned.guild_id, name=form.name, content=form.content, replace=False
            )
    except Problem as problem:
        return await _render_lore(request, owned, LoreDraft(), problem)
    return await _answer_saved(request, owned, added)


@routes.add(f"POST {LORE_FILE_PATH}/remove")
async def post_lore_file_removal(request: web.Request) -> web.Response:
    """Remove the lore file in the address; its text is stored as a revision."""
    owned = require_lore_owner(request)
    guild_id, name = _file_in_path(request, owned)
    await lore_files.remove_lore_file(owned, guild_id, name)
    return redirect_to(
        request,
        f"{owned.page}/lore",
        f"{name} is removed from the lore of {owned.persona.name}.",
    )


@routes.add(f"POST {LORE_FILE_PATH}/bring-back")
async def post_lore_file_revision(request: web.Request) -> web.Response:
    """Restore a revision of the file in the address; without a number, the shipped text."""
    owned = require_lore_owner(request)
    guild_id, name = _file_in_path(request, owned)
    number = (await read_form(request)).get("number", "")
    await lore_files.restore_lore_file(owned, guild_id, name, number=number)
    return redirect_to(request, f"{owned.page}/lore", f"{name} reads as it did before.")


async def _add_file(request: web.Request, owned: OwnedPersona, draft: LoreDraft) -> web.Response:
    text = ""
    if draft.text:
        text = titled_text(draft.name, draft.text)
    field = "text" if _is_valid_name(draft.name) else "name"
    try:
        with errors_as_problems("invalid-request", field=field):
            added = await lore_files.write_lore_file(
                owned, owned.guild_id, name=draft.name, content=text.encode(), replace=False
            )
    except Problem as problem:
        return await _render_lore(request, owned, draft, problem)
    return await _answer_saved(request, owned, added)


async def _render_lore(
    request: web.Request, owned: OwnedPersona, draft: LoreDraft, problem: Problem | None = None
) -> web.Response:
    services = owned.services
    files = await asyncio.to_thread(lore_files.list_lore_files, owned)
    shipped = await asyncio.to_thread(
        list_shipped_lore, services.catalogue.shipped.lore, services.home
    )
    query_guild = _require_lore_guild(owned, draft.guild or str(owned.guild_id))
    ranking, matches = (
        await lore_matches.match_lore(owned, draft.question, query_guild)
        if draft.question
        else (None, [])
    )
    lore_set = services.lore_sets.sets.get(owned.id)
    guild_ids = filter(None, lore_files.lore_guild_ids(owned))
    return render_page(
        request,
        "personas/lore.html",
        title=f"{owned.persona.name}: lore",
        problem=problem,
        tab="lore",
        owned=owned,
        standing=persona_status(services, owned.id),
        files=files,
        skipped=[each for each in shipped if each.skipped],
        removed=lore_files.lore_store(owned.services).removed(owned.guild_id, owned.id),
        shared=[] if owned.is_lore_set else lore_files.shared_sets(owned, owned.guild_id),
        about=lore_set.about if lore_set else "",
        users=lore_files.set_users(services, owned.id) if lore_set else [],
        is_own_set=services.lore_sets.is_own(owned.id),
        draft=draft,
        query_guild=query_guild,
        guilds=[(guild_id, guild_name(owned.services, guild_id)) for guild_id in guild_ids],
        ranking=ranking,
        matches=matches,
        shown=MAX_SHOWN_MATCHES,
        threshold=MIN_SCORE,
        most=MAX_LORE_PASSAGES,
        always_words=MAX_ALWAYS_WORDS,
        longest=lore_matches.MAX_QUESTION_CHARS,
        most_files=MAX_FILES,
    )


async def _render_file(
    request: web.Request,
    owned: OwnedPersona,
    text: str,
    problem: Problem | None = None,
) -> web.Response:
    guild_id, name = _file_in_path(request, owned)
    earlier = await asyncio.to_thread(
        lore_files.lore_store(owned.services).earlier(guild_id, owned.id, name).all
    )
    ships = (
        guild_id == OPERATOR_GUILD_ID
        and await asyncio.to_thread(lore_files.shipped_text, owned, name) is not None
    )
    return render_page(
        request,
        "personas/lore_file.html",
        title=f"{name} of {owned.persona.name}",
        problem=problem,
        owned=owned,
        name=name,
        path=f"{owned.page}/lore/{guild_id}/{name}",
        back=f"{owned.page}/lore",
        server=guild_name(owned.services, guild_id) if guild_id else "",
        text=text,
        tokens=await asyncio.to_thread(
            lambda: token_counter_or_estimate(owned.services.base_model)(text)
        ),
        ships=ships,
        is_there=name in lore_files.lore_store(owned.services).files(guild_id, owned.id),
        earlier=earlier,
    )


def _file_in_path(request: web.Request, owned: OwnedPersona) -> tuple[int, str]:
    """Server and file in the address. Raises `Problem`."""
    name = request.match_info["file"]
    if not lore_files.is_plain_file_name(name):
        raise Problem(
            "not-found",
            f"No file here is called {name[:80]!r}.",
            "The list names what there is.",
        )
    return _require_lore_guild(owned, request.match_info["guild"]), name


def _require_lore_guild(owned: OwnedPersona, text: str) -> int:
    """A server that has lore for the persona. Raises `Problem` for any other."""
    known = lore_files.lore_guild_ids(owned)
    if text not in map(str, known):
        raise Problem(
            "not-found",
            f"No server {text[:30]!r} has lore for {owned.persona.name}.",
            "Look at the list.",
        )
    return int(text)


def _is_valid_name(name: str) -> bool:
    try:
        return bool(lore_file_name(name))
    except LoreError:
        return False


async def _answer_saved(
    request: web.Request, owned: OwnedPersona, added: AddedLore
) -> web.Response:
    """Return to the list of files; after a lorebook, show what became of its entries."""
    if added.report:
        return await _render_lore(request, owned, LoreDraft(added=added))
    message = (
        f"{added.files[0]} is kept; {added.passages} passage is found of it from now on."
        if added.passages == 1
        else f"{added.files[0]} is kept; {added.passages} passages are found of it from now on."
    )
    if beside := beside_text(added):
        message = f"{message} {beside}"
    return redirect_to(request, f"{owned.page}/lore", message)
