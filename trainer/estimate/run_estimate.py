"""Estimates a run's steps, time and memory by recipe, scaled to this machine's measured speed."""

import csv
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from personas.errors import UnderstudyError
from personas.models.base_model import BaseModel
from personas.schemas.hyperparameters import PreferenceMethod
from personas.schemas.scorecard import EvaluationExtent
from personas.schemas.training_events import Estimate, PhaseName
from trainer.dataset.preference_policy import GOOD_REPLIES_KEY
from trainer.estimate.card_time import (
    FIRST_CARD_REPLIES,
    FIRST_CARD_S,
    LOADING_S,
    SEALING_S,
    WRITING_S,
    expected_card_s,
    least_card_s,
)
from trainer.estimate.memory_model import (
    MemoryEstimate,
    adapter_parameter_count,
    compute_dtype_bytes,
    memory_of_batches,
    recomputed_layers,
    retained_activation_bytes,
)
from trainer.estimate.model_shape import ModelShape, model_shape_of
from trainer.estimate.workload import EVAL_BATCH_SIZE, BatchShape, Workload
from trainer.machine import MachineSpec, probe_machine_without_torch
from trainer.process.time_left import CardLimit
from trainer.schemas import Recipe, epoch_count, optimiser_steps

# Of the reference machine: two cores with bfloat16 in hardware.
FLOPS_PER_S = 6e11  # products in bfloat16
FLOAT32_FLOPS_PER_S = 4.5e11
ACTIVATION_BYTES_PER_S = 1.4e9  # retained bytes
LAYER_OVERHEAD_S = 1.2e-3
"""A layer's small operations, for each pass of a batch or of its shared prefix."""
# Per adapter weight and step: 8-bit state is unpacked and packed again.
OPTIMISER_UPDATE_S = 2e-9
OPTIMISER_UPDATE_8BIT_S = 3e-8
FORWARD_SHARE = 0.25  # the forward pass's share of the time beside the products
DRAFT_WEIGHT_S = 4e-9
"""Seconds that a draft takes for each weight of the layers' matrices, eight drafts at once: the
bundled model wrote some 490 drafts in 206 s on two cores, beside other load.
"""
STARTUP_S = 7.0  # libraries and material
LOAD_BYTES_PER_S = 4e8
REFERENCE_PASSES: Mapping[PreferenceMethod | None, int] = {None: 0, "dpo": 1, "kto": 3}
"""Passes without gradients per batch: the reference reads the judged replies and, in KTO, reference
and trained version read each prompt with another prompt's reply.
"""
MAX_SIMULATED_BATCHES = 200  # batches to estimate, spread evenly over all lengths
# Products on one core, which other load on the machine does not distort.
REFERENCE_GFLOPS = 258.0  # the reference machine's float32 matrix products in numpy
DEFAULT_GPU_SPEEDUP = 30.0  # a guess for GPUs without an earlier run
PROBE_MATRIX_SIZE = 384
PROBE_COUNT = 60
# Earlier runs whose speed is used.
MIN_REFERENCE_STEPS = 10
MIN_REFERENCE_SECONDS = 60.0
MAX_REFERENCE_RUNS = 5
MAX_CORRECTIONS = (2.0, 3.0, 8.0)
"""The factor by which one run, two, and three or more may change what the processor lets expect:
another load may have slowed them down.
"""


@dataclass(frozen=True)
class RunCost:
    """The time of a run by activity, in seconds of the reference machine; tokens are counted as in
    the run.

    `losses_s` is the time for the losses of one candidate, on held-out replies and general
    dialogue; `evaluations_s` that of all evaluations while it trains; `writing_s` that of replies
    which are written before the training, 0 where it is not known.
    """

    training_s: float
    losses_s: float
    evaluations_s: float
    trained_tokens: float
    writing_s: float = 0.0

    @property
    def measuring_s(self) -> float:
        """Seconds of all losses: of the base, on the way, and of the adapter."""
        return 2 * self.losses_s + self.evaluations_s


def run_cost(recipe: Recipe, shape: ModelShape, work: Workload, value_bytes: int) -> RunCost:
    """Estimate a run's cost; `value_bytes` is the size of a value in compute precision."""
    lengths = work.fitting(recipe)
    counted = work.counted(recipe)
    steps = optimiser_steps(recipe, counted)
    epochs = epoch_count(recipe, counted)

    def trained(batch: BatchShape) -> float:
        passes = 2 + recomputed_layers(shape, recipe) / shape.layers
        learned = _batch_seconds(recipe, shape, batch, value_bytes, passes=passes, trains=True)
        return learned + REFERENCE_PASSES[work.judged] * measured(batch)

    def measured(batch: BatchShape) -> float:
        return _batch_seconds(recipe, shape, batch, value_bytes, passes=1, trains=False)

    epoch_s = _total_seconds(work, lengths, work.rows(recipe), trained)
    most = FIRST_CARD_REPLIES if recipe.card_deadline_minutes else None
    heldout_s = _total_seconds(work, work.heldout[:most], EVAL_BATCH_SIZE, measured)
    general_s = _total_seconds(Workload((), ()), work.general[:most], EVAL_BATCH_SIZE, measured)
    update_s = OPTIMISER_UPDATE_8BIT_S if recipe.optim.endswith("8bit") else OPTIMISER_UPDATE_S
    updates_s = steps * adapter_parameter_count(recipe, shape) * update_s
    return RunCost(
        training_s=epoch_s * epochs + updates_s,
        losses_s=heldout_s + general_s,
        evaluations_s=heldout_s * _evaluation_count(recipe, steps, epochs),
        trained_tokens=sum(lengths) * epochs,
        writing_s=_writing_seconds(work),
    )


def _writing_seconds(work: Workload) -> float:
    """Estimate the writing of replies; 0 where the model is not known, as a server's."""
    if work.writer is None:
        return 0.0
    return work.drafts * work.writer.linear_weights * DRAFT_WEIGHT_S


def phase_seconds(
    recipe: Recipe, shape: ModelShape, cost: RunCost, *, pace: float, card: EvaluationExtent
) -> dict[PhaseName, float]:
    """Return the expected seconds of each phase of a run, with a score card of this extent. A writing
    of replies is left out where its time is not known.

    Only what is computed follows the machine's pace.
    """
    load_s = shape.weight_bytes / LOAD_BYTES_PER_S
    seconds: dict[PhaseName, float] = {"material": STARTUP_S}
    if cost.writing_s:
        seconds["writing replies"] = load_s + cost.writing_s / pace
    seconds |= {
        "base model": load_s,
        "measuring the base": cost.losses_s / pace,
        "training": load_s + (cost.training_s + cost.evaluations_s) / pace,
    }
    card_s = expected_card_s(
        card,
        training_s=cost.training_s / pace,
        losses_s=cost.losses_s / pace,
        deadline_minutes=recipe.card_deadline_minutes,
        worked_s=sum(seconds.values()),
        pace=pace,
    )
    seconds["measuring the adapter"] = load_s + card_s
    return {name: round(phase_s, 1) for name, phase_s in seconds.items()}


def _evaluation_count(recipe: Recipe, steps: int, epochs: float) -> int:
    """Count the evaluations during training and after the last step."""
    if recipe.eval_strategy == "epoch":
        return math.ceil(epochs)
    return math.ceil(steps / recipe.eval_steps) if recipe.eval_strategy == "steps" else 0


def _total_seconds(
    work: Workload, lengths: Sequence[int], rows: int, seconds: Callable[[BatchShape], float]
) -> float:
    """Sum the seconds of all batches, each of samples of similar length."""
    ordered = sorted(lengths)
    batches = []
    for start in range(0, len(ordered), rows):
        together = ordered[start : start + rows]
        batches.append(work.batch(len(together), together[-1]))
    if not batches:
        return 0.0
    tried = batches[:: math.ceil(len(batches) / MAX_SIMULATED_BATCHES)]
    return sum(map(seconds, tried)) * len(batches) / len(tried)


def _batch_seconds(
    recipe: Recipe,
    shape: ModelShape,
    batch: BatchShape,
    value_bytes: int,
    *,
    passes: float,
    trains: bool,
) -> float:
    """Estimate a batch that passes through the layers so often: forward, again with checkpointing,
    and backward.

    A frozen matrix costs one product per pass, an adapter's two in the backward pass, like
    attention's tensors.
    """
    part = batch.whole if recipe.gradient_checkpointing and trains else batch
    # Products of an adapter's matrices, and of attention's tensors.
    products = passes + 1 if trains else 1
    # The head is frozen: training takes one product more, for the gradient of its input.
    head_products = 2 if trains else 1
    adapters = adapter_parameter_count(recipe, shape) * products
    scores = sum(piece.rows * piece.own * (piece.own + piece.shared) for piece in part.parts)
    flop = (
        2 * part.tokens * (shape.linear_weights * passes + adapters)
        + 4 * shape.layers * shape.attended * scores * products
        + 2 * batch.trained * shape.vocabulary * shape.width * head_products
    )
    plain = recipe.model_copy(update={"gradient_checkpointing": False})
    retained = retained_activation_bytes(shape, plain, part, value_bytes)
    share = 1 + FORWARD_SHARE * (passes - 2) if trains else FORWARD_SHARE
    calls_s = shape.layers * len(part.parts) * products * LAYER_OVERHEAD_S
    flops_per_s = FLOPS_PER_S if value_bytes == 2 else FLOAT32_FLOPS_PER_S
    return flop / flops_per_s + retained * share / ACTIVATION_BYTES_PER_S + calls_s


@dataclass(frozen=True)
class MachineSpeed:
    """This machine's speed relative to the reference machine, and the source of the number."""

    pace: float
    basis: str


def estimate_run(
    name: str,
    recipe: Recipe,
    base: BaseModel,
    work: Workload,
    speed: MachineSpeed,
    machine: MachineSpec | None = None,
    *,
    card: EvaluationExtent = "full",
) -> dict[str, Any]:
    """Estimate a recipe's run with a score card of this extent: seconds in all and by phase, and
    peak bytes by part.
    """
    machine = machine or probe_machine_without_torch()
    shape = model_shape_of(base)
    samples = len(work.fitting(recipe))
    steps = optimiser_steps(recipe, work.counted(recipe))
    cost = run_cost(recipe, shape, work, compute_dtype_bytes(recipe, machine))
    memory = estimate_memory(recipe, base, work, machine)
    phases = phase_seconds(recipe, shape, cost, pace=speed.pace, card=card)
    tokens_per_s = cost.trained_tokens / max(cost.training_s, 1e-9) * speed.pace
    return {
        "recipe": name,
        "samples": samples,
        "steps": steps,
        "trained_tokens": round(cost.trained_tokens),
        "seconds": round(sum(phases.values())),
        "phases": phases,
        "memory_bytes": memory.total,
        "memory": dict(memory.parts),
        "tokens_per_s": round(tokens_per_s),
        "basis": speed.basis,
    }


def estimate_event(
    recipe: Recipe, base: BaseModel, work: Workload, card: EvaluationExtent = "full"
) -> tuple[Estimate, CardLimit | None]:
    """Estimate a run for those who limit its time and memory, and tell how far it is; and what limits
    its score card, if that is a first one.
    """
    machine = probe_machine_without_torch()
    speed = estimate_speed(base, recipe, work, ())
    cost = estimate_run("", recipe, base, work, speed=speed, machine=machine, card=card)
    memory_bytes = 0 if machine.has_cuda else cost["memory_bytes"]
    phases: dict[PhaseName, float] = cost["phases"] | {"writing": SEALING_S}
    event = Estimate(seconds=cost["seconds"], phases=phases, memory_bytes=memory_bytes)
    if card != "full" or not recipe.card_deadline_minutes:
        return event, None
    load_s = phases["base model"] + LOADING_S
    losses_s = phases["measuring the base"]
    return event, CardLimit(
        deadline_s=recipe.card_deadline_minutes * 60,
        whole_s=load_s + losses_s + FIRST_CARD_S / speed.pace,
        least_s=load_s + least_card_s(losses_s),
        after_s=WRITING_S,
    )


def estimate_memory(
    recipe: Recipe, base: BaseModel, work: Workload, machine: MachineSpec
) -> MemoryEstimate:
    """Estimate the peak memory of a run over these samples."""
    return memory_of_batches(
        recipe,
        model_shape_of(base),
        trained=work.largest_trained(recipe),
        measured=work.largest_measured(recipe),
        machine=machine,
        writer=work.writer if work.drafts else None,
    )


def estimate_speed(
    base: BaseModel, recipe: Recipe, work: Workload, adapters: Iterable[Path]
) -> MachineSpeed:
    """Estimate the speed; `adapters` are folders of earlier runs on this machine, latest first.

    Their settings are known, but not the lengths of their samples, which are assumed to be those of
    `work`.
    """
    machine = probe_machine_without_torch()
    measured = _speeds_of_runs(base, recipe, work, adapters, machine=machine)
    runs = list(islice(measured, MAX_REFERENCE_RUNS))
    if machine.has_cuda:
        if runs:
            return MachineSpeed(_median_pace(runs), _runs_basis(runs))
        basis = "a guess: no run on this GPU was long enough to tell"
        return MachineSpeed(DEFAULT_GPU_SPEEDUP, basis)
    # Other load on the machine hardly distorts the products of one core.
    expected = _measure_gflops() / REFERENCE_GFLOPS
    if not runs:
        return MachineSpeed(expected, "measured runs, scaled to this machine's matrix products")
    largest = MAX_CORRECTIONS[min(len(runs), len(MAX_CORRECTIONS)) - 1]
    pace = min(expected * largest, max(expected / largest, _median_pace(runs)))
    return MachineSpeed(pace, _runs_basis(runs))


def _median_pace(runs: Sequence[MachineSpeed]) -> float:
    """Return the median, of two runs the faster one: a run that other load slowed is outvoted."""
    return statistics.median_high(speed.pace for speed in runs)


def _runs_basis(runs: Sequence[MachineSpeed]) -> str:
    if len(runs) == 1:
        return runs[0].basis
    return f"the last {len(runs)} runs on this machine, their median"


def adapters_by_recency(home: Path) -> list[Path]:
    """Return the adapter folders of runs in a home, latest first."""
    folders: list[Path] = []
    for place in ("jobs/*/adapter", "runs/*/adapter", "models/persona_adapters/*/*"):
        folders += home.glob(place)
    return sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _speeds_of_runs(
    base: BaseModel,
    recipe: Recipe,
    work: Workload,
    adapters: Iterable[Path],
    *,
    machine: MachineSpec,
) -> Iterator[MachineSpeed]:
    """Yield the speed of each sufficiently long run."""
    for folder in adapters:
        try:
            speed = _speed_of_run(base, recipe, work, folder, machine=machine)
            if speed:
                yield speed
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            ZeroDivisionError,
            ValidationError,
            UnderstudyError,
        ):
            continue  # not a finished run's


def _speed_of_run(
    base: BaseModel, recipe: Recipe, work: Workload, folder: Path, *, machine: MachineSpec
) -> MachineSpeed | None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    with (folder / "report" / "steps.csv").open(encoding="utf-8", newline="") as file:
        first, *_, last = csv.DictReader(file)
    took_s = float(last["seconds"]) - float(first["seconds"])
    if manifest["base_model"] != base.name:
        return None
    # A short run says little about the next one.
    if int(last["step"]) < MIN_REFERENCE_STEPS or took_s < MIN_REFERENCE_SECONDS:
        return None
    # The reference computed, too.
    if GOOD_REPLIES_KEY in manifest["dataset"]:
        return None
    settings = recipe.model_dump()
    for name, value in manifest["hyperparameters"].items():
        if name in Recipe.model_fields:
            settings[name] = value
    settings["max_length"] = recipe.max_length
    then = Recipe.model_validate(settings)
    value_bytes = compute_dtype_bytes(then, machine)
    computed = run_cost(then, model_shape_of(base), replace(work, judged=None), value_bytes)
    pace = float(last["tokens_per_s"]) / (computed.trained_tokens / computed.training_s)
    return MachineSpeed(pace, f"the run of {manifest['created_at'][:16]} on this machine")


def _measure_gflops() -> float:
    """Measure GFLOP/s of float32 matrix products on one core, times the number of cores."""
    matrix = np.ones((PROBE_MATRIX_SIZE, PROBE_MATRIX_SIZE), dtype=np.float32)
    seconds = []
    with threadpool_limits(1):
        for _ in range(PROBE_COUNT):
            started = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - started)
    return float(2 * PROBE_MATRIX_SIZE**3 / min(seconds) / 1e9) * (os.cpu_count() or 1)
