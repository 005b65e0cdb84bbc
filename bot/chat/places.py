"""Channels a persona can speak in, the policy for speaking there, and the webhooks that give it
name and avatar.
"""

import asyncio
import datetime
import itertools
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import discord

from bot.chat import delivery
from bot.chat.delivery import UNCERTAIN_ERRORS, persist
from bot.platform.errors import RefusedError
from bot.platform.permissions import is_moderator
from bot.store import Store, StoredReply, StoreError
from personas.engine.admission import member_busy_error
from personas.errors import EngineBusyError
from personas.schemas.chat import Persona

GuildChannel = discord.TextChannel | discord.Thread
SpeakChannel = GuildChannel | discord.DMChannel
log = logging.getLogger(__name__)
AVATAR_TIMEOUT_S, WEBHOOK_TIMEOUT_S = 10.0, 20.0
"""Timeouts for setting the persona's avatar, and for finding or creating its webhook with that."""
CLOCK_SKEW = datetime.timedelta(seconds=90)
"""Largest difference between Discord's clock and ours."""
MAX_HISTORY_MESSAGES = 100
WEBHOOK_NAME = "Understudy"
UNKNOWN_WEBHOOK_CODE, TOO_MANY_WEBHOOKS_CODE = 10015, 30007
"""Discord's codes for a webhook that was deleted, and for a channel with as many as it may have."""
NO_MENTIONS = discord.AllowedMentions.none()
BAD_REQUEST_STATUS = 400
MAX_REPLIES_TO_MEMBER, MAX_REPLIES_IN_CHANNEL = 8, 32
"""Replies that may be unfinished at once; Discord shows some 30 messages of a webhook in a
minute.
"""
REPLY_WAIT_S = 5.0
END_WAIT_S, QUEUE_WAIT_S, END_POLL_S = 10.0, 120.0, 0.05
"""Longest waits for a cancelled reply and for all queued ones, and the interval of the checks, in
seconds.
"""
EDITS_PER_S = 2.0
"""Edits of a webhook's messages; Discord allows five requests in two seconds."""
MAX_REMEMBERED_AVATARS = 10_000
"""Channels whose webhook's avatar is known; in others it is uploaded again."""
V = TypeVar("V")


@dataclass(frozen=True)
class ChannelRef:
    """A channel as the store knows it. `guild_id` 0 stands for direct messages; `parent_id` is a
    thread's channel.
    """

    guild_id: int
    channel_id: int
    parent_id: int | None = None

    @property
    def home_id(self) -> int:
        """The channel whose webhook speaks here: a thread's parent, else the channel itself."""
        return self.parent_id or self.channel_id


def channel_ref(channel: SpeakChannel) -> ChannelRef:
    """The ids of a channel, a thread or a direct-message channel."""
    if isinstance(channel, discord.DMChannel):
        return ChannelRef(0, channel.id)
    return ChannelRef(
        channel.guild.id,
        channel.id,
        channel.parent_id if isinstance(channel, discord.Thread) else None,
    )


async def fetch_channel(client: discord.Client, channel_id: int) -> SpeakChannel | None:
    """The channel with this id; None when it is gone or out of reach. Direct messages may be
    missing in the cache.
    """
    channel: object = client.get_channel(channel_id)
    if channel is None:
        try:
            channel = await client.fetch_channel(channel_id)
        except (discord.NotFound, discord.Forbidden):
            return None
    return channel if isinstance(channel, SpeakChannel) else None


@dataclass(frozen=True)
class ReplyPolicy:
    """The rules, checked at each action; default permissions and hidden buttons alone would not
    enforce them.
    """

    store: Store

    def require_owner(self, author_id: int, user: discord.abc.User, what: str) -> None:
        """Refuse all but the author and moderators."""
        if user.id != author_id and not is_moderator(user):
            raise RefusedError(f"Only the one who asked, or a moderator, can {what}.")

    def require_can_ask(
        self, interaction: discord.Interaction[Any], persona: Persona, at: ChannelRef
    ) -> None:
        """Refuse members who may not write in the channel, and muted personas."""
        self.require_can_write(interaction)
        self.require_unmuted(persona, at)

    def require_can_write(self, interaction: discord.Interaction[Any]) -> None:
        """Refuse members who may not write here: the text of a form or a command is posted in the
        channel, too.
        """
        allowed = interaction.permissions
        in_thread = isinstance(interaction.channel, discord.Thread)
        can_write = allowed.send_messages_in_threads if in_thread else allowed.send_messages
        if interaction.guild_id and not can_write:
            raise RefusedError(
                "You may not send messages in this channel.", "A moderator can change that."
            )

    def require_reply(self, reply: StoredReply | None) -> StoredReply:
        """Refuse an unknown reply."""
        if reply is None:
            raise RefusedError(
                "This is no reply of a persona, or it is no longer kept.", "Choose another message."
            )
        return reply

    def require_unmuted(self, persona: Persona, at: ChannelRef) -> None:
        """Refuse a muted persona."""
        if self.muted(persona, at):
            raise RefusedError(
                f"A moderator has silenced {persona.name} here.", "`/persona unmute` lifts that."
            )

    def muted(self, persona: Persona, at: ChannelRef) -> bool:
        """Report whether a moderator has muted the persona in this channel."""
        return (
            self.store.mutes.find_applying(at.guild_id, at.channel_id, at.parent_id, persona.id)
            is not None
        )


@dataclass
class UnfinishedReplies:
    """The replies that this process makes, or that wait for Discord, by event, member and
    channel.
    """

    _counts: Counter[tuple[str, int]] = field(default_factory=Counter)

    def holds(self, event_id: int) -> bool:
        """Report whether the reply to this event is one of them."""
        return self._counts["event", event_id] > 0

    async def wait_for_all(self) -> None:
        """Wait until the replies that are made now are not made any more, but not longer than a
        long queue takes.
        """
        await self._wait([number for kind, number in self._counts if kind == "event"], QUEUE_WAIT_S)

    async def wait_for_end(self, event_id: int) -> None:
        """Wait until the reply to this event is not made any more, but not longer than Discord may
        take.
        """
        await self._wait([event_id], END_WAIT_S)

    async def _wait(self, events: Sequence[int], most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while any(map(self.holds, events)):  # noqa: ASYNC110  they end in many ways
                    await asyncio.sleep(END_POLL_S)

    def require_place(self, member_id: int, channel_id: int) -> None:
        """Refuse a reply where too many are unfinished. Raises `EngineBusyError`."""
        if self._counts["member", member_id] >= MAX_REPLIES_TO_MEMBER:
            raise member_busy_error(MAX_REPLIES_TO_MEMBER, REPLY_WAIT_S)
        if self._counts["channel", channel_id] >= MAX_REPLIES_IN_CHANNEL:
            what = (
                f"{MAX_REPLIES_IN_CHANNEL} replies in this channel are unfinished, as many as it "
                "may have."
            )
            raise EngineBusyError(what, "Try again in a minute.", REPLY_WAIT_S)

    def edit_stretch_s(self, channel_id: int) -> float:
        """Seconds by which edits follow later, so that all of a channel's replies keep to its limit
        together.
        """
        return max(0.0, self._counts["channel", channel_id] / EDITS_PER_S - 1.0)

    @contextmanager
    def counting(self, event_id: int, **owners: int) -> Iterator[None]:
        """Count a reply inside the block; `owners` are its member and channel."""
        keys = Counter([("event", event_id), *owners.items()])
        self._counts += keys
        try:
            yield
        finally:
            self._counts -= keys


class MessageSender(Protocol):
    """Sender of a persona's messages in one channel."""

    @property
    def persona(self) -> Persona: ...

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        """Send a message and return its id. One with these buttons that an earlier try, `since`
        then, left is taken.
        """
        ...

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        """Edit a message; a view of None removes its buttons."""
        ...

    async def remove(self, message_id: int) -> None:
        """Delete a message; one that is gone already is no error. Raises `discord.Forbidden`."""
        ...

    async def find(self, event_id: int) -> list[int]:
        """Find the messages with the buttons of an event's reply, oldest first; none where history
        is not readable.
        """
        ...


@dataclass(frozen=True)
class WebhookSender:
    """Sends under the persona's name and avatar."""

    webhook: discord.Webhook
    persona: Persona
    channel: GuildChannel

    @property
    def thread(self) -> Any:
        """The thread, for discord.py; MISSING in a text channel."""
        return self.channel if isinstance(self.channel, discord.Thread) else discord.utils.MISSING

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        # Webhooks have no nonce, and discord.py repeats a request after a pause if it did not see
        # its success.
        started = since or discord.utils.utcnow()
        attempts = itertools.count(1 if since else 0)
        last = self.channel.last_message_id or 0

        async def send() -> int:
            sent = await self._sent(text, view, started, last) if next(attempts) else []
            return sent[0] if sent else await self._send(text, view)

        message_id = await persist(send)
        if (discord.utils.utcnow() - started).total_seconds() >= delivery.RETRY_PAUSE_S:
            for copy in await self._sent(text, view, started, last):
                if copy != message_id:
                    await self.remove(copy)
        return message_id

    async def _send(self, text: str, view: discord.ui.View | None) -> int:
        message = await self.webhook.send(
            text,
            username=self.persona.name,
            wait=True,
            allowed_mentions=NO_MENTIONS,
            suppress_embeds=True,
            thread=self.thread,
            view=view or discord.utils.MISSING,
        )
        return message.id

    async def _sent(
        self, text: str, view: discord.ui.View | None, started: datetime.datetime, last: int
    ) -> list[int]:
        """Find the copies of a message that was just sent: by its buttons, or else by its text
        after the `last` one.
        """
        latest = await read_history(self.channel, started - CLOCK_SKEW)  # `started` is by our clock
        own = [one for one in latest if one.webhook_id == self.webhook.id]
        if view:
            return _with_buttons(own, view)
        return [
            one.id
            for one in own
            if one.id > last and one.content == text.strip() and not one.components
        ]

    async def find(self, event_id: int) -> list[int]:
        found = await read_history(self.channel, discord.utils.snowflake_time(event_id))
        return [
            one.id
            for one in found
            if one.webhook_id in (self.webhook.id, None) and _belongs_to(one, event_id)
        ]

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        try:
            await persist(
                lambda: self.webhook.edit_message(
                    message_id,
                    content=text,
                    view=view,
                    allowed_mentions=NO_MENTIONS,
                    thread=self.thread,
                )
            )
        except discord.NotFound as error:
            if error.code == UNKNOWN_WEBHOOK_CODE:
                raise
            try:  # the bot sent it itself, without a webhook
                await BotSender(self.channel, self.persona).change(message_id, text, view)
            except discord.Forbidden:
                raise error from None

    async def remove(self, message_id: int) -> None:
        try:
            await persist(lambda: self.webhook.delete_message(message_id, thread=self.thread))
        except discord.NotFound:  # gone, or sent by another webhook, which takes Manage Messages
            with suppress(discord.NotFound):
                await persist(self.channel.get_partial_message(message_id).delete)


@dataclass(frozen=True)
class BotSender:
    """Sends as the bot: in direct messages, and where webhooks are not allowed."""

    channel: SpeakChannel
    persona: Persona

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        if since and (
            sent := _with_buttons(await read_history(self.channel, since - CLOCK_SKEW), view)
        ):
            return sent[0]
        # Discord ignores a repeated nonce
        shown = view or discord.utils.MISSING
        nonce = secrets.token_hex(8)
        content = self._prefixed(text)
        message = await persist(
            lambda: self.channel.send(content, suppress_embeds=True, view=shown, nonce=nonce)
        )
        return message.id

    async def find(self, event_id: int) -> list[int]:
        sent = await read_history(self.channel, discord.utils.snowflake_time(event_id))
        return [one.id for one in sent if _belongs_to(one, event_id)]

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        message = self.channel.get_partial_message(message_id)
        await persist(lambda: message.edit(content=self._prefixed(text), view=view))

    async def remove(self, message_id: int) -> None:
        with suppress(discord.NotFound):
            await persist(self.channel.get_partial_message(message_id).delete)

    def _prefixed(self, text: str) -> str:
        return f"**{self.persona.name}:** {text}"


async def read_history(channel: SpeakChannel, after: datetime.datetime) -> list[discord.Message]:
    """Return a channel's messages since a time, oldest first; none where the bot may not read them.

    Of many messages, those that followed at once, and the latest.
    """

    async def read() -> list[discord.Message]:
        limit = MAX_HISTORY_MESSAGES
        found = [one async for one in channel.history(limit=limit, after=after, oldest_first=True)]
        latest = [one async for one in channel.history(limit=limit)] if len(found) == limit else []
        return [*found, *(one for one in reversed(latest) if one.id > found[-1].id)]

    try:
        return await persist(read)
    except discord.Forbidden:
        log.warning(
            "copies of replies in #%s cannot be found without the permission Read Message History",
            channel,
        )
        return []


def _custom_ids(message: discord.Message) -> set[str]:
    rows = (row for row in message.components if isinstance(row, discord.ActionRow))
    return {getattr(item, "custom_id", None) or "" for row in rows for item in row.children}


def _with_buttons(messages: list[discord.Message], view: discord.ui.View | None) -> list[int]:
    buttons = {str(getattr(item, "custom_id", "")) for item in view.children} if view else set()
    return [one.id for one in messages if buttons and _custom_ids(one) == buttons]


def _belongs_to(message: discord.Message, event_id: int) -> bool:
    return any(custom_id.endswith(f":{event_id}") for custom_id in _custom_ids(message))


class ChannelCache(OrderedDict[int, V]):
    """A value for each of the channels that got one most recently."""

    def __init__(self, max_channels: int) -> None:
        super().__init__()
        self._max_channels = max_channels

    def __setitem__(self, channel_id: int, value: V) -> None:
        super().__setitem__(channel_id, value)
        self.move_to_end(channel_id)
        while len(self) > self._max_channels:
            self.popitem(last=False)


class SenderRegistry:
    """Finds or creates the sender of a persona in a channel; webhooks are kept in the store."""

    def __init__(self, client: discord.Client | None, store: Store) -> None:
        self._client = client
        self._store = store
        self._avatars: ChannelCache[Path | None] = ChannelCache(
            MAX_REMEMBERED_AVATARS
        )  # its webhook's avatar
        self._locks: WeakValueDictionary[int, asyncio.Lock] = (
            WeakValueDictionary()
        )  # by channel, while one is used

    @property
    def edit_stretch_s(self) -> float:
        """Seconds by which edits are postponed while requests wait; a client without shards shares
        no limit.
        """
        return float(getattr(self._client, "edit_stretch_s", 0.0))

    async def of(self, persona: Persona, channel: SpeakChannel) -> MessageSender:
        """The persona's sender; `BotSender` where the bot may not manage webhooks, or Discord does
        not give it one.
        """
        home = channel.parent if isinstance(channel, discord.Thread) else channel
        if not isinstance(home, discord.TextChannel):
            return BotSender(channel, persona)
        lock = self._locks.setdefault(home.id, asyncio.Lock())
        try:
            async with asyncio.timeout(WEBHOOK_TIMEOUT_S), lock:
                webhook = await persist(lambda: self._webhook(persona, home))
        except discord.Forbidden:
            return BotSender(channel, persona)
        except (*UNCERTAIN_ERRORS, discord.HTTPException, discord.RateLimited) as error:
            log.warning("%s speaks as the bot: %s", persona.name, _why_no_webhook(error, home))
            return BotSender(channel, persona)
        assert not isinstance(channel, discord.DMChannel)  # it is `home` or a thread of it
        return WebhookSender(webhook, persona, channel)

    async def _webhook(self, persona: Persona, channel: discord.TextChannel) -> discord.Webhook:
        if stored := self._store.channels.webhook(channel.id):
            assert self._client is not None  # channels come from a client
            webhook = discord.Webhook.partial(*stored, client=self._client)
            try:
                await self._set_avatar(webhook, persona, channel.id)
            except discord.NotFound:
                log.info("the webhook of #%s was deleted; making another", channel.name)
            else:
                return webhook
        if not (own := await self._own_webhooks(channel)):
            created = await channel.create_webhook(name=WEBHOOK_NAME, reason="a persona's voice")
            own = await self._own_webhooks(channel) or [
                created
            ]  # two, if it was done in spite of an error
        webhook = own[0]
        for surplus in (one for one in own[1:] if one.name == WEBHOOK_NAME):
            with suppress(discord.NotFound):
                await surplus.delete(reason="another one is used")
        assert webhook.token is not None  # webhooks that a bot creates always carry one
        try:
            self._store.channels.set_webhook(
                channel.guild.id, channel.id, webhook.id, webhook.token
            )
        except StoreError as error:  # it is found again among the channel's webhooks
            log.warning("the webhook of #%s was not stored: %s", channel.name, error)
        await self._set_avatar(webhook, persona, channel.id)
        return webhook

    async def _own_webhooks(self, channel: discord.TextChannel) -> list[discord.Webhook]:
        """Find webhooks of the bot that are not stored: it was killed before it could do so, or its
        home is new.
        """
        assert self._client is not None  # channels come from a client
        user = self._client.user
        found = await channel.webhooks()
        return [one for one in found if one.token and one.user and one.user == user]

    async def _set_avatar(
        self, webhook: discord.Webhook, persona: Persona, channel_id: int
    ) -> None:
        """Upload the persona's avatar to the webhook, so that no public address is needed for
        it.
        """
        if channel_id in self._avatars and self._avatars[channel_id] == persona.avatar:
            self._avatars.move_to_end(channel_id)
            return
        try:
            async with asyncio.timeout(AVATAR_TIMEOUT_S):
                await webhook.edit(avatar=_avatar(persona), prefer_auth=False)
        except discord.NotFound:
            raise
        except (*UNCERTAIN_ERRORS, discord.HTTPException) as error:
            if isinstance(error, discord.HTTPException) and error.status == BAD_REQUEST_STATUS:
                log.warning(
                    "%s speaks without a face: Discord does not take the picture (%s)",
                    persona.name,
                    error,
                )
                await webhook.edit(avatar=None, prefer_auth=False)
            else:
                log.warning(
                    "%s speaks without a new face: %s", persona.name, str(error) or "no response"
                )
        self._avatars[channel_id] = persona.avatar

    async def renew(self, sender: MessageSender, channel: SpeakChannel) -> MessageSender:
        """Replace a sender whose webhook is gone; several replies may request it at once."""
        stored = self._store.channels.webhook(channel_ref(channel).home_id)
        if isinstance(sender, WebhookSender) and stored and stored[0] == sender.webhook.id:
            self.forget(channel)
        return await self.of(sender.persona, channel)

    def forget(self, channel: SpeakChannel) -> None:
        """Forget a deleted webhook; the next reply creates another."""
        self._avatars.pop(channel_ref(channel).home_id, None)
        self._store.channels.delete_webhook(channel_ref(channel).home_id)


def _why_no_webhook(error: Exception, channel: discord.TextChannel) -> str:
    if isinstance(error, discord.HTTPException) and error.code == TOO_MANY_WEBHOOKS_CODE:
        return f"#{channel} has as many webhooks as Discord allows"
    return (
        f"Discord does not answer about the webhooks of #{channel} "
        f"({str(error) or type(error).__name__})"
    )


def _avatar(persona: Persona) -> bytes | None:
    return persona.avatar.read_bytes() if persona.avatar and persona.avatar.is_file() else None
