"""Scaling study: trains on increasing numbers of samples with several seeds, and stores a result for
each run.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import write_private_file
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.schemas.hyperparameters import parse_settings
from trainer.machine import release_memory
from trainer.report.adapter_docs import read_run_seconds
from trainer.train.job import prepare_job_without_torch
from trainer.train.job_folder import (
    ID_DIGITS,
    RUNS_FOLDER,
    JobDraft,
    job_id_of_draft,
    make_job_folder,
)

SCALE_RESULTS_FOLDER = "results"
STUDY_SETTINGS = ("train_samples", "seed")
HELDOUT_REPLIES = "held-out replies"
TaskScores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class ScalePoint:
    """A run with this number of samples, drawn and trained with this seed."""

    samples: int
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"samples={self.samples},seed={self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings in the form of `--set`."""
        return (f"train_samples={self.samples}", f"seed={self.seed}")


@dataclass(frozen=True)
class ScaleResult:
    """The result of a run. `trained` counts the samples that were available.

    Losses are on held-out replies, in nats per token; `scores` compare replies to held-out prompts
    with the persona's own (`trainer.evaluate.generation.text_metrics`). `tasks` has the same for
    further tasks, with `task_prompts` prompts, and `untrained` the base model's scores on all of
    them.
    """

    samples: int
    seed: int
    trained: int
    loss: float
    loss_base: float
    scores: dict[str, float]
    prompts: int
    seconds: float
    tasks: TaskScores = field(default_factory=dict)
    untrained: TaskScores = field(default_factory=dict)
    task_prompts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyScores:
    """Scores of an adapter by task and metric, those of the base model, and the number of prompts
    of each task.
    """

    tasks: TaskScores
    prompts: dict[str, int]
    untrained: TaskScores = field(default_factory=dict)


ScoreFunction = Callable[[Path], StudyScores]
"""Scores the adapter in a job folder."""


def scale_points(sizes: Sequence[int], runs: int, settings: Sequence[str]) -> list[ScalePoint]:
    """Return all runs, smallest sizes first for early results. Raises `RequestError`."""
    if not sizes or min(sizes) < 1 or runs < 1:
        raise RequestError(
            "A study takes sizes from 1 on, and one run or more.",
            "Example: --sizes 50,100 --runs 3.",
        )
    for pair in settings:
        if pair.partition("=")[0].strip() in STUDY_SETTINGS:
            raise RequestError(
                f"{pair} is set by the study itself.", "Leave it out: use --sizes and --runs."
            )
    points = []
    for size in sorted(set(sizes)):
        points += [ScalePoint(size, seed) for seed in range(runs)]
    return points


def scale_folder(draft: JobDraft) -> Path:
    """Return a study's folder in the home, the same for further sizes or runs."""
    digest = hashlib.sha256(job_id_of_draft(draft).encode()).hexdigest()[:ID_DIGITS]
    return draft.home / RUNS_FOLDER / f"{draft.request.job_name}-scale-{digest}"


def run_scale_study(
    draft: JobDraft,
    points: Sequence[ScalePoint],
    settings: Sequence[str],
    out: Path,
    run: Callable[[Path], int],
    measure: ScoreFunction,
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[ScaleResult], int]:
    """Run and measure missing points; return all results and the exit code. Raises
    `UnderstudyError`, `OSError`.
    """
    # A run's own folder: the study would write its results among the run's files.
    if (out / "request.json").exists():
        raise RequestError(f"{out} holds a run, and no study.", "Name another --out.")
    results: list[ScaleResult] = []
    remaining = _RemainingTime()
    missing = [point for point in points if read_scale_result(out, point) is None]
    for number, point in enumerate(points, 1):
        result = read_scale_result(out, point)
        if result is None:
            left = remaining.words(missing)
            report(f"{number} of {len(points)}: {point.samples} samples, seed {point.seed}{left}")
            started = clock()
            varied = draft.with_settings(parse_settings([*settings, *point.settings]))
            (out / RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
            folder = make_job_folder(varied, out / RUNS_FOLDER / point.name)
            code = run(folder)
            if code:
                return results, code
            release_memory()
            result = _score_run(point, folder, measure)
            _write_scale_result(out, point, result)
            missing.remove(point)
            remaining.add(result, clock() - started)
        results.append(result)
        if (result.prompts, result.task_prompts) != (results[0].prompts, results[0].task_prompts):
            raise RequestError(
                f"{point.name} was measured on other prompts than {points[0].name}, so they cannot "
                "be compared.",
                "Give the same --prompts and --task as before, or name another --out.",
            )
    return results, 0


@dataclass
class _RemainingTime:
    """Estimates the remaining time from this process's runs: training scales with samples, the rest
    is constant.
    """

    runs: int = 0
    samples: int = 0
    training_s: float = 0.0
    other_s: float = 0.0

    def add(self, result: ScaleResult, seconds: float) -> None:
        """Record a finished run and its seconds in this process; its training may have been done in
        an earlier one.
        """
        self.runs += 1
        self.samples += result.samples
        self.training_s += result.seconds
        self.other_s += max(0.0, seconds - result.seconds)

    def words(self, missing: Sequence[ScalePoint]) -> str:
        """Format the estimate; empty before the first run."""
        if not self.runs:
            return ""
        training = self.training_s / self.samples * sum(point.samples for point in missing)
        minutes = (training + self.other_s / self.runs * len(missing)) / 60
        return f", about {max(round(minutes), 1):,} min left"


def read_scale_result(out: Path, point: ScalePoint) -> ScaleResult | None:
    """Read a run's stored result; None if it is unfinished. Raises `RequestError` if it is
    unreadable.
    """
    file = out / SCALE_RESULTS_FOLDER / f"{point.name}.json"
    try:
        return ScaleResult(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(
            f"{file} is damaged: {error}.", "Remove it, and its run is measured again."
        ) from error


def _score_run(point: ScalePoint, folder: Path, measure: ScoreFunction) -> ScaleResult:
    manifest = verify_adapter(folder / "adapter")
    scores = measure(folder)
    further_scores = dict(scores.tasks)
    further_prompts = dict(scores.prompts)
    return ScaleResult(
        samples=point.samples,
        seed=point.seed,
        trained=manifest.dataset["samples_train"],
        loss=manifest.metrics.loss_tuned,
        loss_base=manifest.metrics.loss_base,
        scores=further_scores.pop(HELDOUT_REPLIES),
        prompts=further_prompts.pop(HELDOUT_REPLIES),
        seconds=read_run_seconds(folder / "adapter"),
        tasks=further_scores,
        untrained=scores.untrained,
        task_prompts=further_prompts,
    )


def _write_scale_result(out: Path, point: ScalePoint, result: ScaleResult) -> None:
    file = out / SCALE_RESULTS_FOLDER / f"{point.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private_file(file, json.dumps(asdict(result), indent=1).encode() + b"\n")
    # After the result: until then, a run that was stopped goes on from them.
    shutil.rmtree(out / RUNS_FOLDER / point.name / CHECKPOINTS_FOLDER, ignore_errors=True)


def require_enough_samples(
    draft: JobDraft, points: Sequence[ScalePoint], settings: Sequence[str]
) -> None:
    """Raise `RequestError` if the data has fewer samples than the largest size, before anything is
    trained.
    """
    largest = points[-1]
    varied = draft.with_settings(parse_settings([*settings, *largest.settings]))
    with tempfile.TemporaryDirectory(prefix="understudy-study-") as place:
        data = prepare_job_without_torch(make_job_folder(varied, Path(place) / largest.name)).data
    available = len(data.trained)
    if available < largest.samples:
        raise RequestError(
            f"--sizes asks for {largest.samples:,} samples, and the data has {available:,} to "
            "train on.",
            f"Give sizes up to {available:,}, or more data.",
        )
