"""`/dashboard/new-persona`: the form of a new persona, with a preview."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from bot.chat.reply_service import greeting_text
from bot.personas.creation import (
    FIELD_LABELS,
    MAX_FIELD_CHARS,
    MAX_PICTURE_BYTES,
    CardFile,
    PersonaForm,
)
from bot.personas.web import card_editing
from bot.personas.web.lookup import OwnedPersona
from bot.personas.web.new_persona import HELLO, create_owned, hello_request, join_examples
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import FileForm, read_file_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from bot.store import ALL_GUILDS
from personas.card.example_lines import count_examples

routes = Routes()
NEW_PERSONA_PATH = "/dashboard/new-persona"
EXAMPLE_COUNT = 3
PLACE_PATTERN = re.compile(r"(\d{1,20}(/\d{1,20})?)?")
"""A server and one of its channels; empty for all servers."""
PAGE_FIELD_IDS = {"mes_example": "said-1"}
"""Ids of elements that differ from their fields' names."""
PAGE_LABELS = {name: label.rstrip("?") for name, label in FIELD_LABELS.items()}


@dataclass
class CreationDraft:
    """Contents of the form, and the reply of a preview."""

    form: PersonaForm = field(default_factory=PersonaForm)
    examples: list[tuple[str, str]] = field(default_factory=lambda: [("", "")] * EXAMPLE_COUNT)
    place: str = ""
    reply: dict[str, Any] | None = None

    def require_place(self) -> None:
        """Raise `Problem` for a place that is no choice of the page."""
        if not PLACE_PATTERN.fullmatch(self.place):
            self.place = ""
            raise Problem(
                "invalid-request",
                "There is no such place.",
                "Choose one of the list.",
            )

    @property
    def guild(self) -> str:
        """The server that is to own the persona; "0" for all."""
        return self.place.partition("/")[0] or "0"

    @property
    def channel(self) -> str:
        """The channel to give it; empty for none."""
        return self.place.partition("/")[2]


@routes.add(f"GET {NEW_PERSONA_PATH}")
async def get_creation_page(request: web.Request) -> web.Response:
    draft = CreationDraft()
    places = _places(get_services(request))
    if places:
        free = [place.value for place in places[0].choices if place.is_free]
        draft.place = free[0]
    return await _render(request, draft, places=places)


@routes.add(f"POST {NEW_PERSONA_PATH}")
async def post_creation_form(request: web.Request) -> web.Response:
    """Create the persona of the form; with faults, show the form again as it was."""
    services = get_services(request)
    draft = CreationDraft()
    try:
        form = await read_file_form(request, MAX_PICTURE_BYTES)
        draft = _draft(form)
        draft.require_place()
        file = CardFile(form.name, form.content) if form.content else None
        owned, notes = await create_owned(
            services, draft.form, file, guild=draft.guild, channel=draft.channel
        )
    except Problem as problem:
        return await _render(request, draft, problem)
    return redirect_to(request, owned.page, " ".join([_created_text(owned, draft), *notes]))


@routes.add(f"POST {NEW_PERSONA_PATH}/hello")
async def post_hello_page(request: web.Request) -> web.Response:
    """Show the form again with a sample reply, for browsers without scripts."""
    services = get_services(request)
    draft = CreationDraft()
    try:
        draft = _draft(await read_file_form(request, MAX_PICTURE_BYTES))
        draft.require_place()
        chat_request = await hello_request(services, draft.form, int(draft.guild))
        draft.reply = await card_editing.reply_of(services, chat_request)
    except Problem as problem:
        return await _render(request, draft, problem)
    return await _render(request, draft)


def _draft(form: FileForm) -> CreationDraft:
    """The contents of a submitted form."""
    values = form.fields
    examples = []
    for number in range(1, EXAMPLE_COUNT + 1):
        examples.append((values.get(f"said-{number}", ""), values.get(f"reply-{number}", "")))
    typed = PersonaForm.of_fields({**values, "mes_example": join_examples(examples)})
    return CreationDraft(typed, examples, values.get("place", ""))


def _created_text(owned: OwnedPersona, draft: CreationDraft) -> str:
    client = owned.services.client
    count = count_examples(owned.persona.mes_example, owned.persona.name)
    name = owned.persona.name
    text = f"{name} is there. /persona set gives it a channel."
    if draft.channel and client is not None:
        channel = client.get_channel(int(draft.channel))
        text = f"{name} lives in #{channel} now."
    if not count:
        return text
    examples = (
        f"They have {count} example of how they talk."
        if count == 1
        else f"They have {count} examples of how they talk."
    )
    return f"{text} {examples}"


@dataclass(frozen=True)
class Place:
    """A choice of where the persona is to be; `is_free` if no other one lives there."""

    value: str
    label: str
    is_free: bool = True


@dataclass(frozen=True)
class GuildPlaces:
    """The choices of one server, free ones first."""

    guild: str
    choices: list[Place]


def _places(services: Services) -> list[GuildPlaces]:
    places = []
    for guild in services.client.guilds if services.client else []:
        free = []
        taken = []
        channels = services.store.channels
        living = channels.residents(channels.of_guild(guild.id))
        for channel in guild.text_channels:  # the chats of voice channels: `/persona set` there
            allowed = channel.permissions_for(guild.me)
            if not (allowed.view_channel and allowed.send_messages):
                continue
            label = f"#{channel.name}"
            known = [services.personas.get(each, guild.id) for each in living.get(channel.id, ())]
            value = f"{guild.id}/{channel.id}"
            if names := [persona.name for persona in known if persona]:
                label = f"{label} (in place of {', '.join(names)})"
                taken.append(Place(value, label, is_free=False))
            else:
                free.append(Place(value, label))
        free.append(Place(f"{guild.id}", "no channel yet"))
        places.append(GuildPlaces(guild.name, [*free, *taken]))
    return places


async def _render(
    request: web.Request,
    draft: CreationDraft,
    problem: Problem | None = None,
    *,
    places: list[GuildPlaces] | None = None,
) -> web.Response:
    services = get_services(request)
    check = await services.creation.check(int(draft.guild), draft.form)
    greeting = ""
    if check.persona:
        greeting = greeting_text(check.persona, services.time_zones.now(ALL_GUILDS))
    return render_page(
        request,
        "personas/new.html",
        title="New persona",
        problem=problem,
        ids=PAGE_FIELD_IDS,
        labels=PAGE_LABELS,
        draft=draft,
        values=asdict(draft.form),
        places=_places(services) if places is None else places,
        most=MAX_FIELD_CHARS,
        most_mb=MAX_PICTURE_BYTES // 2**20,
        greeting=greeting,
        hello=HELLO,
    )
