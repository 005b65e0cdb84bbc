"""The pages of a data set: what it is composed of, its samples, and what was anonymised in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from markdown_it import MarkdownIt
from markupsafe import Markup

from bot.house import House
from bot.web.charts import bars
from bot.web.data.build_order import kept_order
from bot.web.data.doing import delete_set, require_own
from bot.web.data.forms import fields_of
from bot.web.data.places import Places
from bot.web.data.reviewing import Finds, correct, corrections_in, finds_in, take_back
from bot.web.data.sample_index import SIDES, Hits, Wanted, counts_in, examples_of, search
from bot.web.data.samples import shown
from bot.web.data.sets import Built, set_of, sheet_of
from bot.web.data.state import State, state_of
from bot.web.formats import today
from bot.web.frame import HOME, back_to, page
from bot.web.here import Route, house_of
from bot.web.paging import choice, number, require_known
from personas.errors import MaterialError

DATA = f"{HOME}/data"
LONGEST_QUERY = 200
SHOWN_SAMPLES, SHOWN_FINDS = 20, 50
LOOK_S = 0.3
"""So long the page of a data set waits for examples of what was dropped."""
LARGEST_NUMBER = 2**53
SHEET = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def _cell(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """A cell whose side is a class: styles within the page are forbidden to it."""
    if "right" in str(tokens[at].attrs.pop("style", "")):
        tokens[at].attrJoin("class", "number")
    return str(renderer.renderToken(tokens, at, options, env))


for opening in ("th_open", "td_open"):
    SHEET.add_render_rule(opening, _cell)


async def set_page(request: web.Request) -> web.Response:
    """What a data set is."""
    house = house_of(request)
    built = await asyncio.to_thread(set_of, house, request.match_info["id"])
    stats = built.stats
    sheet = await asyncio.to_thread(sheet_of, built)
    examples = await _dropped(house, state_of(request), built)
    rows = [(name, float(of.samples)) for name, of in stats.by_source.items()]
    return page(
        request,
        "data/set.html",
        title=built.id,
        section="data",
        built=built,
        stats=stats,
        composition=bars("Samples by source", rows, "samples"),
        lengths=bars("Tokens per sample, prompt and reply", stats.tokens_per_sample.rows, "samples"),
        sheet=_rendered(sheet),
        examples=examples,
        today=today(),
        order=await asyncio.to_thread(kept_order, Places(house.home).build(built.id)) if built.is_own else None,
    )


async def _dropped(house: House, state: State, built: Built) -> dict[str, list[str]]:
    """How some of what was dropped begins, by reason; nothing while the index is being made."""
    place = Places(house.home).index(built.folder)
    with suppress(MaterialError):  # the page of the samples says what is wrong with them
        if await state.indexes.ready(built.folder, place, LOOK_S):
            return await asyncio.to_thread(examples_of, built.folder, place, list(built.stats.dropped))
    return {}


def _rendered(sheet: str) -> Markup:
    """A data sheet below the page's own headings."""
    html: str = SHEET.render(sheet)
    for level in (2, 1):
        html = html.replace(f"<h{level}>", f"<h{level + 2}>").replace(f"</h{level}>", f"</h{level + 2}>")
    return Markup(html)


async def delete(request: web.Request) -> web.Response:
    """A data set that was built here goes."""
    id = request.match_info["id"]
    await delete_set(house_of(request), state_of(request), id)
    return back_to(request, DATA, f"The data set {id} is deleted.")


# ------------------------------------------------------------------------------------------------------- samples


async def samples(request: web.Request) -> web.Response:
    """The samples, by words, side, source, talk or reason of being dropped."""
    house, state = house_of(request), state_of(request)
    require_known(request, "query", "split", "source", "talk", "reason", "after")
    built = await asyncio.to_thread(set_of, house, request.match_info["id"])
    wanted = wanted_of(request)
    hits = await found_in(house, state, built, wanted)
    title = f"Samples of {built.id}"
    if hits is None:
        answer = page(request, "data/indexing.html", title=title, section="data", built=built)
        answer.headers["Refresh"] = "2"
        return answer
    place = Places(house.home).index(built.folder)
    return page(
        request,
        "data/samples.html",
        title=title,
        section="data",
        built=built,
        wanted=wanted,
        hits=hits,
        counts=await asyncio.to_thread(counts_in, place),
        sides=SIDES,
        samples=[shown(found, wanted.query) for found in hits.found],
        next=_next(request, hits),
    )


def wanted_of(request: web.Request, limit: int = SHOWN_SAMPLES) -> Wanted:
    """What the query asks for. Raises `Problem`."""
    texts = {name: request.query.get(name, "")[:LONGEST_QUERY] for name in ("query", "source", "talk", "reason")}
    side = choice(request, "split", ("", *SIDES)) or ""
    after = number(request, "after", 0, LARGEST_NUMBER)
    return Wanted(**texts, side=side, after=-1 if after is None else after, limit=limit)


async def found_in(house: House, state: State, built: Built, wanted: Wanted) -> Hits | None:
    """The samples; None while their index is being made."""
    place = Places(house.home).index(built.folder)
    if not await state.indexes.ready(built.folder, place):
        return None
    return await asyncio.to_thread(search, built.folder, place, wanted)


def _next(request: web.Request, hits: Hits) -> str:
    if not hits.has_more:
        return ""
    asked = {name: value for name, value in request.query.items() if name != "after" and value}
    return f"{request.path}?{urlencode({**asked, 'after': hits.found[-1].n})}"


# -------------------------------------------------------------------------------------------------------- review


async def review(request: web.Request) -> web.Response:
    """What was anonymised, and what reviewers say of it."""
    house = house_of(request)
    require_known(request, "kind", "query", "first")
    built = await asyncio.to_thread(set_of, house, request.match_info["id"])
    build, first = _build_of(house, built), number(request, "first", 0, LARGEST_NUMBER) or 0
    kind, query = (request.query.get(name, "")[:LONGEST_QUERY] for name in ("kind", "query"))
    finds = Finds()
    if build:
        finds = await asyncio.to_thread(finds_in, build, kind=kind, query=query, first=first, limit=SHOWN_FINDS)
    after = first + len(finds.found)
    asked = {"kind": kind, "query": query, "first": after}
    return page(
        request,
        "data/review.html",
        title=f"What was anonymised in {built.id}",
        section="data",
        built=built,
        finds=finds,
        kind=kind,
        query=query,
        chart=bars("Replaced, by kind", [(name, float(n)) for name, n in built.stats.replaced.items()], "places"),
        corrections=await asyncio.to_thread(corrections_in, build) if build else [],
        can_build=build is not None and await asyncio.to_thread(kept_order, build) is not None,
        next=f"{request.path}?{urlencode(asked)}" if after < finds.count else "",
    )


def _build_of(house: House, built: Built) -> Path | None:
    """What belongs to the making of a data set, where it was made here."""
    return Places(house.home).build(built.id) if built.is_own else None


async def mark(request: web.Request) -> web.Response:
    """A reviewer says that a find is wrong (`keep`), that a name was missed (`also`), or takes that back."""
    house = house_of(request)
    built = await asyncio.to_thread(set_of, house, request.match_info["id"])
    require_own(built)
    given, _ = await fields_of(request)
    build, name = Places(house.home).build(built.id), given.get("name", "")
    if given.get("verdict") == "take_back":
        await asyncio.to_thread(take_back, build, name)
        said = "Taken back."
    else:
        await asyncio.to_thread(correct, build, given.get("verdict", ""), name)
        said = "Noted. The next build of this data set takes it into account."
    return back_to(request, f"{DATA}/sets/{built.id}/review", said)


ROUTES: tuple[Route, ...] = (
    ("GET", f"{DATA}/sets/{{id}}", set_page),
    ("POST", f"{DATA}/sets/{{id}}/delete", delete),
    ("GET", f"{DATA}/sets/{{id}}/samples", samples),
    ("GET", f"{DATA}/sets/{{id}}/review", review),
    ("POST", f"{DATA}/sets/{{id}}/review", mark),
)
