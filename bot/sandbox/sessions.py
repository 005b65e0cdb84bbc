"""One bot's session at the gateway: what it may hear, what it was told, and the sockets it comes and goes by."""

import asyncio
import json
import secrets
import zlib
from collections import deque
from contextlib import suppress
from enum import IntEnum

from aiohttp import web

from bot.sandbox import watch
from bot.sandbox.conditions import Conditions
from bot.sandbox.errors import Json

REPLAY_FRAMES = 2_000
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
"""The intent a session needs to be told of an event; events that are not here go to all."""
DIRECT_SHIFT = 3
"""By so many bits the intents for direct messages stand above those for a guild's."""


class Op(IntEnum):
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


def withheld(message: Json, bot_id: str) -> Json:
    """The message as a bot without the message-content intent gets it.

    Full for what it wrote itself and what mentions it (a reply with a ping does); a webhook's message is nobody's own.
    """
    seen = dict(message)
    if seen.get("referenced_message"):
        seen["referenced_message"] = withheld(seen["referenced_message"], bot_id)
    if message["author"]["id"] == bot_id or any(user["id"] == bot_id for user in message["mentions"]):
        return seen
    return seen | {"content": "", "embeds": [], "attachments": [], "components": []}


class Connection:
    """One socket. Frames are queued, so that telling the bot never waits and never changes their order."""

    def __init__(self, socket: web.WebSocketResponse, compressed: bool) -> None:
        self.socket = socket
        self._zlib = zlib.compressobj() if compressed else None
        self._frames: asyncio.Queue[tuple[float, Json]] = asyncio.Queue()

    def send(self, op: Op, data: object, name: str | None = None, number: int | None = None, late_s: float = 0) -> None:
        """Queue a frame, to be sent so much later."""
        due = asyncio.get_running_loop().time() + late_s
        self._frames.put_nowait((due, {"op": op, "d": data, "t": name, "s": number}))

    async def write(self) -> None:
        """Send what is queued until the socket closes."""
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


class Session:
    """What one identify began; it outlives its sockets and remembers what it was told."""

    def __init__(self, intents: int, connection: Connection, conditions: Conditions) -> None:
        self.id, self.intents, self._conditions = secrets.token_hex(16), intents, conditions
        self.connection: Connection | None = connection
        self._told: deque[tuple[int, str, Json]] = deque(maxlen=REPLAY_FRAMES)
        self._number = 0

    def tell(self, name: str, data: Json) -> None:
        """Dispatch an event, now or at the next resume."""
        watch.tell(watch.Event(name, data))
        self._number += 1
        self._told.append((self._number, name, data))
        if self.connection is not None:
            self.connection.send(Op.DISPATCH, data, name, self._number, self._conditions.delay_s)

    def may_hear(self, name: str, data: Json) -> bool:
        """Whether its intents cover the event."""
        needed = INTENTS.get(name, 0)
        if "channel_id" in data and "guild_id" not in data:
            needed <<= DIRECT_SHIFT
        return self.intents & needed == needed

    def reads(self, data: Json) -> bool:
        """Whether it gets a message's content whoever wrote it: direct messages are always for the bot."""
        granted = self._conditions.message_content and self.intents & MESSAGE_CONTENT
        return bool(granted) or "guild_id" not in data

    def remembers(self, last: int) -> bool:
        """Whether everything after the event `last` can still be told."""
        return bool(self._told) and self._told[0][0] - 1 <= last <= self._number

    def resume(self, connection: Connection, last: int) -> None:
        """Go on over a new socket, from the event after `last`."""
        self.connection = connection
        for number, name, data in self._told:
            if number > last:
                connection.send(Op.DISPATCH, data, name, number)
        self.tell("RESUMED", {"_trace": []})
