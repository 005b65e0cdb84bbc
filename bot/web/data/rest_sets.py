"""`/datasets`: what can be learned from, data sets that are built of it, and their samples."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from aiohttp import web

from bot.house import House
from bot.web.bodies import json_object, parsed
from bot.web.data.build_order import BuildOrder
from bot.web.data.doing import build, delete_set
from bot.web.data.places import set_name
from bot.web.data.rest_uploads import TEXT, WORK, source_json
from bot.web.data.sample_index import SIDES, Found
from bot.web.data.set_pages import LARGEST_NUMBER, found_in, wanted_of
from bot.web.data.sets import Built, set_of, sets_of
from bot.web.data.sources import sources_of
from bot.web.data.state import state_of
from bot.web.data.work import Work
from bot.web.here import Route, house_of
from bot.web.openapi import Answer, Body, described, one_of, whole
from bot.web.paging import LONGEST_PAGE, PAGE, PAGED, choice, links, number, paged, require_known
from bot.web.problems import Problem

TAG = "data"
NO_SET = "There is no such data set."
DAMAGED = "The data set is damaged, or has a name that none can have."
LIST = {
    "type": "object",
    "required": ["datasets", "links"],
    "properties": {
        "datasets": {
            "type": "array",
            "items": {"type": "object", "required": ["id", "kind", "train_with"],
                      "properties": {"id": TEXT, "kind": {"type": "string", "enum": ["source", "set"]}}},
        },
        "links": {"type": "object"},
    },
}  # fmt: skip
SET = {
    "type": "object",
    "required": ["id", "kind", "train_with"],
    "properties": {"id": TEXT, "kind": {"type": "string", "enum": ["source", "set"]}},
}
SAMPLES = {
    "type": "object",
    "required": ["samples", "count", "links"],
    "properties": {
        "samples": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["n", "split", "line"],
                "properties": {
                    "n": {"type": "integer"},
                    "split": {"type": "string", "enum": list(SIDES)},
                    "line": {"type": "object"},
                },
            },
        },
        "count": {"type": "integer"},
        "links": {"type": "object"},
    },
}


def built_json(built: Built) -> dict[str, Any]:
    """A data set with its links."""
    path = f"/datasets/{quote(built.id)}"
    return {**built.as_json(), "links": {"self": path, "samples": f"{path}/samples"}}


def _work_json(work: Work) -> dict[str, Any]:
    path = f"/datasets/{quote(work.subject)}"
    return {**work.as_json(), "links": {"self": f"{path}/build", "cancel": f"{path}/build/cancel", "set": path}}


@described(
    "What can be learned from", {200: Answer("A page of data sets and sources, by id.", LIST)}, tag=TAG,
    query={**PAGED, "kind": one_of(("source", "set"), "Only data sets that were built, or only their sources.")},
)  # fmt: skip
async def get_datasets(request: web.Request) -> web.Response:
    """Built data sets, uploads, the operator's catalogue, and what ships; with the right to each."""
    house, asked = house_of(request), paged(request, "kind")
    kind = choice(request, "kind", ("source", "set"))
    every = sorted(await asyncio.to_thread(_every, house), key=lambda one: str(one["id"]))
    left = [one for one in every if (asked.after is None or one["id"] > asked.after) and kind in (None, one["kind"])]
    last = left[asked.limit - 1]["id"] if len(left) > asked.limit else None
    return web.json_response({"datasets": left[: asked.limit], "links": links(request, asked, last)})


def _every(house: House) -> list[dict[str, Any]]:
    built = [built_json(one) for one in sets_of(house)[0]]
    return built + [source_json(source) for source in sources_of(house) if not source.is_set]


@described(
    "One data set", {200: Answer("Its figures, or what is stated of a source.", SET), 404: NO_SET, 422: DAMAGED},
    tag=TAG,
)  # fmt: skip
async def get_dataset(request: web.Request) -> web.Response:
    """Samples by source and right, what was dropped and why. A source has its right; uploads are at `/uploads`."""
    house, id = house_of(request), request.match_info["id"]
    sources = await asyncio.to_thread(sources_of, house)
    named = next((one for one in sources if one.id == id and not one.is_set), None)
    told = source_json(named) if named else built_json(await asyncio.to_thread(set_of, house, id))
    return web.json_response(told)


@described(
    "Build a data set",
    {
        202: Answer("It is being built, or waits for what is.", WORK),
        409: "There is one of that name, or it is being built.",
        422: "Fields of the order are wrong, or a source may not be trained on.",
    },
    tag=TAG,
    query={"replace": one_of(("true", "false"), "Whether it takes the place of a data set of the same name.")},
    body=Body(BuildOrder, example={"name": "harbour", "persona": "ballast", "sources": [{"source": "ballast"}]}),
)
async def post_dataset(request: web.Request) -> web.Response:
    """A process of the trainer's makes it; GET its `build` to see how far it is."""
    require_known(request, "replace")
    replace = choice(request, "replace", ("true", "false")) == "true"
    order = parsed(BuildOrder, await json_object(request))
    work = await build(house_of(request), state_of(request), order, replace=replace)
    path = f"/datasets/{quote(order.name)}/build"
    return web.json_response(_work_json(work), status=202, headers={"Location": path})


@described(
    "How far the building of a data set is",
    {200: Answer("The last time that it was built since the bot started.", WORK), 404: "It was not.", 422: DAMAGED},
    tag=TAG,
)
async def get_build(request: web.Request) -> web.Response:
    """Its state, the trainer's last word, and what went wrong."""
    return web.json_response(_work_json(_build_of(request)))


@described(
    "Cancel the building of a data set",
    {200: Answer("How it ended.", WORK), 404: "It is not being built.", 422: DAMAGED},
    tag=TAG,
)
async def cancel_build(request: web.Request) -> web.Response:
    """Nothing is left of it; an earlier data set of the name stays."""
    work = _build_of(request)
    await state_of(request).works.cancel(work)
    return web.json_response(_work_json(work))


def _build_of(request: web.Request) -> Work:
    house_of(request)
    name = set_name(request.match_info["id"])
    work = state_of(request).works.latest("build", name)
    if work is None:
        raise Problem("not-found", f"{name} has not been built since the bot started.", "POST /datasets builds one.")
    return work


@described(
    "Delete a data set",
    {204: "It is gone.", 404: NO_SET, 409: "It is being built, or lies elsewhere.", 422: DAMAGED},
    tag=TAG,
)
async def remove_dataset(request: web.Request) -> web.Response:
    """Only what was built here; jobs that have begun have their own copy."""
    await delete_set(house_of(request), state_of(request), request.match_info["id"])
    return web.Response(status=204)


@described(
    "Samples of a data set",
    {200: Answer("A page of samples, in their order; `count` is how many there are in all.", SAMPLES), 404: NO_SET,
     422: DAMAGED, 503: "Their index is being made: try again in a moment."},
    tag=TAG,
    query={
        "query": "Words that are all in the sample; the last may be the beginning of one.",
        "split": one_of(SIDES, "To train on, held out, or dropped."),
        "source": "Of this source.",
        "talk": "Of this talk, by the row it begins with.",
        "reason": "Dropped for this reason.",
        "limit": whole(1, LONGEST_PAGE, f"How many at most; {PAGE} if left out."),
        "after": whole(0, LARGEST_NUMBER, "The number of the last sample of the page before; `links.next` has it."),
    },
)  # fmt: skip
async def get_samples(request: web.Request) -> web.Response:
    """Each as its line in `train.jsonl`, `eval.jsonl` or `dropped.jsonl` has it."""
    house, state = house_of(request), state_of(request)
    asked = paged(request, "query", "split", "source", "talk", "reason")
    number(request, "after", 0, LARGEST_NUMBER)
    built = await asyncio.to_thread(set_of, house, request.match_info["id"])
    hits = await found_in(house, state, built, wanted_of(request, asked.limit))
    if hits is None:
        raise Problem("busy", "The samples are being indexed.", "Try again.", headers={"Retry-After": "2"})
    last = str(hits.found[-1].n) if hits.has_more else None
    shown = [_sample_json(found) for found in hits.found]
    return web.json_response({"samples": shown, "count": hits.count, "links": links(request, asked, last)})


def _sample_json(found: Found) -> dict[str, Any]:
    return {"n": found.n, "split": found.side, "line": found.line}


ROUTES: tuple[Route, ...] = (
    ("GET", "/datasets", get_datasets),
    ("POST", "/datasets", post_dataset),
    ("GET", "/datasets/{id}", get_dataset),
    ("DELETE", "/datasets/{id}", remove_dataset),
    ("GET", "/datasets/{id}/samples", get_samples),
    ("GET", "/datasets/{id}/build", get_build),
    ("POST", "/datasets/{id}/build/cancel", cancel_build),
)
