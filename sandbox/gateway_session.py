"""Sessions of the gateway: their sockets, shards and intents, and the events to replay.

Source: discord.com/developers/docs/topics/gateway.
"""

import asyncio
import json
import secrets
import zlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from aiohttp import web

from sandbox import traffic_log
from sandbox.network_conditions import NetworkConditions
from sandbox.sandbox_errors import Json
from sandbox.wire_faults import EventFault

MAX_REPLAY_FRAMES = 2_000
REORDER_S = 0.05
"""Time after which a reordered event is sent, if no other event came."""
LOST_CONNECTION_CODE = 4000
GUILD_MEMBERS = 1 << 1
MESSAGE_CONTENT = 1 << 15

INTENTS: dict[str, int] = {
    "GUILD_CREATE": 1 << 0,
    "GUILD_UPDATE": 1 << 0,
    "GUILD_ROLE_UPDATE": 1 << 0,
    "CHANNEL_UPDATE": 1 << 0,
    "THREAD_CREATE": 1 << 0,
    "THREAD_UPDATE": 1 << 0,
    "GUILD_MEMBER_ADD": GUILD_MEMBERS,
    "GUILD_MEMBER_REMOVE": GUILD_MEMBERS,
    "GUILD_MEMBER_UPDATE": GUILD_MEMBERS,
    "WEBHOOKS_UPDATE": 1 << 5,
    "MESSAGE_CREATE": 1 << 9,
    "MESSAGE_UPDATE": 1 << 9,
    "MESSAGE_DELETE": 1 << 9,
    "TYPING_START": 1 << 11,
}
"""The intent that a session needs for an event; other events go to all sessions."""
DIRECT_INTENT_SHIFT = 3  # bits between an intent for guilds and the same one for direct messages
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
                    # One stream for the whole connection; the flush ends each frame.
                    data = self._zlib.compress(text.encode()) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
                    await self.socket.send_bytes(data)


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
        if guild_id is None:
            return self.id == 0
        return (int(guild_id) >> 22) % self.count == self.id


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
        # Also events that are lost have a number: a resume asks for all after the last one.
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
            late_s = self._conditions.delay_s
            self.connection.send(Opcode.DISPATCH, data, name, number, late_s=late_s)

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
