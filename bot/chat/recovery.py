"""Finishes the replies that a crash, a restart or a lost connection interrupted."""

import asyncio
import logging
import time
from contextlib import ExitStack, suppress

import discord

from bot.chat.delivery import (
    MAX_DELIVERY_S,
    deliver,
    growing_pauses,
    is_archived,
    is_temporary,
    store_when_possible,
)
from bot.chat.places import OutsideChannel, ReplyChannel, fetch_channel
from bot.chat.reply import CUT_OFF_NOTE, Reply, ReplyContext
from bot.chat.senders import interaction_webhook
from bot.platform.localisation import override
from bot.safety.actions import SelfHarmError
from bot.store import Store, StoredReply, StoreError
from personas.errors import EngineBusyError

log = logging.getLogger(__name__)
MAX_RESUME_AGE_S = MAX_DELIVERY_S
"""Maximum age of an interrupted reply that is made; an older one is ended with a note."""
MAX_RESUMED_AT_ONCE = 8


class ReplyRecovery:
    """Finishes interrupted replies, oldest first, some at once."""

    def __init__(self, context: ReplyContext) -> None:
        self._context = context
        self._trying_again: asyncio.Task[None] | None = None

    async def resume_interrupted(
        self, client: discord.Client, channel_id: int | None = None
    ) -> None:
        """Finish all interrupted replies, or those of a channel; those that fail for a while again
        after growing pauses.
        """
        is_trying_again = self._trying_again is not None and not self._trying_again.done()
        if not await self._resume_all(client, channel_id) and not is_trying_again:
            self._trying_again = asyncio.create_task(self._try_again(client))

    async def show_ends(self, client: discord.Client, thread_id: int) -> None:
        """Show the ends of the replies in a thread that has been opened, in which Discord refuses
        changes while it is archived.
        """
        for stored in self._context.store.replies.unfinished(channel_id=thread_id):
            if stored.end_note is not None:  # its last edit may be refused just now
                await self._context.unfinished.wait_for_end(stored.event_id)
        await self.resume_interrupted(client, thread_id)

    async def close(self) -> None:
        """End the further attempts; the next start makes them."""
        if self._trying_again:
            self._trying_again.cancel()
            await asyncio.gather(self._trying_again, return_exceptions=True)

    async def _try_again(self, client: discord.Client) -> None:
        for pause_s in growing_pauses():
            await asyncio.sleep(pause_s)
            if await self._resume_all(client):
                return

    async def _resume_all(self, client: discord.Client, channel_id: int | None = None) -> bool:
        """Finish all replies that are interrupted, or those of a channel. False if some have to be
        tried again.
        """
        unfinished = self._context.unfinished
        free = asyncio.Semaphore(MAX_RESUMED_AT_ONCE)
        after = -1
        is_done = True
        try:
            while page := self._context.store.replies.unfinished(after, channel_id=channel_id):
                after = page[-1].event_id
                interrupted = [reply for reply in page if not unfinished.holds(reply.event_id)]
                leading = [reply for reply in interrupted if not self._follows(reply)]
                with ExitStack() as counted:  # also those that wait for their turn
                    for stored in interrupted:
                        counted.enter_context(unfinished.counting(stored.event_id))
                    results = await asyncio.gather(
                        *(self._resume_round(stored, client, free) for stored in leading)
                    )
                is_done = is_done and all(results)
        except StoreError as error:
            log.warning("interrupted replies are finished later: %s", error)
            return False
        return is_done

    def _follows(self, stored: StoredReply) -> bool:
        """Report whether a reply comes after an interrupted one of another persona."""
        context = self._context
        for earlier in context.store.replies.of_round(stored.event_id):
            if earlier.event_id == stored.event_id:
                return False
            if earlier.is_unfinished and not context.unfinished.holds(earlier.event_id):
                return True
        return False

    async def _resume_round(
        self, stored: StoredReply, client: discord.Client, free: asyncio.Semaphore
    ) -> bool:
        """Finish a reply, then those of other personas that follow it. False if it has to be tried
        again.
        """
        context = self._context
        async with free:
            if not await self._resume_guarded(stored, client):
                return False
            events = [reply.event_id for reply in context.store.replies.of_round(stored.event_id)]
            here = events.index(stored.event_id) if stored.event_id in events else len(events)
            for event_id in events[here + 1 :]:
                following = context.store.replies.get(event_id)
                if following is None or not following.is_unfinished:
                    continue
                with context.unfinished.counting(event_id):
                    if not await self._resume_guarded(following, client):
                        return False
        return True

    async def _resume_guarded(self, stored: StoredReply, client: discord.Client) -> bool:
        """Finish a reply. False if it has to be tried again."""
        replies = self._context.store.replies
        try:
            # It may have been erased, deleted or ended while it waited for its turn.
            current = replies.get(stored.event_id)
            if current and current.is_unfinished:
                await self.resume(current, client)
        except Exception as error:  # one failure must not affect the other replies
            if is_archived(error):
                log.info("the end of the reply %d is not shown yet: %s", stored.event_id, error)
            else:
                log.exception("the reply %d could not be finished", stored.event_id)
            if is_temporary(error):
                return False
            await store_when_possible(
                f"the end of the reply {stored.event_id}", lambda: self._postpone(stored)
            )
        return True

    def _postpone(self, stored: StoredReply) -> None:
        """End a reply, unless it had ended. Its end is shown later, as when its archived thread is
        opened.
        """
        replies = self._context.store.replies
        with self._context.store.atomic():
            replies.finish(stored.event_id, "failed", end_note=CUT_OFF_NOTE)
            replies.record_end_unseen(stored.event_id)

    async def resume(self, stored: StoredReply, client: discord.Client) -> None:
        """Make an interrupted reply, or show how it ended."""
        context = self._context
        replies = context.store.replies
        channel = await self._channel(stored, client)
        persona = context.personas.get(stored.persona_id, stored.guild_id)
        if persona is None or channel is None:
            replies.finish(stored.event_id, "failed")
            replies.give_up_end(stored.event_id)
            return
        reply = Reply(
            context,
            persona,
            channel,
            event_id=stored.event_id,
            asked_by=stored.asked_by,
            trigger_seq=stored.trigger_seq,
            parts=stored.parts,
            mentioned=context.store.greeted_members.mentioned(stored.event_id),
        )
        with override(reply.language):
            await self._finish(stored, reply)

    async def _finish(self, stored: StoredReply, reply: Reply) -> None:
        """Make an interrupted reply, or show how it ended, in its language."""
        context = self._context
        replies = context.store.replies
        await self._find_parts(reply)
        first_part = next(iter(reply.message.parts), 0)
        text = context.store.messages.text_of(first_part) or ""
        reply.message.before = text
        if stored.end_note is not None:
            is_cut_off = stored.end_note == CUT_OFF_NOTE  # stored where no language was known
            note = reply.cut_off_note if is_cut_off else stored.end_note
            await self._show_end(reply, text, note)
        elif not reply.message.parts and context.rules.has_left(stored, reply.place):
            replies.finish(stored.event_id, "stopped")
        elif not _can_be_made(context.store, stored) or not await self._make(
            reply, stored.created_at
        ):
            is_ended = replies.finish(stored.event_id, "failed", end_note=reply.cut_off_note)
            if is_ended:
                await self._show_end(reply, text, reply.cut_off_note)

    async def _channel(self, stored: StoredReply, client: discord.Client) -> ReplyChannel | None:
        """Return the place of a reply; None where it is gone, or out of reach by now."""
        if stored.channel_id >= 0:
            return await fetch_channel(client, stored.channel_id)
        token = self._context.store.interaction_tokens.get(stored.event_id, time.time())
        if token is None:
            return None
        webhook = interaction_webhook(client, token.token)
        return OutsideChannel(stored.channel_id, webhook, token.is_private)

    async def _find_parts(self, reply: Reply) -> None:
        """Find the messages whose ids could not be stored by their buttons, which carry the event's
        id.

        They are stored before they change, because an end without buttons is not found again.
        """
        await reply.message.find_sender()
        known = reply.message.parts
        parts = list(dict.fromkeys([*known, *await reply.message.sender.find(reply.event_id)]))
        if parts != known:
            self._context.store.replies.record_parts(reply.event_id, parts)
            reply.message.parts = parts

    async def _make(self, reply: Reply, created_at: float) -> bool:
        """Make the reply once the engine has a place: it had one, and lost it in the restart. To
        lines that together speak of self-harm, send the answer with helplines in its place. Of a
        persona that is silent by now, begin none.

        False if it is too old, or gets too old, or if nobody has asked and it is quiet by now.
        """
        with self._context.holding(reply):
            while time.time() - created_at <= MAX_RESUME_AGE_S and not reply.would_disturb():
                try:
                    request = await reply.build_request()
                    reason = "" if reply.message.parts else reply.speech_refusal()
                    if reason:
                        reply.end_unsaid(reason)
                        return True
                    reply.submit(request)
                except SelfHarmError as error:
                    await self._answer_with_help(reply, error.message)
                    return True
                except EngineBusyError as error:
                    await asyncio.sleep(error.wait_s)
                    continue
                log.info(
                    "finishing an interrupted reply of %s in #%s",
                    reply.persona.name,
                    reply.channel,
                )
                await reply.write()
                return True
            lines = self._context.store.replies.lines(reply.event_id)
            if text := self._context.safety.answer(" ".join(lines)):
                await self._answer_with_help(reply, text)  # late, but they must not stay stored
                return True
        return False

    async def _answer_with_help(self, reply: Reply, text: str) -> None:
        """Answer what a reply was to answer with a fixed text, and take both back. The text comes
        first: after a kill in between, it is sent again, or Discord ignores the repeated nonce.
        """
        channel = reply.channel
        asked = self._context.store.replies.asked_messages(reply.event_id)

        async def send() -> None:
            for message_id in reply.message.parts:
                with suppress(discord.Forbidden):  # the text is needed all the more
                    await reply.message.sender.remove(message_id)
            if isinstance(channel, OutsideChannel):  # only where the rules are newer than it
                await channel.webhook.send(text, ephemeral=True, suppress_embeds=True, wait=True)
                return
            message = channel.get_partial_message(asked[0])
            await self._context.senders.reply_as_bot(message, text, nonce=str(reply.event_id))

        try:
            await deliver(f"the notice about the event {reply.event_id}", send)
        except discord.HTTPException as error:
            if is_temporary(error):
                raise
            log.warning("could not tell #%s: %s", channel, error)
        await store_when_possible(
            f"the refusal of the reply {reply.event_id}", reply.take_back_question
        )

    async def _show_end(self, reply: Reply, text: str, note: str) -> None:
        """Show how a reply ended in the messages that it has."""
        with suppress(discord.NotFound):
            if reply.message.parts:
                await reply.message.restore(text, note)
        self._context.store.replies.record_end_shown(reply.event_id)


def _can_be_made(store: Store, stored: StoredReply) -> bool:
    """Report whether a reply answers a message, or is a line at a set time."""
    is_answer = stored.trigger_seq is not None
    return is_answer or store.replies.line_prompt(stored.event_id) is not None
