"""How long a run will compute: matrix products, and all that is read and written beside them.

A batch takes the time of its products at the machine's rate, and time in proportion to what its layers keep of it: what
is kept was written at least once, read on the way back, and stands for the many small operations around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from personas.hyperparameters import PreferenceMethod
from trainer.fitted import epochs_of, steps_of
from trainer.predict.activations import Batch, kept_bytes
from trainer.predict.memory import adapter_weights
from trainer.predict.shape import Shape
from trainer.predict.work import MEASURED_AT_ONCE, Workload
from trainer.recipe import Recipe

FLOP_S, FLOAT32_FLOP_S, KEPT_BYTES_S = 6e11, 4.5e11, 1.4e9
"""Of the reference machine, two cores that multiply in bfloat16 in hardware: products in bfloat16 and in float32, and
bytes kept of a batch.
"""

LAYER_S = 1.2e-3
"""Of a layer's many small operations, however little they compute, each time that a batch or its beginning passes."""

UPDATE_S, UPDATE_8BIT_S = 2e-9, 3e-8
"""Of an adapter's weight at each step: 8-bit state is unpacked and packed again."""

FORWARD_SHARE = 0.25
"""Of the time beside the products, what is spent on the way there."""

STARTUP_S, LOADED_BYTES_S, LOADED = 7.0, 4e8, 3
"""Libraries and material; the base model is read three times."""

REFERENCE_PASSES: Mapping[PreferenceMethod | None, int] = {None: 0, "dpo": 1, "kto": 3}
"""How often a batch goes through without gradients beside its training: the reference reads what is judged and, in KTO,
both it and the version that learns read each prompt with another one's reply."""

TRIED = 200
"""Batches that are reckoned, evenly among all by length: enough for a mean."""


@dataclass(frozen=True)
class Work:
    """What of a run takes time, in seconds of the reference machine; tokens are counted as the run itself does."""

    training_s: float
    measuring_s: float
    trained_tokens: float


def work_of(recipe: Recipe, shape: Shape, work: Workload, value_bytes: int) -> Work:
    """What a run computes; `value_bytes` is of a value in the precision that is computed in."""
    lengths = work.fitting(recipe)
    counted = work.counted(recipe)
    steps, epochs = steps_of(recipe, counted), epochs_of(recipe, counted)

    def trained(batch: Batch) -> float:
        learned = _seconds(recipe, shape, batch, value_bytes, 2 + recipe.gradient_checkpointing, trains=True)
        return learned + REFERENCE_PASSES[work.judged] * measured(batch)

    def measured(batch: Batch) -> float:
        return _seconds(recipe, shape, batch, value_bytes, 1, trains=False)

    epoch_s = _all(work, lengths, work.rows(recipe), trained)
    heldout_s = _all(work, work.heldout, MEASURED_AT_ONCE, measured)
    general_s = _all(Workload((), ()), work.general, MEASURED_AT_ONCE, measured)
    passes = 2 + _measurements(recipe, steps, epochs)  # before, after, and on the way
    update_s = UPDATE_8BIT_S if recipe.optim.endswith("8bit") else UPDATE_S
    updates_s = steps * adapter_weights(recipe, shape) * update_s
    return Work(epoch_s * epochs + updates_s, heldout_s * passes + 2 * general_s, sum(lengths) * epochs)


def startup_s(shape: Shape) -> float:
    """Seconds in which nothing is computed yet."""
    return STARTUP_S + LOADED * shape.weight_bytes / LOADED_BYTES_S


def _measurements(recipe: Recipe, steps: int, epochs: float) -> int:
    """How often held-out replies are measured on the way, and after the last step in any case."""
    if recipe.eval_strategy == "epoch":
        return math.ceil(epochs)
    return math.ceil(steps / recipe.eval_steps) if recipe.eval_strategy == "steps" else 0


def _all(work: Workload, lengths: Sequence[int], rows: int, seconds: Callable[[Batch], float]) -> float:
    """Seconds of all batches of samples of about one length each."""
    batches = list(_batches(work, sorted(lengths), rows))
    tried = batches[:: math.ceil(len(batches) / TRIED)] if batches else []
    return sum(map(seconds, tried)) * len(batches) / max(len(tried), 1)


def _batches(work: Workload, lengths: Sequence[int], rows: int) -> Iterator[Batch]:
    for start in range(0, len(lengths), rows):
        together = lengths[start : start + rows]
        yield work.batch(len(together), together[-1])


def _seconds(recipe: Recipe, shape: Shape, batch: Batch, value_bytes: int, ways: int, *, trains: bool) -> float:
    """Of one batch that goes through the layers `ways` times: there, there again under checkpointing, and back.

    A frozen matrix is multiplied with once on each way, an adapter's twice on the way back, as attention's tensors are.
    """
    part = batch.whole if recipe.gradient_checkpointing and trains else batch
    adapters = adapter_weights(recipe, shape) * (ways + 1 if trains else 1)
    scores = sum(piece.rows * piece.own * (piece.own + piece.shared) for piece in part.parts)
    flop = (
        2 * part.tokens * (shape.linear_weights * ways + adapters)
        + 4 * shape.layers * shape.attended * scores * (ways + 1 if trains else 1)
        + 2 * batch.trained * shape.vocabulary * shape.width * (2 if trains else 1)
    )
    kept = kept_bytes(shape, recipe.model_copy(update={"gradient_checkpointing": False}), part, value_bytes)
    share = 1 + FORWARD_SHARE * (ways - 2) if trains else FORWARD_SHARE
    calls_s = shape.layers * len(part.parts) * (ways + 1 if trains else 1) * LAYER_S
    return flop / (FLOP_S if value_bytes == 2 else FLOAT32_FLOP_S) + kept * share / KEPT_BYTES_S + calls_s
