"""What pages and REST do alike: looking into an upload, stating its right, deleting it; building a data set."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.house import House
from bot.web.data.build_order import BuildOrder, checked, keep_order, words_of
from bot.web.data.places import Places
from bot.web.data.rights_file import state
from bot.web.data.sets import Built, set_of
from bot.web.data.sources import UPLOADED, Source, forget_about, note_about, upload_in
from bot.web.data.state import State
from bot.web.data.work import Work
from bot.web.events import stream
from bot.web.problems import Problem
from personas.rights import Statement

TELL_EVERY_S = "0.5"


def look_into(house: House, state: State, name: str) -> Work:
    """Have the trainer say what an upload is. Raises `Problem`."""
    file = Places(house.home).upload(name)

    async def keep(work: Work) -> None:
        await asyncio.to_thread(note_about, file, work.told)

    words = ("dataset", "inspect", f"{UPLOADED}{file.name}", "--json", "--tell-every", TELL_EVERY_S)
    return state.works.start(house.home, "inspect", file.name, words, keep)


async def state_right(house: House, name: str, statement: Statement | None) -> Source:
    """Take down who states which right to an upload; None takes it back. Raises `Problem`."""
    await asyncio.to_thread(upload_in, house.home, name)
    await asyncio.to_thread(state, Places(house.home).upload(name), statement)
    return await asyncio.to_thread(upload_in, house.home, name)


async def delete_upload(house: House, state_: State, name: str) -> None:
    """Delete an upload with all that is known of it. Raises `Problem` while something is done to it."""
    source = await asyncio.to_thread(upload_in, house.home, name)
    for work in state_.works.going():
        if work.subject == source.name or f"{UPLOADED}{source.name}" in " ".join(work.words):
            raise Problem("conflict", f"Something is being made of {source.name}.", "Wait for it, or cancel it.")
    await asyncio.to_thread(_delete_upload, Places(house.home).upload(source.name))


def _delete_upload(file: Path) -> None:
    file.unlink(missing_ok=True)
    forget_about(file)
    state(file, None)


async def build(house: House, state_: State, order: BuildOrder, *, replace: bool) -> Work:
    """Build a data set as it is ordered. Raises `Problem` for what cannot be, and for one that is there already."""
    places = Places(house.home)
    await asyncio.to_thread(checked, order, house)
    if places.set(order.name).exists() and not replace:
        raise Problem("conflict", f"There is a data set {order.name} already.", "Choose another name, or replace it.")
    words = await asyncio.to_thread(words_of, order, house)
    for folder in (places.sets, places.build(order.name)):
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    work = state_.works.start(
        house.home, "build", order.name, (*words, "--json", "--tell-every", TELL_EVERY_S), _nothing_more
    )
    await asyncio.to_thread(keep_order, places.build(order.name), order)
    return work


async def _nothing_more(work: Work) -> None:
    """A data set is in its place when its build has ended."""


async def delete_set(house: House, state_: State, id: str) -> None:
    """Delete a data set that was built here, with all that belongs to its making. Raises `Problem`."""
    built = await asyncio.to_thread(set_of, house, id)
    require_own(built)
    work = state_.works.latest("build", built.id)
    if work and work.is_open:
        raise Problem("conflict", f"{built.id} is being built.", "Wait for it, or cancel it.")
    await asyncio.to_thread(_delete_set, Places(house.home), built)


def _delete_set(places: Places, built: Built) -> None:
    for folder in (places.index(built.folder), places.build(built.id), built.folder):
        shutil.rmtree(folder, ignore_errors=True)


def require_own(built: Built) -> None:
    """Raise `Problem` for a data set that is not this home's."""
    if not built.is_own:
        raise Problem("conflict", f"{built.id} lies where catalogue.toml says.", "Delete it there.")


async def watched(request: web.Request, work: Work) -> web.StreamResponse:
    """Tell a page how far work is, until it has ended."""

    async def changes() -> AsyncIterator[tuple[str, str, Any]]:
        while True:
            changed = work.changed
            yield str(work.seq), "work", work.as_json()
            if not work.is_open:
                return
            await changed.wait()

    return await stream(request, changes())
