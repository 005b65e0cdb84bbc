"""`/dashboard`: who speaks where and in which version, what is being trained, and what wants attention."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import discord
from aiohttp import web

from bot import permissions
from bot.doctor.on_discord import channels_in_use
from bot.house import House
from bot.store import Channel, Job
from bot.web.frame import HOME, page
from bot.web.here import Route, house_of
from bot.web.words import without_places
from personas.contracts import Persona

DAY_S = 86_400
RECENT_S = 7 * DAY_S
LATEST_JOBS = 50
"""Of so many latest jobs those that have failed within `RECENT_S` are told."""


@dataclass(frozen=True)
class Spot:
    """A channel in which a persona lives."""

    guild: str
    channel: str
    answers: str


@dataclass(frozen=True)
class Resident:
    """A persona, the version that speaks for it (None: the base model), and where it lives."""

    persona: Persona
    version: str | None
    trains: bool
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Concern:
    """Something that wants attention: `kind` is "warn" or "bad", `path` where more is said or done."""

    kind: str
    what: str
    advice: str
    path: str


async def overview(request: web.Request) -> web.Response:
    """The first page."""
    house = house_of(request)
    jobs = house.store.jobs
    return page(
        request,
        "overview.html",
        title="Overview",
        section="overview",
        residents=residents(house),
        running=jobs.in_state("running"),
        queued=[(house.queue.position(job.job_id), job) for job in jobs.in_state("queued")],
        concerns=list(concerns(house, time.time())),
        servers=[guild.name for guild in house.client.guilds] if house.client else [],
    )


def residents(house: House) -> list[Resident]:
    """Every persona of every server, those that ship first."""
    personas, spots = house.conversations.personas, spots_of(house)
    found = dict(personas.of(0))
    for guild_id in sorted(_guild_ids(house)):
        found |= personas.of(guild_id)
    training = {job.persona for job in house.store.jobs.in_state("running")}
    return [
        Resident(one, house.conversations.speaking(one.id), one.id in training, tuple(spots.get(one.id, ())))
        for one in found.values()
    ]


def spots_of(house: House) -> dict[str, list[Spot]]:
    """By persona id the channels in which each lives."""
    spots: dict[str, list[Spot]] = {}
    for guild_id in sorted(_guild_ids(house)):
        for channel in house.store.channels.of_guild(guild_id):
            spots.setdefault(channel.persona_id, []).append(_spot(house.client, channel))
    return spots


def _guild_ids(house: House) -> set[int]:
    return {guild.id for guild in house.client.guilds} if house.client else house.store.guilds.known()


def _spot(client: discord.Client | None, channel: Channel) -> Spot:
    guild = client.get_guild(channel.guild_id) if client else None
    found = guild.get_channel_or_thread(channel.channel_id) if guild else None
    answers = "answers everything" if channel.answers == "everything" else "answers when it is mentioned"
    return Spot(
        guild.name if guild else f"server {channel.guild_id}",
        f"#{found.name}" if found else "a channel that is gone",
        answers,
    )


# ------------------------------------------------------------------------------------------ what wants attention


def concerns(house: House, now: float) -> Iterator[Concern]:
    """What somebody has to look at, worst first."""
    yield from _failed(house, now)
    yield from _unspoken(house)
    yield from _missing_permissions(house)
    yield from _waiting_versions(house)


def _failed(house: House, now: float) -> Iterator[Concern]:
    seen: set[str] = set()
    for job in house.store.jobs.page(LATEST_JOBS):
        is_latest = job.name not in seen  # a later run of the same has taken its place
        seen.add(job.name)
        if is_latest and job.state == "failed" and now - (job.finished_at or now) < RECENT_S:
            yield _failure(house, job)


def _failure(house: House, job: Job) -> Concern:
    error, advice = (without_places(text or "", house.home) for text in (job.error, job.advice))
    goes_on = " It can go on where it was." if job.can_resume else ""
    path = f"{HOME}/training/{job.job_id}"
    return Concern("bad", f"The training {job.name} {job.version} failed: {error}", f"{advice}{goes_on}", path)


def _unspoken(house: House) -> Iterator[Concern]:
    """Live versions that cannot speak, because they were made for another base model."""
    conversations = house.conversations
    for persona_id in dict.fromkeys(persona_id for persona_id, _, _ in house.store.versions.all_installed()):
        live = house.store.versions.live(persona_id)
        if model := conversations.left_behind.model_of(persona_id, live):
            what = f"{persona_id} {live} was made for {model}; the base model speaks in its place."
            yield Concern("bad", what, f"Train it again, or start the bot with BASE_MODEL={model}.",
                          f"{HOME}/personas/{persona_id}")  # fmt: skip


def _missing_permissions(house: House) -> Iterator[Concern]:
    for guild in house.client.guilds if house.client else ():
        for lack in permissions.lacks(guild, channels_in_use(guild, house.store)):
            yield Concern("warn", lack.words, lack.remedy, f"{HOME}/system")


def _waiting_versions(house: House) -> Iterator[Concern]:
    """The newest version of each persona, where it does not speak and nobody has decided about it."""
    newest = {persona_id: version for persona_id, version, _ in house.store.versions.all_installed()}
    for persona_id, version in newest.items():
        decided = {promotion.version for promotion in house.store.versions.history(persona_id)}
        if version in decided:
            continue
        card = house.store.versions.installed(persona_id)[-1].scorecard
        if card.verdict in ("promote", "hold"):
            says = "may be promoted" if card.verdict == "promote" else "is held: a moderator decides"
            yield Concern("warn", f"{persona_id} {version} {says}.", " ".join(card.reasons),
                          f"{HOME}/personas/{persona_id}")  # fmt: skip


ROUTES: tuple[Route, ...] = (("GET", HOME, overview),)
