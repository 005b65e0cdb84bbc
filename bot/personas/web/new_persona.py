"""Creates a persona from the fields of a form, and checks and previews it for the page's script."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated

from aiohttp import web
from pydantic import Field as Limit

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.model_names import ChatModel
from bot.chat.places import SpeakChannel, usual_answers
from bot.chat.reply_service import greeting_text
from bot.personas.card_import import CardImport, import_character_book, same_name_notes
from bot.personas.creation import CardFile, FormCheck, InvalidFormError, PersonaForm
from bot.personas.web import card_editing
from bot.personas.web.card_scripts import preview_events
from bot.personas.web.lookup import OwnedPersona
from bot.personas.web.lore_files import lore_store
from bot.platform.errors import error_text
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name, without_escapes
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.request_body import errors_as_problems
from bot.platform.web_kit.sse import stream_events
from bot.platform.web_kit.validation import read_model
from bot.services import Services
from bot.store import ALL_GUILDS
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.prompt.renderer import EXAMPLE_USER, example_turns, system_text
from personas.schemas.base import FrozenModel
from personas.schemas.chat import ChatRequest

routes = Routes()
MAX_EXAMPLES = 50
HELLO = "Hello!"


class ExampleBody(FrozenModel):
    """What somebody says to the persona, and its answer."""

    said: str = ""
    reply: str


class PersonaBody(FrozenModel):
    """Who a persona is, how it talks, and what it says first."""

    name: str
    description: str = ""
    speech: str = ""
    examples: Annotated[tuple[ExampleBody, ...], Limit(max_length=MAX_EXAMPLES)] = ()
    first_mes: str = ""
    guild: Annotated[
        str, Limit(pattern=r"^\d{1,20}$", description="the server that owns it; 0: all servers")
    ] = "0"

    def form(self) -> PersonaForm:
        """The form with these fields."""
        values = self.model_dump(include={"name", "description", "speech", "first_mes"})
        pairs = [(example.said, example.reply) for example in self.examples]
        return PersonaForm.of_fields({**values, "mes_example": join_examples(pairs)})


def join_examples(pairs: Sequence[tuple[str, str]]) -> str:
    """Write pairs of what is said and replied as the lines of a form."""
    lines = []
    for said, reply in pairs:
        lines.append("<START>")
        for side, text in (("user", said), ("char", reply)):
            if words := " ".join(text.split()):
                lines.append(f"{{{{{side}}}}}: {words}")
    return "\n".join(lines)


@dataclass(frozen=True)
class CheckedPersona:
    """The check of a new persona: errors by field ("" for the whole), its first line with the
    names filled in, the prompt's beginning with the examples, and its tokens.
    """

    wrong: dict[str, str]
    first_line: str
    prompt: str
    tokens: int | None
    context_tokens: int


def describe_check(check: FormCheck, services: Services) -> CheckedPersona:
    """Describe a checked form."""
    prompt = ""
    first_line = ""
    if check.persona:
        first_line = greeting_text(check.persona, services.time_zones.now(ALL_GUILDS))
        lines = [f"{turn.name}: {turn.text}" for turn in example_turns(check.persona)]
        prompt = "\n".join([system_text(check.persona, EXAMPLE_USER), *lines])
    return CheckedPersona(
        wrong={name: without_escapes(problem) for name, problem in check.wrong.items()},
        first_line=first_line,
        prompt=prompt,
        tokens=check.room.tokens if check.room else None,
        context_tokens=services.engine.context_tokens,
    )


@routes.add("POST /dashboard/new-persona/check")
async def post_check(request: web.Request) -> web.Response:
    """Check the fields of a persona that is not there yet; nothing is saved."""
    services = get_services(request)
    body = await read_model(request, PersonaBody, card_editing.MAX_CARD_BODY_BYTES)
    check = await services.creation.check(int(body.guild), body.form())
    return web.json_response(asdict(describe_check(check, services)))


@routes.add("POST /dashboard/new-persona/hello/events")
async def post_hello(request: web.Request) -> web.StreamResponse:
    """Stream the base model's reply as a persona that is not there yet; nothing is stored."""
    services = get_services(request)
    body = await read_model(request, PersonaBody, card_editing.MAX_CARD_BODY_BYTES)
    chat_request = await hello_request(services, body.form(), int(body.guild))
    return await stream_events(request, preview_events(services, chat_request))


async def hello_request(services: Services, form: PersonaForm, guild_id: int) -> ChatRequest:
    """The request for a reply of a form's persona. Raises `Problem` for a form with faults, and an
    unknown server.
    """
    _require_place(services, guild_id)
    check = await services.creation.check(guild_id, form)
    with form_problems():
        _, persona, _ = check.require()
    model = ChatModel(persona, None, guild_id)
    return await card_editing.request_to(services, model, HELLO)


async def create_owned(
    services: Services,
    form: PersonaForm,
    file: CardFile | None = None,
    *,
    guild: str,
    channel: str,
) -> tuple[OwnedPersona, list[str]]:
    """Create a persona of a guild (0: of all) for the operator, and give it the channel, if one is
    named; returns it with notes on what came with its card, and on its first line. Raises
    `Problem`.
    """
    guild_id = int(guild)
    place = _require_place(services, guild_id, channel)
    origin = RequestOrigin(guild_id, channel_id=0, user_id=OPERATOR_ORIGIN.user_id)
    with errors_as_problems("conflict"), form_problems():
        if place:
            check = await services.creation.check(guild_id, form, file)
            services.reply_service.rules.age.require(check.require()[1], place)
        imported: CardImport = await services.creation.create(origin, form, file)
    persona = imported.brought.persona
    owned = OwnedPersona(services, guild_id, persona)
    created = gettext_lazy("created the persona {persona}", persona=f"**{markdown_name(persona)}**")
    services.audit.record(guild_id, origin.user_id, created)
    notes, _ = await import_character_book(lore_store(services), guild_id, persona, imported.card)
    notes += same_name_notes(services.personas, guild_id, persona)
    card_editing.warm_up_prompt(owned, persona)
    if place and services.client:
        answers = usual_answers(services.client)
        is_new = services.reply_service.assign(
            persona, place, answers=answers, user_id=OPERATOR_ORIGIN.user_id
        )
        if is_new:
            notes += await _greet(owned, place)
    return owned, notes


async def _greet(owned: OwnedPersona, channel: SpeakChannel) -> list[str]:
    """Have a new persona say its first line, and note it; the persona is there even if that
    fails.
    """
    try:
        has_greeted = await owned.services.reply_service.greet(owned.persona, channel)
    except DELIVERY_ERRORS as error:
        reason = error_text(error)
        return [f"Its first line could not be sent: {reason}"]
    return ["It has said its first line."] if has_greeted else []


def _require_place(services: Services, guild_id: int, channel: str = "") -> SpeakChannel | None:
    """Find the channel in the guild; None for no channel. Raises `Problem`."""
    guild = services.client.get_guild(guild_id) if services.client else None
    if guild_id != OPERATOR_GUILD_ID and guild is None:
        raise Problem(
            "not-found",
            f"The bot is in no server {guild_id}.",
            "Choose another one.",
        )
    if not channel:
        return None
    place = guild.get_channel_or_thread(int(channel)) if guild else None
    if not isinstance(place, SpeakChannel):
        raise Problem(
            "not-found",
            f"There is no channel {channel} there.",
            "Choose another one.",
        )
    return place


@contextmanager
def form_problems() -> Iterator[None]:
    """Raise the faults of a form as a problem that names its fields."""
    try:
        yield
    except InvalidFormError as error:
        errors = [
            field_error(name, without_escapes(detail)) for name, detail in error.wrong.items()
        ]
        advice = "Correct what `errors` names."
        raise Problem("invalid-request", error.message, advice, errors=errors) from error
