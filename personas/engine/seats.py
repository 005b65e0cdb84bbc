"""Which adapter sits in which slot: read in the background, the longest unused leaves, one in use never does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from personas.contracts import AdapterRef
from personas.engine.adapters import AdapterWeights
from personas.engine.state import HeldAdapter

AHEAD = 4
"""So many adapters are read ahead of their turn; more would fill the memory where thousands wait."""


@dataclass(frozen=True)
class Seat:
    """Where a row's adapter is: in a slot of the stack (0 is the base model), or left to peft (`slot` None)."""

    slot: int | None
    ref: AdapterRef | None = None

    @property
    def name(self) -> str:
        """The adapter's name, empty for the base model."""
        return self.ref.name if self.ref else ""


BASE = Seat(0)


@dataclass
class _Held:
    """An adapter that is here, the rows that use it, and who waits for it to leave."""

    seat: Seat
    rows: int = 0
    left: list[Callable[[], None]] = field(default_factory=list)


class Seats:
    """The slots of one stack. Used by the engine's thread alone; only reading happens beside it."""

    def __init__(
        self,
        slots: int,
        read: Callable[[AdapterRef], AdapterWeights],
        put: Callable[[int, AdapterWeights], None],
        forget: Callable[[AdapterRef], None],
        heard: Callable[[], None],
    ) -> None:
        """`read` verifies and reads an adapter, on another thread; `heard` is called there when that is done.

        `put` fills a slot. `forget` is called with an adapter that is let go of for good, not with one that makes room.
        """
        self._read, self._put, self._forget, self._heard = read, put, forget, heard
        self._free = list(range(slots, 0, -1))
        self._held: OrderedDict[str, _Held] = OrderedDict()  # least recently used first
        self._reading: dict[str, Future[AdapterWeights]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    @property
    def held(self) -> tuple[HeldAdapter, ...]:
        """Those that are here, the longest unused first. May be asked from any thread."""
        return tuple(HeldAdapter(it.seat.name, it.rows, it.seat.slot is not None) for it in list(self._held.values()))

    def read_ahead(self, refs: Sequence[AdapterRef]) -> None:
        """Read those that come next and are not here; what was read for others is let go of."""
        wanted = {ref.name: ref for ref in refs if ref.name not in self._held}
        wanted = dict(list(wanted.items())[:AHEAD])
        for name in self._reading.keys() - wanted.keys():
            self._reading.pop(name).cancel()
        for name, ref in wanted.items():
            if name not in self._reading:
                self._reading[name] = self._reader.submit(self._read, ref)
                self._reading[name].add_done_callback(lambda _: self._heard())

    def is_read(self, ref: AdapterRef) -> bool:
        """Whether an adapter only waits for a slot, or is here."""
        reading = self._reading.get(ref.name)
        return ref.name in self._held or (reading is not None and reading.done())

    def hold(self, weights: AdapterWeights) -> bool:
        """Seat an adapter that has been read; False when all slots are in use."""
        name = weights.ref.name
        if name not in self._held:
            slot = None if weights.pairs is None else self._free_slot()
            if slot == 0:
                return False
            if slot is not None:
                self._put(slot, weights)
            self._held[name] = _Held(Seat(slot, weights.ref))
        return True

    def take(self, ref: AdapterRef | None) -> Seat | None:
        """A seat for one more row with this adapter; None while it is being read or all slots are in use.

        Raises `AdapterError` when the adapter cannot be used.
        """
        if ref is None:
            return BASE
        if ref.name not in self._held and not self._place(ref):
            return None
        held = self._held[ref.name]
        if held.left:  # it is asked to leave; who comes now gets what lies in its folder then
            return None
        self._held.move_to_end(ref.name)
        held.rows += 1
        return held.seat

    def give_back(self, seat: Seat) -> None:
        """A row has ended."""
        if seat.ref is None:
            return
        held = self._held[seat.name]
        held.rows -= 1
        if held.left and not held.rows:
            self._let_go(held)

    def drop(self, ref: AdapterRef, left: Callable[[], None]) -> None:
        """Let go of an adapter once no row uses it; `left` hears when it has gone, or that it was not here."""
        if reading := self._reading.pop(ref.name, None):
            reading.cancel()
        held = self._held.get(ref.name)
        if held is None:
            left()
            return
        held.left.append(left)
        if not held.rows:
            self._let_go(held)

    def close(self) -> None:
        """Stop reading."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _place(self, ref: AdapterRef) -> bool:
        """Seat an adapter that has been read, if there is room for it."""
        reading = self._reading.get(ref.name)
        if reading is None or not reading.done():
            return False
        if reading.exception():
            self._reading.pop(ref.name)
        if not self.hold(reading.result()):
            return False
        self._reading.pop(ref.name)
        return True

    def _free_slot(self) -> int:
        """A free slot, made free if need be; 0 when all are in use."""
        if not self._free:
            idle = (name for name, held in self._held.items() if not held.rows and held.seat.slot)
            if (name := next(idle, None)) is not None:
                self._free.append(self._held.pop(name).seat.slot or 0)
        return self._free.pop() if self._free else 0

    def _let_go(self, held: _Held) -> None:
        ref = held.seat.ref
        assert ref is not None  # the base model is never held
        del self._held[ref.name]
        if held.seat.slot:
            self._free.append(held.seat.slot)
        self._forget(ref)
        for left in held.left:
            left()
