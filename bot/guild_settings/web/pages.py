"""`/dashboard/personas/ID/replies`: how and when a persona replies, in each of its places."""

from aiohttp import web

from bot.guild_settings.texts import source_text, stored_text
from bot.guild_settings.web.forms import SettingField, read_values, setting_field, stored_texts
from bot.guild_settings.web.places import ReplyPlace, find_place, list_places
from bot.personas.web.lookup import OwnedPersona, persona_status, require_persona_in_path
from bot.platform.localisation import join_texts
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import changed_fields, errors_as_problems, read_form
from bot.platform.web_kit.templating import redirect_to, render_page

routes = Routes()


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
    settings = [setting for group in place.groups for setting in group.settings]
    given = {setting.key: form.get(setting.key, "").strip() for setting in settings}
    try:
        changes, seen = changed_fields(form, given, lambda texts: read_values(settings, texts))
        if not changes:
            return redirect_to(request, _path(place), "Nothing was changed.")
        actions = owned.services.guild_settings
        with errors_as_problems("conflict"), owned.services.store.atomic():
            for group in place.groups:
                if own := {key: changes[key] for key in group.keys if key in changes}:
                    actions.change(group, place.scope, own, seen)
    except Problem as problem:
        return _render(request, place, given, problem)
    return redirect_to(request, _path(place), "It holds from the next message on.")


@routes.add("POST /dashboard/personas/{persona_id}/replies/reset")
async def post_replies_reset(request: web.Request) -> web.Response:
    owned = require_persona_in_path(request)
    place = _find_place(owned, (await read_form(request)).get("place", ""))
    try:
        with errors_as_problems("conflict"):
            owned.services.guild_settings.reset(place.groups, place.scope)
    except Problem as problem:
        return _render(request, place, _stored_texts(place), problem)
    return redirect_to(request, _path(place), "It is reset.")


def _path(place: ReplyPlace) -> str:
    return f"{place.owned.page}/replies?place={place.key}"


def _find_place(owned: OwnedPersona, key: str) -> ReplyPlace:
    guild, _, channel = key.partition("-")
    ids = []
    for text in (guild, channel):
        is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(2**63))
        ids.append(int(text) if is_number else None)
    return find_place(owned, *ids)


def _stored_texts(place: ReplyPlace) -> dict[str, str]:
    actions = place.owned.services.guild_settings
    texts: dict[str, str] = {}
    for group in place.groups:
        texts |= stored_texts(actions.stored(group, place.scope))
    return texts


def _stored_text(place: ReplyPlace) -> str:
    actions = place.owned.services.guild_settings
    set_here = [(group, actions.stored(group, place.scope)) for group in place.groups]
    texts = [
        stored_text(group, stored)
        for group, stored in set_here
        if any(value is not None for value in stored.values())
    ]
    return join_texts(*texts, separator="; ") if texts else "nothing"


def _fields(place: ReplyPlace, given: dict[str, str]) -> list[SettingField]:
    services = place.owned.services
    actions = services.guild_settings
    reason = services.engine.state().context_reason
    seen = _stored_texts(place)
    fields = []
    for group in place.groups:
        bounds = actions.bounds(group)
        held = actions.in_channel(
            group, place.guild_id, place.channel_id, persona_id=place.owned.id
        )
        for setting in group.settings:
            value = held[setting.key]
            limits = bounds.get(setting.key)
            why = source_text(setting, value, limits, engine_reason=reason)
            fields.append(
                setting_field(
                    setting,
                    given=given[setting.key],
                    seen=seen[setting.key],
                    hint=f"{setting.hint} Now {setting.say(value.value)} ({why}).",
                    bounds=limits,
                    placeholder=f"{value.value:g}" if limits else "",
                )
            )
    return fields


def _render(
    request: web.Request,
    place: ReplyPlace,
    given: dict[str, str],
    problem: Problem | None = None,
) -> web.Response:
    owned = place.owned
    return render_page(
        request,
        "replies/replies.html",
        title=f"{owned.persona.name}: replies",
        problem=problem,
        tab="replies",
        owned=owned,
        standing=persona_status(owned.services, owned.id),
        place=place,
        places=[(other, _stored_text(other)) for other in list_places(owned)],
        fields=_fields(place, given),
        is_set=any(_stored_texts(place).values()),
    )
