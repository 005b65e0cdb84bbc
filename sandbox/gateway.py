"""The gateway over WebSockets: who gets an event, identifies, heartbeats, resumes.

Source: discord.com/developers/docs/topics/gateway.
"""

import asyncio
import json
from collections.abc import Sequence

from aiohttp import WSCloseCode, WSMsgType, web

from sandbox import payloads
from sandbox.gateway_session import (
    CLOSE_REASONS,
    GUILD_MEMBERS,
    INTENTS,
    MESSAGE_CONTENT,
    GatewayClosed,
    GatewayConnection,
    GatewaySession,
    Opcode,
    Shard,
)
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

HEARTBEAT_MS = 41_250
HEARTBEAT_ACK_S = 0.05
MESSAGE_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE")
HIDDEN_FIELDS = ("poll", "message_snapshots")
"""Further fields that a message has no more without the content intent."""


def without_content(message: Json, bot_id: str) -> Json:
    """Return a message as seen without the content intent: in full if it is the bot's own or
    mentions it.
    """
    seen = dict(message)
    if seen.get("referenced_message"):
        seen["referenced_message"] = without_content(seen["referenced_message"], bot_id)
    if message["author"]["id"] == bot_id:
        return seen
    if any(user["id"] == bot_id for user in message["mentions"]):
        return seen
    for name in HIDDEN_FIELDS:
        seen.pop(name, None)
    return seen | {"content": "", "embeds": [], "attachments": [], "components": []}


def guild_create(guild: Guild) -> Json:
    """Build the event by which a session gets a guild, with the threads that are not archived."""
    active = [thread for thread in guild.threads() if not thread["thread_metadata"]["archived"]]
    return payloads.guild_create(
        guild.shape(),
        guild.channels(),
        active,
        guild.members(),
        joined_at=guild.created_at,
    )


class Gateway:
    """All sessions of the bot."""

    def __init__(
        self,
        guilds: Sequence[Guild],
        conditions: NetworkConditions,
        rates: RateLimits,
        shards: int,
    ) -> None:
        """`shards` is the number of sessions that Discord recommends."""
        self.url = ""
        self.shards = shards
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
        has_channel = "channel_id" in data or "parent_id" in data
        in_channel = name in INTENTS and "guild_id" in data and has_channel
        if in_channel:
            channel_id = data.get("channel_id") or data.get("parent_id")
            channel = guild.store.get("channel", channel_id)
            if not guild.may(guild.bot_id, Permission.VIEW_CHANNEL, channel):
                return
        # Of a bot's own member, Discord sends changes whatever the intents.
        is_own = name == "GUILD_MEMBER_UPDATE" and data["user"]["id"] == guild.bot_id
        for session in self._sessions.values():
            if session.shard.has(guild_id) and (is_own or session.has_intent_for(name, data)):
                seen = data
                if name in MESSAGE_EVENTS and not session.sees_content(data):
                    seen = without_content(data, guild.bot_id)
                session.dispatch(name, seen)

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
        # The session stays: a client that comes back resumes it.
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
        session = self._session_of(connection)
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
            case _ if session is None:
                raise GatewayClosed(4003)
            case _:
                raise GatewayClosed(4001)

    def _session_of(self, connection: GatewayConnection) -> GatewaySession | None:
        for session in self._sessions.values():
            if session.connection is connection:
                return session
        return None

    def _identify(self, connection: GatewayConnection, data: Json) -> None:
        intents = data.get("intents")
        if data.get("token") != self._home.token:
            raise GatewayClosed(4004)
        shard = Shard.parse(data.get("shard", [0, 1]))
        if not isinstance(intents, int):
            raise GatewayClosed(4013)
        if intents & MESSAGE_CONTENT and not self._conditions.message_content:
            raise GatewayClosed(4014)
        if intents & GUILD_MEMBERS and not self._conditions.members:
            raise GatewayClosed(4014)
        spend = self._rates.spend
        may_start = (
            not self._conditions.session_refused
            and spend(("identify",), IDENTIFY_LIMIT)
            and spend(("starts",), SESSION_START_LIMIT)
        )
        if not may_start:
            connection.send(Opcode.INVALID_SESSION, False)
            return
        session = GatewaySession(intents, shard, connection, self._conditions)
        # Lost sessions of the shard go: its new session takes their place.
        for old in list(self._sessions.values()):
            if old.connection is None and old.shard == shard:
                del self._sessions[old.id]
        self._sessions[session.id] = session
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
        if not isinstance(user_ids, list):
            user_ids = [user_ids]
        ids = set(map(str, user_ids))
        guild = self._guilds.get(str(data.get("guild_id")))
        if guild is None or not session.shard.has(guild.id):
            return
        members = guild.members()
        if ids:
            members = [member for member in members if member["user"]["id"] in ids]
        if beginning := str(data.get("query") or "").casefold():
            members = [member for member in members if _is_called(member, beginning)]
        if limit := data.get("limit"):
            members = members[:limit]
        chunk = {
            "guild_id": guild.id,
            "members": members,
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": [],
        }
        session.dispatch("GUILD_MEMBERS_CHUNK", chunk | {"nonce": data.get("nonce")})

    async def close(self) -> None:
        """Close every socket as a server that shuts down does."""
        await self.drop(WSCloseCode.GOING_AWAY)


def _is_called(member: Json, beginning: str) -> bool:
    """True for a member one of whose names begins with a text in small letters."""
    user = member["user"]
    names = (user["username"], user["global_name"], member["nick"])
    return any(name and name.casefold().startswith(beginning) for name in names)
