"""The gateway: what the bot is told, over WebSockets. Source: discord.com/developers/docs/topics/gateway."""

import asyncio
import json

from aiohttp import WSCloseCode, WSMsgType, web

from bot.sandbox import shapes
from bot.sandbox.conditions import Conditions
from bot.sandbox.errors import Json
from bot.sandbox.guild import Guild
from bot.sandbox.permissions import Permission
from bot.sandbox.ratelimits import FRAMES, IDENTIFY, STARTS, RateLimits
from bot.sandbox.sessions import INTENTS, MESSAGE_CONTENT, Connection, Op, Session, withheld

HEARTBEAT_MS = 41_250
HEARTBEAT_ACK_S = 0.05
MESSAGE_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE")

CLOSES = {
    4001: "Unknown opcode.",
    4002: "Error while decoding payload.",
    4003: "Not authenticated.",
    4004: "Authentication failed.",
    4005: "Already authenticated.",
    4008: "Rate limited.",
    4013: "Invalid intent(s).",
    4014: "Disallowed intent(s).",
}
"""Why the gateway hangs up: Discord's codes and words."""


class Closed(Exception):
    """The bot said something that ends its connection."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(CLOSES[code])


class Gateway:
    """All sessions of the bot."""

    def __init__(self, guild: Guild, conditions: Conditions, rates: RateLimits) -> None:
        self.url = ""
        self._guild, self._conditions, self._rates = guild, conditions, rates
        self._sessions: dict[str, Session] = {}
        self._connections: set[Connection] = set()

    @property
    def connected(self) -> bool:
        """Whether a bot is logged in."""
        return any(session.connection is not None for session in self._sessions.values())

    def starts_left(self) -> tuple[int, float]:
        """How many sessions the bot may still begin, and the seconds until it may begin all again."""
        return self._rates.left(("starts",), STARTS)

    def dispatch(self, name: str, data: Json) -> None:
        """Tell every session that may know."""
        # A thread's own event has its channel as parent.
        in_channel = name in INTENTS and "guild_id" in data and ("channel_id" in data or "parent_id" in data)
        if in_channel and not self._guild.may(self._guild.bot_id, Permission.VIEW_CHANNEL):
            return
        for session in self._sessions.values():
            if session.may_hear(name, data):
                hidden = name in MESSAGE_EVENTS and not session.reads(data)
                session.tell(name, withheld(data, self._guild.bot_id) if hidden else data)

    async def drop(self, code: int) -> None:
        """Close every socket; the sessions stay and can be resumed."""
        for connection in tuple(self._connections):
            await connection.socket.close(code=code)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One socket, from HELLO to its end."""
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        # zstd-stream, where it is asked for, is answered in plain text, which every client takes.
        connection = Connection(socket, request.query.get("compress") == "zlib-stream")
        connection.send(Op.HELLO, {"heartbeat_interval": HEARTBEAT_MS, "_trace": []})
        self._connections.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self._receive(connection, frame.data)
        except Closed as closed:
            await socket.close(code=closed.code, message=CLOSES[closed.code].encode())
        finally:
            self._forget(connection)
            writer.cancel()
        return socket

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        for session in self._sessions.values():
            if session.connection is connection:
                session.connection = None
        self._conditions.on_change()

    def _receive(self, connection: Connection, text: str) -> None:
        if not self._rates.spend(("frames", connection), FRAMES):
            raise Closed(4008)
        try:
            frame = json.loads(text)
            op, data = frame["op"], frame.get("d")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Closed(4002) from None
        session = next((one for one in self._sessions.values() if one.connection is connection), None)
        match op:
            case Op.HEARTBEAT:
                # discord.py notes when it sent a heartbeat only after sending it, and takes an answer that comes at
                # once for one that is a whole interval late. Discord itself is never so quick.
                asyncio.get_running_loop().call_later(HEARTBEAT_ACK_S, connection.send, Op.HEARTBEAT_ACK, None)
            case Op.IDENTIFY | Op.RESUME if session is not None:
                raise Closed(4005)
            case Op.IDENTIFY if isinstance(data, dict):
                self._identify(connection, data)
            case Op.RESUME if isinstance(data, dict):
                self._resume(connection, data)
            case Op.MEMBERS if isinstance(data, dict) and session is not None:
                self._send_members(session, data)
            case Op.PRESENCE | Op.VOICE if session is not None:
                pass  # nobody sees the bot's status, and there is nothing to hear
            case _:
                raise Closed(4001 if session is not None else 4003)

    def _identify(self, connection: Connection, data: Json) -> None:
        intents = data.get("intents")
        if data.get("token") != self._guild.token:
            raise Closed(4004)
        if not isinstance(intents, int):
            raise Closed(4013)
        if intents & MESSAGE_CONTENT and not self._conditions.message_content:
            raise Closed(4014)
        if not (self._rates.spend(("identify",), IDENTIFY) and self._rates.spend(("starts",), STARTS)):
            connection.send(Op.INVALID_SESSION, False)
            return
        session = Session(intents, connection, self._conditions)
        self._sessions = {key: old for key, old in self._sessions.items() if old.connection is not None}
        self._sessions[session.id] = session
        session.tell("READY", self._ready(session, data.get("shard", [0, 1])))
        session.tell("GUILD_CREATE", self._guild_create())
        self._conditions.on_change()

    def _ready(self, session: Session, shard: list[int]) -> Json:
        return {
            "v": 10,
            "user": self._guild.bot | {"verified": True, "mfa_enabled": False, "email": None},
            "guilds": [{"id": self._guild.id, "unavailable": True}],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": self.url,
            "shard": shard,
            "application": {"id": self._guild.bot_id, "flags": 0},
            "private_channels": [],
            "relationships": [],
        }

    def _guild_create(self) -> Json:
        guild = self._guild
        return shapes.guild_create(guild.shape(), guild.channels(), guild.threads(), guild.members(), guild.born)

    def _resume(self, connection: Connection, data: Json) -> None:
        session, last = self._sessions.get(str(data.get("session_id"))), data.get("seq")
        is_ours = data.get("token") == self._guild.token
        if session is not None and is_ours and isinstance(last, int) and session.remembers(last):
            session.resume(connection, last)
            self._conditions.on_change()
        else:
            connection.send(Op.INVALID_SESSION, False)

    def _send_members(self, session: Session, data: Json) -> None:
        wanted = data.get("user_ids") or []
        ids = {str(one) for one in (wanted if isinstance(wanted, list) else [wanted])}
        found = [m for m in self._guild.members() if not ids or m["user"]["id"] in ids]
        chunk = {"guild_id": self._guild.id, "members": found, "chunk_index": 0, "chunk_count": 1, "not_found": []}
        session.tell("GUILD_MEMBERS_CHUNK", chunk | {"nonce": data.get("nonce")})

    async def close(self) -> None:
        """End every socket as a server that goes away does."""
        await self.drop(WSCloseCode.GOING_AWAY)
