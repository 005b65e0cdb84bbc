"""`/dashboard/personas`: the list of personas; import and removal of cards."""

from aiohttp import web

from bot.personas import card_import
from bot.personas.web.card_editing import warm_up_prompt
from bot.personas.web.card_pages import render_rejected_card
from bot.personas.web.lookup import (
    OwnedPersona,
    channels_by_persona,
    persona_status,
    require_persona_in_path,
)
from bot.personas.web.lore_files import bring_back_set, lore_store
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import navigation_links, paginate, parse_page_query
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    FileForm,
    errors_as_problems,
    read_file_form,
    read_form,
)
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.versions.installation import VersionInstaller
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.chat import Persona
from personas.schemas.import_report import ImportReport

routes = Routes()
PERSONAS_PATH = "/dashboard/personas"


@routes.add(f"GET {PERSONAS_PATH}", section="Personas")
async def get_persona_list(request: web.Request) -> web.Response:
    return _render_list(request)


def _render_list(
    request: web.Request,
    problem: Problem | None = None,
    *,
    short_name: str = "",
    set_name: str = "",
) -> web.Response:
    """Render the list; its forms keep what was typed, with the error beside the field."""
    services = get_services(request)
    page = parse_page_query(request, "find")
    find = request.query.get("find", "").strip()
    matching = services.personas.search(find)
    shown, links = paginate(
        request, page, items=matching, key=lambda entry: entry[1].id, noun="persona"
    )
    listed = [OwnedPersona(services, guild_id, persona) for guild_id, persona in shown]
    channels = channels_by_persona(services, [owned.id for owned in listed])
    rows = []
    for owned in listed:
        rows.append((owned, persona_status(services, owned.id), channels.get(owned.id, [])))
    return render_page(
        request,
        "personas/list.html",
        title="Personas",
        problem=problem,
        short_name=short_name,
        set_name=set_name,
        listed=rows,
        links=navigation_links(page, links, PERSONAS_PATH),
        is_long=bool(find) or len(matching) > page.limit,
        find=find,
        count=len(matching),
        lore_sets=list(services.lore_sets.sets.values()),
        removed=services.removal.removed(),
    )


@routes.add(f"POST {PERSONAS_PATH}")
async def post_card_import(request: web.Request) -> web.Response:
    """Import a card file as a persona for all servers."""
    services = get_services(request)
    form = FileForm()
    try:
        with errors_as_problems("invalid-request", field="file"):
            form = await _read_card_form(request)
            wanted_id = form.fields.get("id", "").strip()
            imported = await _import(services, OPERATOR_GUILD_ID, form, wanted_id=wanted_id)
    except Problem as problem:
        return _render_list(request, problem, short_name=form.fields.get("id", "").strip())
    done = f"{imported.brought.persona.name} is a persona of all servers now."
    return await _install_attachments(
        request, OPERATOR_GUILD_ID, imported=imported, file=form.name, done=done
    )


@routes.add("GET /dashboard/lore-sets")
async def get_lore_sets(request: web.Request) -> web.Response:
    """Lead to the list, which a refused form of a set shows at this address."""
    return redirect_to(request, f"{PERSONAS_PATH}?{request.rel_url.raw_query_string}")


@routes.add("POST /dashboard/lore-sets")
async def post_lore_set(request: web.Request) -> web.Response:
    """Create a set of lore that personas can use."""
    name = (await read_form(request)).get("name", "")
    try:
        with errors_as_problems("invalid-request", field="set-name"):
            created = get_services(request).lore_sets.create(name)
    except Problem as problem:
        return _render_list(request, problem, set_name=name)
    return redirect_to(
        request,
        f"/dashboard/personas/{created.id}/lore",
        f"{created.name} is there. Write its lore; each persona's page of lore says which it uses.",
    )


@routes.add("POST /dashboard/personas/{persona_id}/file")
async def replace_card_file(request: web.Request) -> web.Response:
    """Replace a persona's card, picture and book with a card file, where the form says so by the
    persona's id; the card from before can be brought back for a day.
    """
    owned = require_persona_in_path(request)
    try:
        form = await _read_card_form(request)
        if form.fields.get("replace") != owned.id:
            raise Problem(
                "invalid-request",
                "Nothing was replaced.",
                f"Tick that the card of {owned.persona.name} is replaced.",
            )
        imported = await _import(owned.services, owned.guild_id, form, replacing=owned.persona)
    except Problem as problem:
        return await render_rejected_card(request, owned, problem)
    return await _install_attachments(
        request,
        owned.guild_id,
        imported=imported,
        file=form.name,
        done=f"{owned.persona.name} has a new card.",
    )


@routes.add("POST /dashboard/personas/{persona_id}/file/undo/{stamp}")
async def undo_card_file(request: web.Request) -> web.Response:
    """Bring back a card that was replaced within the last day; the present one takes its place."""
    owned = require_persona_in_path(request)
    services = owned.services
    with errors_as_problems("conflict"):
        undone = await card_import.undo_replacement(
            services.personas,
            services.store,
            lore_store(services),
            origin=RequestOrigin(owned.guild_id, channel_id=0, user_id=OPERATOR_ORIGIN.user_id),
            persona=owned.persona,
            stamp=request.match_info["stamp"],
        )
    name = f"**{markdown_name(undone.persona)}**"
    change = gettext_lazy("brought back the replaced card of {persona}", persona=name)
    services.audit.record(owned.guild_id, OPERATOR_ORIGIN.user_id, change)
    warm_up_prompt(owned, undone.persona)
    return redirect_to(
        request,
        owned.page,
        f"{undone.persona.name} speaks by the card from before again.",
    )


async def _import(
    services: Services,
    guild_id: int,
    form: FileForm,
    *,
    wanted_id: str = "",
    replacing: Persona | None = None,
) -> card_import.CardImport:
    """Import a card, new or in place of a persona's. Raises `Problem`."""
    with errors_as_problems("invalid-request"):
        imported = await card_import.import_card(
            services.personas,
            services.store,
            services.base_model,
            origin=RequestOrigin(guild_id, channel_id=0, user_id=OPERATOR_ORIGIN.user_id),
            data=form.content,
            file=form.name,
            context_tokens=services.engine.context_tokens,
            wanted_id=wanted_id,
            replacing=replacing,
        )
    services.audit.record(guild_id, OPERATOR_ORIGIN.user_id, imported.change)
    return imported


@routes.add("GET /dashboard/personas/{persona_id}/remove")
async def confirm_remove(request: web.Request) -> web.Response:
    """Page that lists what is removed with a persona."""
    owned = _require_removable(request)
    return render_page(
        request,
        "personas/remove.html",
        title=f"Remove {owned.persona.name}",
        owned=owned,
        channels=channels_by_persona(owned.services, [owned.id]).get(owned.id, []),
        files=lore_store(owned.services).files(owned.guild_id, owned.id),
        versions=persona_status(owned.services, owned.id).versions,
        trainings=len(owned.services.trainings.open_of_persona(owned.id)),
    )


@routes.add("POST /dashboard/personas/{persona_id}/remove")
async def remove_persona_page(request: web.Request) -> web.Response:
    owned = _require_removable(request)
    # First: a queued one would begin meanwhile, and fail for want of the persona.
    cancelled = owned.services.trainings.cancel_all(owned.id)
    await owned.services.removal.remove(owned.guild_id, owned.persona)
    name = f"**{markdown_name(owned.persona)}**"
    removed = gettext_lazy("removed the persona {persona}", persona=name)
    owned.services.audit.record(owned.guild_id, OPERATOR_ORIGIN.user_id, removed)
    message = (
        f"{owned.persona.name} is removed from the bot and from all channels, and can be brought "
        "back below for a day."
    )
    return redirect_to(
        request,
        f"{PERSONAS_PATH}#trash",
        " ".join([message, *cancelled]),
    )


@routes.add(f"POST {PERSONAS_PATH}/removed/{{persona_id}}/{{stamp}}")
async def bring_back_persona(request: web.Request) -> web.Response:
    """Bring back a persona that was removed within the last day."""
    services = get_services(request)
    persona_id = request.match_info["persona_id"]
    stamp = request.match_info["stamp"]
    guild_id = OPERATOR_GUILD_ID
    for entry in services.removal.removed():
        if (entry.id, entry.stamp) == (persona_id, stamp):
            guild_id = entry.guild_id
    with errors_as_problems("conflict"):
        back = await services.removal.bring_back(
            guild_id, persona_id, stamp=stamp, by=OPERATOR_ORIGIN.user_id
        )
    name = f"**{markdown_name(back.persona)}**"
    restored = gettext_lazy("brought back the persona {persona}", persona=name)
    services.audit.record(guild_id, OPERATOR_ORIGIN.user_id, restored)
    texts = [f"{back.persona.name} is back."]
    if back.changed_channels:
        texts.append(
            f"{len(back.changed_channels)} channel has another persona by now, and keeps it."
            if len(back.changed_channels) == 1
            else f"{len(back.changed_channels)} channels have other personas by now, and keep them."
        )
    return redirect_to(request, PERSONAS_PATH, " ".join(texts))


@routes.add(f"POST {PERSONAS_PATH}/removed-sets/{{set}}/{{stamp}}")
async def bring_back_lore_set(request: web.Request) -> web.Response:
    """Bring back a set of lore that was removed within the last day."""
    restored = await bring_back_set(
        get_services(request), request.match_info["set"], request.match_info["stamp"]
    )
    text = f"{restored.name} is back, for those who used it."
    return redirect_to(request, f"{PERSONAS_PATH}#sets", text)


def _require_removable(request: web.Request) -> OwnedPersona:
    owned = require_persona_in_path(request)
    if owned.ships:
        advice = (
            "Take its channels away: /persona clear. To undo what you wrote, return to the card "
            "that came with it."
        )
        raise Problem("conflict", f"{owned.persona.name} came with the bot.", advice)
    return owned


async def _read_card_form(request: web.Request) -> FileForm:
    form = await read_file_form(request, card_import.MAX_CARD_BYTES)
    if not form.content:
        raise Problem(
            "invalid-request",
            "No file was chosen.",
            "Choose a card: PNG, JSON, YAML, CHARX or TOML.",
        )
    return form


async def _install_attachments(
    request: web.Request, guild_id: int, imported: card_import.CardImport, file: str, done: str
) -> web.Response:
    """Install a card's book as lore and its adapter as a version, and say on the persona's page
    what became of them.
    """
    services = get_services(request)
    card = imported.card
    is_new = imported.brought.is_new
    owned = OwnedPersona(services, guild_id, imported.brought.persona)
    lore_notes, _ = await card_import.import_character_book(
        lore_store(services), guild_id, owned.persona, card
    )
    owner = RequestOrigin(guild_id, channel_id=0, user_id=OPERATOR_ORIGIN.user_id)
    adapter_notes, job = await VersionInstaller(services.home, services.store).install_bundled(
        owner, owned.id, card, file, base_model=services.base_model
    )
    if job:
        services.versions.record_import(job)
    warm_up_prompt(owned, owned.persona)
    notes = [
        done,
        *(
            card_import.same_name_notes(services.personas, guild_id, owned.persona)
            if is_new
            else ()
        ),
        *ImportReport.of(card.remarks).lines(),
        *lore_notes,
        *(note.replace("**", "") for note in adapter_notes),
    ]
    return redirect_to(request, owned.page, " ".join(notes))
