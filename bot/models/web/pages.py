"""`/dashboard/models`: the table of base models, and the forms that fetch one and serve another."""

from functools import reduce

from aiohttp import web

from bot.models.table import speed_text
from bot.platform.localisation import gettext_lazy, join_texts
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem, redacted_problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import DASHBOARD, redirect_to, render_page, shell_command
from bot.services import Services
from bot.store import ALL_GUILDS
from personas.errors import BaseModelError, RequestError, UnderstudyError
from personas.models.model_fit import RESERVE_BYTES

routes = Routes()
MODELS_PATH = f"{DASHBOARD}/models"
MAX_NAME_CHARS = 300


@routes.add(f"GET {MODELS_PATH}")
async def get_models_page(request: web.Request) -> web.Response:
    """Page of the table; the first one takes some seconds."""
    services = get_services(request)
    return render_page(
        request,
        "models/index.html",
        title=gettext_lazy("Base models"),
        table=await services.models.table(),
        reserve=RESERVE_BYTES,
        speed_text=speed_text,
        fetches=services.models.fetches(),
        ready=services.models.fetched(),
        to_retrain=_unserved_versions(services),
    )


def _unserved_versions(services: Services) -> list[str]:
    """List the live versions that are for another base model, each with its persona."""
    names: dict[str, None] = {}
    for _, persona in services.personas.everybody():
        for guild_id in (ALL_GUILDS, *services.store.versions.live_by_guild(persona.id)):
            if version := services.served_versions.unserved(persona.id, guild_id):
                names[f"{persona.name} {version}"] = None
    return list(names)


@routes.add(f"GET {MODELS_PATH}/fetch")
async def get_fetch_page(request: web.Request) -> web.Response:
    """Form with the licence and the size of what would be fetched."""
    return await _render_fetch(request, _asked_name(request.query.get("name", "")))


async def _render_fetch(
    request: web.Request, name: str, problem: Problem | None = None
) -> web.Response:
    services = get_services(request)
    return render_page(
        request,
        "models/fetch.html",
        title=gettext_lazy("Fetch {name}", name=name),
        problem=problem,
        name=name,
        plan=await services.models.plan_fetch(name),
        command=shell_command(f"python -m bot models fetch {name}", services.home),
    )


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
        problem = _problem(request, error)
        return await _render_fetch(request, name, problem)
    return redirect_to(request, MODELS_PATH)


@routes.add(f"GET {MODELS_PATH}/use")
async def get_use_page(request: web.Request) -> web.Response:
    """Form that says what becomes of each persona's version."""
    services = get_services(request)
    name = _asked_name(request.query.get("name", ""))
    plan = await services.models.plan_switch(name, services.store.versions.all_live())
    return render_page(
        request,
        "models/use.html",
        title=gettext_lazy("Serve {name}", name=name),
        name=name,
        plan=plan,
        command=shell_command(f"python -m bot models use {name}", services.home),
    )


@routes.add(f"POST {MODELS_PATH}/use")
async def post_use(request: web.Request) -> web.Response:
    """Write BASE_MODEL, and ENGINE where another one serves it best here."""
    services = get_services(request)
    name = _asked_name(str((await read_form(request)).get("name", "")))
    plan, todo = await services.models.use(name, services.store.versions.all_live())
    written = reduce(_both, (f"{setting}={value}" for setting, value in plan.settings.items()))
    message = gettext_lazy("{settings} from the next start on.", settings=written)
    return redirect_to(request, MODELS_PATH, join_texts(message, *todo))


def _both(first: str, second: str) -> str:
    return gettext_lazy("{first} and {second}", first=first, second=second)


@routes.add(f"POST {MODELS_PATH}/dismiss")
async def post_dismiss(request: web.Request) -> web.Response:
    """Offer no model any more."""
    await get_services(request).models.dismiss_offer()
    return redirect_to(request, DASHBOARD)


def _asked_name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME_CHARS:
        message = gettext_lazy("The base model's name is missing or too long.")
        raise Problem("bad-query", message, MODELS_PATH)
    return name


def _problem(request: web.Request, error: UnderstudyError) -> Problem:
    return redacted_problem("refused", error, get_services(request).home)
