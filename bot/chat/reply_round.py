"""The replies of several personas to one message, one after the other.

All are stored together with the message. The first joins the engine's queue at once. Each further
one joins it when the reply before it has ended, so that its prompt has the text of that one. After
a kill, the next start makes those that have not ended (`bot.chat.recovery`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial

from bot.chat.delivery import MAX_DELIVERY_S, deliver, store_when_possible
from bot.chat.line_wait import LineWait
from bot.chat.reply import Reply, ReplyContext
from bot.safety.actions import SelfHarmError
from personas.errors import EngineBusyError

log = logging.getLogger(__name__)


class ReplyRound:
    """The replies to one message, in their order; most messages have one."""

    def __init__(self, context: ReplyContext, replies: Sequence[Reply]) -> None:
        self._context = context
        self.replies = tuple(replies)
        for reply in self.replies[:-1]:
            reply.is_followed = True

    @property
    def first(self) -> Reply:
        """The reply that joins the queue at once."""
        return self.replies[0]

    def wait_for_lines(self, wait: LineWait) -> None:
        """Have the round wait for further lines of the member before its first reply."""
        self.first.line_wait = wait

    async def answer(self, retract: Callable[[], Awaitable[None]] | None = None) -> None:
        """Make the replies to an accepted message. Raises `EngineBusyError` of the first at once,
        and gives the others up; raises one of other errors once all replies have ended.
        """
        first, *further = self.replies
        errors = list[Exception]()
        with ExitStack() as held:  # else the recovery of a new connection would make them, too
            waiting = [held.enter_context(self._counting(reply)) for reply in further]
            try:
                await first.answer(retract)
            except EngineBusyError:  # they would be refused, too
                await self._give_up(further)
                raise
            except Exception as error:  # the others answer all the same
                errors.append(error)
            for reply, counted in zip(further, waiting, strict=True):
                counted.close()  # it counts itself from here on
                try:
                    await self._answer_next(reply)
                except Exception as error:  # one failure must not affect the other replies
                    errors.append(error)
        if errors:
            shown = next((each for each in errors if isinstance(each, SelfHarmError)), errors[0])
            for failure in errors:
                if failure is not shown:
                    log.error("a reply to the event %d failed: %s", first.event_id, failure)
            raise shown

    def _counting(self, reply: Reply) -> ExitStack:
        """Count a reply that waits for its turn, until the stack is closed."""
        counted = ExitStack()
        unfinished = self._context.unfinished
        counted.enter_context(unfinished.counting(reply.event_id, member=reply.asked_by))
        return counted

    async def _answer_next(self, reply: Reply) -> None:
        """Make a reply after the one before it. While the queue is full it waits: members have seen
        that their message was accepted.
        """
        with self._context.holding(reply):
            await reply.answer_submitted(lambda: _submit_when_free(reply))

    async def _give_up(self, replies: Sequence[Reply]) -> None:
        """End replies of which nothing was posted."""
        finish = self._context.store.replies.finish
        for reply in replies:
            await store_when_possible(
                f"the refusal of the reply {reply.event_id}",
                partial(finish, reply.event_id, "failed"),
            )


async def _submit_when_free(reply: Reply) -> bool:
    """Take a place in the engine's queue as soon as there is one. False where the reply ends before.
    Raises `EngineBusyError` after a long time.
    """
    began = time.monotonic()
    what = f"what the reply {reply.event_id} answers"
    while await store_when_possible(what, reply.read_asked):
        request = await deliver(f"the prompt of the reply {reply.event_id}", reply.build_request)
        try:
            reply.submit(request)
        except EngineBusyError as error:
            if time.monotonic() - began > MAX_DELIVERY_S:
                raise
            await asyncio.sleep(error.wait_s)
        else:
            return True
    return False
