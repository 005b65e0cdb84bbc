"""A vLLM server under a simulated clock: continuous batching, LoRA slots, and the caches of
adapters and prefixes.

Follows vLLM 0.32: a step computes a token of each running sequence and prompts of waiting ones, in
order of arrival; waiting sequences whose adapter would exceed `max_loras` are skipped
(v1/core/sched/scheduler.py). Before the step, each of its adapters is brought into a LoRA slot:
from memory, where the least recently used of `max_cpu_loras` leaves, or from disk
(lora/worker_manager.py). All of that stops the engine, as does an adapter that is loaded by
request.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np


@dataclass(frozen=True)
class ReplicaProfile:
    """Limits of a server, and its times in seconds.

    A step of `rows` sequences with `adapters` different adapters that computes `prompt_tokens`
    takes `step_s` + rows * `row_s` + adapters * `adapter_s` + prompt_tokens * `prompt_token_s`. An
    adapter moves from memory to a slot in `activate_s`, from disk to memory in `read_s`, and from
    the object store to disk in `fetch_s`. `verify_s` is the bot's check of an adapter before it has
    a server load it, `request_s` all that a request and its first token need outside of the
    server's engine. Servers hold `ram` adapters in memory and the prefixes of `prefixes` personas.
    """

    name: str
    step_s: float
    row_s: float
    adapter_s: float
    prompt_token_s: float
    activate_s: float
    read_s: float
    fetch_s: float
    verify_s: float
    request_s: float
    rows: int = 32
    slots: int = 16
    ram: int = 1000
    prefixes: int = 200
    step_tokens: int = 2048
    start_s: float = 60.0

    def scaled(self, factor: float) -> "ReplicaProfile":
        """Return a server whose times are so many times as long."""
        times = {
            each.name: factor * getattr(self, each.name)
            for each in fields(self)
            if each.name.endswith("_s")
        }
        return replace(self, **times | {"start_s": self.start_s})

    def step_seconds(self, rows: int, adapters: int, prompt_tokens: int) -> float:
        return (
            self.step_s
            + rows * self.row_s
            + adapters * self.adapter_s
            + prompt_tokens * self.prompt_token_s
        )


def fit_steps(steps: Sequence[tuple[int, int, float]]) -> tuple[float, float, float]:
    """Fit seconds = a + b * rows + c * adapters by least squares of the relative errors, none of
    them negative.
    """
    design = np.array([[1.0, rows, adapters] for rows, adapters, _ in steps])
    seconds = np.array([each[2] for each in steps])
    columns = [0, 1, 2]
    while True:
        found = np.linalg.lstsq(
            design[:, columns] / seconds[:, None], np.ones(len(seconds)), rcond=None
        )[0]
        if (found >= 0).all():
            fitted = dict(zip(columns, found.tolist(), strict=True))
            return fitted.get(0, 0.0), fitted.get(1, 0.0), fitted.get(2, 0.0)
        columns.remove(columns[int(found.argmin())])


class LruCache(OrderedDict[str, None]):
    """Keys in the order of their last use; the least recently used one leaves when there are too
    many.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def use(self, key: str) -> bool:
        """Make a key the latest; returns whether it was there."""
        if key in self:
            self.move_to_end(key)
            return True
        self[key] = None
        if len(self) > self.capacity:
            self.popitem(last=False)
        return False


@dataclass(eq=False)
class ServedSequence:
    """A sequence on a server: its adapter (empty for the base model), and the tokens that are left
    to compute.
    """

    adapter: str
    prompt_left: int
    shared_prefix: int
    tokens_left: int
    on_token: Callable[[], None]
    is_cancelled: bool = False


@dataclass
class LoadCounts:
    """Sequences scheduled, and adapters brought into a slot, read from disk and fetched from the
    object store.
    """

    sequences: int = 0
    activated: int = 0
    read: int = 0
    fetched: int = 0
    prefix_hits: int = 0


@dataclass(eq=False)
class SimulatedReplica:
    """One server. The caller starts a step, lets its time pass, and ends it.

    Its disk holds the `stored` adapters, and those that it fetched from the object store.
    """

    url: str
    profile: ReplicaProfile
    counts: LoadCounts = field(default_factory=LoadCounts)
    is_alive: bool = True
    stored: frozenset[str] = frozenset()
    registered: set[str] = field(default_factory=set)
    waiting: deque[ServedSequence] = field(default_factory=deque)
    running: list[ServedSequence] = field(default_factory=list)
    _posted: deque[tuple[str, Callable[[], None]]] = field(default_factory=deque)
    _loaded: list[Callable[[], None]] = field(default_factory=list)
    _sampled: list[ServedSequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk: set[str] = set()
        self._clear_memory()

    def _clear_memory(self) -> None:
        self.slots = LruCache(self.profile.slots)
        self.ram = LruCache(self.profile.ram)
        self.prefixes = LruCache(self.profile.prefixes)

    def kill(self) -> list[ServedSequence]:
        """End the server; returns the sequences that it had. What waits for a load is called
        back.
        """
        lost = [*self.running, *self.waiting]
        unloaded = [*self._loaded, *(each for _, each in self._posted)]
        self.is_alive = False
        self.running = []
        self._sampled = []
        self._loaded = []
        self.waiting.clear()
        self._posted.clear()
        for on_loaded in unloaded:
            on_loaded()
        return lost

    def restart(self) -> None:
        """Start the server again with empty memory; its disk is as it was."""
        self.is_alive = True
        self.registered.clear()
        self._clear_memory()

    def post_load(self, adapter: str, on_loaded: Callable[[], None]) -> None:
        """Load an adapter between two steps (/v1/load_lora_adapter)."""
        self._posted.append((adapter, on_loaded))

    def add(self, seq: ServedSequence) -> None:
        self.waiting.append(seq)

    def start_step(self) -> float | None:
        """Start a step, or the loads that were posted; returns its seconds, and None if there is
        nothing to do.
        """
        if self._posted:
            return self._load_posted()
        prompt_tokens = self._schedule()
        if not self._sampled and not prompt_tokens:
            return None
        adapters = dict.fromkeys(seq.adapter for seq in self.running if seq.adapter)
        load_s = sum(self._bring_into_slot(adapter) for adapter in adapters)
        return load_s + self.profile.step_seconds(len(self.running), len(adapters), prompt_tokens)

    def end_step(self) -> None:
        """Deliver what the step made: adapters that are loaded, and a token for each sampled
        sequence.
        """
        loaded = self._loaded
        self._loaded = []
        for on_loaded in loaded:
            on_loaded()
        sampled = self._sampled
        self._sampled = []
        is_over = False
        for seq in sampled:
            seq.tokens_left -= 1
            is_over |= seq.tokens_left <= 0
            seq.on_token()
        if is_over or any(seq.is_cancelled for seq in self.running):
            self.running = [
                seq for seq in self.running if seq.tokens_left > 0 and not seq.is_cancelled
            ]

    def _load_posted(self) -> float:
        load_s = 0.0
        while self._posted:
            adapter, on_loaded = self._posted.popleft()
            if adapter not in self.registered:
                self.registered.add(adapter)
                load_s += self._bring_into_slot(adapter)
            self._loaded.append(on_loaded)
        return load_s

    def _schedule(self) -> int:
        """Choose the sequences of the step: all running ones, then waiting ones; returns their
        prompt tokens.
        """
        budget = self.profile.step_tokens
        prompt_tokens = 0
        self._sampled = []
        for seq in self.running:
            prompt_tokens += self._take_prompt(seq, budget - prompt_tokens)
        if self.waiting:
            prompt_tokens += self._admit(budget - prompt_tokens - len(self.running))
        return prompt_tokens

    def _admit(self, budget: int) -> int:
        adapters = {seq.adapter for seq in self.running if seq.adapter}
        skipped = deque[ServedSequence]()
        prompt_tokens = 0
        while self.waiting and len(self.running) < self.profile.rows and prompt_tokens < budget:
            seq = self.waiting.popleft()
            if seq.is_cancelled:
                continue
            if seq.adapter and seq.adapter not in adapters and len(adapters) >= self.profile.slots:
                skipped.append(seq)
                continue
            self.counts.sequences += 1
            if seq.shared_prefix and self.prefixes.use(seq.adapter):
                self.counts.prefix_hits += 1
                seq.prompt_left -= seq.shared_prefix
            if seq.adapter:
                adapters.add(seq.adapter)
            self.running.append(seq)
            prompt_tokens += self._take_prompt(seq, budget - prompt_tokens)
        self.waiting.extendleft(reversed(skipped))
        return prompt_tokens

    def _take_prompt(self, seq: ServedSequence, budget: int) -> int:
        """Compute up to `budget` tokens of a sequence's prompt; one whose prompt is computed gets a
        token.
        """
        taken = min(seq.prompt_left, budget)
        seq.prompt_left -= taken
        if not seq.prompt_left:
            self._sampled.append(seq)
        return taken

    def _bring_into_slot(self, adapter: str) -> float:
        """Use an adapter as a step does, which changes its place in the caches; returns the
        seconds.
        """
        seconds = 0.0
        if not self.ram.use(adapter):
            self.counts.read += 1
            seconds += self.profile.read_s
            if adapter not in self.stored and adapter not in self.disk:
                self.disk.add(adapter)
                self.counts.fetched += 1
                seconds += self.profile.fetch_s
            for slot in self.slots.keys() - self.ram.keys():  # leaving memory ends its slot, too
                del self.slots[slot]
        if not self.slots.use(adapter):
            self.counts.activated += 1
            seconds += self.profile.activate_s
        return seconds
