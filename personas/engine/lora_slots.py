"""LoRA slots: reads adapters, stacks their weights, pins them while in use and evicts the least
recently used.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from personas.engine import AdapterStatus
from personas.engine.effect_probe import PendingEffect
from personas.engine.fair_scheduler import AdapterState
from personas.engine.hugepages import packed_zeros_in_huge_pages
from personas.home.adapters import verify_for_base_model
from personas.home.lora_checks import PLAIN_LORA_SETTINGS, LayerShapes, lora_scale, read_lora
from personas.schemas.chat import AdapterRef

STACKABLE_LORA_SETTINGS = PLAIN_LORA_SETTINGS - {"fan_in_fan_out", "use_dora"}
"""Settings of peft that leave an adapter a plain product of two matrices; with any other set, peft
computes it.
"""
PEFT_KEY_PREFIX = "base_model.model."
MAX_STACKED_RANK = 64
"""Largest rank in the stack, whose slots are all as large as the largest adapter; peft computes
larger ones.
"""
MAX_PREFETCHED_ADAPTERS = 4  # adapters read ahead; their weights take memory until they get a slot


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter's weights. `pairs` maps linear layers to A `[rank, in]` and scale · Bᵀ `[rank,
    out]`.

    `pairs` is None for adapters that peft has to compute: other than plain LoRA, or beyond
    `MAX_STACKED_RANK`. `effect` is None if there is nothing to show, or it was shown before.
    """

    ref: AdapterRef
    pairs: Mapping[str, tuple[Any, Any]] | None
    effect: PendingEffect | None = None


def read_adapter(
    ref: AdapterRef, base_hash: str, layers: LayerShapes, *, can_stack: bool = True
) -> AdapterWeights:
    """Verify, check and read an adapter over a base model with these layers. Raises
    `AdapterError`.
    """
    verify_for_base_model(ref, base_hash)
    return read_unverified_adapter(ref, layers, can_stack=can_stack)


def read_unverified_adapter(
    ref: AdapterRef, layers: LayerShapes, *, can_stack: bool = True
) -> AdapterWeights:
    """Check and read an adapter whose folder is not sealed yet. Raises `AdapterError`."""
    config, tensors = read_lora(ref.folder, layers, f"{ref.persona_id} {ref.version}")
    if not can_stack or not _is_stackable(config):
        return AdapterWeights(ref, None)
    pairs = _lora_pairs(config, tensors)
    if pairs and max(a.shape[0] for a, _ in pairs.values()) > MAX_STACKED_RANK:
        return AdapterWeights(ref, None)
    return AdapterWeights(ref, pairs)


def _is_stackable(config: Mapping[str, Any]) -> bool:
    return not any(value and name not in STACKABLE_LORA_SETTINGS for name, value in config.items())


def _lora_pairs(
    config: Mapping[str, Any], tensors: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return A and scale · Bᵀ of each layer of checked tensors."""
    pairs = {}
    for name in {key.rpartition(".lora_")[0] for key in tensors}:
        a = tensors[f"{name}.lora_A.weight"].float()
        b = tensors[f"{name}.lora_B.weight"].float()
        layer = name.removeprefix(PEFT_KEY_PREFIX)
        scaled_b = b * lora_scale(config, layer, a.shape[0])
        pairs[layer] = (a, scaled_b.T.contiguous())
    return pairs


class StackedLora:
    """Maps linear layers to A `[slots, rank, in]` and scale · Bᵀ `[slots, rank, out]`; slot 0, the
    base, is zero.

    Smaller ranks are padded with zeros. The stack grows with the slots in use and the largest rank.
    """

    def __init__(self, linears: Mapping[str, Any], dtype: Any, device: Any, slots: int) -> None:
        """Expect `slots` adapters, not counting the base model's slot: the stack doubles up to that
        size.
        """
        self._linears = linears
        self._options = {"dtype": dtype, "device": device}
        self.slots = slots
        self.pairs: dict[str, tuple[Any, Any]] = {}
        self.version = 0  # increases with each change of the stack
        self.layout = 0  # increases when tensors are replaced by larger ones

    def put(self, slot: int, weights: AdapterWeights) -> None:
        assert weights.pairs is not None  # peft computes the others
        # First: the kernel must not keep the addresses of tensors that grew before an error.
        self.version += 1
        ranks = {layer: a.shape[0] for layer, (a, _) in weights.pairs.items()}
        layers = sorted(self.pairs.keys() | ranks.keys())
        self._grow(slot, {layer: ranks.get(layer, 1) for layer in layers})
        for layer, (a, b) in weights.pairs.items():
            for stack, part in zip(self.pairs[layer], (a, b), strict=True):
                stack[slot, : a.shape[0]] = part
                stack[slot, a.shape[0] :] = 0
        for layer in self.pairs.keys() - weights.pairs.keys():
            for stack in self.pairs[layer]:
                stack[slot] = 0

    def _grow(self, slot: int, ranks: Mapping[str, int]) -> None:
        """Grow the tensors of the layers that have too few slots or ranks; the new ones lie side by
        side.
        """
        grown = []
        shapes = []
        # All layers have the same slots: a sequence's slot is read in each of them, also in one to
        # which another adapter is the first.
        slots = max((a.shape[0] for a, _ in self.pairs.values()), default=0)
        if slot >= slots:
            slots = min(2 * slot + 1, max(slot, self.slots) + 1)
        for layer, rank in ranks.items():
            slots_and_rank = (slots, self._rank(layer, rank))
            if layer not in self.pairs or slots_and_rank != self._size_of(layer):
                linear = self._linears[layer]
                grown.append(layer)
                shapes.append((*slots_and_rank, linear.in_features))
                shapes.append((*slots_and_rank, linear.out_features))
        if not grown:
            return
        tensors = packed_zeros_in_huge_pages(shapes, **self._options)
        self.layout += 1
        for layer, a, b in zip(grown, tensors[::2], tensors[1::2], strict=True):
            for new, before in zip((a, b), self.pairs.get(layer, ()), strict=False):
                new[: before.shape[0], : before.shape[1]] = before
            self.pairs[layer] = (a, b)

    def _rank(self, layer: str, rank: int) -> int:
        """Return the rank that a layer needs."""
        stacked = self._size_of(layer)[1] if layer in self.pairs else 0
        # The kernel computes four ranks at a time.
        return max(stacked, -(-rank // 4) * 4)

    def _size_of(self, layer: str) -> tuple[int, int]:
        slots, ranks, _ = self.pairs[layer][0].shape
        return slots, ranks


@dataclass(frozen=True)
class LoraSlot:
    """The place of an adapter: `index` in the stack (0 is the base model), or None if peft computes
    it.
    """

    index: int | None
    ref: AdapterRef | None = None

    @property
    def name(self) -> str:
        """The adapter's name, empty for the base model."""
        return self.ref.name if self.ref else ""


BASE_MODEL_SLOT = LoraSlot(0)


@dataclass
class _ResidentAdapter:
    """An adapter in memory, the number of sequences that pin it, and callbacks that wait for its
    removal.
    """

    slot: LoraSlot
    pins: int = 0
    on_dropped: list[Callable[[], None]] = field(default_factory=list)
    is_on_trial: bool = False


class LoraSlots:
    """Owns a stack of adapters and reads further ones on a background thread. Used by the engine's
    thread alone.
    """

    def __init__(
        self,
        stack: StackedLora | None,
        read: Callable[[AdapterRef], AdapterWeights],
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        """`read` and `on_read`, which is called after each read, run on the background thread.

        Without a stack, all adapters are left to peft.
        """
        self._stack = stack
        self._read = read
        self._on_read = on_read
        self._free: list[int] = []
        if stack:  # slot 0 is the base model's; the lowest ones are taken first
            self._free = list(range(stack.slots, 0, -1))
        # Least recently used first.
        self._resident: OrderedDict[str, _ResidentAdapter] = OrderedDict()
        self.reads: dict[str, Future[AdapterWeights]] = {}
        """Adapters that are being read, or were read and have no slot yet, by name."""
        self.trials: dict[str, tuple[LoraSlot, PendingEffect]] = {}
        """Adapters in memory that have not shown their effect yet, by name, oldest first."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    @property
    def resident(self) -> tuple[AdapterStatus, ...]:
        """The adapters in memory, least recently used first. Thread-safe."""
        states = []
        for adapter in list(self._resident.values()):  # a copy: the engine's thread may change it
            in_slot = adapter.slot.index is not None
            states.append(AdapterStatus(adapter.slot.name, adapter.pins, in_slot=in_slot))
        return tuple(states)

    def state(self, ref: AdapterRef | None) -> AdapterState:
        """Return whether `acquire` would succeed. Changes nothing."""
        if ref is None:
            return AdapterState.READY
        if resident := self._resident.get(ref.name):
            if resident.is_on_trial:
                return AdapterState.LOADING
            return AdapterState.NO_SLOT if resident.on_dropped else AdapterState.READY
        read = self.reads.get(ref.name)
        if read is None or not read.done():
            return AdapterState.LOADING
        if read.exception():
            return AdapterState.FAILED
        needs_slot = read.result().pairs is not None
        if needs_slot and not self._has_evictable_slot():
            return AdapterState.NO_SLOT
        return AdapterState.LOADING if read.result().effect else AdapterState.READY

    def prefetch(self, refs: Sequence[AdapterRef]) -> None:
        """Read the first adapters that are not in memory; discard other adapters that were read."""
        missing = {ref.name: ref for ref in refs if ref.name not in self._resident}
        wanted = dict(list(missing.items())[:MAX_PREFETCHED_ADAPTERS])
        for name in self.reads.keys() - wanted.keys():
            self.reads.pop(name).cancel()
        for name, ref in wanted.items():
            if name not in self.reads:
                self.reads[name] = self._reader.submit(self._read, ref)
                self.reads[name].add_done_callback(lambda _: self._on_read())
        self._begin_trials()

    def _begin_trials(self) -> None:
        """Put adapters that were read and have an effect to show into slots, as far as there are
        any.
        """
        for name, read in list(self.reads.items()):
            if not read.done() or read.exception() or not read.result().effect:
                continue
            try:
                if self.add(read.result()):
                    del self.reads[name]
            except Exception as error:  # no memory, for one: raised where the adapter is wanted
                self.reads[name] = _failed(error)

    def other_adapter(self, slot: LoraSlot) -> AdapterRef | None:
        """Return the adapter of the stack that was used last beside that of a slot; None without
        any.
        """
        for resident in reversed(self._resident.values()):
            is_usable = not resident.is_on_trial and not resident.on_dropped
            if resident.slot.index and resident.slot is not slot and is_usable:
                return resident.slot.ref
        return None

    def end_trial(self, name: str, error: Exception | None) -> None:
        """Let an adapter be used that has shown its effect. Remove one that has not: `acquire`
        raises the error.
        """
        slot, _ = self.trials.pop(name)
        resident = self._resident[name]
        resident.is_on_trial = False
        self.release(slot)
        if error is not None and name in self._resident:
            self._remove(resident)
            self.reads[name] = _failed(error)

    def acquire(self, ref: AdapterRef | None) -> LoraSlot:
        """Pin an adapter for a sequence, evicting an unused one if necessary.

        Call it in the states READY and FAILED. Raises `AdapterError` for an adapter that could not
        be read, which the next `prefetch` reads again.
        """
        if ref is None:
            return BASE_MODEL_SLOT
        if ref.name not in self._resident and not self.add(self.reads.pop(ref.name).result()):
            raise RuntimeError(f"no slot is free for {ref.name}")
        resident = self._resident[ref.name]
        self._resident.move_to_end(ref.name)
        resident.pins += 1
        return resident.slot

    def release(self, slot: LoraSlot) -> None:
        """Unpin an adapter; one that is being dropped goes with its last pin."""
        if slot.ref is None:
            return
        resident = self._resident[slot.name]
        resident.pins -= 1
        if resident.on_dropped and not resident.pins:
            self._remove(resident)

    def add(self, weights: AdapterWeights) -> bool:
        """Put an adapter into a slot without pinning it; False when all are in use. An error frees
        the slot again.
        """
        if weights.ref.name in self._resident:
            return True
        index = None
        if weights.pairs is not None:
            if not self._has_evictable_slot():
                return False
            index = self._fill_slot(weights)
        resident = _ResidentAdapter(LoraSlot(index, weights.ref))
        self._resident[weights.ref.name] = resident
        if weights.effect:
            resident.is_on_trial = True
            resident.pins += 1  # until the trial ends
            self.trials[weights.ref.name] = (resident.slot, weights.effect)
        return True

    def drop(self, ref: AdapterRef, on_dropped: Callable[[], None]) -> None:
        """Remove an adapter once no sequence pins it, then call `on_dropped`; at once if it is not
        in memory.
        """
        if read := self.reads.pop(ref.name, None):
            read.cancel()
        resident = self._resident.get(ref.name)
        if resident is None:
            on_dropped()
            return
        resident.on_dropped.append(on_dropped)
        if not resident.pins:
            self._remove(resident)

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _has_evictable_slot(self) -> bool:
        return bool(self._free) or self._least_recently_used() is not None

    def _least_recently_used(self) -> str | None:
        for name, adapter in self._resident.items():
            if adapter.slot.index and not adapter.pins:
                return name
        return None

    def _fill_slot(self, weights: AdapterWeights) -> int:
        assert self._stack is not None  # weights have pairs only where there is a stack
        if not self._free and (name := self._least_recently_used()):
            self._free.append(self._resident.pop(name).slot.index or 0)
        index = self._free.pop()
        try:
            self._stack.put(index, weights)
        except Exception:
            self._free.append(index)
            raise
        return index

    def _remove(self, resident: _ResidentAdapter) -> None:
        del self._resident[resident.slot.name]
        if resident.slot.index:
            self._free.append(resident.slot.index)
        for on_dropped in resident.on_dropped:
            on_dropped()


def _failed(error: Exception) -> Future[AdapterWeights]:
    failed: Future[AdapterWeights] = Future()
    failed.set_exception(error)
    return failed
