"""`/dashboard/data/sets`: shows a data set's composition, samples and review, and offers it to
moderators.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup

from bot.data import anonymisation_review
from bot.data.actions import dataset_place, require_own_dataset
from bot.data.built_datasets import BuiltDataset, read_datasheet
from bot.data.folders import DataFolders
from bot.data.sample_index import SPLITS, SampleHits, count_samples, dropped_examples
from bot.data.web.forms import offer_fields, parse_offer_form, statement_fields
from bot.data.web.problems import OFFER_ERRORS, offer_problem
from bot.data.web.requests import (
    MAX_QUERY_CHARS,
    MAX_SAMPLE_NUMBER,
    SAMPLE_FILTERS,
    parse_sample_query,
)
from bot.data.web.sample_views import view_sample
from bot.data.web.source_pages import DATA_PATH, WITHDRAWN_TEXT, offered_text
from bot.platform.localisation import gettext_lazy
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.charts import bar_chart
from bot.platform.web_kit.markdown import markdown_renderer
from bot.platform.web_kit.paging import integer_query, require_known_parameters
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.services import Services
from personas.errors import MaterialError

REPLACED_TEXTS_PER_PAGE = 50
INDEX_TIMEOUT_S = 0.3
"""How long the page of a data set waits for examples of dropped samples."""
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
    examples = await _dropped_samples(services, built)
    rows = [(name, float(source.samples)) for name, source in stats.by_source.items()]
    return render_page(
        request,
        "data/set.html",
        title=built.id,
        built=built,
        stats=stats,
        composition=bar_chart(gettext_lazy("Samples by source"), rows, gettext_lazy("samples")),
        lengths=bar_chart(
            gettext_lazy("Tokens per sample, prompt and reply"),
            stats.tokens_per_sample.rows,
            gettext_lazy("samples"),
        ),
        sheet=_render_datasheet(sheet),
        examples=examples,
        problem=problem,
        given=statement_fields(statement) | dict(given),
        offer=offer_fields(services, place, built.id) | dict(given),
        can_rebuild=built.is_own and await services.data.stored_build(built.id) is not None,
    )


async def _dropped_samples(services: Services, built: BuiltDataset) -> dict[str, list[str]]:
    """Beginnings of some dropped samples by reason; empty while the index is being built."""
    place = DataFolders(services.home).index(built.folder)
    with suppress(MaterialError):  # the page of the samples says what is wrong with them
        if await services.data.indexes.ready(built.folder, place, INDEX_TIMEOUT_S):
            return await asyncio.to_thread(
                dropped_examples, built.folder, place, list(built.stats.dropped)
            )
    return {}


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
    text = gettext_lazy(
        "The data set {id} is deleted. It can be brought back below for a day.", id=id
    )
    return redirect_to(request, f"{DATA_PATH}#trash", text)


@routes.add(f"GET {DATA_PATH}/sets/{{id}}/samples")
async def get_samples_page(request: web.Request) -> web.Response:
    """Page of samples, filtered by words, split, source, conversation or drop reason."""
    services = get_services(request)
    require_known_parameters(request, *SAMPLE_FILTERS, "after")
    built = await services.data.dataset(request.match_info["id"])
    wanted = parse_sample_query(request)
    hits = await services.data.find_samples(built, wanted)
    title = gettext_lazy("Samples of {name}", name=built.id)
    if hits is None:
        answer = render_page(request, "data/indexing.html", title=title, built=built)
        answer.headers["Refresh"] = "2"
        return answer
    place = DataFolders(services.home).index(built.folder)
    return render_page(
        request,
        "data/samples.html",
        title=title,
        built=built,
        wanted=wanted,
        hits=hits,
        counts=await asyncio.to_thread(count_samples, place),
        sides=SPLITS,
        samples=[view_sample(hit, wanted.query) for hit in hits.found],
        next=_next_page_path(request, hits),
    )


def _next_page_path(request: web.Request, hits: SampleHits) -> str:
    if not hits.has_more:
        return ""
    query = {name: value for name, value in request.query.items() if name != "after" and value}
    return f"{request.path}?{urlencode({**query, 'after': hits.found[-1].n})}"


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
        title=gettext_lazy("What was anonymised in {name}", name=built.id),
        built=built,
        finds=finds,
        kind=kind,
        query=query,
        chart=bar_chart(gettext_lazy("Replaced, by kind"), replaced, gettext_lazy("places")),
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
        message = gettext_lazy("Taken back.")
    else:
        await asyncio.to_thread(anonymisation_review.add_correction, build, verdict, name)
        message = gettext_lazy("Noted. The next build of this data set takes it into account.")
    return redirect_to(request, f"{DATA_PATH}/sets/{built.id}/review", message)
