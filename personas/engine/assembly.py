"""The engine's parts put together around a model that has been loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from personas.contracts import AdapterRef
from personas.engine.adapters import MOST_RANK, AdapterWeights, read_adapter
from personas.engine.batch import Batch, Limits
from personas.engine.decoder import Decoder, StackedDecoder
from personas.engine.pages import move_weights
from personas.engine.plain import PlainDecoder
from personas.engine.seats import Seats
from personas.engine.state import EngineState
from personas.engine.weights import AdaptedModel
from personas.serving import precision_of

log = logging.getLogger(__name__)

STACKED_KINDS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose linear layers each see every token once and whose attention is the usual one."""
SHARE_OF_MEMORY = 0.2
"""What all slots together may take of the memory that is free, with adapters of the largest rank on all layers."""


@dataclass(frozen=True)
class Parts:
    """`read` verifies and reads an adapter, on any thread; the others belong to the thread that owns the model."""

    batch: Batch
    stacked: StackedDecoder | None
    seats: Seats
    adapted: AdaptedModel
    read: Callable[[AdapterRef], AdapterWeights]

    def state(self, name: str, context_tokens: int, rows: int) -> EngineState:
        """How it stands. May be asked from any thread."""
        prefixes = self.stacked.prefixes if self.stacked else None
        return EngineState(
            model=name,
            device=self.adapted.model.device.type,
            precision=precision_of(self.adapted.model),
            context_tokens=context_tokens,
            running=self.batch.running,
            rows=rows,
            waiting=self.batch.waiting,
            slots=self.stacked.slots if self.stacked else 0,
            adapters=self.seats.held,
            kept_bytes=prefixes.bytes if prefixes else 0,
            kept_most_bytes=prefixes.max_bytes if prefixes else 0,
        )

    def close(self) -> None:
        """Let go of threads."""
        self.seats.close()
        if self.stacked:
            self.stacked.close()

    def hold(self, weights: AdapterWeights) -> None:
        """Have an adapter here before it is needed, if there is room. Raises `AdapterError` when it does not fit."""
        if weights.pairs is None:
            self.adapted.load(weights.ref)
        self.seats.hold(weights)


def assemble(
    model: Any, base_hash: str, limits: Limits, *, slots: int, prefix_bytes: int, heard: Callable[[], None]
) -> Parts:
    """Put an engine together. `heard` is called, on another thread, when an adapter has been read."""
    adapted = AdaptedModel(model, base_hash)
    plain = PlainDecoder(adapted)
    stacked = _stacked(model, adapted, slots, prefix_bytes)

    def read(ref: AdapterRef) -> AdapterWeights:
        return read_adapter(ref, base_hash, stacked.linears if stacked else {})

    def put(slot: int, weights: AdapterWeights) -> None:
        assert stacked is not None  # else no adapter has pairs to be put anywhere
        stacked.stack.put(slot, weights)

    def forget(ref: AdapterRef) -> None:
        adapted.drop(ref)
        if stacked and stacked.prefixes:
            stacked.prefixes.forget(ref.name)

    seats = Seats(stacked.slots if stacked else 0, read, put, forget, heard)
    decoder: Decoder = stacked or plain
    return Parts(Batch(decoder, plain, seats, limits), stacked, seats, adapted, read)


def _stacked(model: Any, adapted: AdaptedModel, slots: int, prefix_bytes: int) -> StackedDecoder | None:
    if model.config.model_type not in STACKED_KINDS:
        log.warning("replies of this architecture (%s) are made one after the other", model.config.model_type)
        return None
    move_weights(model)
    return StackedDecoder(model, min(slots, _slots_that_fit(model)), prefix_bytes, lambda: adapted.use(None))


def _slots_that_fit(model: Any) -> int:
    widths = sum(m.in_features + m.out_features for m in model.modules() if hasattr(m, "in_features"))
    of_one = widths * MOST_RANK * model.dtype.itemsize
    return max(2, int(psutil.virtual_memory().available * SHARE_OF_MEMORY / of_one))
