"""The candidates of a comparison: base model, live version and new version over one loaded base model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from personas.engine.engine_core import EngineParts, build_engine_parts
from personas.engine.peft_runner import PeftSwitcher
from personas.engine.scheduler import SchedulerLimits
from personas.home.adapters import NAME_ADAPTER_ADVICE, WEIGHTS_FILE, verify_adapter
from personas.models.base_model import BaseModel, fingerprint
from personas.models.serving_model import precision_of
from personas.schemas.chat import AdapterRef
from personas.schemas.scorecard import AdapterStamp, Side
from personas.schemas.training import ServingPrecision
from trainer.train.losses import load_serving_model

BASE: Side = "base"


LIVE: Side = "live"


NEW: Side = "new"


@dataclass(frozen=True)
class Candidate:
    """An adapter that is compared: where it lies, the version it is, and whether its folder is sealed already."""

    version: str
    folder: Path
    is_sealed: bool = True

    @classmethod
    def sealed(cls, folder: Path) -> Candidate:
        """The adapter of a whole folder. Raises `AdapterError` for a damaged one."""
        return cls(verify_adapter(folder, NAME_ADAPTER_ADVICE).version, folder)

    @property
    def made(self) -> AdapterStamp:
        """What replies by it are stamped with. Raises `OSError`."""
        return AdapterStamp(version=self.version, weights=weights_hash(self.folder))


@dataclass
class Candidates:
    """The served model and the adapters over it. Use from one thread, inside `with sides.use(side)`.

    `base`, `tokenizer` and `precision` are those of the served model; `probe` is a prompt by which the base is known
    again. `parts` is the engine around the same model, which generates for all sides at once; None where nothing is
    to be generated, because it takes memory of its own.
    """

    base: BaseModel
    tokenizer: Any
    precision: str
    adapted: PeftSwitcher
    probe: tuple[int, ...]
    parts: EngineParts | None
    _compared: dict[Side, Candidate] = field(default_factory=dict)
    _refs: dict[Side, AdapterRef] = field(default_factory=dict)
    _untouched: Any = None

    @classmethod
    def load(
        cls, base: BaseModel, tokenizer: Any, precision: ServingPrecision, probe: Sequence[int], *, speaks: bool = True
    ) -> Candidates:
        """The base model as it is served, alone; whether it `speaks`, too. Raises `BaseModelError`."""
        model = load_serving_model(base, precision)
        parts = engine_over(model, fingerprint(base)) if speaks else None
        adapted = parts.peft if parts else PeftSwitcher(model, fingerprint(base))
        sides = cls(base, tokenizer, precision_of(model), adapted, tuple(probe), parts)
        sides._untouched = sides._probed()
        return sides

    def add(self, side: Side, compared: Candidate) -> None:
        """Have an adapter compared as this side. Raises `AdapterError` when it is damaged or does not fit."""
        ref = AdapterRef(side, compared.version, compared.folder)
        if compared.is_sealed:
            self.adapted.load(ref)
        else:
            self.adapted.load_unverified(ref)
        self._compared[side], self._refs[side] = compared, ref

    @property
    def names(self) -> tuple[Side, ...]:
        """The sides there are: the base first, the new version last."""
        return (BASE, *(side for side in (LIVE, NEW) if side in self._compared))

    @property
    def model(self) -> Any:
        """The model to call inside `use`."""
        return self.adapted.model

    @contextmanager
    def use(self, side: Side) -> Iterator[Any]:
        """The model as this side has it, for the time of a `with` block."""
        with self.use_adapter(self.ref(side)) as model:
            yield model

    @contextmanager
    def use_adapter(self, ref: AdapterRef | None) -> Iterator[Any]:
        """The same with any adapter, None for the base; one that is not loaded yet is verified and loaded."""
        with self.adapted.use(ref):
            yield self.model

    def ref(self, side: Side) -> AdapterRef | None:
        """The side's adapter under the name that it has here, None for the base. Raises `KeyError` for no such side."""
        return None if side == BASE else self._refs[side]

    def made(self, side: Side) -> AdapterStamp | None:
        """What replies of this side are made by; None is the base model."""
        return None if side == BASE else self._compared[side].made

    def folder(self, side: Side) -> Path | None:
        """Where the side's adapter lies, None for the base."""
        return None if side == BASE else self._compared[side].folder

    def is_sealed(self, side: Side) -> bool:
        """Whether the side's folder can be verified; one that is just being made is sealed later."""
        return side == BASE or self._compared[side].is_sealed

    def close(self) -> None:
        """Let go of the engine's threads."""
        if self.parts:
            self.parts.close()

    def base_is_base(self) -> float:
        """How far the base's logits are from those of the model before any adapter: the largest difference, 0 if none.

        Compared are the logits of the probe's last token, as they were when the model was loaded and as they are now.
        """
        with self.use(BASE):
            return float((self._probed() - self._untouched).abs().max())

    def _probed(self) -> Any:
        ids = torch.tensor([self.probe], device=self.model.device)
        with torch.inference_mode():
            return self.model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu()


def weights_hash(folder: Path) -> str:
    """The SHA-256 of an adapter's weights. Raises `OSError`."""
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def engine_over(model: Any, base_hash: str) -> EngineParts:
    """Build the engine around a served model without adapters, which `EngineParts.peft` loads later."""
    limits = SchedulerLimits(rows=MAX_BATCH_ROWS, wait_s=NO_TIMEOUT_S, reply_s=NO_TIMEOUT_S)
    return build_engine_parts(model, base_hash, limits, slots=ADAPTER_SLOTS, prefix_bytes=PREFIX_CACHE_BYTES)


MAX_BATCH_ROWS, ADAPTER_SLOTS, PREFIX_CACHE_BYTES = 32, 4, 256 * 2**20


NO_TIMEOUT_S = 1e9
