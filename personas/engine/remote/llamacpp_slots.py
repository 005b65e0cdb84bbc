"""The slots of a llama.cpp server: each keeps the keys and values of its last prompt and reply.

A server that samples several candidates for a beginning copies the prompt into the free slots with
the lowest numbers, and clears them afterwards. These are left free for it, and as many as there are
candidates keep the card's prompt; conversations have the slots above them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class Slot:
    """A slot: its number at the server, and the adapter and tokens that it was last used with.

    `adapter` is None until its first use, empty for the base model.
    """

    number: int
    adapter: str | None = None
    tokens: tuple[int, ...] = ()
    is_used: bool = False
    used_at: int = 0


@dataclass(frozen=True)
class SlotUse:
    """A slot of a request. `reads_cache`: what it keeps is of the same adapter."""

    number: int
    reads_cache: bool


@dataclass
class SlotPool:
    """Gives each request a slot, where possible the one with the longest beginning of its prompt.

    A slot is read by the adapter alone that filled it: keys and values depend on the adapter.
    """

    slots: list[Slot]
    _uses: int = field(default=0, init=False)

    @classmethod
    def of(cls, count: int, first: int = 0) -> "SlotPool":
        """Return a pool of so many slots, numbered from `first` on."""
        return cls([Slot(number) for number in range(first, first + count)])

    @contextmanager
    def use(self, adapter: str, prompt: Sequence[int]) -> Iterator[SlotUse]:
        """Take a free slot for the time of a request; number -1, which leaves the choice to the
        server, if none is free.
        """
        slot = self._choose(adapter, prompt)
        if slot is None:
            yield SlotUse(-1, reads_cache=False)
            return
        reads_cache = slot.adapter == adapter
        self._uses += 1
        slot.adapter = adapter
        slot.tokens = tuple(prompt)
        slot.is_used = True
        slot.used_at = self._uses
        try:
            yield SlotUse(slot.number, reads_cache)
        finally:
            slot.is_used = False

    def forget(self) -> None:
        """Have no request read what the slots keep now."""
        for slot in self.slots:
            slot.adapter = None
            slot.tokens = ()

    def _choose(self, adapter: str, prompt: Sequence[int]) -> Slot | None:
        free = [slot for slot in self.slots if not slot.is_used]
        own = [slot for slot in free if slot.adapter == adapter]
        best = max(own, key=lambda slot: _common_tokens(slot.tokens, prompt), default=None)
        # Another conversation of the persona keeps its slot while there are unused ones.
        if best and (2 * _common_tokens(best.tokens, prompt) > len(best.tokens)):
            return best
        unused = next((slot for slot in free if slot.adapter is None), None)
        oldest = min(free, key=lambda slot: slot.used_at, default=None)
        return unused or best or oldest


def reserved_slots(candidates: int) -> int:
    """Return the number of slots beside those of conversations that so many candidates need."""
    return 2 * candidates - 1 if candidates > 1 else 0


def possible_candidates(slots: int, rows: int, wanted: int) -> int:
    """Return among how many candidates, at most `wanted`, a server with so many slots can choose
    beside `rows` conversations.
    """
    for candidates in range(wanted, 1, -1):
        if rows + reserved_slots(candidates) <= slots:
            return candidates
    return 1


class ServerSlots:
    """All slots of a server: of conversations, and of the card's prompts with which candidates are
    compared. `is_choosing` while a reply has candidates; another one then begins without.
    """

    def __init__(self, count: int, candidates: int = 1) -> None:
        reserved = reserved_slots(candidates)
        self.conversations = SlotPool.of(count - reserved, reserved)
        self.cards = SlotPool.of(candidates if reserved else 0, candidates - 1)
        self.is_choosing = False

    def forget(self) -> None:
        """Have no request read what the slots keep now."""
        self.conversations.forget()
        self.cards.forget()


def _common_tokens(kept: Sequence[int], prompt: Sequence[int]) -> int:
    for at, (one, other) in enumerate(zip(kept, prompt, strict=False)):
        if one != other:
            return at
    return min(len(kept), len(prompt))
