"""A server of the served model: its limits, the replies on it, and its state."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from personas.engine.remote.vllm_client import ServedModels, VllmClient


@dataclass(frozen=True)
class ReplicaLimits:
    """Limits of each replica, and the times of its health checks.

    A replica runs `rows` replies with at most `adapters` different adapters at once. It is asked
    for its health every `health_interval_s` and has to answer within `health_timeout_s`. After a
    failure it gets no replies for a random time up to `backoff_s`, doubled with each further
    failure up to `max_backoff_s` (full jitter), and until it is healthy. One that limits requests
    gets none for at least half of a time that doubles up to `max_busy_backoff_s`, and not before
    the time that it names. One that is not set up for this bot is checked again after
    `misconfigured_s`, doubled up to `max_refused_s` with each further refusal of the account.
    Requests wait for servers that limit them for `patience_s`; if it takes longer, they are
    answered at once.
    """

    rows: int = 32
    adapters: int = 16
    health_interval_s: float = 1.0
    health_timeout_s: float = 3.0
    backoff_s: float = 0.25
    max_backoff_s: float = 4.0
    max_busy_backoff_s: float = 30.0
    misconfigured_s: float = 30.0
    max_refused_s: float = 600.0
    patience_s: float = 15.0


@dataclass(eq=False)
class Lease:
    """A reply's place on a replica. `adapter` is empty for the base model.

    `deadline` ends the reply's attempt when it expires; each part of the reply that arrives
    postpones it.
    """

    replica: "Replica"
    adapter: str
    deadline: asyncio.Timeout | None = None
    heard_at: float = 0.0


@dataclass(eq=False)
class Replica:
    """One server: the adapters it has, by name with their paths, and the replies on it.

    `active` is the number of replies by adapter, without those of the base model. `is_checked`
    until the server was away, because another one may have taken its place; `served` is the check's
    result. `error` is the reason why it gets no replies. `told` is the error that was logged and
    has not passed since: each is logged once. `refusals` counts the failures at which it refused
    the account, and `failures` all others, since it finished a reply.
    """

    client: VllmClient
    served: ServedModels | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    leases: set[Lease] = field(default_factory=set)
    active: Counter[str] = field(default_factory=Counter)
    is_ready: bool = False
    is_checked: bool = False
    error: Exception | None = None
    told: str = ""
    failures: int = 0
    refusals: int = 0
    missed: int = 0
    retry_at: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return self.client.url
