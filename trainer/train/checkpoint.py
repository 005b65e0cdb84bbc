"""Writes and reads checkpoints as safetensors and JSON: weights, optimiser, random state."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from personas.errors import TrainingError
from personas.home.job_attempt import CHECKPOINT_PREFIX

log = logging.getLogger(__name__)
MALFORMED_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Errors of reading files that somebody else may have written."""
TENSORS_FILE = "tensors.safetensors"
STATE_FILE = "state.json"
TRAINER_STATE_FILE = "trainer_state.json"
REMOVE_ADVICE = "Remove it and run again."
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, in the shapes of the weights


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint contents by name; values are nested dicts, lists, numbers, texts and tensors."""

    parts: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write both files into an existing folder. Raises `OSError` or `SafetensorError`."""
        tensors: dict[str, Tensor] = {}
        parts = {}
        for name, value in self.parts.items():
            parts[name] = _flatten_tensors(value, name, tensors)
        save_file(tensors, folder / TENSORS_FILE)
        state = {"sha256": _digest(folder / TENSORS_FILE), "parts": parts}
        (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read a checkpoint back. Raises `TrainingError` when it is damaged."""
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            if state["sha256"] != _digest(folder / TENSORS_FILE):
                raise ValueError("its tensors have changed since they were written")
            tensors = load_file(folder / TENSORS_FILE)
            parts = {}
            for name, value in state["parts"].items():
                parts[name] = _restore_tensors(value, tensors)
            return cls(parts)
        except (*MALFORMED_ERRORS, OSError, SafetensorError) as error:
            raise TrainingError(
                f"The checkpoint {folder} is damaged: {error}.", REMOVE_ADVICE
            ) from error

    def require_resumable(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Require finite weights like these, an optimiser over them, and the step of the folder's
        name.

        Raises `TrainingError`.
        """
        try:
            _require_same_shapes(self.parts["weights"], weights)
            _require_finite(self.parts["weights"].values())
            states = self.parts["optimiser"]["state"].values()
            _require_finite(value for state in states for value in state.values())
            shapes = Counter(weight.shape for weight in weights.values())
            for name in MOMENTS:
                moments = [state[name] for state in states if name in state]
                # An optimiser knows its weights by number, so only the shapes can be compared.
                if moments and Counter(moment.shape for moment in moments) != shapes:
                    raise ValueError("its optimiser is of other weights")
            step = json.loads((folder / TRAINER_STATE_FILE).read_bytes())["global_step"]
            if step != checkpoint_step(folder):
                raise ValueError(f"it is of step {step}")
        except (*MALFORMED_ERRORS, OSError) as error:
            raise TrainingError(
                f"The checkpoint {folder} cannot be resumed: {error}.", REMOVE_ADVICE
            ) from error


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the latest first."""
    checkpoints = []
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        if path.name.removeprefix(CHECKPOINT_PREFIX).isdecimal():
            checkpoints.append(path)
    return sorted(checkpoints, key=checkpoint_step, reverse=True)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))


def latest_valid_checkpoint(folder: Path, weights: Mapping[str, Tensor]) -> Path | None:
    """Return the latest checkpoint of a model with these weights; others and damaged ones are
    skipped and logged.
    """
    # One that cannot be resumed costs the steps since the one before, not the run.
    for path in list_checkpoints(folder):
        try:
            Checkpoint.read(path).require_resumable(path, weights)
        except TrainingError as error:
            log.warning("%s", error)
        else:
            return path
    return None


def capture_random_state() -> dict[str, Any]:
    """Return the state of every random generator that training may use."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    key = torch.from_numpy(numpy["state"]["key"].astype("int64"))
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore the state of every random generator."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy = state["numpy"]
    key = numpy["state"]["key"].numpy().astype("uint32")
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    # A run that goes on with other GPUs cannot repeat what these would have drawn.
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def trainable_weights(model: Any) -> dict[str, Tensor]:
    """The weights that are being trained, by name."""
    weights = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weights[name] = weight.detach()
    return weights


def restore_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put weights back in their place. Raises `TrainingError` when they are another model's or not
    finite.
    """
    present = trainable_weights(model)
    try:
        _require_same_shapes(weights, present)
        _require_finite(weights.values())
    except MALFORMED_ERRORS as error:
        advice = "Remove the run's checkpoints and run again."
        raise TrainingError(f"The checkpoint cannot be used: {error}.", advice) from error
    for name, weight in present.items():
        weight.copy_(weights[name])


def _require_same_shapes(weights: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
    shapes = {name: weight.shape for name, weight in weights.items()}
    present_shapes = {name: weight.shape for name, weight in present.items()}
    if shapes != present_shapes:
        raise ValueError("it is of another adapter")
    if not all(weight.is_floating_point() for weight in weights.values()):
        raise ValueError("its weights are no fractions")


def _require_finite(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise ValueError("it has numbers that are not finite")


def _flatten_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return the value as JSON; its tensors go into `tensors`, under their paths."""
    match value:
        case Tensor():
            # A copy, because safetensors refuses tensors that share memory, as tied weights do.
            tensors[path] = value.detach().cpu().contiguous().clone()
            return {"tensor": path}
        case Mapping():
            # As pairs: an optimiser numbers its weights, and JSON would make texts of the numbers.
            pairs = []
            for key, item in value.items():
                pairs.append([key, _flatten_tensors(item, f"{path}.{key}", tensors)])
            return {"dict": pairs}
        case list() | tuple():
            items = []
            for place, item in enumerate(value):
                items.append(_flatten_tensors(item, f"{path}.{place}", tensors))
            return {"list": items}
        case bool() | int() | float() | str() | None:
            return value
    raise TypeError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")


def _restore_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {key: _restore_tensors(item, tensors) for key, item in content}
        case "list":
            return [_restore_tensors(item, tensors) for item in content]
    raise ValueError(f"unknown kind {kind!r}")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
