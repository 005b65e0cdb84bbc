"""Serves what was uploaded: attachments and avatars."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from bot.sandbox.store import Store, StoredFile
from bot.sandbox.webhooks import LINKED_PICTURE

Serve = Callable[[web.Request], Awaitable[web.Response]]
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
# Uploads share the page's origin: whatever they are, they must not run as part of it.
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "max-age=31536000, immutable",
}


def attachment(store: Store) -> Serve:
    """Handler of /attachments/{channel_id}/{file_id}/{name}."""

    async def serve(request: web.Request) -> web.Response:
        return _send(store, request.match_info["file_id"], 10)

    return serve


def avatar(store: Store) -> Serve:
    """Handler of /cdn/avatars/{owner_id}/{hash}.png, whatever the picture's real format."""

    async def serve(request: web.Request) -> web.Response:
        return _send(store, request.match_info["name"].partition(".")[0], 16)

    return serve


def _send(store: Store, number: str, base: int) -> web.Response:
    try:
        file = store.file(int(number, base))
    except (ValueError, OverflowError):
        file = None
    if file is None:
        raise web.HTTPNotFound
    if file.type == LINKED_PICTURE:
        raise web.HTTPFound(file.data.decode())
    return _response(file)


def _response(file: StoredFile) -> web.Response:
    shown = file.type in PICTURES
    headers = HEADERS if shown else HEADERS | {"Content-Disposition": "attachment"}
    kind = file.type if shown else "application/octet-stream"
    return web.Response(body=file.data, content_type=kind, headers=headers)
