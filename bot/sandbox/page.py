"""The page to talk in: its files, its own small API, and one live WebSocket a page.

Everything is for this page only. A name that resolves to loopback (DNS rebinding) and requests from other sites are
refused, because any page in the same browser could otherwise speak as a member.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from aiohttp import WSCloseCode, web

from bot.sandbox import files
from bot.sandbox.errors import Json, SandboxRefusal
from bot.sandbox.member import Answer, Member
from bot.sandbox.messages import visible_to
from bot.sandbox.world import World

ASSETS = Path(__file__).with_name("page")
HISTORY = 100
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
# Pictures may come from elsewhere on this machine: a webhook's avatar_url is fetched by whoever looks at it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: http://127.0.0.1:* http://localhost:*; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Act = Callable[[Member, Json], Awaitable[object]]


@web.middleware
async def only_loopback(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a Host that is not this machine's, and what other sites ask of the page's API."""
    if not LOOPBACK.fullmatch(request.host):
        raise web.HTTPForbidden(text="The sandbox answers to 127.0.0.1 and localhost only.")
    if request.path.startswith("/page-api/") and not _same_site(request):
        raise web.HTTPForbidden(text="The page's API is for the sandbox's own page only.")
    return await handler(request)


def _same_site(request: web.Request) -> bool:
    # Absent outside browsers; a browser sends Origin with every POST and WebSocket, Sec-Fetch-Site with everything.
    fetched_from = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin", f"http://{request.host}")
    is_form = request.method == "POST" and request.content_type != "application/json"
    return fetched_from in ("same-origin", "none") and origin == f"http://{request.host}" and not is_form


def mount(app: web.Application, world: World) -> None:
    """Serve the page."""
    page = _Page(world)
    app.router.add_get("/", _index)
    app.router.add_static("/page/", ASSETS)
    app.router.add_get("/attachments/{channel_id}/{file_id}/{name}", files.attachment(world.store))
    app.router.add_get("/cdn/avatars/{owner_id}/{name}", files.avatar(world.store))
    app.router.add_get("/page-api/state", page.state)
    app.router.add_get("/page-api/messages", page.history)
    app.router.add_get("/page-api/live", page.live)
    app.router.add_post("/page-api/{act}", page.act)
    app.on_shutdown.append(page.close)


async def _index(request: web.Request) -> web.FileResponse:
    return web.FileResponse(ASSETS / "index.html", headers=HEADERS)


class _Page:
    """The page's API; `as` says which member acts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._forms: dict[str, Answer] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._acts: dict[str, tuple[Act, set[str]]] = {
            "say": (self._say, {"channel", "content"}),
            "slash": (self._slash, {"channel", "command", "options"}),
            "autocomplete": (self._autocomplete, {"channel", "command", "focused", "options"}),
            "click": (self._click, {"message", "custom_id"}),
            "submit": (self._submit, {"form", "fields"}),
        }

    def _member(self, user_id: object) -> Member:
        if user_id not in (person["user"]["id"] for person in self._world.guild.people()):
            raise web.HTTPNotFound(text="There is no such member.")
        return Member(self._world, str(user_id))

    async def state(self, request: web.Request) -> web.Response:
        """Everything but the messages; without `as` for the first member."""
        guild = self._world.guild
        people = guild.people()
        me = self._member(request.query.get("as") or people[0]["user"]["id"])
        return web.json_response(
            {
                "guild": guild.seed.name,
                "me": me.id,
                "people": [{**person, "owner": person["user"]["id"] == guild.owner["id"]} for person in people],
                "bot": guild.bot,
                "roles": guild.roles(),
                "channels": guild.channels(),
                "commands": self._world.commands.for_member(me.id),
            }
        )

    async def history(self, request: web.Request) -> web.Response:
        """The channel's last messages, with those that only this member sees."""
        me, channel_id = self._member(request.query.get("as")), request.query.get("channel", "")
        channel = self._world.store.get("channel", channel_id)
        if channel is None:
            raise web.HTTPNotFound(text="There is no such channel.")
        shown = self._world.messages.history(channel["id"], HISTORY)
        shown += self._world.messages.ephemeral(channel["id"], me.id)
        return web.json_response(sorted(shown, key=lambda message: int(message["id"])))

    async def live(self, request: web.Request) -> web.WebSocketResponse:
        """What the member sees happen, as [kind, data]."""
        me = self._member(request.query.get("as"))
        socket = web.WebSocketResponse(heartbeat=20)
        await socket.prepare(request)
        events: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()

        def watch(kind: str, data: Json) -> None:
            if kind in ("typing", "commands") or ("author" in data and visible_to(data, me.id)):
                events.put_nowait((kind, data))

        self._sockets.add(socket)
        self._world.feed.watchers.add(watch)
        writer = asyncio.create_task(_write(socket, events))
        try:
            async for _ in socket:
                pass
        finally:
            self._world.feed.watchers.discard(watch)
            self._sockets.discard(socket)
            writer.cancel()
        return socket

    async def act(self, request: web.Request) -> web.Response:
        """Let the member do something; what Discord's client would not allow comes back as a refusal."""
        if request.match_info["act"] not in self._acts:
            raise web.HTTPNotFound
        act, needed = self._acts[request.match_info["act"]]
        try:
            body = dict(await request.json())
        except (TypeError, ValueError):
            body = {}
        if missing := needed - set(body):
            raise web.HTTPBadRequest(text=f"The request lacks {', '.join(sorted(missing))}.")
        try:
            return web.json_response(await act(self._member(body.get("as")), body))
        except SandboxRefusal as refusal:
            return web.json_response({"refusal": str(refusal)}, status=400)

    async def _say(self, me: Member, body: Json) -> Json:
        return await me.say(body["channel"], body["content"], body.get("reply_to"))

    async def _slash(self, me: Member, body: Json) -> Json:
        return self._told(await me.slash(body["channel"], body["command"], **body["options"]))

    async def _autocomplete(self, me: Member, body: Json) -> list[Json]:
        return await me.autocomplete(body["channel"], body["command"], body["focused"], **body["options"])

    async def _click(self, me: Member, body: Json) -> Json:
        return self._told(await me.click(body["message"], body["custom_id"]))

    async def _submit(self, me: Member, body: Json) -> Json:
        answer = self._forms.get(body["form"])
        if answer is None or answer.interaction.user["id"] != me.id:
            raise SandboxRefusal("This form is gone: open it again.")
        told = self._told(await me.submit(answer, **body["fields"]))
        if told["type"] is not None:
            del self._forms[body["form"]]
        return told

    def _told(self, answer: Answer) -> Json:
        """What the page needs of an answer; its message comes by the live socket."""
        form = cast(str, answer.interaction.payload["id"])
        if answer.modal is not None:
            self._forms[form] = answer
        return {"type": answer.type, "modal": answer.modal, "form": form}

    async def close(self, app: web.Application) -> None:
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)


async def _write(socket: web.WebSocketResponse, events: asyncio.Queue[tuple[str, Json]]) -> None:
    while not socket.closed:
        await socket.send_str(json.dumps(await events.get()))
