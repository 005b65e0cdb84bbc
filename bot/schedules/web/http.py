"""`/schedules`: trainings and lines at set times, and greetings of new members, of all servers."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from bot.platform.web_kit.app_context import get_services
from bot.platform.web_kit.openapi import (
    ApiModel,
    ApiRoutes,
    Links,
    ParameterSpec,
    ResponseSpec,
    Timestamp,
)
from bot.platform.web_kit.paging import require_known_parameters
from bot.platform.web_kit.request_body import errors_as_problems
from bot.schedules.web.ids import MAX_ID_DIGITS, read_id
from bot.schedules.web.listing import (
    ListedGreeting,
    ListedLine,
    ListedTraining,
    list_greetings,
    list_lines,
    list_trainings,
)

LIST_ADVICE = "GET /schedules lists them."
ID_SCHEMA = {"type": "string", "pattern": f"^[0-9]{{1,{MAX_ID_DIGITS}}}$"}
GUILD = ParameterSpec("A server's id.", ID_SCHEMA)
DiscordId = Annotated[str, Field(pattern=r"^[0-9]+$")]
routes = ApiRoutes("personas")


class ScheduledTrainingResponse(ApiModel):
    """A scheduled training. Discord's ids are text, as they exceed JSON's numbers."""

    persona: str
    guild: DiscordId
    channel: DiscordId
    when: str
    new_samples: int | None
    """The number of new samples after which it runs; null for one at a weekly time."""
    next_at: Timestamp
    """When it is due next; null for one after new samples."""
    what: str
    """Recipe and data."""
    set_by: DiscordId
    """The member who set it; 0 where they are no longer known."""
    set_at: Timestamp
    outcome: str
    """What became of the latest one; empty before the first."""
    job_id: str | None
    links: Links

    @classmethod
    def of(cls, listed: ListedTraining) -> ScheduledTrainingResponse:
        schedule = listed.schedule
        links = {"self": f"/schedules/trainings/{schedule.guild_id}/{schedule.persona_id}"}
        if listed.job_id:
            links["job"] = f"/finetune/jobs/{listed.job_id}"
        return cls(
            persona=schedule.persona_id,
            guild=str(schedule.guild_id),
            channel=str(schedule.channel_id),
            when=listed.when,
            new_samples=schedule.new_samples,
            next_at=listed.next_at,
            what=listed.what,
            set_by=str(schedule.set_by),
            set_at=schedule.set_at,
            outcome=listed.outcome,
            job_id=listed.job_id or None,
            links=links,
        )


class ScheduledLineResponse(ApiModel):
    """A line that the persona of a channel says at a weekly time."""

    number: int
    persona: str | None
    """The persona that would say it now; null where none lives."""
    guild: DiscordId
    channel: DiscordId
    when: str
    next_at: Timestamp
    prompt: str
    set_by: DiscordId
    """The member who set it; 0 where they are no longer known."""
    set_at: Timestamp
    outcome: str
    """What became of the latest one; empty before the first."""
    links: Links

    @classmethod
    def of(cls, listed: ListedLine) -> ScheduledLineResponse:
        line = listed.line
        return cls(
            number=line.seq,
            persona=listed.persona_id,
            guild=str(line.guild_id),
            channel=str(line.channel_id),
            when=listed.when,
            next_at=listed.next_at,
            prompt=line.prompt,
            set_by=str(line.set_by),
            set_at=line.set_at,
            outcome=listed.outcome,
            links={"self": f"/schedules/lines/{line.guild_id}/{line.seq}"},
        )


class MemberGreetingResponse(ApiModel):
    """How new members of a server are greeted."""

    persona: str | None
    """The persona that would greet now; null where none lives in the channel."""
    guild: DiscordId
    channel: DiscordId
    text: str
    is_prompt: bool
    """True where the text describes what the persona is to say; false for a fixed text."""
    set_by: DiscordId
    """The member who set it; 0 where they are no longer known."""
    set_at: Timestamp
    links: Links

    @classmethod
    def of(cls, listed: ListedGreeting) -> MemberGreetingResponse:
        greeting = listed.greeting
        return cls(
            persona=listed.persona_id,
            guild=str(greeting.guild_id),
            channel=str(greeting.channel_id),
            text=greeting.text,
            is_prompt=greeting.is_prompt,
            set_by=str(greeting.set_by),
            set_at=greeting.set_at,
            links={"self": f"/schedules/greetings/{greeting.guild_id}"},
        )


class SchedulesResponse(ApiModel):
    """What is done at set times, and when somebody joins."""

    trainings: list[ScheduledTrainingResponse]
    lines: list[ScheduledLineResponse]
    greetings: list[MemberGreetingResponse]


@routes.operation(
    "GET /schedules",
    "What is done at set times",
    {200: ResponseSpec("The trainings, lines and greetings, oldest first.", SchedulesResponse)},
    query={"persona": "Those of one persona alone: its trainings, and the rest where it lives."},
)
async def get_schedules(request: web.Request) -> web.Response:
    """Lists the scheduled trainings and lines, and the greetings of new members, of all servers."""
    services = get_services(request)
    require_known_parameters(request, "persona")
    persona_id = request.query.get("persona")
    trainings = list_trainings(services, persona_id)
    lines = list_lines(services, persona_id)
    greetings = list_greetings(services, persona_id)
    return SchedulesResponse(
        trainings=[ScheduledTrainingResponse.of(training) for training in trainings],
        lines=[ScheduledLineResponse.of(line) for line in lines],
        greetings=[MemberGreetingResponse.of(greeting) for greeting in greetings],
    ).response()


@routes.operation(
    "DELETE /schedules/trainings/{guild}/{persona_id}",
    "Remove a scheduled training",
    {204: "It is removed.", 404: "No training of this persona is scheduled in that server."},
    parameters={"guild": GUILD},
)
async def delete_training(request: web.Request) -> web.Response:
    """Ends the schedule; a job that it has queued goes on."""
    services = get_services(request)
    guild_id = read_id(request.match_info["guild"], LIST_ADVICE)
    with errors_as_problems("not-found"):
        services.scheduled_trainings.remove(guild_id, request.match_info["persona_id"])
    return web.Response(status=204)


@routes.operation(
    "DELETE /schedules/lines/{guild}/{number}",
    "Remove a scheduled line",
    {204: "It is removed.", 404: "That server has no line with this number."},
    parameters={
        "guild": GUILD,
        "number": ParameterSpec("The line's number.", ID_SCHEMA),
    },
)
async def delete_line(request: web.Request) -> web.Response:
    """Ends what the persona of a channel says at a set time."""
    services = get_services(request)
    guild_id = read_id(request.match_info["guild"], LIST_ADVICE)
    with errors_as_problems("not-found"):
        services.scheduled_lines.remove(
            guild_id, read_id(request.match_info["number"], LIST_ADVICE)
        )
    return web.Response(status=204)


@routes.operation(
    "DELETE /schedules/greetings/{guild}",
    "Remove a greeting of new members",
    {204: "It is removed.", 404: "New members of that server are not greeted."},
    parameters={"guild": GUILD},
)
async def delete_greeting(request: web.Request) -> web.Response:
    """Lets new members be greeted no more."""
    services = get_services(request)
    with errors_as_problems("not-found"):
        services.member_greetings.remove(read_id(request.match_info["guild"], LIST_ADVICE))
    return web.Response(status=204)
