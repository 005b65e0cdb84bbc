"""HTTP transport: the loopback-only middleware, uploaded files, and dispatch of Discord API
requests.
"""

import asyncio
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sandbox.channel_messages import MessageDraft
from sandbox.channel_webhooks import LINKED_IMAGE_TYPE
from sandbox.container import SandboxContainer, SharedComponents
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from sandbox.object_store import ObjectStore, StoredFile
from sandbox.sandbox_errors import ApiError, Json
from sandbox.traffic_log import HttpExchange, notify_observers
from sandbox.wire_faults import RequestFault

MiddlewareHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HOST_PATTERN = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(:\d{1,5})?", re.IGNORECASE)


# A form of another site cannot send these types; files are sent as plain bytes.
ACCEPTED_CONTENT_TYPES = ("application/json", "application/octet-stream")
FileHandler = Callable[[web.Request], Awaitable[web.Response]]
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
# Uploads share the page's origin, so they must never run as part of it.
FILE_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "max-age=31536000, immutable",
}
API_PREFIX = "/api/v10"
MAX_BODY_BYTES = 32 * 2**20
HANGING_POLL_S = 0.05
TRUE_VALUES = ("1", "true", "True")


@web.middleware
async def loopback_middleware(
    request: web.Request, handler: MiddlewareHandler
) -> web.StreamResponse:
    """Refuse requests for other hosts, from other sites, or with a body that cannot be
    decompressed.
    """
    # A page elsewhere may have a name that leads to this machine (DNS rebinding); the host that the
    # browser states is still its own.
    if not is_loopback(request.host):
        raise web.HTTPForbidden(text="The sandbox answers to 127.0.0.1 and localhost only.")
    if request.path.startswith("/page-api/") and not _same_site(request):
        raise web.HTTPForbidden(text="The page's API is for the sandbox's own page only.")
    if request.path.startswith("/gateway") and not _is_own(request):
        raise web.HTTPForbidden(text="The gateway is for programs only.")
    try:
        return await handler(request)
    except web.RequestPayloadError:
        raise web.HTTPBadRequest(text="The body cannot be read.") from None


def is_loopback(host: str) -> bool:
    """Return whether a host, with or without a port, is this machine regardless of name
    resolution.
    """
    name = host
    if match := HOST_PATTERN.fullmatch(host):
        name = match[1].strip("[]").casefold()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same_site(request: web.Request) -> bool:
    # Absent outside browsers; a browser sends Origin with every POST and WebSocket, Sec-Fetch-Site
    # with every request.
    fetched_from = request.headers.get("Sec-Fetch-Site", "same-origin")
    # A form of another site can be sent without asking, but with the types of forms only.
    content_type = request.headers.get("Content-Type", "").partition(";")[0]
    is_form = request.method == "POST" and content_type not in ACCEPTED_CONTENT_TYPES
    return fetched_from in ("same-origin", "none") and _is_own(request) and not is_form


def _is_own(request: web.Request) -> bool:
    own = f"http://{request.host}"
    return request.headers.get("Origin", own).casefold() == own.casefold()


def attachment_handler(store: ObjectStore) -> FileHandler:
    """Return the handler of /attachments/{channel_id}/{file_id}/{name}."""

    async def serve(request: web.Request) -> web.Response:
        return _send_file(store, request.match_info["file_id"], 10)

    return serve


def avatar_handler(store: ObjectStore) -> FileHandler:
    """Return the handler of /cdn/…/{hash}.png, for images of any format."""

    async def serve(request: web.Request) -> web.Response:
        return _send_file(store, request.match_info["name"].partition(".")[0], 16)

    return serve


def _send_file(store: ObjectStore, number: str, base: int) -> web.Response:
    try:
        file = store.file(int(number, base))
    except (ValueError, OverflowError):
        file = None
    if file is None:
        raise web.HTTPNotFound
    if file.type == LINKED_IMAGE_TYPE:
        raise web.HTTPFound(file.data.decode())
    return _file_response(file)


def _file_response(file: StoredFile) -> web.Response:
    if file.type in IMAGE_TYPES:
        return web.Response(body=file.data, content_type=file.type, headers=FILE_HEADERS)
    headers = FILE_HEADERS | {"Content-Disposition": "attachment"}
    return web.Response(body=file.data, content_type="application/octet-stream", headers=headers)


@dataclass(frozen=True)
class ApiCall:
    """One request: the ids in its path, its query, its JSON body and its files."""

    path: Json
    query: dict[str, str]
    body: Any
    files: tuple[StoredFile, ...]

    def draft(self, part: str | None = None) -> MessageDraft:
        """Return the message in the body (or in a part of it), with the files."""
        body = self.body.get(part) if part else self.body
        return MessageDraft(body or {}, self.files)

    def flag(self, name: str) -> bool:
        return self.query.get(name) in TRUE_VALUES

    def number(self, name: str) -> int | None:
        """Return a number of the query, or None. Raises ApiError 50035."""
        value = self.query.get(name)
        if value is None:
            return None
        if not value.isdecimal():
            raise ApiError.field(name, "NUMBER_TYPE_COERCE", f'Value "{value}" is not int.')
        return int(value)


Handler = Callable[[SandboxContainer, ApiCall], object]
Route = tuple[str, str, Handler]


def mount_api(app: web.Application, shared: SharedComponents, routes: tuple[Route, ...]) -> None:
    """Serve the route table. Literal paths must precede the templates that would match them."""
    for method, path, handler in routes:
        app.router.add_route(
            method, API_PREFIX + path, _request_handler(shared, method, path, handler)
        )
    app.router.add_route("*", API_PREFIX + "/{rest:.*}", _unknown_route)


def _request_handler(
    shared: SharedComponents, method: str, path: str, handler: Handler
) -> Callable[[web.Request], Any]:
    # These have a secret in the path, and discord.py sends no bot token with them; they do not
    # count as the bot's requests either.
    is_open = path.startswith(("/interactions/", "/webhooks/{webhook_id}/{token}"))

    # Discord responds with "created" for threads only.
    success_status = 201 if method == "POST" and path.endswith("/threads") else 200

    async def serve(request: web.Request) -> web.Response:
        call = None
        headers = {}
        fault = shared.conditions.faults.of_route(f"{method} {path}")
        if fault is RequestFault.HANGING:
            while request.transport and not request.transport.is_closing():  # noqa: ASYNC110  until the bot gives up
                await asyncio.sleep(HANGING_POLL_S)
            return web.Response()
        if fault in (RequestFault.ERROR_BEFORE, RequestFault.CUT_BEFORE):
            return _broken(request, shared, fault)
        try:
            token = f"Bot {shared.guilds[0].guild.token}"
            if not is_open and request.headers.get("Authorization") != token:
                raise ApiError(0)
            container = shared.of_request(request.match_info)
            headers = shared.rates.request(
                f"{method} {path}", request.match_info, not is_open, fault
            )
            call = await _read_call(request)
            result = handler(container, call)
            status = success_status
        except ApiError as error:
            result = error.body()
            status = error.status
            headers |= error.headers
        response = json_response(result, status, headers)
        body = call.body if call else None
        _notify(request, body, response.status, result)
        if fault in (RequestFault.ERROR_AFTER, RequestFault.CUT_AFTER):
            return _broken(request, shared, fault)
        slow_s = shared.conditions.faults.rates.slow_s if fault is RequestFault.SLOW else 0.0
        if delay_s := shared.conditions.delay_s + slow_s:
            await asyncio.sleep(delay_s)
        return response

    return serve


def _broken(request: web.Request, shared: SharedComponents, fault: RequestFault) -> web.Response:
    """Return an error instead of a response, or close the connection without one."""
    status = shared.conditions.faults.server_error()
    if fault in (RequestFault.CUT_BEFORE, RequestFault.CUT_AFTER) and request.transport:
        request.transport.abort()
    return json_response({"message": f"{status}: injected", "code": 0}, status, {})


async def _unknown_route(request: web.Request) -> web.Response:
    refusal = {"code": 0, "message": f"404: the sandbox has no {request.method} {request.path}"}
    _notify(request, None, 404, refusal)
    return json_response(refusal, 404, {})


def _notify(request: web.Request, body: object, status: int, result: object) -> None:
    exchange = HttpExchange(
        request.method,
        request.path.removeprefix(API_PREFIX),
        dict(request.query),
        body=body,
        status=status,
        answer=result,
    )
    notify_observers(exchange)


async def _read_call(request: web.Request) -> ApiCall:
    files: list[StoredFile] = []
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise ApiError(40005)
    try:
        if request.content_type == "multipart/form-data":
            form = await request.post()
            body = parse_json(str(form.get("payload_json", "{}")))
            for name, part in form.items():
                if name.startswith("files[") and isinstance(part, web.FileField):
                    files.append(StoredFile.named(part.filename, part.file.read()))
        else:
            body = parse_json(await request.read() or b"null")
    except ValueError as error:
        raise ApiError(50035) from error
    if any(len(file.data) > ATTACHMENT_LIMIT_BYTES for file in files):
        raise ApiError(40005)
    return ApiCall(dict(request.match_info), dict(request.query), body, tuple(files))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises `ValueError`, also for half a surrogate pair, at which the bot's gateway
    client would end.
    """
    body = json.loads(text)
    json.dumps(body, ensure_ascii=False).encode()
    return body


def json_response(data: object, status: int, headers: dict[str, str]) -> web.Response:
    """Build a JSON response without aiohttp's charset, with which discord.py does not recognise
    JSON.
    """
    if data is None:
        return web.Response(status=204, headers=headers)
    typed = headers | {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(data).encode(), status=status, headers=typed)
