"""The web server: mounts every route, authenticates each request, and answers each error with a
problem.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

from bot.data.errors import DataError
from bot.data.web import build_pages, set_pages, source_pages
from bot.data.web.problems import data_problem
from bot.data.web.requests import close_jobs_with
from bot.guild_settings.web import pages as reply_setting_pages
from bot.models.web import pages as model_pages
from bot.moderation.web import block_pages, rule_pages
from bot.moderation.web import pages as moderation_pages
from bot.openai_api.web import http as openai_routes
from bot.openai_api.web.errors import is_openai_path, openai_error_response
from bot.operations.doctor.connection_checks import PermissionReport
from bot.operations.web import document_pages
from bot.operations.web import http as system_routes
from bot.operations.web import overview_pages as overview_page
from bot.operations.web import pages as system_page
from bot.operations.web import sign_in_pages as sign_in_page
from bot.operations.web.system_state import PERMISSION_REPORT, WriteProbe
from bot.personas.web import card_pages, card_scripts, creation_pages, lore_pages, new_persona
from bot.personas.web import http as persona_routes
from bot.personas.web import pages as persona_pages
from bot.platform.discord_kit.member_names import MemberNames
from bot.platform.errors import is_disk_full
from bot.platform.web_kit import idempotency, openapi, templating
from bot.platform.web_kit.app_context import APP_CONTEXT, AppContext, Handler, Route, Routes
from bot.platform.web_kit.auth import AUTHENTICATOR, Authenticator
from bot.platform.web_kit.connections import ConnectionLimits, LimitedRunner
from bot.platform.web_kit.csrf import (
    HTTPS_ONLY_HEADER,
    PARSER_LIMITS,
    SECURITY_HEADERS,
    require_same_origin,
    require_short_url,
)
from bot.platform.web_kit.problems import (
    Problem,
    disk_full_problem,
    internal_error,
    problem_response,
    redacted_problem,
)
from bot.platform.web_kit.request_body import incomplete_body
from bot.playground.web import pages as playground_page
from bot.playground.web.actions import set_up_playground
from bot.safety.web import pages as safety_page
from bot.schedules.web import pages as schedule_pages
from bot.services import Services
from bot.store import StoreError
from bot.training.actions import UnknownJobError
from bot.training.guild_turns import QueueConflictError
from bot.training.web import compare_pages, plan_pages, written_pages
from bot.training.web import http as job_routes
from bot.training.web import pages as training_pages
from bot.training.web import rerun_pages as rerun_page
from bot.training.web import run_http as run_routes
from bot.training.web.plan_cache import PLAN_CACHE, PlanCache
from bot.training.web.run_view import MEMBER_NAMES
from bot.versions.web import blind_test_pages, scorecard_pages
from bot.versions.web import http as version_routes
from bot.versions.web import pages as version_pages
from personas.errors import EngineBusyError, UnderstudyError

log = logging.getLogger(__name__)
MAX_LOGGED_CHARS = 200
PUBLIC_PATHS = ("/healthz", sign_in_page.SIGN_IN, f"{templating.DASHBOARD}/static/")
"""Paths that need no token."""
NOT_FOUND_ADVICE = "GET /openapi.json lists what can be asked for; /dashboard leads to the pages."
PROBLEM_BY_STATUS = {
    403: "not-from-here",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
}
API_MODULES = (
    system_routes, job_routes, run_routes, openapi, persona_routes, version_routes,
    openai_routes,
)  # fmt: skip
PAGE_MODULES = (
    templating, overview_page, sign_in_page,
    persona_pages, creation_pages, new_persona, card_pages, card_scripts, lore_pages,
    reply_setting_pages, version_pages,
    source_pages, build_pages, set_pages, plan_pages,
    training_pages, rerun_page, written_pages, compare_pages, schedule_pages,
    blind_test_pages, scorecard_pages, playground_page, model_pages,
    system_page, safety_page, moderation_pages, block_pages, rule_pages,
    document_pages,
)  # fmt: skip
"""The sections of the dashboard are in this order."""
ROUTES = Routes(chain.from_iterable(module.routes for module in (*API_MODULES, *PAGE_MODULES)))
"""All routes of the API and of the dashboard."""
SECTIONS = {
    name: label for module in PAGE_MODULES for name, label in module.routes.sections.items()
}


def filter_bad_requests(record: logging.LogRecord) -> bool:
    """Log errors of clients in one line at debug level."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    log.debug("%s: %s", record.getMessage(), ascii(" ".join(str(error).split()))[:MAX_LOGGED_CHARS])
    return False


class WebServer:
    """Serves the bot's routes in any application; until the bot has started they answer 503."""

    def __init__(
        self,
        authenticator: Authenticator | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._context = AppContext()
        self._authenticator = authenticator or Authenticator()
        self._limits = limits or ConnectionLimits(is_proxy=self._authenticator.is_proxy)
        self._own: set[web.AbstractRoute] = set()

    def open(self, services: Services) -> None:
        self._context.services = services

    def close(self) -> None:
        self._context.services = None

    def create_runner(self, app: web.Application, **options: Any) -> web.AppRunner:
        """Create the runner of an application with these routes, with limits on connections."""
        return LimitedRunner(app, self._limits, **options)

    def mount(self, app: web.Application) -> None:
        """Add the routes to an application, whose own ones stay as they are; unknown paths get a
        problem.
        """
        app[APP_CONTEXT] = self._context
        app[system_routes.WRITE_PROBE] = WriteProbe()
        app[PERMISSION_REPORT] = PermissionReport()
        app[MEMBER_NAMES] = MemberNames()
        app[templating.SECTIONS] = SECTIONS
        app[templating.FLASH_MESSAGES] = templating.FlashMessages()
        app[openapi.MOUNTED_ROUTES] = ROUTES
        app[AUTHENTICATOR] = self._authenticator
        app[idempotency.RUNNING_KEYS] = set()
        set_up_playground(app)
        app[PLAN_CACHE] = PlanCache()
        close_jobs_with(app)
        app[templating.HAS_SANDBOX_PAGE] = any(
            resource.canonical == "/" for resource in app.router.resources()
        )
        routes: list[Route] = list(ROUTES)
        if not app[templating.HAS_SANDBOX_PAGE]:
            routes.append(("GET", "/", templating.redirect_to_dashboard))
        for method, path, handler in routes:
            resource = app.router.add_resource(path)
            self._own.add(resource.add_route(method, handler))
            if method == "GET":
                self._own.add(resource.add_route("HEAD", handler))

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        app.middlewares.insert(0, guarded)
        server_logger.addFilter(filter_bad_requests)

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None and request.match_info.route not in self._own:
            return await handler(request)
        try:
            answer = await self._answer(request, handler)
        except Exception as error:  # the edge: every error has an answer
            problem = self._problem(request, error)
            if problem.status == web.HTTPForbidden.status_code:
                refused = f"{request.method} {request.path}"
                log.info("refused %s from %s: %s", refused, request.remote, problem.message)
            answer = _problem_response(request, problem)
        for name, value in SECURITY_HEADERS.items():
            answer.headers.setdefault(name, value)
        if self._authenticator.names:
            answer.headers.setdefault(*HTTPS_ONLY_HEADER)
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        require_same_origin(request, self._authenticator)
        require_short_url(request)
        is_public = request.path.startswith(PUBLIC_PATHS)
        if not is_public and not self._authenticator.lets_in(request):
            return _ask_to_sign_in(request)
        refusal = request.match_info.http_exception
        is_form_address = isinstance(refusal, web.HTTPMethodNotAllowed)
        is_missing = isinstance(refusal, web.HTTPNotFound)
        if is_form_address and request.method == "GET" and templating.accepts_html(request):
            return templating.redirect_to(request, await _page_above(request))
        if is_missing and request.method == "GET" and (page := await _page_without_slash(request)):
            return templating.redirect_to(request, page)
        return await idempotency.respond_once(request, handler)

    def _problem(self, request: web.Request, error: Exception) -> Problem:
        if isinstance(error, DataError):
            error = data_problem(error)
        match error:
            case Problem() if error.slug == "no-room" or not is_disk_full(error):
                return error
            case _ if is_disk_full(error):
                return disk_full_problem(error)
            case web.HTTPException():
                fallback = "bad-request" if error.status < 500 else "failed"
                slug = PROBLEM_BY_STATUS.get(error.status, fallback)
                message = f"{request.method} {request.path}: {error.reason}."
                allowed = {name: value for name, value in error.headers.items() if name == "Allow"}
                return Problem(slug, message, NOT_FOUND_ADVICE, headers=allowed)
            case UnderstudyError():
                slug = _refusal_slug(request, error)
                home = None
                if self._context.services:
                    home = self._context.services.home
                return redacted_problem(slug, error, home)
            case web.RequestPayloadError():
                return incomplete_body()
        return internal_error(error)


def _ask_to_sign_in(request: web.Request) -> web.Response:
    """Lead a browser to the sign-in page. Raises `Problem` for a program."""
    if templating.accepts_html(request):
        return sign_in_page.redirect_to_sign_in(request)
    raise Problem(
        "sign-in",
        "A token is needed.",
        f"Send `Authorization: Bearer …`, or sign in at {sign_in_page.SIGN_IN}.",
        headers={"WWW-Authenticate": 'Bearer realm="Understudy"'},
    )


async def _page_above(request: web.Request) -> str:
    """Return the nearest page above an address that takes forms only, as where a form was refused
    and its page is loaded again.
    """
    path = request.rel_url.raw_path
    while path:
        path = path.rpartition("/")[0]
        match = await request.app.router.resolve(request.clone(rel_url=path or "/"))
        if match.http_exception is None:
            break
    return path or "/"


async def _page_without_slash(request: web.Request) -> str | None:
    """Return the page of the dashboard that was typed with slashes at its end."""
    path = request.rel_url.raw_path
    page = path.rstrip("/")
    if page == path or not f"{page}/".startswith(f"{templating.DASHBOARD}/"):
        return None
    match = await request.app.router.resolve(request.clone(rel_url=page))
    if match.http_exception is not None:
        return None
    query = request.rel_url.raw_query_string
    return f"{page}?{query}" if query else page


def _refusal_slug(request: web.Request, error: UnderstudyError) -> str:
    match error:
        case StoreError() | EngineBusyError():
            return "busy"
        case QueueConflictError():
            return "conflict"
        case UnknownJobError():
            return "not-found"
        case _ if request.path.startswith("/finetune/"):
            return "cannot-train"
    return "refused"


def _problem_response(request: web.Request, problem: Problem) -> web.Response:
    if is_openai_path(request):
        return openai_error_response(problem)
    if templating.accepts_html(request):
        return templating.problem_page(request, problem)
    return problem_response(problem, request.path)


@asynccontextmanager
async def run_server(
    web_server: WebServer, port: int, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Serve these routes alone; yields the address. Raises `OSError` when the port cannot be
    used.
    """
    app = web.Application()
    web_server.mount(app)
    runner = web_server.create_runner(app, access_log=None, shutdown_timeout=1.0, **PARSER_LIMITS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{_display_host(host)}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _display_host(host: str) -> str:
    """The host of an address to open: loopback for a wildcard address."""
    own = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    return own.get(host, f"[{host}]" if ":" in host else host)
