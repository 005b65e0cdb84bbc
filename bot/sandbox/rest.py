"""Carries Discord's HTTP API v10: reads a request, finds its handler in the table, writes the answer or the error."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bot.sandbox.errors import ApiError, Json
from bot.sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from bot.sandbox.messages import Draft
from bot.sandbox.store import StoredFile
from bot.sandbox.watch import Exchange, tell
from bot.sandbox.world import World

PREFIX = "/api/v10"
LARGEST_BODY_BYTES = 32 * 2**20
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
        app.router.add_route(method, PREFIX + path, _adapter(world, method, path, handler))
    app.router.add_route("*", PREFIX + "/{rest:.*}", _unknown)


def _adapter(world: World, method: str, path: str, handler: Handler) -> Callable[[web.Request], Any]:
    # These carry a secret of their own in the path, and discord.py sends no bot token with them; nor do they count
    # among the bot's requests.
    open_to_all = path.startswith(("/interactions/", "/webhooks/{webhook_id}/{token}"))

    # Of all that Discord makes here it answers for threads alone with "created".
    made = 201 if method == "POST" and path.endswith("/threads") else 200

    async def serve(request: web.Request) -> web.Response:
        call, headers = None, {}
        try:
            if not open_to_all and request.headers.get("Authorization") != f"Bot {world.guild.token}":
                raise ApiError(0)
            if request.match_info.get("guild_id", world.guild.id) != world.guild.id:
                raise ApiError(10004)
            headers = world.rates.request(f"{method} {path}", request.match_info, not open_to_all)
            call = await _read(request)
            result, status = handler(world, call), made
        except ApiError as error:
            result, status = error.body(), error.status
            headers |= error.headers
        response = answer(result, status, headers)
        body, asked = call.body if call else None, request.path.removeprefix(PREFIX)
        tell(Exchange(request.method, asked, dict(request.query), body, response.status, result))
        if world.conditions.delay_s:
            await asyncio.sleep(world.conditions.delay_s)
        return response

    return serve


async def _unknown(request: web.Request) -> web.Response:
    refusal = {"code": 0, "message": f"404: the sandbox has no {request.method} {request.path}"}
    tell(Exchange(request.method, request.path.removeprefix(PREFIX), dict(request.query), None, 404, refusal))
    return answer(refusal, 404, {})


async def _read(request: web.Request) -> Call:
    files: list[StoredFile] = []
    if (request.content_length or 0) > LARGEST_BODY_BYTES:
        raise ApiError(40005)
    try:
        if request.content_type == "multipart/form-data":
            form = await request.post()
            body = json.loads(str(form.get("payload_json", "{}")))
            for name, part in form.items():
                if name.startswith("files[") and isinstance(part, web.FileField):
                    files.append(StoredFile.named(part.filename, part.file.read()))
        else:
            body = json.loads(await request.read() or b"null")
    except ValueError as error:
        raise ApiError(50035) from error
    if any(len(file.data) > ATTACHMENT_LIMIT_BYTES for file in files):
        raise ApiError(40005)
    return Call(dict(request.match_info), dict(request.query), body, tuple(files))


def answer(data: object, status: int, headers: dict[str, str]) -> web.Response:
    """A JSON answer. aiohttp's own adds a charset to the content type, which discord.py does not take for JSON."""
    if data is None:
        return web.Response(status=204, headers=headers)
    typed = headers | {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(data).encode(), status=status, headers=typed)
