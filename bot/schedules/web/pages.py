"""`/dashboard/schedules` and `/dashboard/personas/ID/schedules`: what is done at set times."""

from collections.abc import Mapping, Sequence

from aiohttp import web

from bot.personas.web.lookup import OwnedPersona, persona_status, require_persona_in_path
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.request_body import errors_as_problems, read_form, read_id
from bot.platform.web_kit.templating import DASHBOARD, redirect_to, render_page
from bot.schedules.web.listing import (
    ListedSchedule,
    list_greetings,
    list_lines,
    list_trainings,
)
from bot.training.web.run_view import MEMBER_NAMES, run_path

SCHEDULES_PATH = f"{DASHBOARD}/schedules"
MAX_LISTED = 300
"""Trainings, lines, and greetings on a page."""
PAGE_ADVICE = "The page lists what there is."
routes = Routes()


@routes.add(f"GET {SCHEDULES_PATH}")
async def get_schedules_page(request: web.Request) -> web.Response:
    """Page of all servers' scheduled trainings and lines."""
    return await _render(request, None)


@routes.add("GET /dashboard/personas/{persona_id}/schedules")
async def get_persona_schedules_page(request: web.Request) -> web.Response:
    """Page of those of a persona."""
    return await _render(request, require_persona_in_path(request))


@routes.add(f"POST {SCHEDULES_PATH}/trainings/remove")
async def post_training_removal(request: web.Request) -> web.Response:
    services = get_services(request)
    form = await read_form(request)
    guild_id = read_id(form.get("guild", ""), PAGE_ADVICE)
    with errors_as_problems("not-found"):
        services.scheduled_trainings.remove(guild_id, form.get("persona", ""))
    return _removed(request, form)


@routes.add(f"POST {SCHEDULES_PATH}/lines/remove")
async def post_line_removal(request: web.Request) -> web.Response:
    services = get_services(request)
    form = await read_form(request)
    guild_id = read_id(form.get("guild", ""), PAGE_ADVICE)
    number = read_id(form.get("number", ""), PAGE_ADVICE)
    with errors_as_problems("not-found"):
        services.scheduled_lines.remove(guild_id, number)
    return _removed(request, form)


@routes.add(f"POST {SCHEDULES_PATH}/greetings/remove")
async def post_greeting_removal(request: web.Request) -> web.Response:
    services = get_services(request)
    form = await read_form(request)
    with errors_as_problems("not-found"):
        services.member_greetings.remove(read_id(form.get("guild", ""), PAGE_ADVICE))
    return _removed(request, form)


def _removed(request: web.Request, form: Mapping[str, str]) -> web.Response:
    """Lead back to the page on which a form was sent: a persona's, or that of all."""
    persona_id = form.get("of", "")
    way_back = SCHEDULES_PATH
    if get_services(request).personas.find_owner(persona_id):
        way_back = f"{DASHBOARD}/personas/{persona_id}/schedules"
    return redirect_to(request, way_back, "It is removed.")


async def _render(request: web.Request, owned: OwnedPersona | None) -> web.Response:
    services = get_services(request)
    persona_id = owned.id if owned else None
    trainings = list_trainings(services, persona_id)
    lines = list_lines(services, persona_id)
    greetings = list_greetings(services, persona_id)
    shown: Sequence[ListedSchedule] = [
        *trainings[:MAX_LISTED],
        *lines[:MAX_LISTED],
        *greetings[:MAX_LISTED],
    ]
    names = await request.app[MEMBER_NAMES].names_of(
        services.client, [listed.member for listed in shown if listed.member[1]]
    )
    return render_page(
        request,
        "schedules/list.html",
        title=f"{owned.persona.name}: at set times" if owned else "At set times",
        tab="schedules",
        owned=owned,
        standing=persona_status(services, owned.id) if owned else None,
        trainings=trainings[:MAX_LISTED],
        lines=lines[:MAX_LISTED],
        greetings=greetings[:MAX_LISTED],
        hears_joins=services.client is None or services.client.intents.members,
        left_out=len(trainings) + len(lines) + len(greetings) - len(shown),
        names=names,
        run_path=run_path,
    )
