"""Attempts of replies on replicas: a reply whose server fails goes on at another one."""

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from personas.engine.remote.cache_salt import CacheSalt
from personas.engine.remote.replica import Replica
from personas.engine.remote.replica_adapters import ReplicaAdapters
from personas.engine.remote.replica_health import ReplicaHealth
from personas.engine.remote.replica_scheduler import ReplicaScheduler
from personas.engine.remote.replicas import Replicas
from personas.engine.remote.server_errors import (
    ACCOUNT_KINDS,
    AdapterNotServedError,
    ReplicaError,
    ReplicaTimeoutError,
    VllmError,
)
from personas.engine.remote.vllm_client import ServedModels
from personas.engine.remote.vllm_sequence import VllmSequence

log = logging.getLogger(__name__)
# Attempts of one reply that may fail without a new token: the request itself may kill a server.
MAX_FAILED_ATTEMPTS = 5


class ReplyAttempts:
    """Generates replies on the replicas that the scheduler has leased for them. Used on the event
    loop.
    """

    def __init__(
        self,
        replicas: Replicas,
        health: ReplicaHealth,
        adapters: ReplicaAdapters,
        scheduler: ReplicaScheduler[VllmSequence],
        *,
        salt: CacheSalt,
        stall_s: float,
    ) -> None:
        """A server that sends nothing for `stall_s` is given up."""
        self._replicas = replicas
        self._health = health
        self._adapters = adapters
        self._scheduler = scheduler
        self._salt = salt
        self._stall_s = stall_s

    async def run(self, seq: VllmSequence) -> None:
        """Generate the rest of a reply on its replica; if that fails, queue it for another one."""
        replica = seq.lease.replica
        received = len(seq.received)
        try:
            await self._generate(seq, replica)
        except ReplicaError as error:
            self._health.fail(replica, error)
            is_late = isinstance(error, ReplicaTimeoutError)
            if (is_late or seq.failed_attempts) and self._drops_pictures(seq, replica, error):
                return
            self._resume(seq, error, has_progress=len(seq.received) > received)
        except AdapterNotServedError as error:
            self._do_without(seq, replica, error)
        except Exception as error:  # of this request: the others go on
            if self._drops_pictures(seq, replica, error):
                return
            log.debug("a reply failed", exc_info=True)
            self._scheduler.fail(seq, error)
        else:
            self._health.succeed(replica)
            self._scheduler.finish(seq)

    def _drops_pictures(self, seq: VllmSequence, replica: Replica, error: Exception) -> bool:
        """Queue a reply that has not begun again with fewer pictures, if they may be why its server
        failed: they have too many tokens, or take too long, or the model sees none.
        """
        is_refused = isinstance(error, VllmError)
        if isinstance(error, ReplicaError):
            is_refused = error.kind not in ("busy", *ACCOUNT_KINDS)
        has_pictures = replica.served and seq.has_pictures(replica.served)
        if not is_refused or not has_pictures or seq.received:
            return False
        seq.drop_pictures()
        log.warning("a reply is asked for with %d pictures: %s", len(seq.request.pictures), error)
        self._scheduler.requeue(seq, seq.queued_at)
        return True

    def _resume(self, seq: VllmSequence, error: ReplicaError, *, has_progress: bool) -> None:
        """Queue a reply again whose replica failed, with the tokens that it has."""
        if has_progress:
            seq.failed_attempts = 0
        elif error.kind != "busy":
            seq.failed_attempts += 1
        if seq.is_finished:
            self._scheduler.finish(seq)
        elif seq.failed_attempts >= MAX_FAILED_ATTEMPTS:
            self._scheduler.fail(seq, error)
        else:
            log.info(
                "a reply goes on after %d tokens, by the next server that is ready: %s",
                len(seq.received),
                error,
            )
            # A reply that got tokens waits anew; others keep their place.
            queued_at = self._scheduler.clock() if has_progress else seq.queued_at
            self._scheduler.requeue(seq, queued_at)

    def _do_without(
        self, seq: VllmSequence, replica: Replica, error: AdapterNotServedError
    ) -> None:
        """Take another replica for a reply whose adapter this one cannot serve; if none can, the base
        model where it may answer.
        """
        seq.avoided |= {replica.url}
        if all(ready.url in seq.avoided for ready in self._replicas.ready):
            if not seq.may_use_base_model:
                self._scheduler.fail(seq, error)
                return
            log.error("the base model answers instead: %s", error)
            try:
                seq.use_base_model()
            except ValueError as too_long:
                self._scheduler.fail(seq, too_long)
                return
        self._scheduler.requeue(seq, seq.queued_at)

    async def _generate(self, seq: VllmSequence, replica: Replica) -> None:
        """Stream a reply; an adapter that the server lost is loaded once. Raises
        `AdapterNotServedError` after that.
        """
        try:
            async with asyncio.timeout(self._stall_s) as seq.lease.deadline:
                if seq.adapter:
                    await self._adapters.ensure(replica, seq.adapter)
                try:
                    await self._stream(seq, replica)
                except AdapterNotServedError:
                    if not seq.adapter:
                        raise
                    replica.adapters.pop(seq.adapter.name, None)
                    await self._adapters.ensure(replica, seq.adapter)
                    await self._stream(seq, replica)
        except TimeoutError as error:
            raise ReplicaTimeoutError(f"{replica.url} sent nothing for too long.") from error
        finally:
            seq.lease.deadline = None

    async def _stream(self, seq: VllmSequence, replica: Replica) -> None:
        loop = asyncio.get_running_loop()
        lease = seq.lease
        assert replica.served and lease.deadline  # it was checked before it got replies
        async with aclosing(replica.client.generate(self._body(seq, replica.served))) as chunks:
            async for chunk in chunks:
                lease.heard_at = self._scheduler.clock()
                lease.deadline.reschedule(loop.time() + self._stall_s)
                seq.receive(chunk)
                for _ in range(chunk.token_count):
                    self._scheduler.queue.count_token(seq)
                if seq.is_finished:
                    return

    def _body(self, seq: VllmSequence, served: ServedModels) -> dict[str, Any]:
        """Build the request for the rest of a reply."""
        return seq.body(served, self._salt.value)
