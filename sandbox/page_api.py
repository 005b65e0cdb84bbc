"""The web page: its static files, JSON API and live WebSocket."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

from aiohttp import WSCloseCode, web

from sandbox import http_api
from sandbox.channel_messages import visible_to
from sandbox.container import FaultControls, SandboxContainer, SharedComponents
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from sandbox.member_client import InteractionResponse, MemberClient
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import Json, SandboxRefusal
from sandbox.stickers_and_polls import STICKERS

ASSETS = Path(__file__).with_name("page")
LANGUAGES = {
    "en-US": "English",
    "vi": "Tiếng Việt",
    "de": "Deutsch",
    "es-ES": "Español",
    "zh-CN": "中文",
}
"""Languages to choose on the page, by Discord's locales."""
MAX_MESSAGES = 100
MAX_UPLOADS = 50
# Images may come from other ports of this machine: the page fetches a webhook's avatar_url.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: http://127.0.0.1:* http://localhost:*; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
Link = tuple[str, str]  # pairs of label and URL, for pages served beside this one


class PageRequest(Json):
    """The page's request body. A missing field is a mistake of the page."""

    def __missing__(self, field: str) -> None:
        raise web.HTTPBadRequest(text=f"The request lacks {field}.")


def mount_page(
    app: web.Application,
    shared: SharedComponents,
    links: Sequence[Link] = (),
    *,
    notice: str = "",
) -> None:
    pages = {}
    for container in shared.guilds:
        pages[container.guild.id] = _Page(container, FaultControls(container), links, notice=notice)
    app.router.add_get("/", _index)
    app.router.add_static("/page/", ASSETS)
    app.router.add_get(
        "/attachments/{channel_id}/{file_id}/{name}", http_api.attachment_handler(shared.store)
    )
    for owner in ("avatars/{owner_id}", "guilds/{guild_id}/users/{owner_id}/avatars"):
        app.router.add_get(f"/cdn/{owner}/{{name}}", http_api.avatar_handler(shared.store))
    app.router.add_get("/page-api/state", _in_guild(pages, _Page.state))
    app.router.add_get("/page-api/messages", _in_guild(pages, _Page.history))
    app.router.add_get("/page-api/live", _in_guild(pages, _Page.live))
    app.router.add_post("/page-api/upload", _in_guild(pages, _Page.upload))
    app.router.add_post("/page-api/{act}", _in_guild(pages, _Page.act))
    app.on_shutdown.extend(page.close for page in pages.values())


async def _index(request: web.Request) -> web.FileResponse:
    return web.FileResponse(ASSETS / "index.html", headers=HEADERS)


def _in_guild(pages: "dict[str, _Page]", handle: "PageHandler") -> http_api.MiddlewareHandler:
    """Return a handler for the guild that the query names, or else for the first one."""

    async def serve(request: web.Request) -> web.StreamResponse:
        page = pages.get(request.query.get("guild") or next(iter(pages)))
        if page is None:
            raise web.HTTPNotFound(
                text="There is no such guild. Open the page without ?guild= in its address."
            )
        return await handle(page, request)

    return serve


class _Page:
    """The page's API for one guild; `as` names the acting member."""

    def __init__(
        self,
        container: SandboxContainer,
        controls: FaultControls,
        links: Sequence[Link],
        *,
        notice: str,
    ) -> None:
        self._container = container
        self._controls = controls
        self._links = links
        self._notice = notice
        self._forms: dict[str, InteractionResponse] = {}
        self._uploads: dict[str, StoredFile] = {}
        self._sockets: set[web.WebSocketResponse] = set()

    def _member(self, user_id: object) -> MemberClient:
        people = self._container.guild.people()
        if not any(person["user"]["id"] == user_id for person in people):
            raise web.HTTPNotFound(text="There is no such member.")
        return MemberClient(self._container, str(user_id))

    async def state(self, request: web.Request) -> web.Response:
        """Return everything but the messages; without `as` for the first member."""
        guild = self._container.guild
        people = guild.people()
        me = self._member(request.query.get("as") or people[0]["user"]["id"])
        guilds = []
        for container in self._container.shared.guilds:
            guilds.append({"id": container.guild.id, "name": container.guild.seed.name})
        return web.json_response(
            {
                "guild": guild.seed.name,
                "guild_id": guild.id,
                "guilds": guilds,
                "me": me.id,
                "people": [self._shown(person) for person in people],
                "languages": LANGUAGES,
                "bot": guild.bot,
                "bot_member": guild.member(guild.bot_id),
                "roles": guild.roles(),
                "channels": guild.visible_channels(me.id),
                "stickers": STICKERS,
                "commands": self._container.commands.for_member(me.id),
                "controls": self._controls.controls(),
                "links": self._links,
                "notice": self._notice,
                "welcome": guild.seed.welcome,
                "developer_tools": guild.seed.developer_tools,
            }
        )

    def _shown(self, person: Json) -> Json:
        user_id = person["user"]["id"]
        is_owner = user_id == self._container.guild.owner["id"]
        return {
            **person,
            "owner": is_owner,
            "locale": self._container.interactions.locale_of(user_id),
        }

    async def history(self, request: web.Request) -> web.Response:
        """Return a range of the channel's messages, with the ephemeral ones that this member
        sees.
        """
        me = self._member(request.query.get("as"))
        channel_id = request.query.get("channel", "")
        if not self._container.guild.is_shown(channel_id, me.id):
            raise web.HTTPNotFound(text="There is no such channel.")
        try:
            limit = min(max(int(request.query.get("limit", MAX_MESSAGES)), 1), MAX_MESSAGES)
            before = int(request.query["before"]) if "before" in request.query else None
        except ValueError:
            raise web.HTTPBadRequest(text="before and limit are numbers.") from None
        return web.json_response(self._container.messages.seen_by(me.id, channel_id, limit, before))

    async def upload(self, request: web.Request) -> web.Response:
        self._member(request.query.get("as"))
        file = StoredFile.named(request.query.get("name") or "file", await request.read())
        if len(file.data) > ATTACHMENT_LIMIT_BYTES:
            return _refusal("Your files are too powerful: 10 MiB each at most.")
        upload_id = self._container.store.new_id()
        self._uploads[upload_id] = file
        if len(self._uploads) > MAX_UPLOADS:  # files that were added and never sent
            del self._uploads[next(iter(self._uploads))]
        return web.json_response(
            {"id": upload_id, "name": file.name, "size": len(file.data), "type": file.type}
        )

    async def live(self, request: web.Request) -> web.WebSocketResponse:
        """Stream the events that the member sees, as [kind, data]."""
        me = self._member(request.query.get("as"))
        socket = web.WebSocketResponse(heartbeat=20)
        await socket.prepare(request)
        events: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()

        def watch(kind: str, data: Json) -> None:
            if not self._sees(me, kind, data):
                return
            if kind == "controls":  # each guild has controls of its own
                data = self._controls.controls()
            events.put_nowait((kind, data))

        self._sockets.add(socket)
        self._container.feed.watchers.add(watch)
        writer = asyncio.create_task(_write(socket, events))
        try:
            async for _ in socket:
                pass
        finally:
            self._container.feed.watchers.discard(watch)
            self._sockets.discard(socket)
            writer.cancel()
        return socket

    def _sees(self, me: MemberClient, kind: str, data: Json) -> bool:
        if kind in ("commands", "controls"):
            return True
        if kind == "member":
            return bool(data["guild_id"] == self._container.guild.id)
        channel_id = data["id"] if kind == "channel" else data["channel_id"]
        is_whole = kind in ("typing", "channel") or ("author" in data and visible_to(data, me.id))
        return is_whole and self._container.guild.is_shown(channel_id, me.id)

    async def act(self, request: web.Request) -> web.Response:
        """Run a member's action; what Discord's client would not allow is returned as a refusal."""
        act = PAGE_ACTIONS.get(request.match_info["act"])
        if act is None:
            raise web.HTTPNotFound
        try:
            body = PageRequest(http_api.parse_json(await request.read()))
        except UnicodeEncodeError:
            return _refusal(
                "The text holds half a character: delete it, and send the message again."
            )
        except (TypeError, ValueError):
            body = PageRequest()
        try:
            result = await act(self, self._member(body["as"]), body)
        except SandboxRefusal as refusal:
            return _refusal(str(refusal))
        if isinstance(result, InteractionResponse):
            result = self._render(result)
        return web.json_response(result)

    async def say(self, me: MemberClient, body: Json) -> Json:
        """Send a message with its uploads, which stay if it is refused."""
        upload_ids = body.get("uploads") or []
        message = await me.say(
            body["channel"],
            body["content"],
            reply_to=body.get("reply_to"),
            files=self._uploaded(upload_ids),
            descriptions=body.get("descriptions") or (),
        )
        for upload_id in upload_ids:
            self._uploads.pop(upload_id, None)
        return message

    async def voice(self, me: MemberClient, body: Json) -> Json:
        """Send an upload as a voice message."""
        (file,) = self._uploaded([body["upload"]])
        message = await me.voice_message(
            body["channel"], body.get("reply_to"), sound=file.data, seconds=body["seconds"]
        )
        self._uploads.pop(body["upload"], None)
        return message

    async def slash(self, me: MemberClient, body: Json) -> InteractionResponse:
        """Run a command; an option that takes a file comes as {upload: its id}."""
        options = body["options"]
        upload_ids = [value["upload"] for value in options.values() if isinstance(value, dict)]
        files = self._uploaded(upload_ids)
        filled = {}
        for name, value in options.items():
            filled[name] = files.pop(0) if isinstance(value, dict) else value
        answer = await me.slash(body["channel"], body["command"], **filled)
        for upload_id in upload_ids:
            self._uploads.pop(upload_id, None)
        return answer

    def _uploaded(self, upload_ids: list[str]) -> list[StoredFile]:
        if unknown := [key for key in upload_ids if key not in self._uploads]:
            raise SandboxRefusal(f"{len(unknown)} of the files were deleted: add them again.")
        return [self._uploads[upload_id] for upload_id in upload_ids]

    async def submit(self, me: MemberClient, body: Json) -> InteractionResponse:
        """Submit a form that was opened before; it stays open if the bot rejects it. Files come as
        {uploads: their ids}.
        """
        opened = self._forms.get(body["form"])
        if opened is None or opened.interaction.user["id"] != me.id:
            raise SandboxRefusal("This form has expired: open it again.")
        upload_ids = []
        fields = {}
        for name, value in body["fields"].items():
            fields[name] = value
            if isinstance(value, dict):
                fields[name] = self._uploaded(value["uploads"])
                upload_ids += value["uploads"]
        answer = await me.submit(opened, **fields)
        if answer.type is not None:
            del self._forms[body["form"]]
            for upload_id in upload_ids:
                self._uploads.pop(upload_id, None)
        return answer

    async def language(self, me: MemberClient, body: Json) -> Json:
        """Set the locale of the member's client, in which the bot may respond."""
        if body["locale"] not in LANGUAGES:
            raise SandboxRefusal(f"There is no language {body['locale']}.")
        me.set_locale(body["locale"])
        return {"locale": body["locale"]}

    async def control(self, me: MemberClient, body: Json) -> Json:
        """Change a fault control; any member may, as they belong to the test bench."""
        control = CONTROL_ACTIONS.get(body["name"])
        if control is None:
            raise SandboxRefusal(f"There is no control called {body['name']}.")
        try:
            if (waiting := control(self._controls, body)) is not None:
                await waiting
        except (TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"{body['name']}: {error}") from error
        return self._controls.controls()

    def _render(self, answer: InteractionResponse) -> Json:
        """Render a response for the page; its message comes over the live socket."""
        form = cast(str, answer.interaction.payload["id"])
        if answer.modal is not None:
            self._forms[form] = answer
        return {"type": answer.type, "modal": answer.modal, "form": form}

    async def close(self, app: web.Application) -> None:
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)


CONTROL_ACTIONS: dict[str, Callable[[FaultControls, Json], Awaitable[None] | None]] = {
    "drop": lambda controls, body: controls.drop_gateway(),
    "delay": lambda controls, body: controls.delay(body["seconds"]),
    "rate_limit": lambda controls, body: controls.rate_limit(body["count"]),
    "permission": lambda controls, body: controls.set_permission(
        body["permission"], body["granted"]
    ),
    "delete_webhook": lambda controls, body: controls.delete_webhook(body["id"]),
    "message_content": lambda controls, body: controls.withhold_content(not body["on"]),
    "advance": lambda controls, body: controls.advance(body["seconds"]),
}
PageHandler = Callable[[_Page, web.Request], Awaitable[web.StreamResponse]]
PageAction = Callable[[_Page, MemberClient, Json], Awaitable[object]]
PAGE_ACTIONS: dict[str, PageAction] = {
    "say": _Page.say,
    "sticker": lambda page, me, body: me.sticker(
        body["channel"], body["name"], reply_to=body.get("reply_to")
    ),
    "voice": _Page.voice,
    "poll": lambda page, me, body: me.poll(body["channel"], body["question"], body["answers"]),
    "forward": lambda page, me, body: me.forward(body["channel"], body["message"]),
    "edit": lambda page, me, body: me.edit(body["message"], body["content"]),
    "delete": lambda page, me, body: me.delete(body["message"]),
    "slash": _Page.slash,
    "autocomplete": lambda page, me, body: me.autocomplete(
        body["channel"], body["command"], body["focused"], **body["options"]
    ),
    "context": lambda page, me, body: me.context(body["channel"], body["command"], body["target"]),
    "click": lambda page, me, body: me.click(body["message"], body["custom_id"]),
    "select": lambda page, me, body: me.select(body["message"], body["custom_id"], body["values"]),
    "submit": _Page.submit,
    "thread": lambda page, me, body: me.thread(body["channel"], body["name"], body.get("message")),
    "post": lambda page, me, body: me.post(body["channel"], body["name"], body["content"]),
    "dm": lambda page, me, body: me.dm(),
    "language": _Page.language,
    "control": _Page.control,
}
"""The page's actions: all POST, all as a member."""


def _refusal(words: str) -> web.Response:
    return web.json_response({"refusal": words}, status=400)


async def _write(socket: web.WebSocketResponse, events: asyncio.Queue[tuple[str, Json]]) -> None:
    while not socket.closed:
        await socket.send_str(json.dumps(await events.get()))
