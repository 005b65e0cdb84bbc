"""`/dashboard/personas/ID/replies`: length, sampling and context of a persona's replies."""

from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from bot.generation.actions import MAX_TEMPERATURE, MIN_TOP_P
from bot.generation.store import FIELDS, SettingValue
from bot.generation.texts import NAMES, settings_text, source_text, value_text
from bot.generation.web.places import GenerationPlace, find_place, list_places
from bot.personas.web.lookup import OwnedPersona, persona_status, require_persona_in_path
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    changed_fields,
    errors_as_problems,
    parse_form_number,
    read_form,
)
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.platform.web_kit.validation import parse_body
from personas.engine.context_window import MIN_CONTEXT_TOKENS
from personas.schemas.base import FrozenModel

INTEGER_FIELDS = ("max_new_tokens", "context_tokens")
HINTS = {
    "max_new_tokens": "120 are about 450 letters.",
    "temperature": "0 takes the likeliest word; above 1, words get random.",
    "top_p": "Share of the likeliest words that are drawn from.",
    "context_tokens": "Card, lore, earlier messages and the reply together.",
}
routes = Routes()


class GenerationFields(FrozenModel):
    """Settings of replies. A field that is null is left to the next place: a channel's to the
    persona in that server, that to the persona in all servers, and that to the bot's own settings.
    """

    # The largest are today's bounds, which `GenerationActions.change` checks.
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Field(ge=MIN_TOP_P, le=1)] | None = None
    context_tokens: Annotated[int, Field(ge=MIN_CONTEXT_TOKENS)] | None = None


@routes.add("GET /dashboard/personas/{persona_id}/replies")
async def get_replies_page(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    place = _find_place(owned, request.query.get("place", ""))
    return _render(request, place, _stored_texts(place))


@routes.add("POST /dashboard/personas/{persona_id}/replies")
async def post_replies_form(request: web.Request) -> web.Response:
    """Save the fields that the form changes; one that somebody else has changed meanwhile is
    refused.
    """
    owned = require_persona_in_path(request)
    form = await read_form(request)
    place = _find_place(owned, form.get("place", ""))
    given = {name: form.get(name, "").strip() for name in FIELDS}
    try:
        changes, seen = changed_fields(form, given, _read_fields)
        if not changes:
            return redirect_to(request, _path(place), "Nothing was changed.")
        with errors_as_problems("conflict"):
            owned.services.generation.change(place.scope, changes, seen)
    except Problem as problem:
        return _render(request, place, given, problem)
    return redirect_to(request, _path(place), "It holds from the next reply on.")


@routes.add("POST /dashboard/personas/{persona_id}/replies/reset")
async def post_replies_reset(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    place = _find_place(owned, (await read_form(request)).get("place", ""))
    try:
        with errors_as_problems("conflict"):
            owned.services.generation.reset(place.scope)
    except Problem as problem:
        return _render(request, place, _stored_texts(place), problem)
    return redirect_to(request, _path(place), "It is reset.")


def _path(place: GenerationPlace) -> str:
    return f"{place.owned.page}/replies?place={place.key}"


def _find_place(owned: OwnedPersona, key: str) -> GenerationPlace:
    guild, _, channel = key.partition("-")
    ids = []
    for text in (guild, channel):
        is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(2**63))
        ids.append(int(text) if is_number else None)
    return find_place(owned, *ids)


def _stored_texts(place: GenerationPlace) -> dict[str, str]:
    texts = {}
    for name, value in vars(place.stored).items():
        texts[name] = (
            "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        )
    return texts


def _read_fields(texts: Mapping[str, str]) -> dict[str, SettingValue | None]:
    """Read the form's fields, an empty one as None. Raises `Problem`."""
    body: dict[str, Any] = {}
    for name in FIELDS:
        if text := texts.get(name, ""):
            number = parse_form_number(text)
            is_whole = isinstance(number, float) and number.is_integer()
            body[name] = int(number) if name in INTEGER_FIELDS and is_whole else number
    fields = parse_body(GenerationFields, body, is_form=True)
    return {name: getattr(fields, name) for name in FIELDS}


def _render(
    request: web.Request,
    place: GenerationPlace,
    given: dict[str, str],
    problem: Problem | None = None,
) -> web.Response:
    owned = place.owned
    services = owned.services
    bounds = services.generation.bounds()
    reason = services.engine.state().context_reason
    rows = []
    for name, held in place.effective.values.items():
        rows.append(
            {
                "id": name,
                "label": NAMES[name],
                "hint": HINTS[name],
                "low": bounds[name].low,
                "high": bounds[name].high,
                "holds": value_text(name, held.value),
                "placeholder": f"{held.value:g}",
                "why": source_text(name, held, bounds, reason),
                "is_whole": name in INTEGER_FIELDS,
            }
        )
    places = []
    for other in list_places(owned):
        places.append((other, settings_text(other.stored)))
    return render_page(
        request,
        "generation/replies.html",
        title=f"{owned.persona.name}: replies",
        problem=problem,
        tab="replies",
        owned=owned,
        standing=persona_status(services, owned.id),
        place=place,
        places=places,
        rows=rows,
        given=given,
        seen=_stored_texts(place),
        is_set=any(value is not None for value in vars(place.stored).values()),
    )
