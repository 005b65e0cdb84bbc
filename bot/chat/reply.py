"""A reply of a persona: it takes a place in the engine's queue, is posted and streamed, and ends
once.

The message and the row of its reply are stored in one transaction (`ReplyService.accept`), then the
reply takes its place in the queue, and only then is anything posted. So a refused reply leaves
nothing on Discord, and a killed bot finds every reply that it owes (`bot.chat.recovery`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import discord

from bot.chat.chat_words import names_of
from bot.chat.decision_log import DecisionLog
from bot.chat.delivery import (
    DELIVERY_ERRORS,
    UNCERTAIN_ERRORS,
    deliver,
    is_archived,
    store_when_possible,
)
from bot.chat.fixed_stream import FixedStream
from bot.chat.held_events import HeldEvents
from bot.chat.line_wait import LineWait, LineWaits, typing_shown
from bot.chat.memory_text import edit_memory_copies
from bot.chat.places import OutsideChannel, ReplyChannel, channel_ref
from bot.chat.policy import ReplyPolicy
from bot.chat.reply_text import MAX_FOOTER_CHARS, add_below, remove_links, reply_footer
from bot.chat.request import ChatRequestBuilder
from bot.chat.situation import told_topic
from bot.chat.streaming_reply import ReplyViews, StreamingReply
from bot.chat.unfinished import UnfinishedReplies
from bot.chat.webhooks import SenderRegistry
from bot.guilds.time_zones import GuildTimeZones
from bot.personas.own_words import PersonaWords, WrittenLine
from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import (
    Language,
    MemberLanguages,
    gettext_lazy,
    localise,
    override,
    translate,
)
from bot.platform.messages import markdown_name
from bot.safety.actions import PLAIN_DISCLOSURE, Disclosure, SafetyProtocol, SelfHarmError
from bot.safety.human_question import HumanAnswer, answer_if_human
from bot.safety.reply_guard import ReplyGuard
from bot.store import Store, StoredReply, StoreError
from personas.engine import Engine, ReplyStream
from personas.engine.false_names import other_names
from personas.errors import AdapterError
from personas.human_claims import claims_to_be_human
from personas.schemas.chat import ChatReply, ChatRequest, Persona, asked_turn
from personas.words.phrasing import WRITTEN_ASKED_WHO, asks_for_name, without_call

log = logging.getLogger(__name__)
MAX_OUTSIDE_TOKENS = 1500
"""Longest reply where the bot is not: Discord takes five further messages to an interaction there."""
CUT_OFF_NOTE = gettext_lazy("-# This reply was cut off. Ask again.")


@dataclass
class ReplyContext:
    """The parts that all replies share, and the replies that are being made."""

    store: Store
    engine: Engine
    personas: PersonaRegistry
    served_versions: ServedVersions
    request_builder: ChatRequestBuilder
    senders: SenderRegistry
    views: ReplyViews
    reply_guard: ReplyGuard
    words: PersonaWords
    time_zones: GuildTimeZones
    safety: SafetyProtocol
    redacted: Callable[[str], str] = str
    """Applied to stored texts. While people are being erased, it removes their names."""
    events: HeldEvents = field(default_factory=HeldEvents)
    unfinished: UnfinishedReplies = field(default_factory=UnfinishedReplies)
    line_waits: LineWaits = field(default_factory=LineWaits)
    decisions: DecisionLog = field(default_factory=DecisionLog)
    """The latest decisions about messages, since the start."""
    untrained: set[tuple[int, int]] = field(default_factory=set)
    """Events and members for whom the base model replies beside a version."""
    member_languages: MemberLanguages = field(default_factory=MemberLanguages)
    running: dict[int, "Reply"] = field(default_factory=dict)
    """By event, the replies that are being generated or shown."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    is_closed: bool = False
    record_change: ChangeRecord = no_record
    """Called after a change by a moderator."""

    @property
    def rules(self) -> ReplyPolicy:
        """The rules that are checked before a reply."""
        return ReplyPolicy(self.store, self.time_zones)

    @contextmanager
    def holding(self, reply: "Reply") -> Iterator[None]:
        """Count a reply, and let a shutdown cancel it: it stays unfinished, for the next start. What
        is written meanwhile is in the reply's language.
        """
        task = asyncio.current_task()
        assert task is not None  # a coroutine always runs in one
        if self.is_closed:
            raise asyncio.CancelledError
        self.tasks.add(task)
        try:
            with (
                self.unfinished.counting(
                    reply.event_id, member=reply.asked_by, channel=reply.place.home_id
                ),
                override(reply.language),
            ):
                yield
        finally:
            self.tasks.discard(task)


@dataclass(frozen=True)
class ReplyEnd:
    """How a reply ended: its text, written by a version, and the note that is shown below it."""

    state: Literal["done", "stopped", "failed"]
    note: str
    text: str = ""
    version: str | None = None
    seed: int | None = None


class Reply:
    """A reply to an event. `trigger_seq` is the stored message that it answers, None for a line
    that answers nobody.

    `parts` are the messages of an earlier attempt, `before` is its text. `mentioned` are the members
    whom a greeting mentions.
    """

    def __init__(
        self,
        context: ReplyContext,
        persona: Persona,
        channel: ReplyChannel,
        *,
        event_id: int = 0,
        asked_by: int = 0,
        trigger_seq: int | None = None,
        parts: Sequence[int] = (),
        before: str = "",
        mentioned: Sequence[int] = (),
    ) -> None:
        self.context = context
        self.persona = persona
        self.channel = channel
        self.place = channel_ref(channel)
        self.event_id = event_id
        self.asked_by = asked_by
        self.trigger_seq = trigger_seq
        self.line_wait: LineWait | None = None
        """The wait for further lines of its member, before anything is generated."""
        self.request: ChatRequest  # from `submit` on
        self.stream: ReplyStream
        self.conversation: int | None = None
        """The conversation of its channel that it belongs to, also if a new one begins meanwhile:
        its question's, else the one in which its prompt was built.
        """
        self.version: str | None = None
        """The version that writes, from `submit` on; None is the base model."""
        self.wanted = ""
        """The version that should answer, even if the base model answers in its place."""
        self.damaged = ""
        """The version that should answer, if its adapter cannot be read."""
        self.origin = ""
        """Where the version came from (`ServedVersions.origin_of`)."""
        self.is_followed = False
        """Whether another persona answers the same message next (`bot.chat.reply_round`)."""
        self.disclosure = Disclosure()
        """The line below the reply that tells its member that it is AI, where that is due."""
        self.human_answer: HumanAnswer | None = None
        """The reply where its member asks, in earnest, whether the persona is human."""
        self.written: WrittenLine | None = None
        """The reply where one that somebody wrote for the persona fits."""
        self.message = StreamingReply(
            senders=context.senders,
            persona=persona,
            channel=channel,
            growing=self.growing_view,
            ended=self.ended_view,
            on_parts=self.record_parts,
            parts=list(parts),
            before=before,
            stretch_s=self._edit_stretch_s,
            mentioned=tuple(mentioned),
        )

    async def answer(self, retract: Callable[[], Awaitable[None]] | None = None) -> None:
        """Make the reply to an accepted message. Raises `EngineBusyError` and others before
        anything is posted.

        A question that stands in the bot's own response is taken back if its reply is refused:
        `retract` deletes it.
        """
        with self.context.holding(self):
            if self.line_wait and not await self._take_lines(self.line_wait):
                return
            await self.answer_submitted(self._build_and_submit, retract)

    async def answer_submitted(
        self,
        submit: Callable[[], Awaitable[bool]],
        retract: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Make the reply once `submit` has submitted its request; False is an end without one.
        Raises the errors of `submit`.
        """
        try:
            is_submitted = await submit()
        except SelfHarmError:  # in an edit, or in several lines together
            await store_when_possible(
                f"the refusal of the reply {self.event_id}", self.take_back_question
            )
            raise
        except Exception:
            await self._refuse(retract)
            raise
        if is_submitted:
            await self.write()

    async def _build_and_submit(self) -> bool:
        request = await deliver(f"the prompt of the reply {self.event_id}", self.build_request)
        self.submit(request)
        return True

    async def _take_lines(self, wait: LineWait) -> bool:
        """Wait for further lines of the member. False where none is left to answer, or the persona
        may not answer any more: the reply ends then, and nobody sees of it.
        """
        assert not isinstance(self.channel, OutsideChannel)  # no messages are read there
        async with typing_shown(self.channel):
            try:
                await wait.end()
            finally:
                self.context.line_waits.close(self.channel.id, self.asked_by, wait)
        return await store_when_possible(
            f"the messages that the reply {self.event_id} answers", self.read_asked
        )

    def read_asked(self) -> bool:
        """Read which message the reply answers now. False, and the reply ends, where that is gone,
        or the persona has left or is silent by now.
        """
        replies = self.context.store.replies
        stored = replies.get(self.event_id)
        self.trigger_seq = stored.trigger_seq if stored else None
        reason = self._end_reason(stored) if stored else ""
        if self.trigger_seq is not None and not reason:
            return True
        self.end_unsaid(reason)
        return False

    def end_unsaid(self, reason: str) -> None:
        """End a reply of which nothing is posted; `reason`, if any, is kept for `/persona why`."""
        replies = self.context.store.replies
        if reason:
            for message_id in replies.asked_messages(self.event_id):
                self.context.decisions.remark(self.place.channel_id, message_id, reason)
        replies.finish(self.event_id, "stopped")

    def _end_reason(self, stored: StoredReply) -> str:
        """Say why the persona does not begin its reply any more; empty if it does."""
        is_gone = self.context.personas.get(self.persona.id, self.place.guild_id) is None
        if is_gone or self.context.rules.has_left(stored, self.place):
            return gettext_lazy(
                "{persona} does not live here any more", persona=markdown_name(self.persona)
            )
        return self.speech_refusal()

    async def build_request(self) -> ChatRequest:
        """Build the prompt. Raises `StoreError` while edits and deletions are held, which it would
        not show.
        """
        if len(self.context.events):
            raise StoreError("Edits and deletions of messages wait for the database.")
        versions = self.context.served_versions
        request = await self._request()
        # Read now, while the database can be read: the end must not wait for it.
        safety = self.context.safety
        if self.asked_by:
            asked = self._asked_text(request)
            safety.require_safe(asked)
            disclosure = safety.disclosure(
                self.place.guild_id,
                self.place.channel_id,
                self.asked_by,
                event_id=self.event_id,
                asked=asked,
            )
        else:
            disclosure = safety.unasked_disclosure(self.place.guild_id)
        self.human_answer = self._answer_if_human()
        if self.human_answer:
            disclosure = replace(disclosure, line=disclosure.line or PLAIN_DISCLOSURE)
        else:
            self.written = await self._find_written(request)
        self.disclosure = replace(
            disclosure,
            line=localise(disclosure.line),
            correction=localise(disclosure.correction),
        )
        self.origin = versions.origin_of(request.adapter)
        self.wanted = versions.unserved(self.persona.id, self.place.guild_id)
        if request.adapter:
            self.wanted = request.adapter.version
        return request

    def _asked_text(self, request: ChatRequest) -> str:
        """Return what the member has said: the turn that is answered, after their lines that the
        reply answers, too.
        """
        lines = self.context.store.replies.lines(self.event_id)
        return " ".join([*lines, asked_turn(request.turns).text])

    def _answer_if_human(self) -> HumanAnswer | None:
        """Return the persona's line if a message that the reply answers asks whether it is human:
        in the member's own words, without files and quotes.
        """
        if not self.asked_by:
            return None
        now = self.context.time_zones.now(self.place.guild_id)
        return answer_if_human(self.persona, self._typed_text(), now)

    def _typed_text(self) -> str:
        """Return the messages that the reply answers, in the member's own words."""
        store = self.context.store
        asked = [
            store.messages.text_of(each) for each in store.replies.asked_messages(self.event_id)
        ]
        return "\n".join(filter(None, asked))

    async def _find_written(self, request: ChatRequest) -> WrittenLine | None:
        """Return the written reply that fits what a member asks; none where a quote, a file or a
        picture is part of that.
        """
        asked = asked_turn(request.turns)
        if not self.asked_by or asked.frame_chars or request.pictures:
            return None
        said = [turn.text for turn in request.turns if turn.by_persona]
        *earlier, _ = [turn for turn in request.turns if not turn.answers_too]
        before = earlier[-1].text if earlier and earlier[-1].by_persona else ""
        text = self._typed_text()
        names = names_of(self.persona)
        forms = [without_call(text, names)]
        if asks_for_name(text, {*other_names(request), *" ".join(names).split()}):
            forms.insert(0, WRITTEN_ASKED_WHO)
        for form in forms:
            line = await self.context.words.find(
                self.persona,
                self.place.guild_id,
                form,
                before=before,
                said=[*said, self.message.before],
                adapter=request.adapter,
            )
            if line:
                return line if self.context.reply_guard.permits(request, line.text) else None
        return None

    async def _request(self) -> ChatRequest:
        """Build the request of a reply to a message, or of a line at a set time."""
        builder = self.context.request_builder
        store = self.context.store
        topic = told_topic(store, self.channel)
        if self.trigger_seq is not None:
            self.conversation = store.messages.conversation_of(self.trigger_seq)
            request = await builder.request(
                self.persona,
                self.place,
                self.trigger_seq,
                event_id=self.event_id,
                member_id=self.asked_by,
                topic=topic,
            )
            return self._fitting(request)
        prompt = store.replies.line_prompt(self.event_id)
        if prompt is None:
            raise RefusedError(
                gettext_lazy("What this reply answers is no longer there."),
                gettext_lazy("Ask again."),
            )
        self.conversation = store.places.present_conversation(self.place.channel_id)
        return await builder.line_request(self.persona, self.place, prompt, topic=topic)

    def _fitting(self, request: ChatRequest) -> ChatRequest:
        """Limit a reply to what its place can show."""
        sampling = request.sampling
        if not isinstance(self.channel, OutsideChannel):
            return request
        tokens = min(sampling.max_new_tokens, MAX_OUTSIDE_TOKENS)
        return replace(request, sampling=replace(sampling, max_new_tokens=tokens))

    def submit(self, request: ChatRequest) -> None:
        """Take a place in the engine's queue, unless somebody wrote the reply. Raises
        `EngineBusyError`.
        """
        self.request = request
        self.version = request.adapter.version if request.adapter else None
        if fixed := self.human_answer or self.written:
            self.stream = FixedStream(fixed.text, self.version)
        else:
            self.stream = self.context.reply_guard.submit(request)

    def _submit_without_adapter(self, error: AdapterError) -> None:
        """Have the base model answer: a damaged adapter costs the voice, not the reply."""
        if self.version is None:
            raise error
        log.error("the base model answers instead: %s", error)
        self.damaged = self.version
        self.submit(replace(self.request, adapter=None))

    async def write(self) -> None:
        """Post the submitted reply, stream it, and end it."""
        running = self.context.running
        running[self.event_id] = self
        try:
            await self._post()
            try:
                generated = await self._stream()
                await self.end(generated)
            except discord.NotFound:  # the message was deleted: nobody waits for the reply any more
                log.info("the message of the reply %d is gone", self.event_id)
                self.forget()
            except Exception as error:  # shown in the reply's place
                await self.fail(error)
            else:
                self._prepare_next()
        finally:
            if running.get(self.event_id) is self:  # no regeneration began since
                del running[self.event_id]
            self.cancel()

    async def _post(self) -> None:
        """Post the message, as soon as Discord takes it; the generated text waits meanwhile."""
        try:
            await deliver(f"the message of the reply {self.event_id}", self._begin)
        except Exception as error:
            # The next start looks for a copy that Discord may have posted in spite of the error.
            note = None
            if isinstance(error, (*UNCERTAIN_ERRORS, RefusedError)) or is_archived(error):
                note = self.cut_off_note
            await self._store_failure(note)
            raise

    async def _begin(self) -> None:
        """Post the message, unless Discord was away until the quiet hours. Raises `RefusedError`."""
        if self.would_disturb():
            raise RefusedError(gettext_lazy("it came in the quiet hours"))
        await self.message.begin()

    async def _stream(self) -> ChatReply:
        """Stream the reply; the base model makes it if the adapter is damaged."""
        try:
            return await self._follow()
        except AdapterError as error:  # the engine reads an adapter when its first reply begins
            self._submit_without_adapter(error)
            return await self._follow()

    async def _follow(self) -> ChatReply:
        # A moderator may have muted the persona since the request.
        refusal = await store_when_possible(
            f"whether {self.persona.name} may speak",
            self.speech_refusal,
        )
        if refusal:
            self.cancel()
        return await self.message.follow(self.stream)

    def speech_refusal(self) -> str:
        """Say why the persona does not answer the member, or may not speak in the channel by now;
        empty if it may.
        """
        return self.context.rules.speech_refusal(self.persona, self.channel, self.asked_by)

    def would_disturb(self) -> bool:
        """Report whether the reply is a line that answers nobody, in quiet hours."""
        return self.trigger_seq is None and self.context.rules.is_quiet(self.place)

    def cancel(self) -> None:
        """Stop generating; the text so far is the reply."""
        self.stream.cancel()

    def _prepare_next(self) -> None:
        """Have the engine compute the next prompt while the member reads."""
        # Edits and deletions, or the next persona's reply, which the prompt would not show.
        if len(self.context.events) or self.is_followed:
            return
        try:
            self.context.request_builder.prepare_next(
                self.context.engine,
                self.persona,
                self.place,
                author=asked_turn(self.request.turns).name,
            )
        except Exception:  # the reply is whole; only time is lost
            log.exception("the prompt after the reply %d is not computed in advance", self.event_id)

    # ----------------------------------------------------------------------------------------- ends

    async def end(self, generated: ChatReply) -> None:
        """Store the finished reply, then show it. Raises `discord.NotFound` if its message was
        deleted.
        """
        footer = self._footer(generated)
        line = self.disclosure.line
        if claims_to_be_human(generated.text):
            line = self.disclosure.correction
        if line and generated.text:
            footer = add_below(footer, line)
        end = ReplyEnd(
            state="stopped" if generated.finish == "cancelled" else "done",
            note=footer,
            text=generated.text,
            version=generated.version,
            seed=generated.seed,
        )
        await self._store_and_show(end, lambda: self.message.end(generated.text, footer))

    def _footer(self, generated: ChatReply) -> str:
        fixed = self.human_answer or self.written
        if fixed and generated.text:
            return f"-# {translate(fixed.note)}"
        return reply_footer(generated, origin=self.origin, damaged=self.damaged, wanted=self.wanted)

    async def fail(self, error: Exception) -> None:
        """End the reply with an error below the text so far, which members see: it is stored."""
        text = localise(error_text(error))  # logs it
        note = f"-# {text}"[:MAX_FOOTER_CHARS]
        if isinstance(error, StoreError):  # the operator's to mend, and members need not read of it
            note = self.cut_off_note
        end = ReplyEnd("failed", note, text=self.message.generated, version=self.version)
        try:
            await self._store_and_show(end, lambda: self.message.fail(note, self.event_id))
        except discord.NotFound:
            log.info("the message of the reply %d, which failed, is gone", self.event_id)
            self.forget()

    async def _refuse(self, retract: Callable[[], Awaitable[None]] | None) -> None:
        """End a reply of which nothing was posted."""
        if retract is None:
            await self._store_failure()
            return
        # Nobody sees the question any more, so a later prompt must not contain it.
        await store_when_possible(
            f"the refusal of the reply {self.event_id}", self.take_back_question
        )
        await retract()

    def take_back_question(self) -> None:
        """Delete all messages that the reply answers, and the reply. Their ids stay, so that no
        later event or start answers one of them alone.
        """
        store = self.context.store
        with store.atomic():
            for message_id in store.replies.asked_messages(self.event_id):
                store.messages.delete(message_id)
            store.replies.take_back(self.event_id)

    async def _store_failure(self, note: str | None = None) -> None:
        """Store that a reply failed before its message was posted; `note` has yet to be shown in a
        copy.
        """
        await store_when_possible(
            f"the failure of the reply {self.event_id}",
            lambda: self.context.store.replies.finish(self.event_id, "failed", end_note=note),
        )

    def forget(self) -> None:
        """End a reply whose message was deleted."""
        forget_reply(self.context.store, self.event_id, self.message.parts)

    async def _store_and_show(self, end: ReplyEnd, show: Callable[[], Awaitable[None]]) -> None:
        """Store how a reply ends, then show it, each as soon as that works.

        Neither waits for the other to recover: a text that was generated is lost only if both the
        database and Discord are away until the bot ends.
        """
        try:
            self._store_end(end)
        except StoreError as error:
            log.error(
                "the end of the reply %d is shown before it is stored: %s", self.event_id, error
            )
            is_shown = await self._show_end(show)
            await self._store_in_any_case(end)
        else:
            is_shown = await self._show_end(show)
        if is_shown:
            # Where one of these fails, the buttons stay, and do what they do under the last message;
            # without its row, the end is shown again by the next start.
            with suppress(*DELIVERY_ERRORS):
                await store_when_possible(
                    f"the row of the reply {self.event_id}", self._store_end_shown
                )
                await self.message.remove_kept_buttons()
        else:
            with suppress(StoreError):  # then its text is in prompts
                await store_when_possible(
                    f"that the end of the reply {self.event_id} is not seen",
                    lambda: self.context.store.replies.record_end_unseen(self.event_id),
                )

    def _store_end_shown(self) -> None:
        """Store that the end is shown, and the messages that were posted for it if that failed."""
        replies = self.context.store.replies
        with self.context.store.atomic():
            if not self.message.is_stored:
                stored = replies.get(self.event_id)
                if stored and stored.end_note is not None:  # else it was erased, or is made anew
                    replies.record_parts(self.event_id, self.message.parts)
            replies.record_end_shown(self.event_id)

    async def _show_end(self, show: Callable[[], Awaitable[None]]) -> bool:
        """Show the end, however long Discord is away. False: it is shown at a later connection or
        start, or when its thread, which is archived, opens again.
        """
        try:
            await deliver(f"the end of the reply {self.event_id}", show)
        except discord.NotFound:
            raise
        except DELIVERY_ERRORS as error:
            if is_archived(error):
                log.info("the end of the reply %d is not shown yet: %s", self.event_id, error)
                return False
            log.error(
                "the end of the reply %d is stored, and shown at the next connection: %s",
                self.event_id,
                error,
            )
            return False
        return True

    async def _store_in_any_case(self, end: ReplyEnd) -> None:
        """Store the end as soon as the database takes it, for as long as the bot runs."""
        while True:
            with suppress(StoreError):
                return await store_when_possible(
                    f"the end of the reply {self.event_id}", lambda: self._store_end(end)
                )

    def _store_end(self, end: ReplyEnd) -> None:
        """Store the text and the end at once; nothing if its member was erased meanwhile."""
        store = self.context.store
        with store.atomic():
            if store.replies.get(self.event_id) is None:
                return
            store.replies.record_parts(self.event_id, self.message.parts)
            if text := self.context.redacted(end.text):  # an empty text is no message
                first_part = self.message.parts[0]  # stands for the whole text
                store.messages.append(
                    guild_id=self.place.guild_id,
                    channel_id=self.place.channel_id,
                    author_id=0,
                    author_name=self.persona.name,
                    text=text,
                    at=time.time(),
                    discord_message_id=first_part,
                    persona_id=self.persona.id,
                    adapter_version=end.version,
                    conversation=self.conversation,
                )
                edit_memory_copies(store, first_part, remove_links(text, keeps_code=True))
                self._record_talk(end.note)
            # Votes on what somebody wrote are no votes on a version.
            is_written = self.human_answer or self.written
            store.replies.finish(
                self.event_id,
                end.state,
                None if is_written else end.version,
                end.seed,
                end_note=end.note,
            )

    def _record_talk(self, note: str | None) -> None:
        """Store that the member has got a reply, and whether it told that it is AI. One that had to
        and failed does not count, nor does one of an earlier conversation: the next one tells it.
        """
        present = self.context.store.places.present_conversation(self.place.channel_id)
        if self.conversation != present:
            return
        is_told = self.disclosure.line in (note or "")
        if self.asked_by and (is_told or not self.disclosure.is_due):
            self.context.store.talks.record(
                self.place.guild_id,
                self.place.channel_id,
                self.asked_by,
                at=time.time(),
                told_event=self.event_id if self.disclosure.is_due else None,
            )

    # ----------------------------------------------------------------------- the message on Discord

    @property
    def language(self) -> Language:
        """The language of the notes and buttons (`ReplyContext.holding`): that of the channel."""
        return self.context.member_languages.of_channel(self.channel, self.asked_by)

    @property
    def cut_off_note(self) -> str:
        """The note below a reply that was interrupted."""
        return localise(CUT_OFF_NOTE)

    def growing_view(self) -> discord.ui.View:
        """The buttons under the reply while it is written."""
        return self.context.views.growing(self.event_id)

    def ended_view(self) -> discord.ui.View:
        """The buttons under the ended reply; a line that answers nobody has none, and neither has one
        that no model wrote.
        """
        if self.trigger_seq is None or self.human_answer:
            return discord.ui.View()
        replies = self.context.store.replies
        stored = replies.get(self.event_id)
        version = stored.adapter_version if stored else None
        votes = replies.votes(self.event_id)
        views = self.context.views
        if isinstance(self.channel, OutsideChannel):
            return views.ended_outside(self.event_id, votes)
        return views.ended(self.event_id, votes, offers_untrained=version is not None)

    def record_parts(self, parts: list[int]) -> bool:
        """Store the messages of the reply; False if that failed.

        Its end stores them too, and after a kill they are found by their buttons.
        """
        try:
            self.context.store.replies.record_parts(self.event_id, parts)
        except StoreError as error:
            log.warning(
                "the messages of the reply %d are stored at its end: %s", self.event_id, error
            )
            return False
        return True

    def _edit_stretch_s(self) -> float:
        """Return by how much edits are postponed, for all of the channel's."""
        return self.context.unfinished.edit_stretch_s(self.place.home_id)


def forget_reply(store: Store, event_id: int, parts: Iterable[int]) -> None:
    """Delete a reply from the history, whose messages are gone from Discord."""
    for message_id in parts:
        store.messages.delete(message_id)
        store.replies.delete_part(message_id)
    store.replies.record_deleted(event_id)
