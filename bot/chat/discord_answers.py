"""Has a member's message answered if it is meant for a persona, once, or says why there is no
answer.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import astuple, replace
from functools import partial

import discord
from discord.ext import commands

from bot.chat.addressing import Rule
from bot.chat.delivery import DELIVERY_ERRORS, deliver
from bot.chat.discord_addressing import addressees, decide_on, persona_replied_to
from bot.chat.discord_outside import CHOOSE_TEXT, direct_personas
from bot.chat.message_parts import has_pictures
from bot.chat.message_reader import IncomingMessage, mentions_bot
from bot.chat.message_text import has_words, raw_text, said_text
from bot.chat.places import ChannelCache, ChannelRef, SpeakChannel, channel_ref
from bot.chat.proxies import ProxiedMessage, ProxyWatch
from bot.chat.reply_round import ReplyRound
from bot.moderation.age import AgeRestrictedError, is_age_restricted
from bot.moderation.limits import LimitReachedError, ReplyLimits
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import MENU_NUMBER, PersistentPersonaSelect, button_view, defer
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import activate, gettext_lazy, join_texts, localise, override
from bot.platform.messages import markdown_name
from bot.safety.actions import SelfHarmError
from bot.services import Bot, Services
from bot.store import StoredReply, StoreError
from personas.errors import EngineBusyError
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
NO_CONTENT_TEXT = gettext_lazy(
    "Discord hides your message from me, since it does not mention me. "
    "Use the button Reply under the message, mention me, or use `/chat`."
)
HIDDEN_QUOTE_TEXT = gettext_lazy(
    "Discord hides the message that you replied to from me, since it does not mention me. "
    "Copy its words into yours if they matter."
)
BLIND_TEXT = gettext_lazy(
    "-# I cannot look at pictures here. A persona is told a picture's name and its description, "
    "which you can add when you upload it."
)
NO_PERSONA_TEXTS = (
    gettext_lazy("No persona lives here yet."),
    gettext_lazy("A moderator can change that with `/persona set`."),
)
SAFETY_REMARK = gettext_lazy("the fixed text with helplines answers it")
USER_TYPES = (discord.MessageType.default, discord.MessageType.reply)
HINT_INTERVAL_S = 600.0
BUSY_NOTICE_INTERVAL_S = 60.0
MENU_INTERVAL_S = 5.0
BLIND_NOTICE_INTERVAL_S = 86_400.0
"""Minimum time between two hints, notices of a full queue, menus, and words about pictures that no
model sees, in a channel.
"""
SAFETY_ANSWER_INTERVAL_S = 60.0
"""Minimum time between two answers with helplines to one member in a channel."""
MAX_ERRORS_PER_MINUTE = 5
MAX_UNREAD_NOTICES_PER_MINUTE = 5
MAX_DELETED = 20_000
"""Number of the latest deleted messages that are remembered: more than events can be held."""


class PersonaSelect(PersistentPersonaSelect, template=f"choose-persona{MENU_NUMBER}"):
    """The persona menu of a direct-message channel."""

    async def chosen(self, interaction: Interaction, persona_id: str) -> None:
        services = interaction.client.services
        channel = interaction.channel
        persona = services.personas.get(persona_id, 0)
        if persona is None or not isinstance(channel, discord.DMChannel):
            raise RefusedError(
                gettext_lazy("This persona is no longer here."),
                gettext_lazy("Write to me again for a new menu."),
            )
        services.reply_service.rules.require_answered(
            persona, channel_ref(channel), interaction.user
        )
        await defer(interaction)
        services.reply_service.assign(
            persona, channel, answers="everything", user_id=interaction.user.id
        )
        if message := services.unanswered.pop(channel.id, None):
            await services.reply_service.answer(message, persona, channel)
        else:
            await services.reply_service.greet(persona, channel, interaction.user.display_name)


def persona_select_view(services: Services) -> discord.ui.View:
    """Return the menus of the shared personas that speak in direct messages. Raises `RefusedError`
    when there are none.
    """
    return button_view(*PersonaSelect.menus(direct_personas(services)))


class MessageAnswerer:
    """Answers the messages of the gateway's events.

    It remembers messages that are being answered, and those that were deleted: the edit or deletion
    of a message may come while it is being read, or held until the database can be used.
    """

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.proxies = ProxyWatch()
        self.answering: dict[int, discord.Message | None] = {}
        """By id: the message as it was edited meanwhile."""
        self._deleted: ChannelCache[bool] = ChannelCache(MAX_DELETED)
        self._hints = _per_channel(1, HINT_INTERVAL_S)
        self._menus = _per_channel(1, MENU_INTERVAL_S)
        self._errors = _per_channel(MAX_ERRORS_PER_MINUTE, 60.0)
        self._busy_notices = _per_channel(1, BUSY_NOTICE_INTERVAL_S)
        self._blind_notices = _per_channel(1, BLIND_NOTICE_INTERVAL_S)
        self._unread_notices = _per_channel(MAX_UNREAD_NOTICES_PER_MINUTE, 60.0)
        self._limits_said: dict[tuple[int, int], tuple[ReplyLimits, int]] = {}
        """By server and member, the limits that they were told last, and until when they wait; none
        once they are answered again.
        """
        self._safety_answers = commands.CooldownMapping[discord.Message](
            commands.Cooldown(1, SAFETY_ANSWER_INTERVAL_S),
            lambda message: (message.channel.id, message.author.id),
        )

    async def answer(self, message: discord.Message) -> None:
        """Answer a person's message if it is meant for a persona."""
        channel = message.channel
        if not isinstance(channel, SpeakChannel) or message.type not in USER_TYPES:
            return
        if message.id in self.answering:
            return
        async with self._handling(message):
            events = self.bot.services.reply_service.events
            decision = await events.read(lambda: decide_on(self.bot, message, channel))
            self.bot.services.decisions.note(channel.id, message.id, decision)
            voice = self.bot.services.voice_messages
            may_name = decision.rule is Rule.CHANCE and voice.hears(message)
            if not decision.is_answered and not may_name:
                return
            if decision.is_answered:
                self.proxies.note(message)
                await self.proxies.wait(message)
            # Its words are needed all the same: they may speak of self-harm.
            is_refused = voice.hears(message) and await events.read(
                lambda: self._is_refused(message, channel)
            )
            async with voice.turn(message, comes_last=is_refused or may_name):
                words = await voice.words(message, is_refused=is_refused, may_name=may_name)
                if may_name and not await self._is_called(message, channel, words):
                    return
                read = await self.bot.services.message_reader.read(message)
                incoming = read.with_spoken(words)
                go_on = await events.store(lambda: self._accept(message, incoming, channel))
            if go_on:
                await _send_beside_reply(self._say_blind(message))
                await go_on()

    async def _is_called(self, message: discord.Message, channel: SpeakChannel, words: str) -> bool:
        """Decide by its words whether a voice message is answered that was left to chance."""
        services = self.bot.services
        if not words:
            remark = gettext_lazy("no words were recognised in it")
            self._remark(channel.id, message.id, remark)
            return False
        decision = await services.reply_service.events.read(
            lambda: decide_on(self.bot, message, channel, spoken=words)
        )
        services.decisions.note(channel.id, message.id, decision)
        return decision.is_answered

    async def answer_copy(self, original: ProxiedMessage) -> None:
        """Answer a proxy's copy of a member's message as that member's, and take back an answer to
        the original.
        """
        message = original.message
        copy = original.copy
        assert copy is not None  # the watch returns no others
        channel = message.channel
        if not isinstance(channel, SpeakChannel) or copy.id in self.answering:
            return
        services = self.bot.services
        events = services.reply_service.events
        self.proxies.note_member(original)
        if noted := services.decisions.find(channel.id, message.id):
            services.decisions.note(channel.id, copy.id, noted.decision)
        async with self._handling(copy, original=message):
            if replies := await events.read(lambda: self._superseded_replies(message)):
                await services.reply_service.take_back(replies, self.bot)
            text = services.message_reader.text(copy)
            incoming = replace(
                await services.message_reader.read(message),
                event_id=copy.id,
                author_name=copy.author.display_name,
                text=text,
            )
            if go_on := await events.store(lambda: self._accept(message, incoming, channel)):
                await go_on()

    def _superseded_replies(self, message: discord.Message) -> list[StoredReply]:
        """List the replies to a message that a proxy has posted again; none where they answer other
        lines, too, or still wait for some: the copy becomes one of them.
        """
        services = self.bot.services
        wait = services.reply_service.line_waits.get(message.channel.id, message.author.id)
        is_waiting = wait is not None and wait.event_id == message.id
        if is_waiting or services.store.replies.lines(message.id):
            return []
        # One that waits for those before it is not made: its message is deleted.
        replies = services.store.replies.of_round(message.id)
        return [reply for reply in replies if reply.parts or reply.event_id == message.id]

    @asynccontextmanager
    async def _handling(
        self, message: discord.Message, *, original: discord.Message | None = None
    ) -> AsyncIterator[None]:
        """Mark a message, or the copy of its `original`, as being answered; notices are in the language
        of its channel. An error is shown there: an event has no caller.
        """
        self.answering[message.id] = None
        languages = self.bot.services.reply_service.member_languages
        activate(languages.of_channel(message.channel, message.author.id))
        try:
            yield
        except StoreError as error:  # it says nothing to members
            log.error("a message in #%s is not answered: %s", message.channel, error)
        except LimitReachedError as error:
            remark = gettext_lazy("the member has had as many replies as the server allows")
            self._remark(message.channel.id, message.id, remark)
            await self._say_limit(message, error)
        except SelfHarmError as error:
            self._remark(message.channel.id, message.id, SAFETY_REMARK)
            await self._say_help(message, error.message, original=original)
        except Exception as error:
            if message.id in self._deleted:
                return
            text = error_text(error)
            self._remark(message.channel.id, message.id, text)
            is_busy = isinstance(error, EngineBusyError)
            notices = self._busy_notices if is_busy else self._errors
            if not notices.update_rate_limit(message):
                await _notify(message.channel, text)
        finally:
            del self.answering[message.id]

    def _accept(
        self, message: discord.Message, incoming: IncomingMessage, channel: SpeakChannel
    ) -> Callable[[], Awaitable[object]] | None:
        """Store a message that is meant for a persona; return how to go on. Raises
        `EngineBusyError`.

        A deletion or edit since its event came, however long that was held, counts.
        """
        edited = self.answering.get(incoming.event_id)
        if incoming.event_id in self._deleted or (edited and not said_text(edited)):
            return None
        if edited:
            incoming = replace(incoming, text=self.bot.services.message_reader.text(edited))
        replied_to = persona_replied_to(self.bot.services, message)
        asked = self._addressees(message, channel, spoken=incoming.spoken, replied_to=replied_to)
        reply_service = self.bot.services.reply_service
        reply_service.require_safe(incoming)  # also where nobody answers, or is silenced
        if not asked:
            return partial(self._report_no_persona, message, incoming)
        place = channel_ref(channel)
        personas = []
        for each in asked:
            if self._may_answer(message, each, channel, event_id=incoming.event_id):
                personas.append(each)
        if not personas:
            return self._age_notice(asked, channel, incoming.author_id)
        if is_age_restricted(channel):
            self.bot.services.store.places.forget_age_notice(place.home_id)
        quoted = None if replied_to else incoming.quoted
        if not has_words(incoming.text) and not (quoted and quoted.text):
            return partial(self._say_unread, message, personas[0])
        personas, limit = self._within_limits(message, personas, place, event_id=incoming.event_id)
        answering = self.bot.services.answering.in_channel(*astuple(place))
        replies = reply_service.accept_line(incoming, personas, channel, wait_s=answering.wait_s)
        if replies is None:
            return None
        self._limits_said.pop((place.guild_id, message.author.id), None)
        is_quote_hidden = quoted is not None and quoted.text is None
        return partial(self._answer, message, replies, limit=limit, is_quote_hidden=is_quote_hidden)

    def _is_refused(self, message: discord.Message, channel: SpeakChannel) -> bool:
        """Report whether nobody would answer a voice message, by what is known before its words are:
        they may ask another persona.
        """
        services = self.bot.services
        replied_to = persona_replied_to(services, message)
        asked = self._addressees(message, channel, spoken="", replied_to=replied_to)
        if not asked and isinstance(channel, discord.DMChannel):
            return False  # the persona that is chosen from the menu answers it
        able = [each for each in asked if not self._refusal(message, each, channel)]
        if not able or self._joins_reply(message, able):
            return not able
        try:
            services.reply_service.rules.require_within_limits(channel_ref(channel), message.author)
        except LimitReachedError:
            return True
        return False

    def _may_answer(
        self, message: discord.Message, persona: Persona, channel: SpeakChannel, *, event_id: int
    ) -> bool:
        """Report whether a persona may answer a message, or its copy with the id `event_id`; remarks
        why where it may not.
        """
        reason = self._refusal(message, persona, channel)
        if reason:
            self._remark(channel.id, event_id, reason)
        return not reason

    def _refusal(self, message: discord.Message, persona: Persona, channel: SpeakChannel) -> str:
        """Say why a persona may not answer a message; empty if it may."""
        rules = self.bot.services.reply_service.rules
        reason = rules.speech_refusal(persona, channel, message.author.id)
        guild_id = message.guild.id if message.guild else 0
        if not reason and not rules.roles.allows(message.author, guild_id, "talk"):
            reason = gettext_lazy("the member has no role that may talk here")
        return reason

    def _age_notice(
        self, asked: list[Persona], channel: SpeakChannel, author_id: int
    ) -> Callable[[], Awaitable[object]] | None:
        """Return how to say that a persona does not speak in a channel that is not age-restricted;
        None where moderators have silenced all.
        """
        services = self.bot.services
        for persona in asked:
            rules = services.reply_service.rules
            if not rules.silence_reason(persona, channel_ref(channel), author_id):
                return partial(say_age_restricted, services, persona, channel)
        return None

    def _within_limits(
        self,
        message: discord.Message,
        personas: list[Persona],
        place: ChannelRef,
        *,
        event_id: int,
    ) -> tuple[list[Persona], LimitReachedError | None]:
        """Leave out the last personas where the member may have fewer replies, and return the notice
        about them. Raises `LimitReachedError` where they may have none.
        """
        if self._joins_reply(message, personas):
            return personas, None  # their replies were counted when the wait began
        rules = self.bot.services.reply_service.rules
        able, notice = rules.within_limits(personas, place, message.author)
        for persona in personas[len(able) :]:
            self._remark(
                message.channel.id,
                event_id,
                gettext_lazy(
                    "{persona} would be one reply more than the member gets here each day",
                    persona=markdown_name(persona),
                ),
            )
        return able, notice

    def _joins_reply(self, message: discord.Message, personas: list[Persona]) -> bool:
        """Report whether replies of some personas wait for further lines of a message's author."""
        line_waits = self.bot.services.reply_service.line_waits
        wait = line_waits.get(message.channel.id, message.author.id)
        return wait is not None and wait.is_of([persona.id for persona in personas])

    def _remark(self, channel_id: int, event_id: int, remark: str) -> None:
        """Remember why a message that is said to a persona gets no reply, for `/persona why`."""
        self.bot.services.decisions.remark(channel_id, event_id, remark)

    # -------------------------------------- edits and deletions of messages that are not stored yet

    def note_edit(self, message: discord.Message) -> None:
        """Note an edit of a message that is being read, or waits for a persona."""
        if not message.edited_at:  # an embed or a thread came
            return
        if message.id in self.answering:
            self.answering[message.id] = message
        unanswered = self.bot.services.unanswered
        waiting = unanswered.get(message.channel.id)
        if waiting and waiting.event_id == message.id:
            text = self.bot.services.message_reader.text(message)
            unanswered[message.channel.id] = replace(waiting, text=text)

    async def answer_unsafe_edit(self, message: discord.Message) -> None:
        """Answer a message that personas have yet to answer, if an edit made it speak of
        self-harm.
        """
        services = self.bot.services
        if text := services.safety.answer(services.message_reader.text(message)):
            self._remark(message.channel.id, message.id, SAFETY_REMARK)
            await self._say_help(message, text)

    def note_deletion(self, channel_id: int, message_ids: Collection[int]) -> None:
        """Note deletions at once, before their events are stored."""
        for message_id in message_ids:
            self._deleted[message_id] = True
        self.bot.services.request_builder.files.forget(message_ids)
        unanswered = self.bot.services.unanswered
        waiting = unanswered.get(channel_id)
        if waiting and waiting.event_id in message_ids:
            del unanswered[channel_id]

    # ----------------------------------------------------------------------------------- addressees

    def _addressees(
        self,
        message: discord.Message,
        channel: SpeakChannel,
        *,
        spoken: str,
        replied_to: Persona | None,
    ) -> list[Persona]:
        """List the personas that a message asks, typed or spoken, else the one that a mention of the
        bot shows, else those whose replies wait for further lines of the member, else the channel's
        first.
        """
        services = self.bot.services
        place = channel_ref(channel)
        text = f"{spoken}\n{raw_text(message)}"
        if asked := addressees(services, text, place, replied_to):
            return asked
        if face := self._face_mentioned(message, place):
            return [face]
        if waiting := self._waiting(message, place):
            return waiting
        first = self.persona_in(channel)
        return [first] if first else []

    def _waiting(self, message: discord.Message, place: ChannelRef) -> list[Persona]:
        """List the personas whose replies wait for further lines of a message's author; none where
        all have left the channel.
        """
        services = self.bot.services
        wait = services.reply_service.line_waits.get(message.channel.id, message.author.id)
        if wait is None:
            return []
        rules = services.reply_service.rules
        replies = services.store.replies.of_round(wait.event_id)
        if all(rules.has_left(reply, place) for reply in replies):
            return []
        personas = [services.personas.get(each, place.guild_id) for each in wait.persona_ids]
        return [persona for persona in personas if persona]

    def _face_mentioned(self, message: discord.Message, place: ChannelRef) -> Persona | None:
        """Return the persona of the channel whose name a mention of the bot shows."""
        if not place.guild_id or not mentions_bot(message, self.bot.user):
            return None
        services = self.bot.services
        face = services.faces.wearer(place.guild_id)
        return face if face in services.personas_in(place) else None

    def persona_in(self, channel: SpeakChannel) -> Persona | None:
        """Return the persona of a channel."""
        return self.bot.services.persona_in(channel_ref(channel))

    # -------------------------------------------------------------------------------------- notices

    async def _report_no_persona(self, message: discord.Message, incoming: IncomingMessage) -> None:
        channel = message.channel
        if isinstance(channel, discord.DMChannel):
            self.bot.services.unanswered[channel.id] = incoming  # the chosen persona answers it
            if not self._menus.update_rate_limit(message):
                view = persona_select_view(self.bot.services)
                await _notify(channel, CHOOSE_TEXT, view)
        elif not self._errors.update_rate_limit(message):
            await _notify(message.channel, join_texts(*NO_PERSONA_TEXTS))

    async def _say_help(
        self, message: discord.Message, text: str, *, original: discord.Message | None = None
    ) -> None:
        """Answer a message that speaks of self-harm with the fixed text, a copy of one only where its
        `original` has none.
        """
        is_there = message.id not in self._deleted
        if is_there and not self._safety_answers.update_rate_limit(original or message):
            await self._send_help(message, text)

    async def _send_help(self, message: discord.Message, text: str) -> None:
        """Send the fixed text with helplines as soon as Discord takes it, also if a proxy deletes
        the message meanwhile. Discord ignores a repeated nonce, also that of a bot that was killed.
        """
        senders = self.bot.services.reply_service.senders

        async def send() -> None:
            await senders.reply_as_bot(message, text, nonce=str(message.id))

        try:
            await deliver(f"the notice about the event {message.id}", send)
        except DELIVERY_ERRORS as error:
            log.warning("could not tell #%s: %s", message.channel, error)

    async def _say_limit(self, message: discord.Message, error: LimitReachedError) -> None:
        """Say once when a member is answered again, by the same limits."""
        member = (message.guild.id if message.guild else 0, message.author.id)
        reached = (error.limits, error.until)
        if self._limits_said.get(member) != reached:
            self._limits_said[member] = reached
            await self._reply(message, error_text(error))
        for each, (_, until) in tuple(self._limits_said.items()):
            if until < message.created_at.timestamp():
                del self._limits_said[each]

    async def _answer(
        self,
        message: discord.Message,
        replies: ReplyRound,
        *,
        limit: LimitReachedError | None,
        is_quote_hidden: bool,
    ) -> None:
        """Answer a message, after the notices that a limit leaves personas out, and that the message
        that it replies to cannot be read.
        """
        if limit:
            await _send_beside_reply(self._say_limit(message, limit))
        if is_quote_hidden and not self._hints.update_rate_limit(message):
            await _send_beside_reply(_notify(message.channel, HIDDEN_QUOTE_TEXT))
        await replies.answer()

    async def _say_blind(self, message: discord.Message) -> None:
        """Say once a day in a channel what personas get of pictures where the model sees none."""
        sees = self.bot.services.engine.state().sees_pictures
        if (
            has_pictures(message)
            and not sees
            and not self._blind_notices.update_rate_limit(message)
        ):
            await _notify(message.channel, BLIND_TEXT)

    async def _say_unread(self, message: discord.Message, persona: Persona) -> None:
        """Say why a message is not answered: it has no text, or Discord hides it."""
        is_mentioned = mentions_bot(message, self.bot.user)
        if isinstance(message.channel, discord.DMChannel):
            is_mentioned = True
        notices = self._unread_notices if is_mentioned else self._hints
        if is_mentioned:
            text = gettext_lazy(
                "Your message has no text that {persona} could answer: write some beside the "
                "mention.",
                persona=markdown_name(persona),
            )
        else:
            text = NO_CONTENT_TEXT
        if not notices.update_rate_limit(message):
            await _notify(message.channel, text)

    async def _reply(self, message: discord.Message, text: str) -> None:
        """Reply to a message with a notice, as `_notify` sends one."""
        senders = self.bot.services.reply_service.senders
        try:
            await senders.reply_as_bot(message, localise(text), nonce=_new_nonce())
        except DELIVERY_ERRORS as error:
            log.warning("could not tell #%s (%s): %s", message.channel, error, text)


async def _send_beside_reply(notice: Awaitable[None]) -> None:
    """Send a notice before a reply that is stored already, and that further lines may be joining: no
    error may keep it from being made.
    """
    try:
        await notice
    except Exception:
        log.exception("a notice before a reply could not be sent")


async def say_age_restricted(services: Services, persona: Persona, channel: SpeakChannel) -> None:
    """Say once in a channel that a persona does not speak there, until it may; in direct messages
    each time, as nobody else is disturbed, and nothing is stored of them.
    """
    place = channel_ref(channel)
    try:
        services.reply_service.rules.age.require(persona, channel)
    except AgeRestrictedError as error:
        places = services.store.places
        if not place.guild_id or places.note_age_notice(place.guild_id, place.home_id):
            with override(services.reply_service.member_languages.of_channel(channel)):
                await _notify(channel, error_text(error))


async def _notify(
    channel: discord.abc.Messageable, text: str, view: discord.ui.View | None = None
) -> None:
    """Send a notice, once: nobody needs to read that it could not be sent, or perhaps was."""
    shown = view or discord.utils.MISSING
    try:
        await channel.send(localise(text), view=shown, nonce=_new_nonce())
    except DELIVERY_ERRORS as error:
        log.warning("could not tell #%s (%s): %s", channel, error, text)


def _new_nonce() -> str:
    """Return a new nonce: discord.py repeats a request that failed, and Discord ignores a repeated
    nonce.
    """
    return secrets.token_hex(8)


def _per_channel(count: int, seconds: float) -> commands.CooldownMapping[discord.Message]:
    """Allow so many messages in a channel and time; its entry expires after that time."""
    return commands.CooldownMapping.from_cooldown(count, seconds, commands.BucketType.channel)
