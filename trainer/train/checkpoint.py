"""Writes and reads checkpoints as safetensors and JSON: weights, optimiser, random state."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
        packed = {
            name: _flatten_tensors(value, name, tensors) for name, value in self.parts.items()
        }
        save_file(tensors, folder / TENSORS_FILE)
        state = {"sha256": _digest(folder / TENSORS_FILE), "parts": packed}
        (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read a checkpoint back. Raises `TrainingError` when it is damaged."""
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            if state["sha256"] != _digest(folder / TENSORS_FILE):
                raise ValueError("its tensors have changed since they were written")
            tensors = load_file(folder / TENSORS_FILE)
            return cls(
                {name: _restore_tensors(value, tensors) for name, value in state["parts"].items()}
            )
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
                if moments := [state[name] for state in states if name in state]:
                    _require(
                        Counter(it.shape for it in moments) == shapes,
                        "its optimiser is of other weights",
                    )
            state = json.loads((folder / TRAINER_STATE_FILE).read_bytes())
            _require(
                state["global_step"] == checkpoint_step(folder),
                f"it is of step {state['global_step']}",
            )
        except (*MALFORMED_ERRORS, OSError) as error:
            raise TrainingError(
                f"The checkpoint {folder} cannot be resumed: {error}.", REMOVE_ADVICE
            ) from error


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the latest first."""
    paths = (
        p
        for p in folder.glob(f"{CHECKPOINT_PREFIX}*")
        if p.name.removeprefix(CHECKPOINT_PREFIX).isdecimal()
    )
    return sorted(paths, key=checkpoint_step, reverse=True)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))


def latest_valid_checkpoint(folder: Path, weights: Mapping[str, Tensor]) -> Path | None:
    """Return the latest checkpoint of a model with these weights; others and damaged ones are
    skipped and logged.
    """
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
    return {
        "python": random.getstate(),
        "numpy": {
            **numpy,
            "state": {
                **numpy["state"],
                "key": torch.from_numpy(numpy["state"]["key"].astype("int64")),
            },
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore the state of every random generator."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy = state["numpy"]
    np.random.set_state(
        {
            **numpy,
            "state": {**numpy["state"], "key": numpy["state"]["key"].numpy().astype("uint32")},
        }
    )
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def trainable_weights(model: Any) -> dict[str, Tensor]:
    """The weights that are being trained, by name."""
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


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


def _require(is_met: bool, otherwise: str) -> None:
    if not is_met:
        raise ValueError(otherwise)


def _require_same_shapes(weights: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
    shapes = {name: weight.shape for name, weight in weights.items()}
    _require(
        shapes == {name: weight.shape for name, weight in present.items()},
        "it is of another adapter",
    )
    _require(
        all(weight.is_floating_point() for weight in weights.values()),
        "its weights are no fractions",
    )


def _require_finite(values: Iterable[Any]) -> None:
    floats = (it for it in values if isinstance(it, Tensor) and it.is_floating_point())
    _require(all(bool(it.isfinite().all()) for it in floats), "it has numbers that are not finite")


def _flatten_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON; its tensors go into `tensors`, under their paths. Keys of dicts keep their
    kind.
    """
    match value:
        case Tensor():
            tensors[path] = value.detach().cpu().contiguous().clone()
            return {"tensor": path}
        case Mapping():
            items = [
                [key, _flatten_tensors(item, f"{path}.{key}", tensors)]
                for key, item in value.items()
            ]
            return {"dict": items}
        case list() | tuple():
            return {
                "list": [
                    _flatten_tensors(item, f"{path}.{place}", tensors)
                    for place, item in enumerate(value)
                ]
            }
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
            return dict(_pairs(content, tensors))
        case "list":
            return [_restore_tensors(item, tensors) for item in content]
    raise ValueError(f"unknown kind {kind!r}")


def _pairs(content: list[list[Any]], tensors: Mapping[str, Tensor]) -> Iterator[tuple[Any, Any]]:
    return ((key, _restore_tensors(item, tensors)) for key, item in content)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
