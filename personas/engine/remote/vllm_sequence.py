"""One request on its way over servers, the stream of its reply, and the scheduler that starts it on
a replica.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from personas.engine.admission import AdapterState, QueuedSequence, SchedulerLimits
from personas.engine.llm_engine import QueuedReplyStream
from personas.engine.remote.replicas import Lease, Replica, ReplicaLimits, Replicas
from personas.engine.remote.vllm_client import REASONING_ADVICE, OnlyThoughtError, TokenChunk
from personas.engine.scheduler import MAX_OVERTAKEN, FairScheduler
from personas.engine.sequence import ReplySequence
from personas.schemas.chat import ChatReply

PATIENCE_SHARE = 0.25
"""Share of the longest wait after which a reply goes to any replica, not only to those that its
adapter prefers.
"""
OVERFLOW_SHARE = 3  # a third of the rows is left to guilds that have less than their share


class VllmReplyStream(QueuedReplyStream):
    """A reply stream whose cancellation wakes the engine, which then closes the connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, version: str | None, on_cancel: Callable[[], None]
    ) -> None:
        super().__init__(loop, version)
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        super().cancel()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_cancel)


class VllmSequence(ReplySequence):
    """One request and the tokens received for it, on one replica after another. `avoided` are
    replicas' addresses.
    """

    lease: Lease
    task: asyncio.Task[None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.received: list[int] = []
        self.failed_attempts = 0
        self.avoided: frozenset[str] = frozenset()

    @property
    def adapter_name(self) -> str:
        """The adapter's name, empty for the base model."""
        return self.adapter.name if self.adapter else ""

    @property
    def has_lone_closing(self) -> bool:
        """A tag closed a thought that no tag had opened."""
        return self._detokenizer.spoken.lone_closings > 0

    @property
    def routing_key(self) -> str:
        """Requests with the same key prefer the same replica."""
        return self.adapter_name or (self.request.persona.id if self.request.persona else "")

    def body(self, model: str, salt: str) -> dict[str, Any]:
        """Build the request for the rest of the reply."""
        sampling = self.request.sampling
        body: dict[str, Any] = {
            "model": model,
            "prompt": [*self.prompt, *self.received],
            "max_tokens": sampling.max_new_tokens - len(self.received),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": self.attempt_seed(),
            "stop_token_ids": list(self._detokenizer.stop_ids),
            # Only the renderer's stop tokens end a reply, as in the local engine.
            "ignore_eos": True,
            "cache_salt": salt,
        }
        if sampling.logprobs or sampling.alternatives is not None:
            body |= {"logprobs": sampling.alternatives or 0, "return_tokens_as_token_ids": True}
        return body

    def attempt_seed(self) -> int:
        """Return the seed; a resumed reply gets another one, or it would draw the numbers of its
        beginning again.
        """
        if not self.received:
            return self.seed
        digest = hashlib.blake2b(
            f"{self.seed}:{len(self.received)}".encode(), digest_size=4
        ).digest()
        return int.from_bytes(digest, "big")

    def receive(self, chunk: TokenChunk) -> None:
        """Append a chunk's tokens up to the end of the reply."""
        count = self.request.sampling.alternatives or 0
        for at, token in enumerate(chunk.tokens):
            if self.is_finished:
                return
            self.received.append(token)
            logprob = chunk.logprobs[at] if chunk.logprobs else None
            self.append_token(
                token, logprob, chunk.alternatives[at][:count] if chunk.alternatives else ()
            )
        if chunk.finish == "stop":
            self._detokenizer.stop()

    def use_base_model(self) -> None:
        """Have the base model reply; the reply then has no version."""
        self.request, self.avoided = replace(self.request, adapter=None), frozenset()

    def finish(self) -> None:
        super().finish()
        self._cancel_task()

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self._cancel_task()

    def _reply(self) -> ChatReply:
        """Build the reply. Raises `OnlyThoughtError` if the model only thought."""
        reply = super()._reply()
        if reply.text or reply.finish == "cancelled" or not self._detokenizer.spoken.has_thought:
            return reply
        raise OnlyThoughtError("The model sent its reasoning and no reply.", REASONING_ADVICE)

    def _cancel_task(self) -> None:
        """End the attempt, which closes its connection."""
        if hasattr(self, "task") and self.task is not asyncio.current_task():
            self.task.cancel()


class RoutedSequence(QueuedSequence, Protocol):
    """A sequence as a `ReplicaScheduler` sees it."""

    lease: Lease
    avoided: frozenset[str]

    @property
    def adapter_name(self) -> str: ...

    @property
    def routing_key(self) -> str: ...


RoutedT = TypeVar("RoutedT", bound=RoutedSequence)


class ReplicaScheduler(FairScheduler[RoutedT]):
    """Starts sequences on replicas that have room for them and for their adapters."""

    def __init__(
        self,
        limits: SchedulerLimits,
        replicas: Replicas,
        run: Callable[[RoutedT], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`run` starts an attempt on the replica of the sequence's lease, and returns at once."""
        super().__init__(limits, clock)
        self._replicas = replicas
        self._run = run

    @property
    def max_overtaken(self) -> int:
        """As many as on one replica, for each of them: with more of them, more replies start in the
        same time.
        """
        return MAX_OVERTAKEN * max(1, len(self._replicas.ready))

    def _choose(self, seq: RoutedT) -> Replica | None:
        waited_s = self.clock() - seq.queued_at
        anywhere = (
            seq.overtaken >= self.max_overtaken or waited_s > PATIENCE_SHARE * self.limits.wait_s
        )
        return self._replicas.choose(
            seq.routing_key, seq.adapter_name, seq.avoided, anywhere=anywhere
        )

    def _state(self, seq: RoutedT) -> AdapterState:
        return AdapterState.READY if self._choose(seq) else AdapterState.NO_SLOT

    def _acquire(self, seq: RoutedT) -> None:
        replica = self._choose(seq)
        assert replica is not None  # its state was READY
        seq.lease, seq.started_at = self._replicas.lease(replica, seq.adapter_name), self.clock()
        self._run(seq)

    def _release(self, seq: RoutedT) -> None:
        self._replicas.release(seq.lease)


def scheduler_limits(
    replicas: int, limits: ReplicaLimits, wait_s: float, reply_s: float
) -> SchedulerLimits:
    """Return the bounds of the replies on so many replicas together."""
    rows = limits.rows * replicas
    overflow = rows // OVERFLOW_SHARE
    return SchedulerLimits(rows - overflow, overflow, wait_s=wait_s, reply_s=reply_s)
