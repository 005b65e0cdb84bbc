"""`/dashboard/system` and `GET /system`: the state for people, kept fresh while the page is open, and for programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from aiohttp import web

from bot import permissions
from bot.doctor.on_discord import channels_in_use
from bot.house import House
from bot.permissions import MESSAGE_CONTENT, NEEDS, Lack, title_of
from bot.web.events import Item, stream
from bot.web.frame import HOME, back_to, page
from bot.web.here import TENANT, Route, house_of
from bot.web.openapi import Answer, described
from bot.web.system.state import State, state_of
from bot.web.system.words import figures, rows

SYSTEM = f"{HOME}/system"
EVERY_S = 2.0
STATE_COLOURS = {"ok": "good", "warn": "warn", "fail": "bad"}


async def system(request: web.Request) -> web.Response:
    """All of it; figures and tables are renewed by events while a script runs."""
    house = house_of(request)
    state, findings = await state_of(house), await house.watch.findings.latest(house.home)
    return page(
        request,
        "system/system.html",
        title="System",
        section="system",
        state=state,
        figures=figures(state),
        rows=rows(state),
        findings=findings,
        is_asking=house.watch.findings.is_asking,
        lacks=(lacks := _lacks(house)),
        lacking=[lack.need for lack in lacks],
        is_connected=bool(house.client and house.client.guilds),
        needs=[(title_of(need), need) for need in NEEDS],
        content=MESSAGE_CONTENT,
        reads_content=bool(house.client and house.client.intents.message_content),
        invite=_invite(house),
        colours=STATE_COLOURS,
    )


async def system_events(request: web.Request) -> web.StreamResponse:
    """The same figures every two seconds."""
    return await stream(request, _told(request, house_of(request)))


async def look(request: web.Request) -> web.Response:
    """Have the doctor look at everything, in the background."""
    house = house_of(request)
    begun = house.watch.findings.begin(house.home, house.base_model)
    said = "The doctor is looking; it takes half a minute." if begun else "The doctor is looking already."
    return back_to(request, f"{SYSTEM}#doctor", said)


@described(
    "How the bot, its processes and its machine stand",
    {200: Answer("The state at this moment; sizes in bytes, times in seconds since 1970.", State)},
    tag="about",
)
async def get_system(request: web.Request) -> web.Response:
    """What the system page shows: versions, processes, memory, jobs, engine, latency, warnings, health."""
    return web.json_response(asdict(await state_of(house_of(request))))


async def _told(request: web.Request, house: House) -> AsyncIterator[Item]:
    while request.app[TENANT].house is not None:
        state = await state_of(house)
        data: dict[str, Any] = {"figures": figures(state), "rows": rows(state)}
        yield "", "state", data | {"asking": house.watch.findings.is_asking}
        await asyncio.sleep(EVERY_S)


def _lacks(house: House) -> list[Lack]:
    guilds = house.client.guilds if house.client else []
    return [lack for guild in guilds for lack in permissions.lacks(guild, channels_in_use(guild, house.store))]


def _invite(house: House) -> str:
    """The address that lets the bot into a server; empty in the guild on this machine."""
    if house.keeping.in_sandbox or house.client is None or not house.client.application_id:
        return ""
    return permissions.invite_url(house.client.application_id)


ROUTES: tuple[Route, ...] = (
    ("GET", SYSTEM, system),
    ("GET", f"{SYSTEM}/events", system_events),
    ("POST", f"{SYSTEM}/doctor", look),
    ("GET", "/system", get_system),
)
