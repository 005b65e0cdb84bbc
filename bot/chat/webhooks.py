"""Finds or creates the webhook that gives a persona its name and avatar in a channel."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS, persist
from bot.chat.places import (
    ChannelCache,
    GuildChannel,
    OutsideChannel,
    ReplyChannel,
    SpeakChannel,
    WebhookChannel,
    channel_ref,
)
from bot.chat.senders import (
    UNKNOWN_WEBHOOK_CODE,
    BotSender,
    FaceSender,
    InteractionSender,
    MessageSender,
    WebhookSender,
)
from bot.store import Store, StoreError
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
WEBHOOK_NAME = "Understudy"
AVATAR_TIMEOUT_S = 10.0
WEBHOOK_TIMEOUT_S = 20.0
"""Timeout for finding or creating a webhook, and setting its avatar."""
TOO_MANY_WEBHOOKS_CODE = 30007
"""Discord's code for a channel with as many webhooks as it may have."""
BAD_REQUEST_STATUS = 400
MAX_REMEMBERED_AVATARS = 10_000
"""Channels whose webhook's avatar is known; in the rest it is uploaded again."""
UNKNOWN_PICTURE = Path()
"""Of a webhook that may show another persona's avatar, because a change failed: each message tries
to change it, until that succeeds.
"""


class PictureLock:
    """Keeps the picture of a webhook while messages are sent: each shows the one that the webhook
    has then. Messages with the same picture are sent at once, others in the order in which they
    came.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._picture: Path | None = None
        self._senders = 0
        self._is_free = asyncio.Event()
        self._is_free.set()

    @property
    def is_used(self) -> bool:
        """Whether a message is being sent, or waits to be."""
        return self._turn.locked() or self._senders > 0

    @asynccontextmanager
    async def showing(
        self, picture: Path | None, set_picture: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Have the webhook show a picture inside the block, in which `set_picture` has set it."""
        async with self._turn:
            if picture != self._picture:
                await self._is_free.wait()
            await set_picture()
            self._picture = picture
            self._senders += 1
            self._is_free.clear()
        try:
            yield
        finally:
            self._senders -= 1
            if not self._senders:
                self._is_free.set()


class SenderRegistry:
    """Finds the sender of a persona in a channel; webhooks are kept in the store. `is_face` reports
    whether the bot itself shows a persona's name and picture in a guild.
    """

    def __init__(
        self,
        client: discord.Client | None,
        store: Store,
        is_face: Callable[[Persona, int], bool],
    ) -> None:
        self._client = client
        self._store = store
        self._is_face = is_face
        self._avatars: ChannelCache[Path | None] = ChannelCache(MAX_REMEMBERED_AVATARS)
        # One lock for each channel in which a sender is being looked for.
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        # One for each channel whose webhook sends.
        self._picture_locks: WeakValueDictionary[int, PictureLock] = WeakValueDictionary()

    async def of(self, persona: Persona, channel: ReplyChannel) -> MessageSender:
        """Return the persona's sender: `FaceSender` where it is the bot's face, `InteractionSender`
        where the bot is not.
        """
        if isinstance(channel, OutsideChannel):
            return InteractionSender(channel.webhook, persona, channel.is_private)
        by_webhook = partial(self._by_webhook, persona, channel)
        if isinstance(channel, GuildChannel) and self._is_face(persona, channel.guild.id):
            return FaceSender(BotSender(channel, persona, is_named=False), by_webhook)
        return await by_webhook()

    async def _by_webhook(self, persona: Persona, channel: SpeakChannel) -> MessageSender:
        """Return the persona's sender through a webhook; `BotSender` where there is none, because
        the bot may not manage webhooks, or Discord does not give it one.
        """
        home = channel.parent if isinstance(channel, discord.Thread) else channel
        if not isinstance(home, WebhookChannel):
            return BotSender(channel, persona)
        lock = self._locks.setdefault(home.id, asyncio.Lock())
        try:
            async with asyncio.timeout(WEBHOOK_TIMEOUT_S), lock:
                webhook = await persist(lambda: self._webhook(persona, home))
        except discord.Forbidden:
            return BotSender(channel, persona)
        except (*UNCERTAIN_ERRORS, discord.HTTPException, discord.RateLimited) as error:
            reason = f"Discord does not answer about the webhooks of #{home}"
            if isinstance(error, discord.HTTPException) and error.code == TOO_MANY_WEBHOOKS_CODE:
                reason = f"#{home} has as many webhooks as Discord allows"
            detail = str(error) or type(error).__name__
            log.warning("%s speaks as the bot: %s (%s)", persona.name, reason, detail)
            return BotSender(channel, persona)
        assert not isinstance(channel, discord.DMChannel)  # it is `home` or a thread of it
        wearing = partial(self._wearing, webhook, persona, home.id)
        return WebhookSender(webhook, persona, channel, wearing)

    @asynccontextmanager
    async def _wearing(
        self, webhook: discord.Webhook, persona: Persona, channel_id: int
    ) -> AsyncIterator[None]:
        """Have a channel's webhook show a persona's avatar inside the block."""
        lock = self._picture_locks.setdefault(channel_id, PictureLock())
        set_avatar = partial(self._set_avatar, webhook, persona, channel_id)
        async with lock.showing(persona.avatar, set_avatar):
            yield

    async def _webhook(self, persona: Persona, channel: WebhookChannel) -> discord.Webhook:
        if stored := self._store.places.webhook(channel.id):
            assert self._client is not None  # channels come from a client
            webhook = discord.Webhook.partial(*stored, client=self._client)
            try:
                await self._set_avatar_early(webhook, persona, channel.id)
            except discord.NotFound:
                log.info("the webhook of #%s was deleted; making another", channel.name)
            else:
                return webhook
        webhook = await self._find_or_create(channel)
        assert webhook.token is not None  # webhooks that a bot creates always carry one
        try:
            self._store.places.set_webhook(channel.guild.id, channel.id, webhook.id, webhook.token)
        except StoreError as error:  # it is found again among the channel's webhooks
            log.warning("the webhook of #%s was not stored: %s", channel.name, error)
        await self._set_avatar_early(webhook, persona, channel.id)
        return webhook

    async def _set_avatar_early(
        self, webhook: discord.Webhook, persona: Persona, channel_id: int
    ) -> None:
        """Set the avatar before there is something to send, unless somebody else is sending."""
        lock = self._picture_locks.setdefault(channel_id, PictureLock())
        if not lock.is_used:
            async with self._wearing(webhook, persona, channel_id):
                pass

    async def _find_or_create(self, channel: WebhookChannel) -> discord.Webhook:
        own = await self._own_webhooks(channel)
        if not own:
            created = await channel.create_webhook(name=WEBHOOK_NAME, reason="a persona's voice")
            # There are two if an earlier request had its effect in spite of an error.
            own = await self._own_webhooks(channel) or [created]
        webhook, *others = own
        for surplus in others:
            if surplus.name == WEBHOOK_NAME:
                with suppress(discord.NotFound):
                    await surplus.delete(reason="another one is used")
        return webhook

    async def _own_webhooks(self, channel: WebhookChannel) -> list[discord.Webhook]:
        """Find webhooks of the bot that are not stored: it was killed before it could do so, or its
        home is new.
        """
        assert self._client is not None  # channels come from a client
        user = self._client.user
        webhooks = await channel.webhooks()
        return [hook for hook in webhooks if hook.token and hook.user and hook.user == user]

    async def _set_avatar(
        self, webhook: discord.Webhook, persona: Persona, channel_id: int
    ) -> None:
        """Upload the persona's avatar to the webhook, so that no public address is needed for
        it.
        """
        # A message of a webhook can override the avatar only by a URL.
        if channel_id in self._avatars and self._avatars[channel_id] == persona.avatar:
            self._avatars.move_to_end(channel_id)
            return
        picture = None
        try:
            if persona.avatar and persona.avatar.is_file():
                picture = persona.avatar.read_bytes()
            async with asyncio.timeout(AVATAR_TIMEOUT_S):
                await webhook.edit(avatar=picture, prefer_auth=False)
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
                if self._avatars.get(channel_id, persona.avatar) != persona.avatar:
                    self._avatars[channel_id] = UNKNOWN_PICTURE
                    return
        self._avatars[channel_id] = persona.avatar

    async def post(
        self,
        persona: Persona,
        channel: ReplyChannel,
        texts: Iterable[str],
        *,
        mentioned: Sequence[int] = (),
    ) -> list[int]:
        """Send messages that are whole from the beginning, and return their ids. A deleted webhook
        is replaced.
        """
        message_ids = []
        sender = await self.of(persona, channel)
        for text in texts:
            try:
                message_id = await sender.mentioning(mentioned).say(text)
            except discord.NotFound as error:
                if error.code != UNKNOWN_WEBHOOK_CODE:
                    raise
                sender = await self.renew(sender, channel)
                message_id = await sender.mentioning(mentioned).say(text)
            message_ids.append(message_id)
        return message_ids

    async def reply_as_bot(
        self, message: discord.Message | discord.PartialMessage, text: str, *, nonce: str
    ) -> None:
        """Reply to a message with a text of the bot itself: without showing which one, where the bot
        may not read the history, and under its name through the webhook, where it may not write.

        Discord ignores a repeated nonce, which webhooks do without. Raises `discord.Forbidden` where
        the bot may do neither.
        """
        channel = message.channel
        send = partial(channel.send, text, nonce=nonce, suppress_embeds=True)
        try:
            await send(reference=message.to_reference(fail_if_not_exists=False))
        except discord.Forbidden:
            try:
                await send()
            except discord.Forbidden:
                if not isinstance(channel, GuildChannel):
                    raise
                await self.post(Persona("", channel.guild.me.name), channel, [text])

    async def renew(self, sender: MessageSender, channel: ReplyChannel) -> MessageSender:
        """Replace a sender whose webhook is gone; several replies may request it at once."""
        stored = self._store.places.webhook(channel_ref(channel).home_id)
        if isinstance(sender, WebhookSender) and stored and stored[0] == sender.webhook.id:
            self.forget(channel)
        return await self.of(sender.persona, channel)

    def forget(self, channel: ReplyChannel) -> None:
        """Forget a deleted webhook; the next reply creates another."""
        home_id = channel_ref(channel).home_id
        self._avatars.pop(home_id, None)
        self._store.places.forget_webhook(home_id)
