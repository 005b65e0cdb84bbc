"""`/dashboard/data/sets`: shows a data set's composition, samples and review, and offers it to
moderators.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup

from bot.data import anonymisation_review
from bot.data.actions import dataset_place, require_own_dataset
from bot.data.built_datasets import read_datasheet
from bot.data.folders import DataFolders
from bot.data.samples import SAMPLE_FILES, read_samples
from bot.data.web.forms import offer_fields, parse_offer_form, statement_fields
from bot.data.web.problems import OFFER_ERRORS, offer_problem
from bot.data.web.sample_views import view_sample
from bot.data.web.source_pages import DATA_PATH, WITHDRAWN_TEXT, offered_text
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.charts import bar_chart
from bot.platform.web_kit.markdown import markdown_renderer
from bot.platform.web_kit.paging import enum_query, integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page

REPLACED_TEXTS_PER_PAGE = 50
SAMPLES_PER_PAGE = 20
MAX_QUERY_CHARS = 200
MAX_SAMPLE_NUMBER = 2**53
DATASHEET_RENDERER = markdown_renderer().disable("image")
routes = Routes()


@routes.add(f"GET {DATA_PATH}/sets/{{id}}")
async def get_dataset_page(request: web.Request) -> web.Response:
    return await _render_dataset(request)


async def _render_dataset(
    request: web.Request,
    given: Mapping[str, str] = MappingProxyType({}),
    problem: Problem | None = None,
) -> web.Response:
    services = get_services(request)
    built = await services.data.dataset(request.match_info["id"])
    stats = built.stats
    place = dataset_place(built.id)
    entry = services.catalogue.entry_at(place)
    statement = entry.statement if entry else None
    sheet = await asyncio.to_thread(read_datasheet, built)
    rows = [(name, float(source.samples)) for name, source in stats.by_source.items()]
    return render_page(
        request,
        "data/set.html",
        title=built.id,
        built=built,
        stats=stats,
        composition=bar_chart("Samples by source", rows, "samples"),
        lengths=bar_chart(
            "Tokens per sample, prompt and reply",
            stats.tokens_per_sample.rows,
            "samples",
        ),
        sheet=_render_datasheet(sheet),
        problem=problem,
        given=statement_fields(statement) | dict(given),
        offer=offer_fields(services, place, built.id) | dict(given),
        can_rebuild=built.is_own and await services.data.stored_build(built.id) is not None,
    )


def _render_datasheet(sheet: str) -> Markup:
    """A data sheet, with headings below the page's own."""
    html: str = DATASHEET_RENDERER.render(sheet)
    for level in (2, 1):
        html = html.replace(f"<h{level}>", f"<h{level + 2}>")
        html = html.replace(f"</h{level}>", f"</h{level + 2}>")
    return Markup(html)  # nosec B704  # the renderer escapes HTML


@routes.add(f"POST {DATA_PATH}/sets/{{id}}/catalogue")
async def post_dataset_offer(request: web.Request) -> web.Response:
    """Let moderators use a data set, or withdraw it from them."""
    services = get_services(request)
    id = request.match_info["id"]
    given = dict((await read_form(request)).items())
    path = f"{DATA_PATH}/sets/{quote(id)}"
    if given.get("take_back"):
        await services.data.withdraw_dataset(id)
        return redirect_to(request, path, WITHDRAWN_TEXT)
    try:
        offer = parse_offer_form(given)
        await services.data.offer_dataset(id, offer)
    except OFFER_ERRORS as error:
        return await _render_dataset(request, given, offer_problem(error, services))
    return redirect_to(request, path, offered_text(offer.name))


@routes.add(f"POST {DATA_PATH}/sets/{{id}}/delete")
async def delete_dataset_page(request: web.Request) -> web.Response:
    id = request.match_info["id"]
    await get_services(request).data.delete_dataset(id)
    text = f"The data set {id} is deleted. It can be brought back below for a day."
    return redirect_to(request, f"{DATA_PATH}#trash", text)


@routes.add(f"GET {DATA_PATH}/sets/{{id}}/samples")
async def get_samples_page(request: web.Request) -> web.Response:
    """Page of the samples of a split, with the source and the right of each."""
    require_known_parameters(request, "split", "first")
    built = await get_services(request).data.dataset(request.match_info["id"])
    split = enum_query(request, "split", tuple(SAMPLE_FILES)) or "train"
    first = integer_query(request, "first", 0, MAX_SAMPLE_NUMBER) or 0
    lines = await asyncio.to_thread(
        read_samples, built.folder, split, first=first, limit=SAMPLES_PER_PAGE + 1
    )
    samples = []
    for number, line in enumerate(lines[:SAMPLES_PER_PAGE], start=first + 1):
        samples.append(view_sample(line, number))
    following = first + SAMPLES_PER_PAGE
    return render_page(
        request,
        "data/samples.html",
        title=f"Samples of {built.id}",
        built=built,
        split=split,
        counts={**built.stats.samples, "dropped": sum(built.stats.dropped.values())},
        splits=tuple(SAMPLE_FILES),
        samples=samples,
        next=f"?split={split}&first={following}" if len(lines) > SAMPLES_PER_PAGE else "",
    )


@routes.add(f"GET {DATA_PATH}/sets/{{id}}/review")
async def get_review_page(request: web.Request) -> web.Response:
    """Page of anonymised texts and reviewers' corrections."""
    services = get_services(request)
    require_known_parameters(request, "kind", "query", "first")
    built = await services.data.dataset(request.match_info["id"])
    build = None
    if built.is_own:
        build = DataFolders(services.home).build(built.id)
    first = integer_query(request, "first", 0, MAX_SAMPLE_NUMBER) or 0
    kind = request.query.get("kind", "")[:MAX_QUERY_CHARS]
    query = request.query.get("query", "")[:MAX_QUERY_CHARS]
    finds = anonymisation_review.ReplacedTextPage()
    corrections: list[tuple[str, str]] = []
    if build:
        corrections = await asyncio.to_thread(anonymisation_review.read_corrections, build)
        finds = await asyncio.to_thread(
            anonymisation_review.read_review,
            build,
            kind=kind,
            query=query,
            first=first,
            limit=REPLACED_TEXTS_PER_PAGE,
        )
    after = first + len(finds.texts)
    next_page = ""
    if after < finds.count:
        query_string = urlencode({"kind": kind, "query": query, "first": after})
        next_page = f"{request.path}?{query_string}"
    replaced = [(name, float(count)) for name, count in built.stats.replaced.items()]
    return render_page(
        request,
        "data/review.html",
        title=f"What was anonymised in {built.id}",
        built=built,
        finds=finds,
        kind=kind,
        query=query,
        chart=bar_chart("Replaced, by kind", replaced, "places"),
        corrections=corrections,
        can_build=built.is_own and await services.data.stored_build(built.id) is not None,
        next=next_page,
    )


@routes.add(f"POST {DATA_PATH}/sets/{{id}}/review")
async def post_correction(request: web.Request) -> web.Response:
    """Store or remove a reviewer's correction: a name to keep, or one that was missed."""
    services = get_services(request)
    built = await services.data.dataset(request.match_info["id"])
    require_own_dataset(built)
    form = await read_form(request)
    build = DataFolders(services.home).build(built.id)
    name = form.get("name", "")
    verdict = form.get("verdict", "")
    if verdict == "take_back":
        await asyncio.to_thread(anonymisation_review.remove_correction, build, name)
        message = "Taken back."
    else:
        await asyncio.to_thread(anonymisation_review.add_correction, build, verdict, name)
        message = "Noted. The next build of this data set takes it into account."
    return redirect_to(request, f"{DATA_PATH}/sets/{built.id}/review", message)
