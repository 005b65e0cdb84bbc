"""`/dashboard/personas/ID/versions`: the versions; promotion, rollback and removal with
confirmation, and imports.
"""

import asyncio
import tempfile
from functools import partial
from pathlib import Path

from aiohttp import BodyPartReader, web

from bot.chat.model_names import version_label
from bot.data.jobs import DataJob
from bot.data.upload_stream import receive_file
from bot.personas.card_import import log_card_export
from bot.personas.web.lookup import (
    OwnedPersona,
    live_in_servers,
    persona_status,
    require_hub_name,
    require_persona_in_path,
    require_version_in_path,
)
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    FORM_CHUNK_BYTES,
    errors_as_problems,
    read_form,
    read_form_part,
    read_multipart,
)
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.store import ALL_GUILDS
from bot.versions.effects import VersionEffect, read_effects
from bot.versions.export import export_version, exported_bytes
from bot.versions.web.card_choice import count_card_choice_tokens
from bot.versions.web.version_rows import score_text, version_rows
from personas.errors import RequestError
from personas.home.adapters import adapter_ref
from personas.home.persona_ids import short_id
from personas.home.prompt_version import has_learned_short_card
from personas.outside_names import last_part
from personas.schemas.chat import CardChoice

EXPORT_TYPE = "application/zip"
EXPORT_RECIPIENT = "to the operator"
MAX_SOURCE_BYTES = 512
CARD_PATH = "/dashboard/personas/{persona_id}/versions/{version}/card"
PROMOTE_PATH = "/dashboard/personas/{persona_id}/versions/{version}/promote"
REMOVE_PATH = "/dashboard/personas/{persona_id}/versions/{version}/remove"
routes = Routes()


@routes.add("GET /dashboard/personas/{persona_id}/versions")
async def get_versions_page(request: web.Request) -> web.Response:
    """Page of every version."""
    owned = require_persona_in_path(request)
    rows = version_rows(owned.services, owned.id)
    versions = [row.version for row in rows if row.version]
    effects = await asyncio.to_thread(_read_effects, owned, versions)
    sizes = await asyncio.to_thread(_read_sizes, owned, versions)
    copies = {}  # by version: the dialogue adapter that it is a copy of
    for row in rows:
        job = owned.services.store.jobs.get(row.installed.job_id) if row.installed else None
        if job and job.dialogue:
            copies[row.version] = job.dialogue
    return render_page(
        request,
        "versions/versions.html",
        title=f"{owned.persona.name}: versions",
        tab="versions",
        owned=owned,
        standing=persona_status(owned.services, owned.id),
        own=live_in_servers(owned.services, owned.id),
        rows=rows,
        score_text=score_text,
        may_go_back=_may_go_back(owned),
        behind=owned.services.served_versions.incompatible,
        copies=copies,
        effects=effects,
        sizes=sizes,
        with_short_card=await asyncio.to_thread(_with_short_card, owned, versions),
        card_tokens=(await asyncio.to_thread(count_card_choice_tokens, owned)).as_json(),
        dialogues=owned.services.served_versions.dialogue_adapters(),
        importing=owned.services.data_jobs.latest("import", owned.id),
        may_fetch=owned.services.fetch_adapters != "off",
    )


def _with_short_card(owned: OwnedPersona, versions: list[str]) -> set[str]:
    """Return the versions that were trained under the short card, too."""
    home = owned.services.home
    return {
        version
        for version in versions
        if has_learned_short_card(adapter_ref(home, owned.id, version))
    }


def _read_sizes(owned: OwnedPersona, versions: list[str]) -> dict[str, int]:
    """Read the bytes that an export of each version has, by version."""
    home = owned.services.home
    return {
        version: exported_bytes(adapter_ref(home, owned.id, version).folder) for version in versions
    }


def _read_effects(owned: OwnedPersona, versions: list[str]) -> dict[str, VersionEffect]:
    """Read the effects of a persona's versions, by version."""
    adapters = [adapter_ref(owned.services.home, owned.id, version) for version in versions]
    effects = read_effects(owned.services.home, adapters)
    return {effect.version: effect for effect in effects}


@routes.add("POST /dashboard/personas/{persona_id}/versions")
async def post_dialogue_version(request: web.Request) -> web.Response:
    """Install a dialogue adapter as a version, then ask whether to promote it."""
    owned = require_persona_in_path(request)
    name = (await read_form(request)).get("dialogue", "")
    version = await owned.install_dialogue(name)
    return redirect_to(
        request,
        f"{owned.page}/versions/{version}/promote",
        f"dialogue/{name} is {version} now.",
    )


@routes.add("POST /dashboard/personas/{persona_id}/versions/import")
async def post_import(request: web.Request) -> web.Response:
    """Start to import an adapter from a hub or a zip; the page of the versions shows how far it
    is.
    """
    owned = require_persona_in_path(request)
    scratch = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="understudy-import-")
    try:
        source = await _read_import_form(request, owned.services, Path(scratch.name))

        async def work(job: DataJob) -> dict[str, object]:
            version, notes = await owned.import_adapter(source, job.say)
            return {"version": version, "notes": [note.replace("**", "") for note in notes]}

        with errors_as_problems("conflict"):
            jobs = owned.services.data_jobs
            jobs.start_work(owned.services.home, "import", owned.id, work, on_end=scratch.cleanup)
    except BaseException:
        scratch.cleanup()
        raise
    return redirect_to(request, f"{owned.page}/versions")


async def _read_import_form(request: web.Request, services: Services, folder: Path) -> str:
    """Read the name of a hub's repository, or stream a zip into the folder; returns it, or the
    zip's path.
    """
    name = ""
    files = list[Path]()

    async def read_part(part: BodyPartReader) -> None:
        nonlocal name
        if part.name != "file":
            name = (
                (await read_form_part(part, MAX_SOURCE_BYTES))
                .decode("utf-8", errors="replace")
                .strip()
            )
        elif part.filename:
            place = folder / last_part(part.filename, "adapter.zip")
            if place.suffix.lower() != ".zip":
                raise Problem(
                    "wrong-kind",
                    f"{place.name} is no zip.",
                    "Pack the adapter's folder as a zip.",
                )
            read = partial(part.read_chunk, FORM_CHUNK_BYTES)
            most = services.max_upload_bytes
            files.append(
                (await receive_file(read, place, None, replace=False, most_bytes=most)).path
            )

    await read_multipart(request, read_part)
    if bool(name) == bool(files):
        what = "There are two adapters." if name else "There is nothing to import."
        raise Problem("invalid-request", what, "Give a zip, or a hub's owner/name.")
    if name:
        require_hub_name(services, name)
    return name or str(files[0])


@routes.add(f"GET {PROMOTE_PATH}")
async def confirm_promote(request: web.Request) -> web.Response:
    """Page to confirm a promotion, with the gate's verdict."""
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    objections = await owned.services.versions.objections(owned.id, installed.version, ALL_GUILDS)
    live = owned.services.store.versions.live(owned.id, ALL_GUILDS)
    return render_page(
        request,
        "versions/promote.html",
        title=f"Promote {installed.version} of {owned.persona.name}",
        owned=owned,
        installed=installed,
        live=version_label(live),
        is_live=live == installed.version,
        own=live_in_servers(owned.services, owned.id),
        verdict=installed.scorecard.verdict,
        objections=objections,
        reasons=objections.reasons if objections else installed.scorecard.reasons,
        advice=installed.scorecard.advice,
        score=score_text(installed),
        action=f"{owned.page}/versions/{installed.version}/promote",
        back=f"{owned.page}/versions",
    )


@routes.add(f"POST {PROMOTE_PATH}")
async def post_promote_page(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    anyway = (await read_form(request)).get("anyway", "") == "yes"
    result = await owned.promote(installed, anyway=anyway)
    message = f"{installed.version} of {owned.persona.name} is live already."
    if result.is_new:
        message = f"{installed.version} of {owned.persona.name} is live from the next reply on."
    return redirect_to(request, f"{owned.page}/versions", message)


@routes.add("GET /dashboard/personas/{persona_id}/versions/{version}/export")
async def get_version_export(request: web.Request) -> web.Response:
    """Return one file for the page *Personas* or `/persona import` of another bot."""
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    services = owned.services
    if installed not in services.store.versions.installed(owned.id):
        raise Problem("conflict", f"{installed.version} is withdrawn.", "Export another version.")
    name = f"{short_id(owned.persona, owned.guild_id)}-{installed.version}.charx"
    with errors_as_problems("conflict"):
        content = await asyncio.to_thread(_export, owned, installed.version, name)
    log_card_export(
        services.home,
        services.store,
        guild_id=owned.guild_id,
        persona=owned.persona,
        file=name,
        content=content,
        recipient=EXPORT_RECIPIENT,
    )
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=content, content_type=EXPORT_TYPE, headers=headers)


def _export(owned: OwnedPersona, version: str, name: str) -> bytes:
    """Build the file of a version. Raises `UnderstudyError`."""
    services = owned.services
    card = services.personas.card(owned.persona, owned.guild_id)
    folder = adapter_ref(services.home, owned.id, version).folder
    return export_version(services.home, card, folder=folder, name=name, recipient=EXPORT_RECIPIENT)


@routes.add(f"POST {CARD_PATH}")
async def post_card(request: web.Request) -> web.Response:
    """Serve a version with the chosen card. Raises `Problem` unless it was trained with that."""
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    card: CardChoice = "full"
    match (await read_form(request)).get("card"):
        case "short":
            card = "short"
        case "full":
            pass
        case other:
            raise Problem(
                "invalid-request",
                f"There is no card {other!r}.",
                "Choose full or short.",
            )
    owned.choose_card(installed, card)
    message = (
        f"{installed.version} of {owned.persona.name} speaks with its {card} card from the next "
        "reply on."
    )
    return redirect_to(request, f"{owned.page}/versions", message)


@routes.add(f"GET {REMOVE_PATH}")
async def confirm_remove_version(request: web.Request) -> web.Response:
    """Page to confirm that a version is deleted. Raises `Problem` if it is in use."""
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    owned.require_removable(installed)
    return render_page(
        request,
        "versions/remove.html",
        title=f"Delete {installed.version} of {owned.persona.name}",
        installed=installed,
        score=score_text(installed),
        back=f"{owned.page}/versions",
    )


@routes.add(f"POST {REMOVE_PATH}")
async def post_remove_version(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    installed = require_version_in_path(request, owned)
    await owned.remove_version(installed)
    return redirect_to(
        request,
        f"{owned.page}/versions",
        f"{installed.version} of {owned.persona.name} is deleted.",
    )


@routes.add("GET /dashboard/personas/{persona_id}/rollback")
async def confirm_rollback(request: web.Request) -> web.Response:
    """Page to confirm a rollback. Raises `Problem` if there is no earlier version."""
    owned = require_persona_in_path(request)
    try:
        before = owned.services.store.versions.before(owned.id)
    except RequestError:
        raise Problem(
            "conflict",
            f"{owned.persona.name} has no earlier version to roll back to.",
            "Promote one instead.",
        ) from None
    unserved = owned.services.served_versions.reason_unserved(owned.id, before)
    return render_page(
        request,
        "versions/rollback.html",
        title=f"Roll {owned.persona.name} back",
        live=version_label(owned.services.store.versions.live(owned.id, ALL_GUILDS)),
        before=version_label(before),
        unserved=unserved,
        own=live_in_servers(owned.services, owned.id),
        back=f"{owned.page}/versions",
    )


@routes.add("POST /dashboard/personas/{persona_id}/rollback")
async def post_rollback_page(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    result = owned.roll_back()
    name = owned.persona.name
    message = f"The base model answers for {name} from the next reply on."
    if result.speaking:
        message = f"{result.speaking} answers for {name} from the next reply on."
    return redirect_to(request, f"{owned.page}/versions", " ".join([message, *result.notes]))


def _may_go_back(owned: OwnedPersona) -> bool:
    """Report whether there is a version that a rollback would restore."""
    try:
        owned.services.store.versions.before(owned.id)
    except RequestError:
        return False
    return True
