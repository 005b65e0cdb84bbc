"""llama.cpp servers as replicas: one adapter computes at a time, and servers come and go."""

from collections.abc import Sequence

from personas.engine.remote.llamacpp_client import ServedByLlamaCpp
from personas.engine.remote.replica import Replica, ReplicaLimits
from personas.engine.remote.replicas import Replicas
from personas.engine.remote.vllm_client import VllmClient


class LlamaCppReplicas(Replicas):
    """Spreads replies over servers that have their adapters.

    A server computes requests of one adapter together, and those of another one only after them:
    the slot with the lowest number goes first. Requests of several adapters at once would therefore
    wait there, in an order that is not fair, instead of in our queue. `files` are the LoRA files'
    names by the adapters' names.
    """

    def __init__(self, clients: Sequence[VllmClient], limits: ReplicaLimits) -> None:
        super().__init__(clients, limits)
        self.files: dict[str, str] = {}
        self._retiring: set[Replica] = set()

    def add(self, replica: Replica) -> None:
        """Give replies to a further server."""
        self.all = [*self.all, replica]
        self._orders.clear()

    def remove(self, replica: Replica) -> None:
        self.all = [other for other in self.all if other is not replica]
        self._retiring.discard(replica)
        self._orders.clear()

    def retire(self, replica: Replica) -> None:
        """Give a server no further replies; those on it go on."""
        self._retiring.add(replica)

    def restore(self, replica: Replica) -> None:
        """Give a retired server replies again."""
        self._retiring.discard(replica)

    def has_adapter(self, replica: Replica, adapter: str) -> bool:
        """Return whether a server has an adapter, by name; every one has the base model."""
        return not adapter or self.files.get(adapter, "") in replica.adapters

    def may_return_with(self, adapter: str) -> bool:
        """Report whether no server is ready, and one had an adapter, or was never asked for them."""
        return not self.ready and any(
            replica.served is None or self.has_adapter(replica, adapter) for replica in self.all
        )

    def _has_room(self, replica: Replica, adapter: str) -> bool:
        if replica in self._retiring or not isinstance(replica.served, ServedByLlamaCpp):
            return False
        rows = min(self.limits.rows, replica.served.rows)
        others = {lease.adapter for lease in replica.leases} - {adapter}
        return len(replica.leases) < rows and not others and self.has_adapter(replica, adapter)
