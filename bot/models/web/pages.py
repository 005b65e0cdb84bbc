"""`/dashboard/models`: the page of base models, and the actions that fetch one and serve another."""

from dataclasses import asdict

from aiohttp import web

from bot.models.fetch import FetchPlan
from bot.models.switch import SwitchPlan
from bot.models.table import speed_text
from bot.platform.localisation import join_texts
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.paging import require_known_parameters
from bot.platform.web_kit.problems import Problem, redacted_problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import DASHBOARD, redirect_to, render_page, shell_command
from bot.services import Services
from personas.errors import BaseModelError, RequestError
from personas.models.model_fit import RESERVE_BYTES

routes = Routes()
MODELS_PATH = f"{DASHBOARD}/models"
OFFER_PATH = f"{MODELS_PATH}/offer"
MAX_NAME_CHARS = 300


@routes.add(f"GET {MODELS_PATH}", section="Models")
async def get_models_page(request: web.Request) -> web.Response:
    """Page of the table, whose first one takes some seconds; with `fetch` or `use`, it asks to
    confirm that for a model.
    """
    require_known_parameters(request, "fetch", "use")
    if "fetch" in request.query:
        return await _render_fetch(request, _asked_name(request.query["fetch"]))
    if "use" not in request.query:
        return await _render_models(request)
    services = get_services(request)
    name = _asked_name(request.query["use"])
    plan = await services.models.plan_switch(name, services.store.versions.all_live())
    command = shell_command(f"python -m bot models use {name}", services.home)
    return await _render_models(request, name=name, to_use=plan, command=command)


async def _render_fetch(
    request: web.Request, name: str, problem: Problem | None = None
) -> web.Response:
    """Render the page with the licence and the size of what would be fetched."""
    services = get_services(request)
    plan = await services.models.plan_fetch(name)
    command = shell_command(f"python -m bot models fetch {name}", services.home)
    return await _render_models(request, name=name, to_fetch=plan, command=command, problem=problem)


async def _render_models(
    request: web.Request,
    *,
    name: str = "",
    to_fetch: FetchPlan | None = None,
    to_use: SwitchPlan | None = None,
    command: str = "",
    problem: Problem | None = None,
) -> web.Response:
    services = get_services(request)
    return render_page(
        request,
        "models/index.html",
        title="Base models",
        problem=problem,
        name=name,
        to_fetch=to_fetch,
        to_use=to_use,
        command=command,
        models=await services.models.table(),
        reserve=RESERVE_BYTES,
        speed_text=speed_text,
        fetches=services.models.fetches(),
        ready=services.models.fetched(),
        to_retrain=_unserved_versions(services),
    )


def _unserved_versions(services: Services) -> list[str]:
    """List the live versions that are for another base model, each with its persona."""
    names = []
    for persona_id, version in services.store.versions.all_live():
        owned = services.personas.find_owner(persona_id)
        if owned and services.served_versions.incompatible.model_of(persona_id, version):
            names.append(f"{owned[1].name} {version}")
    return names


@routes.add(f"POST {MODELS_PATH}/fetch")
async def post_fetch(request: web.Request) -> web.Response:
    """Start to fetch a model whose licence was accepted."""
    form = await read_form(request)
    name = _asked_name(str(form.get("name", "")))
    accepted = bool(form.get("accepted"))
    models = get_services(request).models
    try:
        await models.fetch(name, accepted=accepted)
    except BaseModelError:
        raise
    except RequestError as error:
        problem = redacted_problem("refused", error, get_services(request).home)
        return await _render_fetch(request, name, problem)
    return redirect_to(request, MODELS_PATH)


@routes.add(f"POST {MODELS_PATH}/use")
async def post_use(request: web.Request) -> web.Response:
    """Write BASE_MODEL, and ENGINE where another one serves it best here."""
    services = get_services(request)
    name = _asked_name(str((await read_form(request)).get("name", "")))
    plan, todo = await services.models.use(name, services.store.versions.all_live())
    written = " and ".join(f"{setting}={value}" for setting, value in plan.settings.items())
    return redirect_to(
        request, MODELS_PATH, join_texts(f"{written} from the next start on.", *todo)
    )


@routes.add(f"GET {OFFER_PATH}")
async def get_offer(request: web.Request) -> web.Response:
    """Offer of a larger model, for the local guild's page. Takes some seconds the first time."""
    return web.json_response(asdict(await get_services(request).models.shown_offer(MODELS_PATH)))


@routes.add(f"POST {OFFER_PATH}")
async def post_offer(request: web.Request) -> web.Response:
    """Fetch the offered model, whose licence the page names."""
    return web.json_response(asdict(await get_services(request).models.accept_offer(MODELS_PATH)))


@routes.add(f"POST {MODELS_PATH}/dismiss")
async def post_dismiss(request: web.Request) -> web.Response:
    """Offer no model any more."""
    await get_services(request).models.dismiss_offer()
    return redirect_to(request, DASHBOARD)


def _asked_name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME_CHARS:
        raise Problem("bad-query", "The base model's name is missing or too long.", MODELS_PATH)
    return name
