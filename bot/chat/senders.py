"""Sends, edits, deletes and finds the messages of a persona in a channel."""

import datetime
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import discord

from bot.chat import delivery
from bot.chat.delivery import persist
from bot.chat.places import GuildChannel, SpeakChannel
from bot.platform.messages import NO_MENTIONS, markdown_name
from personas.schemas.chat import Persona

T = TypeVar("T")
log = logging.getLogger(__name__)
CLOCK_SKEW = datetime.timedelta(seconds=90)
"""Largest difference between Discord's clock and ours."""
MAX_HISTORY_MESSAGES = 100
UNKNOWN_WEBHOOK_CODE = 10015
"""Discord's code for a webhook that was deleted."""
INVALID_TOKEN_CODE = 50027
"""Discord's code for the token of an interaction after 15 minutes."""


class MessageSender(Protocol):
    """Sender of a persona's messages in one channel."""

    @property
    def persona(self) -> Persona: ...

    def mentioning(self, member_ids: Sequence[int]) -> "MessageSender":
        """Return the same sender, whose messages mention these members with effect, and nobody
        else.
        """
        ...

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        """Send a message and return its id. `since` is the time of an earlier try, whose message
        counts as sent if it is there, with the same buttons.
        """
        ...

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        """Edit a message; a view of None removes its buttons."""
        ...

    async def remove(self, message_id: int) -> None:
        """Delete a message, or do nothing if it is gone. Raises `discord.Forbidden`."""
        ...

    async def find(self, event_id: int) -> list[int]:
        """Find the messages with the buttons of an event's reply, oldest first; none where the
        history cannot be read.
        """
        ...


@dataclass(frozen=True)
class WebhookSender:
    """Sends under the persona's name and avatar. `wearing` gives the webhook that avatar, and keeps
    others from changing it.
    """

    webhook: discord.Webhook
    persona: Persona
    channel: GuildChannel
    wearing: Callable[[], AbstractAsyncContextManager[None]]
    mentioned: tuple[int, ...] = ()

    @property
    def thread(self) -> Any:
        """The thread, for discord.py; MISSING in a channel."""
        if isinstance(self.channel, discord.Thread):
            return self.channel
        return discord.utils.MISSING

    def mentioning(self, member_ids: Sequence[int]) -> MessageSender:
        return replace(self, mentioned=tuple(member_ids))

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        # Webhooks have no nonce, and discord.py repeats a request after a pause if it did not see
        # its success. So a copy may be there, which is looked for before and after another try.
        started = since or discord.utils.utcnow()
        attempts = itertools.count(1 if since else 0)
        last = self.channel.last_message_id or 0

        async def send() -> int:
            if next(attempts):
                for copy in await self._sent(text, view, started, last):
                    return copy
            async with self.wearing():
                message = await self.webhook.send(
                    text,
                    username=self.persona.name,
                    wait=True,
                    allowed_mentions=_allowed(self.mentioned),
                    suppress_embeds=True,
                    thread=self.thread,
                    view=view or discord.utils.MISSING,
                )
            return message.id

        message_id = await persist(send)
        if (discord.utils.utcnow() - started).total_seconds() >= delivery.RETRY_PAUSE_S:
            for copy in await self._sent(text, view, started, last):
                if copy != message_id:
                    await self.remove(copy)
        return message_id

    async def _sent(
        self, text: str, view: discord.ui.View | None, started: datetime.datetime, last: int
    ) -> list[int]:
        """Find the copies of a message that was just sent: by its buttons, or else by its text
        after the `last` message.
        """
        latest = await read_history(self.channel, started - CLOCK_SKEW)  # `started` is by our clock
        own = [message for message in latest if message.webhook_id == self.webhook.id]
        if view:
            return _with_buttons(own, view)
        copies = []
        for message in own:
            is_same = message.content == text.strip() and not message.components
            if is_same and message.id > last:
                copies.append(message.id)
        return copies

    async def find(self, event_id: int) -> list[int]:
        # Messages without a webhook are the bot's own, from a time when it had none here.
        history = await read_history(self.channel, discord.utils.snowflake_time(event_id))
        ids = []
        for message in history:
            is_sender = message.webhook_id in (self.webhook.id, None)
            if is_sender and _belongs_to(message, event_id):
                ids.append(message.id)
        return ids

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        try:
            await persist(
                lambda: self.webhook.edit_message(
                    message_id,
                    content=text,
                    view=view,
                    allowed_mentions=_allowed(self.mentioned),
                    thread=self.thread,
                )
            )
        except discord.NotFound as error:
            if error.code == UNKNOWN_WEBHOOK_CODE:
                raise
            try:  # the bot sent it itself, without a webhook
                as_bot = BotSender(self.channel, self.persona, self.mentioned)
                await as_bot.change(message_id, text, view)
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
    """Sends as the bot: in direct messages, and where webhooks are not allowed. The text has the
    persona's name before it, unless the bot shows that (`is_named` is False).
    """

    channel: SpeakChannel
    persona: Persona
    mentioned: tuple[int, ...] = ()
    is_named: bool = True

    def mentioning(self, member_ids: Sequence[int]) -> MessageSender:
        return replace(self, mentioned=tuple(member_ids))

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        if since:
            sent = _with_buttons(await read_history(self.channel, since - CLOCK_SKEW), view)
            if sent:
                return sent[0]
        content = self._prefixed(text)
        shown = view or discord.utils.MISSING
        nonce = secrets.token_hex(8)  # Discord ignores a repeated nonce
        message = await persist(
            lambda: self.channel.send(
                content,
                suppress_embeds=True,
                view=shown,
                nonce=nonce,
                allowed_mentions=_allowed(self.mentioned),
            )
        )
        return message.id

    async def find(self, event_id: int) -> list[int]:
        history = await read_history(self.channel, discord.utils.snowflake_time(event_id))
        return [message.id for message in history if _belongs_to(message, event_id)]

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        message = self.channel.get_partial_message(message_id)
        content = self._prefixed(text)
        allowed = _allowed(self.mentioned)
        await persist(lambda: message.edit(content=content, view=view, allowed_mentions=allowed))

    async def remove(self, message_id: int) -> None:
        with suppress(discord.NotFound):
            await persist(self.channel.get_partial_message(message_id).delete)

    def _prefixed(self, text: str) -> str:
        return named_text(self.persona, text) if self.is_named else text


@dataclass(frozen=True)
class FaceSender:
    """Sends as the bot where that shows the persona's own name and picture. `by_webhook` finds the
    sender of the persona's messages from before that.
    """

    as_bot: BotSender
    by_webhook: Callable[[], Awaitable[MessageSender]]
    _others: set[int] = field(default_factory=set)
    """Messages that are not the bot's own."""

    @property
    def persona(self) -> Persona:
        return self.as_bot.persona

    def mentioning(self, member_ids: Sequence[int]) -> MessageSender:
        return replace(self, as_bot=replace(self.as_bot, mentioned=tuple(member_ids)))

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        try:
            return await self.as_bot.say(text, view, since)
        except discord.Forbidden:  # webhooks do without Send Messages
            sender = await self._webhook_sender()
            message_id = await sender.say(text, view, since)
            self._others.add(message_id)
            return message_id

    async def find(self, event_id: int) -> list[int]:
        return await self.as_bot.find(event_id)

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        await self._as_author(message_id, lambda sender: sender.change(message_id, text, view))

    async def remove(self, message_id: int) -> None:
        await self._as_author(message_id, lambda sender: sender.remove(message_id))

    async def _as_author(
        self, message_id: int, request: Callable[[MessageSender], Awaitable[None]]
    ) -> None:
        """Make a request about a message: as the bot, else through the webhook."""
        if message_id not in self._others:
            try:
                return await request(self.as_bot)
            except discord.Forbidden:
                self._others.add(message_id)
        await request(await self._webhook_sender())

    async def _webhook_sender(self) -> MessageSender:
        return (await self.by_webhook()).mentioning(self.as_bot.mentioned)


@dataclass(frozen=True)
class InteractionSender:
    """Sends as the bot through an interaction's webhook, where the bot is not. Discord takes that
    for 15 minutes; later, the messages count as gone.
    """

    webhook: discord.Webhook
    persona: Persona
    is_private: bool

    def mentioning(self, member_ids: Sequence[int]) -> MessageSender:
        return self  # nobody is greeted where the bot is not

    async def say(
        self, text: str, view: discord.ui.View | None = None, since: datetime.datetime | None = None
    ) -> int:
        # No history can be read there, so a copy that Discord posted in spite of an error stays.
        message = await self._send(
            lambda: self.webhook.send(
                named_text(self.persona, text),
                wait=True,
                ephemeral=self.is_private,
                suppress_embeds=True,
                view=view or discord.utils.MISSING,
                allowed_mentions=NO_MENTIONS,
            )
        )
        return message.id

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        content = named_text(self.persona, text)
        await self._send(
            lambda: self.webhook.edit_message(
                message_id, content=content, view=view, allowed_mentions=NO_MENTIONS
            )
        )

    async def remove(self, message_id: int) -> None:
        with suppress(discord.NotFound):
            await self._send(lambda: self.webhook.delete_message(message_id))

    async def find(self, event_id: int) -> list[int]:
        return []

    async def _send(self, request: Callable[[], Awaitable[T]]) -> T:
        try:
            return await persist(request)
        except discord.HTTPException as error:
            if error.code != INVALID_TOKEN_CODE:
                raise
            gone: Any = {"code": error.code, "message": error.text}
            raise discord.NotFound(error.response, gone) from error


def interaction_webhook(client: discord.Client, token: str) -> discord.Webhook:
    """Return the webhook of an earlier interaction; that of a present one is its `followup`."""
    data: Any = {"id": client.application_id, "type": 3, "token": token}
    return discord.Webhook.from_state(data, state=client._connection)


def named_text(persona: Persona, text: str) -> str:
    """Return a persona's text as the bot says it under its own name."""
    return f"**{markdown_name(persona)}:** {text}"


def _allowed(mentioned: Sequence[int]) -> discord.AllowedMentions:
    """Let mentions have an effect for these members alone."""
    if not mentioned:
        return NO_MENTIONS
    users = [discord.Object(user_id) for user_id in mentioned]
    return discord.AllowedMentions(everyone=False, roles=False, replied_user=False, users=users)


async def read_history(channel: SpeakChannel, after: datetime.datetime) -> list[discord.Message]:
    """Return a channel's messages since a time, oldest first; none where the bot may not read them.

    Of more than `MAX_HISTORY_MESSAGES`, the first and the newest: a copy was posted right after
    `after`, or just now.
    """

    async def read() -> list[discord.Message]:
        limit = MAX_HISTORY_MESSAGES
        oldest = channel.history(limit=limit, after=after, oldest_first=True)
        first = [message async for message in oldest]
        if len(first) < limit:
            return first
        newest = [message async for message in channel.history(limit=limit)]
        return first + [message for message in reversed(newest) if message.id > first[-1].id]

    try:
        return await persist(read)
    except discord.Forbidden:
        log.warning(
            "copies of replies in #%s cannot be found without the permission Read Message History",
            channel,
        )
        return []


def _custom_ids(message: discord.Message) -> set[str]:
    custom_ids = set[str]()
    for row in message.components:
        if isinstance(row, discord.ActionRow):
            custom_ids |= {getattr(item, "custom_id", None) or "" for item in row.children}
    return custom_ids


def _with_buttons(messages: list[discord.Message], view: discord.ui.View | None) -> list[int]:
    if view is None or not view.children:
        return []
    buttons = {str(getattr(item, "custom_id", "")) for item in view.children}
    return [message.id for message in messages if _custom_ids(message) == buttons]


def _belongs_to(message: discord.Message, event_id: int) -> bool:
    return any(custom_id.endswith(f":{event_id}") for custom_id in _custom_ids(message))
