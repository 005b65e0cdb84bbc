"""`/dashboard/data/build` and `/dashboard/data/builds`: builds a data set, and shows how far it is."""

from collections.abc import Mapping

from aiohttp import web

from bot.data.build_request import DatasetBuildBody, build_command
from bot.data.folders import DataFolders
from bot.data.web.forms import build_fields, parse_build_form
from bot.data.web.problems import FORM_ERRORS, form_problem
from bot.data.web.source_pages import DATA_PATH
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_form
from bot.platform.web_kit.templating import redirect_to, render_page, shell_command
from bot.services import Services

BUILD_FIELDS = tuple(name for name in DatasetBuildBody.model_fields if name != "sources")
routes = Routes()


@routes.add(f"GET {DATA_PATH}/build")
async def get_build_form(request: web.Request) -> web.Response:
    """Page with the form; the query's `again` fills it with a stored request."""
    services = get_services(request)
    again = request.query.get("again")
    body = None
    if again:
        body = await services.data.stored_build(again)
    if body:
        chosen = [selection.source for selection in body.sources]
        return await _render_build_form(request, services, build_fields(body), chosen, replace=True)
    fields = {
        "recipe": "demo-cpu",
        "persona": request.query.get("persona", ""),
        "name": request.query.get("name", ""),
    }
    return await _render_build_form(request, services, fields, request.query.getall("source", []))


async def _render_build_form(
    request: web.Request,
    services: Services,
    given: Mapping[str, str],
    chosen: list[str],
    *,
    replace: bool = False,
    problem: Problem | None = None,
    command: str = "",
) -> web.Response:
    sources = []
    for source in await services.data.sources():
        is_missing = bool(source.entry and source.refused)
        if source.is_file and not source.is_set and not is_missing:
            sources.append(source)
    return render_page(
        request,
        "data/build.html",
        title="Build a data set",
        problem=problem,
        sources=sources,
        personas=list(services.personas.of(0).values()),
        recipes=services.catalogue.recipe_labels(),
        given={name: given.get(name, "") for name in BUILD_FIELDS},
        limits={source.id: given.get(f"limit {source.id}", "") for source in sources},
        chosen=chosen,
        replace=replace,
        command=command,
    )


@routes.add(f"POST {DATA_PATH}/build")
async def post_build_form(request: web.Request) -> web.Response:
    """Queue the build; or, with `show`, show its command."""
    services = get_services(request)
    form = await read_form(request)
    given = dict(form.items())
    chosen = form.getall("source", [])
    replace = form.get("replace") == "yes"
    try:
        body = parse_build_form(given, chosen)
        if given.get("show"):
            words = await services.data.build_words(body)
            command = shell_command(build_command(words), services.home)
            return await _render_build_form(
                request, services, given, chosen, replace=replace, command=command
            )
        await services.data.build_dataset(body, replace=replace)
    except FORM_ERRORS as error:
        problem = form_problem(error, services)
        return await _render_build_form(
            request, services, given, chosen, replace=replace, problem=problem
        )
    return redirect_to(request, f"{DATA_PATH}/builds/{body.name}")


@routes.add(f"POST {DATA_PATH}/builds/{{name}}/again")
async def rebuild(request: web.Request) -> web.Response:
    """Build a data set again by its stored request, with reviewers' corrections."""
    services = get_services(request)
    name = request.match_info["name"]
    body = await services.data.stored_build(name)
    if body is None:
        raise Problem(
            "not-found",
            f"There is no stored request for {name}.",
            "Fill in the form.",
        )
    await services.data.build_dataset(body, replace=True)
    return redirect_to(request, f"{DATA_PATH}/builds/{body.name}")


@routes.add(f"GET {DATA_PATH}/builds/{{name}}")
async def get_build_progress(request: web.Request) -> web.Response:
    services = get_services(request)
    name = request.match_info["name"]
    place = DataFolders(services.home).set(name)
    job = services.data_jobs.latest("build", name)
    if job is None:
        if place.exists():
            return redirect_to(request, f"{DATA_PATH}/sets/{name}")
        raise Problem(
            "not-found",
            f"No data set {name!r} is being built.",
            f"See {DATA_PATH}.",
        )
    command = build_command([word for word in job.arguments if word != "--json"])
    return render_page(
        request,
        "data/making.html",
        title=f"Building {name}",
        name=name,
        job=job,
        command=shell_command(command, services.home),
        is_there=place.exists(),
    )
