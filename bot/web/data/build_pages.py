"""The pages on which a data set is ordered, and on which it is watched while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bot.house import House
from bot.web.data.build_order import BuildOrder, checked, command_of, kept_order, order_in, words_of
from bot.web.data.doing import build
from bot.web.data.forms import fields_of
from bot.web.data.places import Places
from bot.web.data.sources import sources_of
from bot.web.data.state import state_of
from bot.web.frame import HOME, back_to, faults_in, page
from bot.web.here import Route, house_of
from bot.web.problems import Problem
from bot.web.words import in_terminal

DATA = f"{HOME}/data"
FIELDS = ("name", "persona", "names", "mix", "two_stage", "languages", "min_reply_words", "max_reply_words", "recipe",
          "max_length", "tree_paths", "seed")  # fmt: skip


async def build_form(request: web.Request) -> web.Response:
    """The form; `again` fills it as a data set was ordered before, `source` chooses a source, `persona` a persona."""
    house = house_of(request)
    kept = None
    if again := request.query.get("again"):
        kept = await asyncio.to_thread(kept_order, Places(house.home).build(again))
    given = _as_given(kept) if kept else dict.fromkeys(FIELDS, "") | {"recipe": "demo-cpu"}
    if not kept:
        given |= {name: request.query[name] for name in ("persona", "name") if name in request.query}
    chosen = [of.source for of in kept.sources] if kept else request.query.getall("source", [])
    return await _form(request, house, given, chosen, replace=bool(kept))


def _as_given(order: BuildOrder) -> dict[str, str]:
    """An order as the form has it."""
    found: dict[str, Any] = order.model_dump(exclude={"sources", "names", "languages", "two_stage"}, exclude_none=True)
    text = dict.fromkeys(FIELDS, "") | {name: str(value) for name, value in found.items()}
    text |= {"names": ", ".join(order.names), "languages": ", ".join(order.languages)}
    text["two_stage"] = "yes" if order.two_stage else ""
    return text | {f"limit {of.source}": str(of.limit or "") for of in order.sources}


async def _form(
    request: web.Request,
    house: House,
    given: Mapping[str, str],
    chosen: list[str],
    *,
    replace: bool = False,
    problem: Problem | None = None,
    command: str = "",
) -> web.Response:
    known = await asyncio.to_thread(sources_of, house)
    sources = [source for source in known if source.is_file and not source.is_set]
    errors = {one["field"].partition(".")[0]: one["detail"] for one in problem.errors} if problem else {}
    return page(
        request,
        "data/build.html",
        title="Build a data set",
        section="data",
        status=problem.status if problem else 200,
        faults=faults_in(problem, {"sources": "source-1"}),
        sources=sources,
        personas=list(house.conversations.personas.of(0).values()),
        recipes=house.catalogue.recipes(),
        given={name: given.get(name, "") for name in FIELDS},
        limits={source.id: given.get(f"limit {source.id}", "") for source in sources},
        chosen=chosen,
        replace=replace,
        wrong=errors,
        command=command,
    )


async def order_build(request: web.Request) -> web.Response:
    """Begin what the form orders; or, with `show`, say which command would do the same."""
    house = house_of(request)
    given, every = await fields_of(request)
    chosen, replace = every.get("source", []), given.get("replace") == "yes"
    try:
        order = order_in(given, chosen)
        if given.get("show"):
            await asyncio.to_thread(checked, order, house)
            words = await asyncio.to_thread(words_of, order, house, with_review=False)
            return await _form(
                request, house, given, chosen, replace=replace, command=in_terminal(command_of(words), house.home)
            )
        await build(house, state_of(request), order, replace=replace)
    except Problem as problem:
        return await _form(request, house, given, chosen, replace=replace, problem=problem)
    return back_to(request, f"{DATA}/builds/{order.name}")


async def again(request: web.Request) -> web.Response:
    """Build a data set once more as it was ordered, with what reviewers have corrected."""
    house, name = house_of(request), request.match_info["name"]
    order = await asyncio.to_thread(kept_order, Places(house.home).build(name))
    if order is None:
        raise Problem("not-found", f"Nobody knows how {name} was ordered.", "Fill in the form.")
    await build(house, state_of(request), order, replace=True)
    return back_to(request, f"{DATA}/builds/{order.name}")


async def making(request: web.Request) -> web.Response:
    """How far the making of a data set is."""
    house, name = house_of(request), request.match_info["name"]
    place = Places(house.home).set(name)
    work = state_of(request).works.latest("build", name)
    if work is None:
        if place.exists():
            return back_to(request, f"{DATA}/sets/{name}")
        raise Problem("not-found", f"No data set {name!r} is being built.", f"See {DATA}.")
    order = await asyncio.to_thread(kept_order, Places(house.home).build(name))
    return page(
        request,
        "data/making.html",
        title=f"Building {name}",
        section="data",
        name=name,
        work=work,
        order=order,
        command=in_terminal(command_of([word for word in work.words if word != "--json"]), house.home),
        is_there=place.exists(),
    )


ROUTES: tuple[Route, ...] = (
    ("GET", f"{DATA}/build", build_form),
    ("POST", f"{DATA}/build", order_build),
    ("GET", f"{DATA}/builds/{{name}}", making),
    ("POST", f"{DATA}/builds/{{name}}/again", again),
)
