"""Gives handlers access to the bot's services, and collects the routes that they answer."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from bot.platform.web_kit.problems import Problem
from bot.services import Services

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
Route = tuple[str, str, Handler]
"""Method, path, and the handler that answers."""


class Routes(list[Route]):
    """The routes of a module; `sections` are the labels of the dashboard's sections that begin with
    one of its pages, by the last part of the address.
    """

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        super().__init__(routes)
        self.sections: dict[str, str] = {}

    def add(self, route: str, *, section: str = "") -> Callable[[HandlerT], HandlerT]:
        """Register a handler for a method and path such as "GET /personas/{persona_id}". `section`
        is the label that the navigation of the dashboard has for the page.
        """
        method, _, path = route.partition(" ")
        if section:
            self.sections[path.rpartition("/")[2]] = section

        def register(handler: HandlerT) -> HandlerT:
            self.append((method, path, handler))
            return handler

        return register


@dataclass
class AppContext:
    """`services` is None while the bot starts or stops; `streams` counts the open streams of
    events.
    """

    services: Services | None = None
    streams: int = 0


APP_CONTEXT = web.AppKey("app context", AppContext)


def get_services(request: web.Request) -> Services:
    """Return the services. Raises `Problem` while the bot starts or stops."""
    services = request.app[APP_CONTEXT].services
    if services is None:
        raise Problem(
            "busy",
            "The bot is starting or stopping.",
            "Try again.",
            headers={"Retry-After": "2"},
        )
    return services
