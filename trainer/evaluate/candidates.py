"""Candidates of a comparison: base model, live version and new version on one loaded base model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from personas.engine.engine_parts import EngineParts, build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.peft_runner import PeftSwitcher
from personas.home.adapters import NAME_ADAPTER_ADVICE, WEIGHTS_FILE, verify_adapter
from personas.models.base_model import BaseModel, fingerprint
from personas.models.serving_model import precision_of
from personas.schemas.chat import AdapterRef
from personas.schemas.scorecard import AdapterStamp, Side
from personas.schemas.training import ServingPrecision
from trainer.evaluate.measurement_cache import (
    NO_CACHE,
    KnownLosses,
    MeasurementCache,
    model_key,
)
from trainer.train.losses import load_serving_model

BASE: Side = "base"
LIVE: Side = "live"
NEW: Side = "new"
MAX_BATCH_ROWS = 32
ADAPTER_SLOTS = 4
PREFIX_CACHE_BYTES = 256 * 2**20
NO_TIMEOUT_S = 1e9  # nobody waits for these replies: neither waiting nor a long reply is given up


@dataclass(frozen=True)
class Candidate:
    """An adapter to compare: its folder, its version, and whether the folder is sealed already."""

    version: str
    folder: Path
    is_sealed: bool = True

    @classmethod
    def sealed(cls, folder: Path) -> Candidate:
        """Build the candidate of a sealed folder. Raises `AdapterError` if it is damaged."""
        return cls(verify_adapter(folder, NAME_ADAPTER_ADVICE).version, folder)

    @property
    def stamp(self) -> AdapterStamp:
        """Return the stamp of its replies. Raises `OSError`."""
        with (self.folder / WEIGHTS_FILE).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        return AdapterStamp(version=self.version, weights=weights)


@dataclass
class Candidates:
    """The served model with the adapters to compare. Use from one thread, inside `with
    sides.use(side)`.

    `base`, `tokenizer` and `precision` belong to the served model; `probe` is a prompt whose logits
    identify the base. `parts` is the engine on the same model, which generates for all sides at
    once; None if nothing is generated, because it needs memory of its own. `cache` has
    measurements of earlier evaluations, in the precision that was asked for.
    """

    base: BaseModel
    tokenizer: Any
    precision: str
    adapted: PeftSwitcher
    probe: tuple[int, ...]
    parts: EngineParts | None
    asked_precision: ServingPrecision = "bfloat16"
    cache: MeasurementCache = NO_CACHE
    _compared: dict[Side, Candidate] = field(default_factory=dict)
    _refs: dict[Side, AdapterRef] = field(default_factory=dict)
    _model_keys: dict[str, str] = field(default_factory=dict)
    _initial_logits: Any = None

    @classmethod
    def load(
        cls,
        base: BaseModel,
        tokenizer: Any,
        precision: ServingPrecision,
        probe: Sequence[int],
        *,
        speaks: bool = True,
        cache: MeasurementCache | None = None,
    ) -> Candidates:
        """Load the base model in serving precision, with the engine if it `speaks`. Raises
        `BaseModelError`.
        """
        model = load_serving_model(base, precision)
        parts = _build_engine(model, fingerprint(base)) if speaks else None
        sides = cls(
            base=base,
            tokenizer=tokenizer,
            precision=precision_of(model),
            adapted=parts.peft if parts else PeftSwitcher(model, fingerprint(base)),
            probe=tuple(probe),
            parts=parts,
            asked_precision=precision,
            cache=cache or NO_CACHE,
        )
        # Before any adapter is loaded: a card says whether they leave the base model as it is.
        sides._initial_logits = sides._probe_logits()
        return sides

    def add(self, side: Side, compared: Candidate) -> None:
        """Add an adapter as a side. Raises `AdapterError` if it is damaged or does not fit the base
        model.
        """
        ref = AdapterRef(side, compared.version, compared.folder)
        if compared.is_sealed:
            self.adapted.load(ref)
        else:
            self.adapted.load_unverified(ref)
        self._compared[side] = compared
        self._refs[side] = ref
        self._model_keys.pop(side, None)

    @property
    def names(self) -> tuple[Side, ...]:
        """Sides in order: the base first, the new version last."""
        return (BASE, *(side for side in (LIVE, NEW) if side in self._compared))

    @property
    def model(self) -> Any:
        """The model to call inside `use`."""
        return self.adapted.model

    @contextmanager
    def use(self, side: Side) -> Iterator[Any]:
        """Activate a side's adapter for a `with` block."""
        with self.use_adapter(self.ref(side)) as model:
            yield model

    @contextmanager
    def use_adapter(self, ref: AdapterRef | None) -> Iterator[Any]:
        """Activate any adapter (None: the base) for a `with` block; verifies and loads it first if
        needed.
        """
        with self.adapted.use(ref):
            yield self.model

    def ref(self, side: Side) -> AdapterRef | None:
        """Return the side's adapter reference, None for the base. Raises `KeyError` for an unknown
        side.
        """
        return None if side == BASE else self._refs[side]

    def stamp(self, side: Side) -> AdapterStamp | None:
        """Return the stamp of this side's replies; None for the base model."""
        return None if side == BASE else self._compared[side].stamp

    @property
    def model_keys(self) -> dict[str, str]:
        """Keys of what computes each side's losses and replies, for the cache."""
        # Once: hashes of the base model and of whole adapters are in them.
        for side in self.names:
            if side not in self._model_keys:
                stamp = self.stamp(side)
                weights = stamp.weights if stamp else ""
                key = model_key(fingerprint(self.base), weights, self.asked_precision)
                self._model_keys[side] = key
        return self._model_keys

    @property
    def known_losses(self) -> KnownLosses:
        """The losses that earlier evaluations have kept."""
        return KnownLosses(self.cache, self.model_keys)

    def close(self) -> None:
        """Stop the engine's threads."""
        if self.parts:
            self.parts.close()

    def base_is_base(self) -> float:
        """Return how far the base's logits of the probe's last token moved since before any adapter
        was loaded.
        """
        with self.use(BASE):
            return float((self._probe_logits() - self._initial_logits).abs().max())

    def _probe_logits(self) -> Any:
        ids = torch.tensor([self.probe], device=self.model.device)
        with torch.inference_mode():
            return self.model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu()


def _build_engine(model: Any, base_hash: str) -> EngineParts:
    """Build the engine around a served model without adapters, which `EngineParts.peft` loads
    later.
    """
    limits = SchedulerLimits(
        rows=MAX_BATCH_ROWS,
        wait_s=NO_TIMEOUT_S,
        reply_s=NO_TIMEOUT_S,
        candidate_rows=MAX_BATCH_ROWS,
    )
    return build_engine_parts(
        model, base_hash, limits, slots=ADAPTER_SLOTS, prefix_bytes=PREFIX_CACHE_BYTES
    )
