"""`/dashboard/personas/ID/answering`: when a persona answers in each of its channels."""

from collections.abc import Mapping
from typing import Annotated

from aiohttp import web
from pydantic import Field

from bot.answering.actions import MAX_CHANCE, MAX_WAIT_S
from bot.answering.store import FIELDS, AnsweringSettings, SettingValue
from bot.answering.texts import NAMES, effective_lines, settings_text
from bot.generation.web.places import GenerationPlace, find_place, list_places
from bot.personas.web.lookup import OwnedPersona, persona_status, require_persona_in_path
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    changed_fields,
    errors_as_problems,
    read_form,
)
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.platform.web_kit.validation import parse_body
from personas.schemas.base import FrozenModel

MAX_ID_DIGITS = 19
HINTS = {
    "wait_s": (
        "Seconds for which a reply waits for further lines of its member, up to "
        f"{MAX_WAIT_S:g}. One reply answers all of them."
    ),
    "reply_chance": (
        "Share in percent of the messages said to nobody that it answers. With 0, only "
        "its name, mentions and replies call it."
    ),
    "quiet_hours": (
        "Such as 22:00-07:00, in the server's time zone. It is silent then, but for "
        "mentions and replies."
    ),
    "quiet_mentions": "Whether mentions and replies are silent in quiet hours, too.",
}
CHOICES = {
    "quiet_mentions": {
        "": "not set",
        "yes": "yes",
        "no": "no",
    }
}
routes = Routes()


class AnsweringForm(FrozenModel):
    """The fields of the form; an empty one is left to a thread's channel, then to the default."""

    wait_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] | None = None
    reply_chance: Annotated[int, Field(ge=0, le=MAX_CHANCE)] | None = None
    quiet_hours: Annotated[str, Field(max_length=40)] | None = None
    quiet_mentions: bool | None = None


@routes.add("GET /dashboard/personas/{persona_id}/answering")
async def get_answering_page(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    if "place" not in request.query:
        place = next(iter(_channel_places(owned)), None)
        return _render(request, owned, place, given=_stored_texts(place))
    place = _find_place(owned, request.query["place"])
    return _render(request, owned, place, given=_stored_texts(place))


@routes.add("POST /dashboard/personas/{persona_id}/answering")
async def post_answering_form(request: web.Request) -> web.Response:
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
            owned.services.answering.change(place.guild_id, place.channel_id, changes, seen)
    except Problem as problem:
        return _render(request, owned, place, given=given, problem=problem)
    return redirect_to(request, _path(place), "It holds from the next message on.")


@routes.add("POST /dashboard/personas/{persona_id}/answering/reset")
async def post_answering_reset(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    place = _find_place(owned, (await read_form(request)).get("place", ""))
    try:
        with errors_as_problems("conflict"):
            owned.services.answering.reset(place.guild_id, place.channel_id)
    except Problem as problem:
        return _render(request, owned, place, given=_stored_texts(place), problem=problem)
    return redirect_to(request, _path(place), "It is reset.")


def _path(place: GenerationPlace) -> str:
    return f"{place.owned.page}/answering?place={place.key}"


def _channel_places(owned: OwnedPersona) -> list[GenerationPlace]:
    return [place for place in list_places(owned) if place.channel_id]


def _find_place(owned: OwnedPersona, key: str) -> GenerationPlace:
    """Find a channel of the persona. Raises `Problem`."""
    guild, _, channel = key.partition("-")
    for text in (guild, channel):
        is_id = text.isascii() and text.isdecimal() and len(text) <= MAX_ID_DIGITS
        if not is_id or not int(text):
            raise Problem(
                "not-found",
                "There is no such channel.",
                "Choose one on the page.",
            )
    return find_place(owned, int(guild), int(channel))


def _stored(place: GenerationPlace | None) -> AnsweringSettings:
    if place is None:
        return AnsweringSettings()
    return place.owned.services.store.answering.get(place.guild_id, place.channel_id)


def _stored_texts(place: GenerationPlace | None) -> dict[str, str]:
    """Return the fields as the form shows them, an unset one empty."""
    texts = {}
    for name, value in vars(_stored(place)).items():
        if value is None:
            texts[name] = ""
        elif isinstance(value, bool):
            texts[name] = "yes" if value else "no"
        else:
            texts[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return texts


def _read_fields(texts: Mapping[str, str]) -> dict[str, SettingValue | None]:
    """Read the form's fields, an empty one as None. Raises `Problem`."""
    body = {name: texts.get(name, "") for name in FIELDS if texts.get(name, "")}
    fields = parse_body(AnsweringForm, body, is_form=True)
    return {name: getattr(fields, name) for name in FIELDS}


def _render(
    request: web.Request,
    owned: OwnedPersona,
    place: GenerationPlace | None,
    *,
    given: dict[str, str],
    problem: Problem | None = None,
) -> web.Response:
    services = owned.services
    holds = []
    if place:
        held = services.answering.in_channel(place.guild_id, place.channel_id)
        holds = effective_lines(held)
    places = [(each, settings_text(_stored(each))) for each in _channel_places(owned)]
    return render_page(
        request,
        "answering/channel.html",
        title=f"{owned.persona.name}: when it answers",
        problem=problem,
        tab="answering",
        owned=owned,
        standing=persona_status(services, owned.id),
        place=place,
        places=places,
        holds=holds,
        names=NAMES,
        hints=HINTS,
        choices=CHOICES,
        given=given,
        seen=_stored_texts(place),
        is_set=_stored(place) != AnsweringSettings(),
    )
