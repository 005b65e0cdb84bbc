"""LoRA slots: read adapters, stack their weights, pin them while in use, evict the least recently used."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file

from personas.engine.hugepages import packed_zeros_in_huge_pages
from personas.engine.metrics import AdapterStatus
from personas.errors import AdapterError
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, verify_for_base_model
from personas.schemas.chat import AdapterRef

STACKABLE_LORA_SETTINGS = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path bias corda_config ensure_weight_tying eva_config "
    "exclude_modules inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config lora_alpha "
    "lora_dropout lora_ga_config megatron_core peft_type peft_version qalora_group_size r rank_pattern revision "
    "runtime_config target_modules task_type use_rslora".split()
)


"""Settings of peft that a plain product of two matrices does justice to; any other that is set is left to peft."""


STACKABLE_LORA_INITS = (True, False, "gaussian", None)


"""Ways of beginning a training that leave the base model's weights as they are."""


PEFT_KEY_PREFIX = "base_model.model."


MAX_STACKED_RANK = 64


"""Each slot of a stack is as large as the largest adapter needs, and each row computes as much: beyond, peft does."""


@dataclass(frozen=True)
class AdapterWeights:
    """A verified adapter. `pairs` holds by linear layer A `[rank, in]` and scale · Bᵀ `[rank, out]`.

    `pairs` is None where the adapter is more than that, or its rank beyond `MAX_STACKED_RANK`: peft computes it.
    """

    ref: AdapterRef
    pairs: Mapping[str, tuple[Any, Any]] | None


def read_adapter(ref: AdapterRef, base_hash: str, linears: Mapping[str, Any]) -> AdapterWeights:
    """Verify and read an adapter. `linears` are the base model's linear layers. Raises `AdapterError`."""
    verify_for_base_model(ref, base_hash)
    return read_unverified_adapter(ref, linears)


def read_unverified_adapter(ref: AdapterRef, linears: Mapping[str, Any]) -> AdapterWeights:
    """The same for a folder that nobody has sealed. Raises `AdapterError`."""
    try:
        config = json.loads((ref.folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(ref.folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"The adapter in {ref.folder} cannot be read: {error}", "Train it again.") from error
    try:
        pairs = _lora_pairs(config, tensors, linears) if _is_stackable(config) else None
        is_large = pairs and max(a.shape[0] for a, _ in pairs.values()) > MAX_STACKED_RANK
        return AdapterWeights(ref, None if is_large else pairs)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{CONFIG_FILE} in {ref.folder} is no LoRA adapter's, or does not fit its weights: {error!r}"
        raise AdapterError(what, "Make it anew where it came from, or train it again.") from error


def _is_stackable(config: Mapping[str, Any]) -> bool:
    more = [name for name, value in config.items() if value and name not in STACKABLE_LORA_SETTINGS]
    kind = config.get("peft_type"), config.get("bias", "none"), config.get("init_lora_weights")
    return not more and kind[:2] == ("LORA", "none") and kind[2] in STACKABLE_LORA_INITS


def _lora_pairs(
    config: Mapping[str, Any], tensors: Mapping[str, Any], linears: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]] | None:
    pairs = {}
    for name in {key.rpartition(".lora_")[0] for key in tensors}:
        layer = name.removeprefix(PEFT_KEY_PREFIX)
        a, b = (tensors.get(f"{name}.lora_{side}.weight") for side in "AB")
        if a is None or b is None or layer not in linears:
            return None
        if (b.shape[0], a.shape[1]) != (linears[layer].out_features, linears[layer].in_features):
            return None  # peft says in its words what does not fit
        pairs[layer] = a.float(), (b.float() * _lora_scale(config, layer, a.shape[0])).T.contiguous()
    return pairs if 2 * len(pairs) == len(tensors) else None


def _lora_scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What the product is multiplied with: α / r, or α / √r with rsLoRA (arXiv 2312.03732)."""
    patterns = config.get("alpha_pattern") or {}
    usual = config.get("lora_alpha", LoraConfig.lora_alpha)
    alpha = float(patterns.get(get_pattern_key(list(patterns), layer), usual))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


class StackedLora:
    """Per linear layer A `[slots, rank, in]` and scale · Bᵀ `[slots, rank, out]`; slot 0 is the base model: zeros.

    Smaller ranks are filled up with zeros. The stack grows with the slots that are filled and the ranks that come.
    """

    def __init__(self, linears: Mapping[str, Any], dtype: Any, device: Any, slots: int) -> None:
        """`slots` is how many are expected, the base model's not counted: the stack is not made larger for fewer."""
        self._linears, self._options, self._slots = linears, {"dtype": dtype, "device": device}, slots
        self.pairs: dict[str, tuple[Any, Any]] = {}
        self.version = 0
        """Changes with the stack."""

    def put(self, slot: int, weights: AdapterWeights) -> None:
        """Fill a slot."""
        assert weights.pairs is not None  # else peft computes it
        ranks = {layer: a.shape[0] for layer, (a, _) in weights.pairs.items()}
        self._make_room(slot, {layer: ranks.get(layer, 1) for layer in sorted(self.pairs.keys() | ranks.keys())})
        for layer, (a, b) in weights.pairs.items():
            for stack, part in zip(self.pairs[layer], (a, b), strict=True):
                stack[slot, : a.shape[0]] = part
                stack[slot, a.shape[0] :] = 0
        for layer in self.pairs.keys() - weights.pairs.keys():
            for stack in self.pairs[layer]:
                stack[slot] = 0
        self.version += 1

    def _make_room(self, slot: int, ranks: Mapping[str, int]) -> None:
        """Have room for these ranks in a slot; what has to grow is made anew, side by side."""
        sizes = {layer: self._size(layer, slot, rank) for layer, rank in ranks.items()}
        grown = [layer for layer, size in sizes.items() if layer not in self.pairs or size != self._size_of(layer)]
        widths = {layer: (self._linears[layer].in_features, self._linears[layer].out_features) for layer in grown}
        shapes = [(*sizes[layer], width) for layer in grown for width in widths[layer]]
        room = packed_zeros_in_huge_pages(shapes, **self._options)
        for layer, pair in zip(grown, zip(room[::2], room[1::2], strict=True), strict=True):
            for new, before in zip(pair, self.pairs.get(layer, ()), strict=False):
                new[: before.shape[0], : before.shape[1]] = before
            self.pairs[layer] = pair

    def _size(self, layer: str, slot: int, rank: int) -> tuple[int, int]:
        """How many slots and ranks a layer needs, those it has at least; slots double until all expected have room."""
        slots, ranks = self._size_of(layer) if layer in self.pairs else (0, 0)
        if slot >= slots:
            slots = min(2 * slot + 1, max(slot, self._slots) + 1)
        return slots, max(ranks, -(-rank // 4) * 4)

    def _size_of(self, layer: str) -> tuple[int, int]:
        slots, ranks, _ = self.pairs[layer][0].shape
        return slots, ranks


MAX_PREFETCHED_ADAPTERS = 4


"""So many adapters are read ahead of their turn; more would fill the memory where thousands wait."""


@dataclass(frozen=True)
class LoraSlot:
    """Where a row's adapter is: in a slot of the stack (0 is the base model), or left to peft (`slot` None)."""

    slot: int | None
    ref: AdapterRef | None = None

    @property
    def name(self) -> str:
        """The adapter's name, empty for the base model."""
        return self.ref.name if self.ref else ""


BASE_MODEL_SLOT = LoraSlot(0)


@dataclass
class _ResidentAdapter:
    """An adapter that is here, the rows that use it, and who waits for it to leave."""

    seat: LoraSlot
    rows: int = 0
    left: list[Callable[[], None]] = field(default_factory=list)


class LoraSlots:
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
        self._held: OrderedDict[str, _ResidentAdapter] = OrderedDict()  # least recently used first
        self._reading: dict[str, Future[AdapterWeights]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    @property
    def held(self) -> tuple[AdapterStatus, ...]:
        """Those that are here, the longest unused first. May be asked from any thread."""
        return tuple(AdapterStatus(it.seat.name, it.rows, it.seat.slot is not None) for it in list(self._held.values()))

    def prefetch(self, refs: Sequence[AdapterRef]) -> None:
        """Read those that come next and are not here; what was read for others is let go of."""
        wanted = {ref.name: ref for ref in refs if ref.name not in self._held}
        wanted = dict(list(wanted.items())[:MAX_PREFETCHED_ADAPTERS])
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
            self._held[name] = _ResidentAdapter(LoraSlot(slot, weights.ref))
        return True

    def take(self, ref: AdapterRef | None) -> LoraSlot | None:
        """A seat for one more row with this adapter; None while it is being read or all slots are in use.

        Raises `AdapterError` when the adapter cannot be used.
        """
        if ref is None:
            return BASE_MODEL_SLOT
        if ref.name not in self._held and not self._place(ref):
            return None
        held = self._held[ref.name]
        if held.left:  # it is asked to leave; who comes now gets what lies in its folder then
            return None
        self._held.move_to_end(ref.name)
        held.rows += 1
        return held.seat

    def give_back(self, seat: LoraSlot) -> None:
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

    def _let_go(self, held: _ResidentAdapter) -> None:
        ref = held.seat.ref
        assert ref is not None  # the base model is never held
        del self._held[ref.name]
        if held.seat.slot:
            self._free.append(held.seat.slot)
        self._forget(ref)
        for left in held.left:
            left()
