"""Replicas of a served model: choice of one for a reply, and the places on them."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence

from personas.engine.remote.replica import Lease, Replica, ReplicaLimits
from personas.engine.remote.vllm_client import VllmClient

LOAD_FACTOR = 1.25
"""Most replies of a replica, relative to the average (consistent hashing with bounded loads, arXiv
1608.01350).
"""
PRELOADED_REPLICAS = 4
"""Replicas on which a promotion loads a version: loading stops all replies of a replica."""
MAX_CACHED_ORDERS = 16384


class Replicas:
    """The servers; spreads replies over those that are ready. Used on the event loop."""

    def __init__(
        self,
        clients: Sequence[VllmClient],
        limits: ReplicaLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.all = [Replica(client) for client in clients]
        self.limits = limits
        self._clock = clock
        self._released = asyncio.Event()
        self._orders: dict[str, list[Replica]] = {}  # `_order` by key

    @property
    def ready(self) -> list[Replica]:
        return [replica for replica in self.all if replica.is_ready]

    def choose(
        self,
        key: str,
        adapter: str,
        avoided: frozenset[str] = frozenset(),
        *,
        anywhere: bool = True,
        wants_sight: bool = False,
    ) -> Replica | None:
        """Choose a replica with room for a reply; None if there is none.

        The same key prefers the same replica, which then has its adapter and its prompts' prefixes
        in memory; above `LOAD_FACTOR` times the average load the next one in the key's order is
        taken. A reply waits for one that is full below that, unless it may go `anywhere`: reading
        its adapter elsewhere would stop all replies there. An adapter has one such replica more
        than it replies on now. `avoided` are addresses. `wants_sight`: it is one that sees pictures,
        if there is any, unless the reply may go `anywhere`.
        """
        ready = [replica for replica in self._order(key) if replica.is_ready]
        if avoided:
            ready = [replica for replica in ready if replica.url not in avoided]
        if not ready:
            return None
        if wants_sight:
            seeing = [each for each in ready if each.served and each.served.sees_pictures]
            chosen = self._first_with_room(seeing, adapter)
            if chosen or (seeing and not anywhere):
                return chosen
        replies = sum([len(replica.leases) for replica in ready])
        bound = math.ceil(LOAD_FACTOR * (replies + 1) / len(ready))
        below = [replica for replica in ready if len(replica.leases) < bound]
        if not anywhere:
            # Reading an adapter stops all replies of a server, so the reply rather waits.
            with_adapter = sum([adapter in replica.active for replica in below])
            return self._first_with_room(below[: with_adapter + 1], adapter)
        return self._first_with_room(below, adapter) or self._first_with_room(ready, adapter)

    def _first_with_room(self, replicas: Sequence[Replica], adapter: str) -> Replica | None:
        for replica in replicas:
            if self._has_room(replica, adapter):
                return replica
        return None

    def preferred(self, key: str) -> list[Replica]:
        """Return the ready replicas on which a new version is loaded at once; others load it when
        it is first used.
        """
        return [replica for replica in self._order(key) if replica.is_ready][:PRELOADED_REPLICAS]

    def prefers(self, key: str, url: str) -> bool:
        """Return whether the replica of this address is among the first of a key."""
        return any(replica.url == url for replica in self._order(key)[:PRELOADED_REPLICAS])

    def _order(self, key: str) -> list[Replica]:
        """Return all replicas, those that a key prefers first."""
        if key not in self._orders:
            if len(self._orders) >= MAX_CACHED_ORDERS:
                self._orders.clear()
            self._orders[key] = sorted(
                self.all, key=lambda replica: rendezvous_score(key, replica.url), reverse=True
            )
        return self._orders[key]

    def _has_room(self, replica: Replica, adapter: str) -> bool:
        if len(replica.leases) >= self.limits.rows:
            return False
        return (
            not adapter or adapter in replica.active or len(replica.active) < self.limits.adapters
        )

    def lease(self, replica: Replica, adapter: str) -> Lease:
        """Take a place on a replica."""
        lease = Lease(replica, adapter, heard_at=self._clock())
        replica.leases.add(lease)
        if adapter:
            replica.active[adapter] += 1
        return lease

    def release(self, lease: Lease) -> None:
        active = lease.replica.active
        lease.replica.leases.remove(lease)
        if lease.adapter:
            active[lease.adapter] -= 1
            if not active[lease.adapter]:
                del active[lease.adapter]
        self._released.set()

    async def wait_for_release(self) -> None:
        """Wait until a reply has left its replica."""
        self._released.clear()
        await self._released.wait()


def rendezvous_score(key: str, url: str) -> int:
    """Return the weight of a replica for a key (highest random weight hashing, Thaler and
    Ravishankar, 1998).
    """
    return int.from_bytes(hashlib.blake2b(f"{key}\0{url}".encode(), digest_size=8).digest(), "big")
