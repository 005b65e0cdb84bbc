"""The gateway over WebSockets: sessions, shards, intents, heartbeats, resumes.

Source: discord.com/developers/docs/topics/gateway.
"""

import asyncio
import json
import secrets
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from aiohttp import WSCloseCode, WSMsgType, web

from sandbox import payloads, traffic_log
from sandbox.guild import Guild
from sandbox.guild_seed import Permission
from sandbox.network_conditions import (
    FRAME_LIMIT,
    IDENTIFY_LIMIT,
    SESSION_START_LIMIT,
    NetworkConditions,
    RateLimits,
)
from sandbox.sandbox_errors import Json
from sandbox.wire_faults import EventFault

MAX_REPLAY_FRAMES = 2_000
REORDER_S = 0.05
"""Time after which a reordered event is sent, if no other event came."""
LOST_CONNECTION_CODE = 4000
MESSAGE_CONTENT = 1 << 15

INTENTS: dict[str, int] = {
    "GUILD_CREATE": 1 << 0,
    "GUILD_ROLE_UPDATE": 1 << 0,
    "THREAD_CREATE": 1 << 0,
    "WEBHOOKS_UPDATE": 1 << 5,
    "MESSAGE_CREATE": 1 << 9,
    "MESSAGE_UPDATE": 1 << 9,
    "MESSAGE_DELETE": 1 << 9,
    "TYPING_START": 1 << 11,
}
"""The intent that a session needs for an event; other events go to all sessions."""
DIRECT_INTENT_SHIFT = 3  # bits between an intent for guilds and the same one for direct messages
HEARTBEAT_MS = 41_250
HEARTBEAT_ACK_S = 0.05
MESSAGE_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE")
HIDDEN_FIELDS = ("poll", "message_snapshots")
"""Further fields that a message has no more without the content intent."""
CLOSE_REASONS = {
    4001: "Unknown opcode.",
    4002: "Error while decoding payload.",
    4003: "Not authenticated.",
    4004: "Authentication failed.",
    4005: "Already authenticated.",
    4008: "Rate limited.",
    4010: "Invalid shard.",
    4013: "Invalid intent(s).",
    4014: "Disallowed intent(s).",
}
"""Discord's close codes and reasons."""


class Opcode(IntEnum):
    """Gateway opcodes."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE = 3
    VOICE = 4
    RESUME = 6
    MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11


def without_content(message: Json, bot_id: str) -> Json:
    """Return a message as seen without the content intent: in full if it is the bot's own or
    mentions it.
    """
    seen = dict(message)
    if seen.get("referenced_message"):
        seen["referenced_message"] = without_content(seen["referenced_message"], bot_id)
    if message["author"]["id"] == bot_id or any(
        user["id"] == bot_id for user in message["mentions"]
    ):
        return seen
    hidden: Json = {"content": "", "embeds": [], "attachments": [], "components": []}
    return {name: value for name, value in seen.items() if name not in HIDDEN_FIELDS} | hidden


class GatewayConnection:
    """One socket. Frames are queued, so that sending never blocks and keeps its order."""

    def __init__(self, socket: web.WebSocketResponse, compressed: bool) -> None:
        self.socket = socket
        self._zlib = zlib.compressobj() if compressed else None
        self._frames: asyncio.Queue[tuple[float, Json]] = asyncio.Queue()

    def send(
        self,
        op: Opcode,
        data: object,
        name: str | None = None,
        number: int | None = None,
        late_s: float = 0,
    ) -> None:
        due = asyncio.get_running_loop().time() + late_s
        self._frames.put_nowait((due, {"op": op, "d": data, "t": name, "s": number}))

    async def write(self) -> None:
        with suppress(ConnectionError):
            while not self.socket.closed:
                due, frame = await self._frames.get()
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                text = json.dumps(frame)
                if self._zlib is None:
                    await self.socket.send_str(text)
                else:
                    data = self._zlib.compress(text.encode()) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
                    await self.socket.send_bytes(data)


@dataclass(frozen=True)
class ShardLimits:
    """The number of shards that Discord recommends, and how many may identify at once."""

    recommended: int = 1
    max_concurrency: int = 1


@dataclass(frozen=True)
class Shard:
    """The part of a bot's guilds that a session gets: Discord's formula, direct messages on shard
    0.
    """

    id: int
    count: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse an identify's `shard`. Raises GatewayClosed 4010."""
        match value:
            case [int(shard_id), int(count)] if 0 <= shard_id < count:
                return cls(shard_id, count)
        raise GatewayClosed(4010)

    def has(self, guild_id: str | None) -> bool:
        return self.id == (0 if guild_id is None else (int(guild_id) >> 22) % self.count)


class GatewaySession:
    """A session started by an identify; it outlives its sockets and stores the events it sent."""

    def __init__(
        self,
        intents: int,
        shard: "Shard",
        connection: GatewayConnection,
        conditions: NetworkConditions,
    ) -> None:
        self.id = secrets.token_hex(16)
        self.intents = intents
        self.shard = shard
        self._conditions = conditions
        self.connection: GatewayConnection | None = connection
        self._sent: deque[tuple[int, str, Json]] = deque(maxlen=MAX_REPLAY_FRAMES)
        self._number = 0
        self._late: list[tuple[int, str, Json]] = []
        self._closing: asyncio.Future[bool] | None = None

    def dispatch(self, name: str, data: Json) -> None:
        """Dispatch an event, now or at the next resume."""
        traffic_log.notify_observers(traffic_log.GatewayEvent(name, data))
        self._number += 1
        event = self._number, name, data
        self._sent.append(event)
        fault = self._conditions.faults.of_event(name)
        if fault in (EventFault.DROPPED, EventFault.SESSION_LOST):
            self._lose_connection(is_resumable=fault is EventFault.DROPPED)
        elif fault is EventFault.REORDERED and not self._late:
            self._late.append(event)
            asyncio.get_running_loop().call_later(REORDER_S, self._send_late)
        else:
            self._send(event)
            self._send_late()
        if fault is EventFault.DUPLICATED:
            self._send(event)
        if fault is EventFault.REPLAYED:
            earlier = self._sent[self._conditions.faults.earlier(len(self._sent))]
            if earlier[1] != "READY":  # which empties a client's cache, as only a new session may
                self._send(earlier)

    def _send(self, event: tuple[int, str, Json]) -> None:
        number, name, data = event
        if self.connection is not None:
            self.connection.send(Opcode.DISPATCH, data, name, number, self._conditions.delay_s)

    def _send_late(self) -> None:
        while self._late:
            self._send(self._late.pop())

    def _lose_connection(self, *, is_resumable: bool) -> None:
        """Close the socket before the latest event was sent."""
        if not is_resumable:
            self._sent.clear()
        if self.connection is not None:
            self._closing = asyncio.ensure_future(
                self.connection.socket.close(code=LOST_CONNECTION_CODE)
            )
            self.connection = None

    def has_intent_for(self, name: str, data: Json) -> bool:
        needed = INTENTS.get(name, 0)
        if "channel_id" in data and "guild_id" not in data:
            needed <<= DIRECT_INTENT_SHIFT
        return self.intents & needed == needed

    def sees_content(self, data: Json) -> bool:
        """Return whether it receives the content of messages by any author; it always does in
        direct messages.
        """
        granted = self._conditions.message_content and self.intents & MESSAGE_CONTENT
        return bool(granted) or "guild_id" not in data

    def can_replay(self, last: int) -> bool:
        """Return whether everything after the event `last` can still be replayed."""
        return bool(self._sent) and self._sent[0][0] - 1 <= last <= self._number

    def resume(self, connection: GatewayConnection, last: int) -> None:
        """Resume over a new socket, from the event after `last`."""
        self.connection = connection
        for number, name, data in self._sent:
            if number > last:
                connection.send(Opcode.DISPATCH, data, name, number)
        self.dispatch("RESUMED", {"_trace": []})


class GatewayClosed(Exception):
    """The bot sent a frame that closes its connection."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(CLOSE_REASONS[code])


def guild_create(guild: Guild) -> Json:
    """Build the event by which a session gets a guild."""
    lists = guild.channels(), guild.threads(), guild.members()
    return payloads.guild_create(guild.shape(), *lists, guild.created_at)


class Gateway:
    """All sessions of the bot."""

    def __init__(
        self,
        guilds: Sequence[Guild],
        conditions: NetworkConditions,
        rates: RateLimits,
        limits: ShardLimits,
    ) -> None:
        self.url = ""
        self.shards = limits.recommended
        self.max_concurrency = limits.max_concurrency
        self._guilds = {guild.id: guild for guild in guilds}
        self._conditions = conditions
        self._rates = rates
        self._home = guilds[0]
        self._sessions: dict[str, GatewaySession] = {}
        self._connections: set[GatewayConnection] = set()

    @property
    def connected(self) -> bool:
        return any(session.connection is not None for session in self._sessions.values())

    def session_starts_left(self) -> tuple[int, float]:
        """Return how many sessions the bot may still start, and the seconds until the limit is
        reset.
        """
        return self._rates.left(("starts",), SESSION_START_LIMIT)

    def dispatch(self, name: str, data: Json) -> None:
        """Dispatch an event to the sessions of its shard that have its intent."""
        guild_id = data.get("guild_id")
        guild = self._guilds.get(str(guild_id), self._home)
        # A thread's own event has its channel as parent.
        in_channel = (
            name in INTENTS and "guild_id" in data and ("channel_id" in data or "parent_id" in data)
        )
        if in_channel and not guild.may(guild.bot_id, Permission.VIEW_CHANNEL):
            return
        for session in self._sessions.values():
            if session.shard.has(guild_id) and session.has_intent_for(name, data):
                is_hidden = name in MESSAGE_EVENTS and not session.sees_content(data)
                session.dispatch(name, without_content(data, guild.bot_id) if is_hidden else data)

    async def drop(self, code: int) -> None:
        """Close every socket; the sessions stay and can be resumed."""
        for connection in tuple(self._connections):
            await connection.socket.close(code=code)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        # A request for zstd-stream is answered in plain text, which every client accepts.
        connection = GatewayConnection(socket, request.query.get("compress") == "zlib-stream")
        connection.send(Opcode.HELLO, {"heartbeat_interval": HEARTBEAT_MS, "_trace": []})
        self._connections.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self._receive(connection, frame.data)
        except GatewayClosed as closed:
            await socket.close(code=closed.code, message=CLOSE_REASONS[closed.code].encode())
        finally:
            self._remove_connection(connection)
            writer.cancel()
        return socket

    def _remove_connection(self, connection: GatewayConnection) -> None:
        self._connections.discard(connection)
        for session in self._sessions.values():
            if session.connection is connection:
                session.connection = None
        self._conditions.on_change()

    def _receive(self, connection: GatewayConnection, text: str) -> None:
        if not self._rates.spend(("frames", connection), FRAME_LIMIT):
            raise GatewayClosed(4008)
        try:
            frame = json.loads(text)
            op = frame["op"]
            data = frame.get("d")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise GatewayClosed(4002) from None
        session = next(
            (one for one in self._sessions.values() if one.connection is connection), None
        )
        match op:
            case Opcode.HEARTBEAT:
                # discord.py notes when it sent a heartbeat only after sending it, and takes an
                # answer that comes at once for one that is a whole interval late. Discord itself
                # never responds so quickly.
                asyncio.get_running_loop().call_later(
                    HEARTBEAT_ACK_S, connection.send, Opcode.HEARTBEAT_ACK, None
                )
            case Opcode.IDENTIFY | Opcode.RESUME if session is not None:
                raise GatewayClosed(4005)
            case Opcode.IDENTIFY if isinstance(data, dict):
                self._identify(connection, data)
            case Opcode.RESUME if isinstance(data, dict):
                self._resume(connection, data)
            case Opcode.MEMBERS if isinstance(data, dict) and session is not None:
                self._send_members(session, data)
            case Opcode.PRESENCE | Opcode.VOICE if session is not None:
                pass  # presence and voice are not simulated
            case _:
                raise GatewayClosed(4001 if session is not None else 4003)

    def _identify(self, connection: GatewayConnection, data: Json) -> None:
        intents = data.get("intents")
        if data.get("token") != self._home.token:
            raise GatewayClosed(4004)
        shard = Shard.parse(data.get("shard", [0, 1]))
        if not isinstance(intents, int):
            raise GatewayClosed(4013)
        if intents & MESSAGE_CONTENT and not self._conditions.message_content:
            raise GatewayClosed(4014)
        spend = self._rates.spend
        bucket = ("identify", shard.id % self.max_concurrency)
        is_refused = self._conditions.session_refused
        if is_refused or not (
            spend(bucket, IDENTIFY_LIMIT) and spend(("starts",), SESSION_START_LIMIT)
        ):
            connection.send(Opcode.INVALID_SESSION, False)
            return
        session = GatewaySession(intents, shard, connection, self._conditions)
        kept = {
            key: old
            for key, old in self._sessions.items()
            if old.connection is not None or old.shard != shard
        }
        self._sessions = kept | {session.id: session}
        guilds = [guild for guild in self._guilds.values() if shard.has(guild.id)]
        session.dispatch("READY", self._ready(session, guilds))
        for guild in guilds:
            session.dispatch("GUILD_CREATE", guild_create(guild))
        self._conditions.on_change()

    def _ready(self, session: GatewaySession, guilds: Sequence[Guild]) -> Json:
        return {
            "v": 10,
            "user": self._home.bot | {"verified": True, "mfa_enabled": False, "email": None},
            "guilds": [{"id": guild.id, "unavailable": True} for guild in guilds],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": self.url,
            "shard": [session.shard.id, session.shard.count],
            "application": {"id": self._home.bot_id, "flags": 0},
            "private_channels": [],
            "relationships": [],
        }

    def _resume(self, connection: GatewayConnection, data: Json) -> None:
        session = self._sessions.get(str(data.get("session_id")))
        last = data.get("seq")
        is_ours = data.get("token") == self._home.token and not self._conditions.session_refused
        if session is not None and is_ours and isinstance(last, int) and session.can_replay(last):
            session.resume(connection, last)
            self._conditions.on_change()
        else:
            connection.send(Opcode.INVALID_SESSION, False)

    def _send_members(self, session: GatewaySession, data: Json) -> None:
        user_ids = data.get("user_ids") or []
        ids = {str(one) for one in (user_ids if isinstance(user_ids, list) else [user_ids])}
        guild = self._guilds.get(str(data.get("guild_id")))
        if guild is None or not session.shard.has(guild.id):
            return
        found = [m for m in guild.members() if not ids or m["user"]["id"] in ids]
        chunk = {
            "guild_id": guild.id,
            "members": found,
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": [],
        }
        session.dispatch("GUILD_MEMBERS_CHUNK", chunk | {"nonce": data.get("nonce")})

    async def close(self) -> None:
        """Close every socket as a server that shuts down does."""
        await self.drop(WSCloseCode.GOING_AWAY)
