"""Carries Discord's HTTP API v10: reads a request, finds its handler in the table, writes the answer or the error."""

import json
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bot.sandbox.errors import ApiError, Json
from bot.sandbox.messages import Draft
from bot.sandbox.store import StoredFile
from bot.sandbox.watch import Exchange, tell
from bot.sandbox.world import World

PREFIX = "/api/v10"
TRUE = ("1", "true", "True")


@dataclass(frozen=True)
class Call:
    """One request: the ids in its path, its query, its JSON body and its files."""

    path: Json
    query: dict[str, str]
    body: Any
    files: tuple[StoredFile, ...]

    def draft(self, part: str | None = None) -> Draft:
        """The message in the body (or in a part of it), with the files."""
        return Draft((self.body.get(part) or {}) if part else self.body or {}, self.files)

    def asks(self, name: str) -> bool:
        """Whether a yes-or-no of the query is yes."""
        return self.query.get(name) in TRUE

    def number(self, name: str) -> int | None:
        """A number of the query, or None. Raises ApiError 50035."""
        value = self.query.get(name)
        if value is not None and not value.isdecimal():
            raise ApiError.field(name, "NUMBER_TYPE_COERCE", f'Value "{value}" is not int.')
        return None if value is None else int(value)


Handler = Callable[[World, Call], object]
Route = tuple[str, str, Handler]


def mount(app: web.Application, world: World, routes: tuple[Route, ...]) -> None:
    """Serve the table. Literal paths must stand before the templates that would match them."""
    for method, path, handler in routes:
        app.router.add_route(method, PREFIX + path, _adapter(world, path, handler))
    app.router.add_route("*", PREFIX + "/{rest:.*}", _unknown)


def _adapter(world: World, path: str, handler: Handler) -> Callable[[web.Request], Any]:
    # These carry a secret of their own in the path, and discord.py sends no bot token with them.
    open_to_all = path.startswith(("/interactions/", "/webhooks/{webhook_id}/{token}"))

    async def serve(request: web.Request) -> web.Response:
        call = None
        try:
            if not open_to_all and request.headers.get("Authorization") != f"Bot {world.guild.token}":
                raise ApiError(0)
            call = await _read(request)
            result, status = handler(world, call), 200
        except ApiError as error:
            result, status = error.body(), error.status
        response = answer(result, status, path)
        body, asked = call.body if call else None, request.path.removeprefix(PREFIX)
        tell(Exchange(request.method, asked, dict(request.query), body, response.status, result))
        return response

    return serve


async def _unknown(request: web.Request) -> web.Response:
    return answer({"code": 0, "message": f"404: the sandbox has no {request.method} {request.path}"}, 404, "")


async def _read(request: web.Request) -> Call:
    files: list[StoredFile] = []
    try:
        if request.content_type == "multipart/form-data":
            form = await request.post()
            body = json.loads(str(form.get("payload_json", "{}")))
            for name, part in form.items():
                if name.startswith("files[") and isinstance(part, web.FileField):
                    # discord.py sends no type with a file; Discord goes by its name, too.
                    kind = mimetypes.guess_type(part.filename)[0] or part.content_type
                    files.append(StoredFile(part.filename, kind, part.file.read()))
        else:
            body = json.loads(await request.read() or b"null")
    except ValueError as error:
        raise ApiError(50035) from error
    return Call(dict(request.match_info), dict(request.query), body, tuple(files))


def answer(data: object, status: int, bucket: str) -> web.Response:
    """A JSON answer. aiohttp's own adds a charset to the content type, which discord.py does not take for JSON."""
    # Without rate-limit headers discord.py sends one request of a route at a time. Real limits are not imitated.
    limit = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "49", "X-RateLimit-Reset-After": "1"}
    headers = {"X-RateLimit-Bucket": f"{abs(hash(bucket)):x}", **limit}
    if data is None:
        return web.Response(status=204, headers=headers)
    headers["Content-Type"] = "application/json"
    return web.Response(body=json.dumps(data).encode(), status=status, headers=headers)
