"""The door: every route of the bot's own, who is let in, and every error as a problem."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.log import server_logger

from bot.house import House
from bot.queue import QueueConflictError
from bot.store import StoreError
from bot.web import finetune, frame, health, idempotency, jobs, openapi, overview, problem_types, sections, sign_in
from bot.web.client_mistakes import client_mistakes
from bot.web.guard import HEADERS, READ_AT_MOST, require_here, require_short
from bot.web.here import TENANT, Handler, Route, Tenant
from bot.web.openai.errors import is_v1, openai_answer
from bot.web.problems import Problem, answer_to, headers_of
from bot.web.sessions import DOOR, Door
from bot.web.words import without_places
from personas.errors import EngineBusyError, UnderstudyError

log = logging.getLogger(__name__)

ROUTES: tuple[Route, ...] = (
    *health.ROUTES, *finetune.ROUTES, *jobs.ROUTES, *problem_types.ROUTES, *frame.ROUTES, *overview.ROUTES,
    *sign_in.ROUTES, *openapi.ROUTES, *sections.ROUTES,
)  # fmt: skip
OPEN = ("/healthz", sign_in.SIGN_IN, f"{frame.HOME}/static/")
"""What is answered without a token."""
LISTED = "GET /openapi.json lists what can be asked for; /dashboard leads to the pages."
HTTP_PROBLEMS = {403: "not-from-here", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


class Front:
    """Serves the bot's routes in any application, before the bot is there too: they say so then."""

    def __init__(self, door: Door | None = None) -> None:
        """`door` says who is let in: everybody on loopback, unless it is told otherwise."""
        self._tenant, self._door = Tenant(), door or Door()
        self._own: set[web.AbstractRoute] = set()

    def open(self, house: House) -> None:
        """From now on requests are answered from this house."""
        self._tenant.house = house

    def close(self) -> None:
        """From now on requests are told to try again."""
        self._tenant.house = None

    def mount(self, app: web.Application) -> None:
        """Add the routes to an application that may have others, for which nothing changes.

        What no route of the application answers is answered with a problem.
        """
        app[TENANT], app[finetune.CHECKS], app[frame.SAID] = self._tenant, finetune.Checks(), frame.Said()
        app[openapi.SERVED], app[DOOR], app[idempotency.KEYS] = openapi.Served(ROUTES), self._door, idempotency.Keys()
        sections.furnish(app)
        app[frame.HAS_TOWN] = any(resource.canonical == "/" for resource in app.router.resources())
        at_root: tuple[Route, ...] = () if app[frame.HAS_TOWN] else (("GET", "/", frame.to_dashboard),)
        for method, path, handler in (*ROUTES, *at_root):
            resource = app.router.add_resource(path)
            for allowed in (method, "HEAD") if method == "GET" else (method,):
                self._own.add(resource.add_route(allowed, handler))

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        app.middlewares.insert(0, guarded)
        server_logger.addFilter(client_mistakes)

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None and request.match_info.route not in self._own:
            return await handler(request)
        try:
            answer = await self._answer(request, handler)
        except Exception as error:  # the edge: every error has an answer
            answer = _told(request, self._problem(request, error))
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        require_here(request, self._door)
        require_short(request)
        if not request.path.startswith(OPEN) and not self._door.lets_in(request):
            if frame.wants_page(request):
                return sign_in.to_sign_in(request)
            raise Problem(
                "sign-in", "A token is needed.", f"Send `Authorization: Bearer …`, or sign in at {sign_in.SIGN_IN}.",
                headers={"WWW-Authenticate": 'Bearer realm="Understudy"'},
            )  # fmt: skip
        return await idempotency.answer(request, handler)

    def _problem(self, request: web.Request, error: Exception) -> Problem:
        match error:
            case Problem():
                return error
            case web.HTTPException():
                slug = HTTP_PROBLEMS.get(error.status, "bad-request" if error.status < 500 else "failed")
                allowed = {name: value for name, value in error.headers.items() if name == "Allow"}
                return Problem(slug, f"{request.method} {request.path}: {error.reason}.", LISTED, headers=allowed)
            case UnderstudyError():
                return self._known(request, error)
            case web.RequestPayloadError():
                return Problem("not-whole", "The body breaks off, or cannot be unpacked.", "Send it whole, not packed.")
        code = secrets.token_hex(4)
        log.error("error %s", code, exc_info=error)
        return Problem("failed", "That went wrong inside the bot.", f"Its log says why under {code}.")

    def _known(self, request: web.Request, error: UnderstudyError) -> Problem:
        slug = "cannot-train" if request.path.startswith("/finetune/") else "refused"
        if isinstance(error, StoreError | EngineBusyError):
            slug = "busy"
        elif isinstance(error, QueueConflictError):
            slug = "conflict"
        home = self._tenant.house.home if self._tenant.house else None
        told = without_places(error.message, home), without_places(error.advice, home)
        return Problem(slug, *told, headers=headers_of(error))


def _told(request: web.Request, problem: Problem) -> web.Response:
    """A problem as whoever asks can read it."""
    if is_v1(request):
        return openai_answer(problem)
    return frame.problem_page(request, problem) if frame.wants_page(request) else answer_to(problem, request.path)


@asynccontextmanager
async def listening(front: Front, port: int, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A server with these routes alone; gives its address. Raises `OSError` when it cannot listen there."""
    app = web.Application()
    front.mount(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, **READ_AT_MOST)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{_shown(host)}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _shown(host: str) -> str:
    """The host of an address to open: one that stands for all of the machine's own is answered on loopback, too."""
    own = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    return own.get(host, f"[{host}]" if ":" in host else host)
