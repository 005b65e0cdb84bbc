"""Accepts messages, and controls the replies to them: regenerates, stops and deletes them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime

import discord

from bot.chat.delivery import UNCERTAIN_ERRORS, is_archived
from bot.chat.filtered_reply import stream_filtered_reply
from bot.chat.line_wait import LineWait
from bot.chat.message_reader import IncomingMessage
from bot.chat.places import ChannelRef, ReplyChannel, SpeakChannel, channel_ref, find_channel
from bot.chat.recovery import ReplyRecovery
from bot.chat.reply import Reply, ReplyContext, forget_reply
from bot.chat.reply_round import ReplyRound
from bot.chat.reply_text import split_message
from bot.chat.situation import told_topic
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    gettext_noop,
    override,
    translate,
)
from bot.platform.messages import markdown_name
from bot.store import AnswerMode, Channel, StoredReply
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.prompt.macros import resolve_macros
from personas.prompt.renderer import EXAMPLE_USER, fill_macros
from personas.schemas.chat import ChatReply, Persona

log = logging.getLogger(__name__)
GONE_TEXT = gettext_lazy("What this reply answered is no longer there.")
SET_TEXTS: dict[AnswerMode, str] = {
    "everything": gettext_noop("set {names} in {channel}, where all messages are answered"),
    "mentions": gettext_noop("set {names} in {channel}, where mentions are answered"),
}


def greeting_text(persona: Persona, now: datetime, guest: str = EXAMPLE_USER) -> str:
    """Return the greeting of a persona's card, addressed to `guest` at a time; empty where there is
    none.
    """
    opening = resolve_macros(persona.first_mes, persona.name, now).text
    return fill_macros(opening, persona, guest).strip()


@dataclass
class ReplyService(ReplyContext):
    """Answers in any number of channels at once; each reply runs in the task of its event."""

    recovery: ReplyRecovery = field(init=False)

    def __post_init__(self) -> None:
        self.recovery = ReplyRecovery(self)

    # ------------------------------------------------------------------------------------- messages

    async def answer(
        self, message: IncomingMessage, persona: Persona, channel: SpeakChannel
    ) -> None:
        """Store the message, then reply as the persona. Raises `EngineBusyError` before anything is
        posted.

        An event that was answered before is ignored. While the database cannot be used, the event
        is held.
        """
        if reply := await self.events.store(lambda: self.accept(message, [persona], channel)):
            await reply.answer()

    def accept_line(
        self,
        message: IncomingMessage,
        personas: Sequence[Persona],
        channel: SpeakChannel,
        *,
        wait_s: float,
    ) -> ReplyRound | None:
        """Store a message that is known to be safe (`require_safe`) as `accept` does; its replies
        wait for further lines of the member. None also for a line that such replies answer, too.
        """
        if self._is_known(message):
            return None
        member_id = message.author_id
        wait = self.line_waits.get(channel.id, member_id)
        stored = self.store.replies.get(wait.event_id) if wait else None
        persona_ids = tuple(persona.id for persona in personas)
        if wait and stored and wait.is_of(persona_ids):
            with self.store.atomic():
                seq = self.store_message(message, channel_ref(channel))
                self.store.replies.add_line(wait.event_id, seq)
            wait.add_line(message.event_id)
            return None
        replies = self._begin(message, personas, channel)
        if wait_s:
            wait = LineWait(message.event_id, persona_ids, wait_s)
            replies.wait_for_lines(wait)
            self.line_waits.begin(channel.id, member_id, wait)
        return replies

    def accept(
        self, message: IncomingMessage, personas: Sequence[Persona], channel: ReplyChannel
    ) -> ReplyRound | None:
        """Store a message together with the replies to come, one of each persona, in this order.
        None for an event that was answered before.

        Raises `EngineBusyError`, and stores nothing, where too many replies are unfinished,
        `SelfHarmError` with the answer to a message that speaks of self-harm, and `StoreError`.
        """
        if self._is_known(message):
            return None
        self.require_safe(message)
        return self._begin(message, personas, channel)

    def _begin(
        self, message: IncomingMessage, personas: Sequence[Persona], channel: ReplyChannel
    ) -> ReplyRound:
        """Store a new message together with the replies to come."""
        place = channel_ref(channel)
        now = time.time()
        self.unfinished.require_place(message.author_id, place.home_id, len(personas))
        replies = list[Reply]()
        # Together: after a kill, a message that is stored has its replies to come.
        with self.store.atomic():
            seq = self.store_message(message, place)
            for position, persona in enumerate(personas):
                event_id = self.store.replies.begin_in_round(
                    message.event_id,
                    position,
                    guild_id=place.guild_id,
                    channel_id=place.channel_id,
                    persona_id=persona.id,
                    at=now,
                    asked_by=message.author_id,
                    trigger_seq=seq,
                )
                reply = Reply(
                    self,
                    persona,
                    channel,
                    event_id=event_id,
                    asked_by=message.author_id,
                    trigger_seq=seq,
                )
                replies.append(reply)
        for reply in replies:
            self.unfinished.note_accepted(reply.event_id)
        return ReplyRound(self, replies)

    def require_safe(self, message: IncomingMessage) -> None:
        """Raise `SelfHarmError` for a message that speaks of self-harm, or that replies to one."""
        quoted = message.quoted.text if message.quoted else None
        self.safety.require_safe(message.text, quoted or "")

    def store_message(self, message: IncomingMessage, place: ChannelRef) -> int:
        """Store a member's message, and the messages that are shown beside it; return its `seq`."""
        now = time.time()
        seq_of_shown = {}
        for shown in (message.thread_start, message.quoted):
            if shown and not self._is_erased(shown.author_id, shown.message_id):
                seq_of_shown[shown.message_id] = self.store.quoted.add(shown, place.guild_id, now)
        replies_to = None
        if message.quoted:
            replies_to = seq_of_shown.get(message.quoted.message_id)
        seq = self.store.messages.append(
            guild_id=place.guild_id,
            channel_id=place.channel_id,
            author_id=message.author_id,
            author_name=message.author_name,
            text=message.text,
            at=now,
            discord_message_id=message.event_id,
            replies_to=replies_to,
        )
        self.store.places.record_thread(*astuple(place))
        return seq

    def _is_known(self, message: IncomingMessage) -> bool:
        """Report whether a message was answered before, was deleted, or is of somebody erased since:
        a gateway that resumes may send an event again.
        """
        replies = self.store.replies
        if replies.get(message.event_id) or replies.of_line(message.event_id):
            return True
        if self.store.messages.is_deleted(message.event_id):
            return True
        return self._is_erased(message.author_id, message.event_id)

    def _is_erased(self, author_id: int, event_id: int) -> bool:
        """Report whether an author was erased after an event of theirs."""
        if not self.store.erasure_requests.count():
            return False
        person = keyed_person(HomeKey.of(self.served_versions.home).people(), str(author_id))
        return event_id <= self.store.erasure_requests.last_event(person)

    # -------------------------------------------------------------------------------------- replies

    async def regenerate(
        self, event_id: int, user: discord.abc.User, channel: SpeakChannel
    ) -> None:
        """Regenerate a reply in the same message. Raises `UnderstudyError`, and changes nothing, if
        that is refused.
        """
        stored = self.store.replies.get(event_id)
        persona = None
        if stored:
            persona = self.personas.get(stored.persona_id, stored.guild_id)
        if stored is None or persona is None or stored.trigger_seq is None:
            raise RefusedError(GONE_TEXT, gettext_lazy("Ask again."))
        self.rules.require_owner(
            stored.asked_by,
            user,
            gettext_lazy("Only the one who asked, or a moderator, can regenerate this reply."),
        )
        self.rules.require_unmuted(persona, channel_ref(channel))
        self.rules.age.require(persona, channel)
        self.rules.require_answered(persona, channel_ref(channel), user)
        before = None
        if stored.parts:
            before = self.store.messages.text_of(stored.parts[0])
        reply = Reply(
            self,
            persona,
            channel,
            event_id=event_id,
            asked_by=stored.asked_by,
            trigger_seq=stored.trigger_seq,
            parts=stored.parts,
            before=before or "",
        )
        # Whatever can refuse it comes before the first change: the old text stays then.
        with override(reply.language):
            request = replace(await reply.build_request(), replaces=before or "")
        self.unfinished.require_place(reply.asked_by, reply.place.home_id)
        reply.submit(request)
        try:
            with self.store.atomic():
                self.rules.require_within_limits(reply.place, user)  # others may have begun since
                now = time.time()
                if not self.store.replies.begin_regeneration(event_id, by=user.id, at=now):
                    raise RefusedError(
                        gettext_lazy("This reply is being written."),
                        gettext_lazy("Stop it first, or wait."),
                    )
                self.store.replies.record_interruption(event_id, user.id, now)
        except Exception:
            reply.cancel()
            raise
        with self.holding(reply):
            await reply.write()

    async def reply_untrained(
        self,
        stored: StoredReply,
        persona: Persona,
        channel: SpeakChannel,
        *,
        user: discord.abc.User,
    ) -> ChatReply:
        """Generate what the base model replies to the same message, for one member; it is not
        stored, and counts for the limits of replies.

        Raises `RefusedError` if that message is gone or it is being written for them already,
        `LimitReachedError`, and `EngineBusyError`.
        """
        if stored.trigger_seq is None:
            raise RefusedError(GONE_TEXT, gettext_lazy("Ask again."))
        place = channel_ref(channel)
        self.require_no_untrained(stored.event_id, user.id)
        self.unfinished.require_place(user.id, place.home_id)
        with (
            self._writing_untrained(stored.event_id, user.id),
            self.unfinished.counting(stored.event_id, member=user.id, channel=place.home_id),
            self._counting_untrained(place, user),
        ):
            request = await self.request_builder.request(
                persona,
                place,
                stored.trigger_seq,
                event_id=stored.event_id,
                # What one member had remembered is not for another one's eyes.
                member_id=user.id if user.id == stored.asked_by else 0,
                topic=told_topic(self.store, channel),
                untrained=True,
            )
            request = replace(request, member_id=user.id)
            async with stream_filtered_reply(self.reply_guard, request) as reply:
                async for _ in reply:
                    pass
            return reply.reply

    def require_no_untrained(self, event_id: int, user_id: int) -> None:
        """Raise `RefusedError` while the base model replies to this event for this member."""
        if (event_id, user_id) in self.untrained:
            raise RefusedError(
                gettext_lazy("The reply without training is being written."),
                gettext_lazy("It appears here, for you alone."),
            )

    @contextmanager
    def _writing_untrained(self, event_id: int, user_id: int) -> Iterator[None]:
        self.untrained.add((event_id, user_id))
        try:
            yield
        finally:
            self.untrained.discard((event_id, user_id))

    @contextmanager
    def _counting_untrained(self, place: ChannelRef, user: discord.abc.User) -> Iterator[None]:
        """Count a reply without training for the limits, unless it fails. Raises
        `LimitReachedError`.
        """
        self.rules.require_within_limits(place, user)
        attempt = self.store.reply_attempts.add(place.guild_id, user.id, time.time())
        try:
            yield
        except Exception:
            self.store.reply_attempts.remove(attempt)
            raise

    def is_running(self, event_id: int) -> bool:
        """Report whether the reply to this event is still being generated."""
        return event_id in self.running

    def stop(self, event_id: int, user: discord.abc.User) -> None:
        """Stop a running reply for its author or a moderator. Raises `RefusedError` for others."""
        reply = self.running[event_id]
        self.rules.require_owner(
            reply.asked_by,
            user,
            gettext_lazy("Only the one who asked, or a moderator, can stop this reply."),
        )
        self.store.replies.record_interruption(event_id, user.id, time.time())
        reply.cancel()

    def stop_late(self, event_id: int) -> None:
        """Stop a reply that takes too long; nothing where it has ended."""
        if reply := self.running.get(event_id):
            reply.cancel()

    def stop_guild_replies(self, guild_id: int) -> None:
        """Stop the running replies of a guild's personas that are muted, or may no longer speak
        in the channel.
        """
        for reply in list(self.running.values()):
            if reply.place.guild_id == guild_id and (
                self.rules.muted(reply.persona, reply.place)
                or self.rules.age.refuses(reply.persona, reply.channel)
            ):
                reply.cancel()

    def stop_blocked_replies(self, guild_id: int, user_id: int) -> None:
        """Stop the running replies of a guild to a member whom their personas do not answer."""
        for reply in list(self.running.values()):
            is_theirs = reply.place.guild_id == guild_id and reply.asked_by == user_id
            if is_theirs and self.rules.blocked(reply.persona, reply.place, user_id):
                reply.cancel()

    def stop_replies(self, *, persona_id: str | None = None, member_id: int | None = None) -> None:
        """Stop the running replies of a persona, or to a member."""
        for reply in list(self.running.values()):
            if reply.persona.id == persona_id or reply.asked_by == member_id:
                reply.cancel()

    async def delete(
        self, replies: Iterable[StoredReply], client: discord.Client
    ) -> AsyncIterator[str]:
        """Delete replies from Discord and from the history; yields for each why that failed, empty
        where it is done.
        """
        for reply in replies:
            yield await self._delete(reply, client)

    async def take_back(self, replies: Sequence[StoredReply], client: discord.Client) -> None:
        """Delete the replies to a message that a proxy has posted again. The copy gets them anew:
        they count for no limit, and what they told the member has to be told again.
        """
        for reply in replies:
            problem = await self._delete(reply, client)
            # Members see it; or its message comes yet, whose buttons need its row.
            if problem or self.unfinished.holds(reply.event_id):
                return

        def forget() -> None:
            with self.store.atomic():
                for reply in replies:
                    self.store.replies.take_back(reply.event_id)
                    self.store.talks.forget_told(reply.event_id)

        await self.events.store(forget)
        log.info("the answer to a message that a proxy has posted again is taken back")

    async def _delete(self, stored: StoredReply, client: discord.Client) -> str:
        """Delete a reply; return why that failed, or an empty text."""
        persona = self.personas.get(stored.persona_id, stored.guild_id)
        if persona is None:  # it was removed, and its messages are still there
            persona = Persona(stored.persona_id, stored.persona_id)
        if reply := self.running.get(stored.event_id):
            reply.cancel()
        # It may be posting a further message, which is deleted, too.
        await self.unfinished.wait_for_end(stored.event_id)
        stored = self.store.replies.get(stored.event_id) or stored
        try:
            if channel := await find_channel(client, stored.channel_id):
                sender = await self.senders.of(persona, channel)
                for message_id in stored.parts:
                    await sender.remove(message_id)
        except (*UNCERTAIN_ERRORS, discord.HTTPException, discord.RateLimited) as error:
            log.warning("the reply %d could not be deleted: %s", stored.event_id, error)
            return _deletion_problem(error)
        forget_reply(self.store, stored.event_id, stored.parts)
        return ""

    def assign(
        self,
        persona: Persona,
        channel: ReplyChannel,
        *,
        answers: AnswerMode,
        user_id: int,
        further: Sequence[Persona] = (),
    ) -> bool:
        """Give a channel its persona, and further ones that answer where they are called, as this
        member decided; returns False if the first lived there already, and has greeted.

        Raises `AgeRestrictedError` where one of them may not speak.
        """
        for each in (persona, *further):
            self.rules.age.require(each, channel)
        place = channel_ref(channel)
        before = self.store.channels.get(place.guild_id, place.channel_id)
        self.store.channels.assign(
            Channel(
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                answers=answers,
                set_by=user_id,
                set_at=time.time(),
            ),
            further=[each.id for each in further],
        )
        if place.guild_id:
            names = ", ".join(f"**{markdown_name(each)}**" for each in (persona, *further))
            values = {"names": names, "channel": f"<#{place.channel_id}>"}
            what = LocalisableText(SET_TEXTS[answers], values=values)
            self.record_change(place.guild_id, user_id, what)
        return before is None or before.persona_id != persona.id

    def start_new_conversation(self, place: ChannelRef, event_id: int) -> None:
        """Start a new conversation in a channel at an event; the next reply to each member there
        tells that it is AI.
        """
        with self.store.atomic():
            self.store.places.start_new_conversation(place.guild_id, place.channel_id, event_id)
            self.store.talks.end_all(place.channel_id)
        self.line_waits.cut_short(place.channel_id)

    async def greet(
        self, persona: Persona, channel: SpeakChannel, guest: str = EXAMPLE_USER
    ) -> bool:
        """Post the greeting of a persona's card in its new channel, addressed to `guest`; returns
        False where there is none, or the persona is muted or may not speak there.
        """
        place = channel_ref(channel)
        greeting = greeting_text(persona, self.time_zones.now(place.guild_id), guest)
        is_silent = self.rules.muted(persona, place) or self.rules.age.refuses(persona, channel)
        if not greeting or is_silent:
            return False
        with override(self.member_languages.of_channel(channel)):
            note = translate(gettext_noop("a greeting by this persona's author"))
        texts = split_message(greeting, f"-# {note}")
        message_ids = await self.senders.post(persona, channel, texts)
        replies = self.store.replies
        event_id = message_ids[0]  # no event requested it
        replies.begin(
            event_id,
            guild_id=place.guild_id,
            channel_id=place.channel_id,
            persona_id=persona.id,
            at=time.time(),
        )
        replies.record_parts(event_id, message_ids)
        replies.finish(event_id, "done")
        return True

    async def close(self) -> None:
        """Cancel the running replies and any that still come; all are resumed at the next start."""
        self.is_closed = True
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.recovery.close()


def _deletion_problem(error: Exception) -> str:
    """Say why Discord has not deleted a message."""
    if isinstance(error, discord.Forbidden):
        return gettext_lazy("I lack Manage Messages there")
    if is_archived(error):
        return gettext_lazy("the thread is archived; open it first")
    return gettext_lazy("Discord does not do it now; try again later")
