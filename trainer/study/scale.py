"""Trains on more and more samples with several seeds, to show how a persona's voice grows with its data."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import write_private_file
from personas.schemas.hyperparameters import parse_settings
from personas.schemas.scorecard import MeanStd
from trainer.evaluate.generation.reply_tasks import mean_std
from trainer.machine import release_memory
from trainer.recipe.resume_config import CHECKPOINTS_FOLDER
from trainer.train.job_folder import ID_DIGITS, RUNS_FOLDER, JobDraft, job_id_of_draft, make_job_folder

SCALE_RESULTS_FOLDER, STUDY_FILE = "results", "study.json"
STUDY_SETTINGS = ("train_samples", "seed")


@dataclass(frozen=True)
class ScalePoint:
    """One run: so many samples, drawn and trained with this seed."""

    samples: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"samples={self.samples},seed={self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """As `--set` takes them."""
        return (f"train_samples={self.samples}", f"seed={self.seed}")


@dataclass(frozen=True)
class ScaleResult:
    """What a run came to. `trained` counts the samples that there were, of those asked for.

    Losses are on held-out replies, in nats per token; `scores` are of replies to held-out prompts against the persona's
    own (`trainer.evaluate.generation.text_metrics`).
    """

    samples: int
    seed: int
    trained: int
    loss: float
    loss_base: float
    scores: dict[str, float]
    prompts: int
    seconds: float


ScoreFunction = Callable[[Path], tuple[dict[str, float], int]]
"""Scores of the adapter in a job folder, and of how many prompts."""


def scale_points(sizes: Sequence[int], runs: int, settings: Sequence[str]) -> list[ScalePoint]:
    """All runs: the smallest sizes first, so that a study says something early. Raises `RequestError`."""
    if not sizes or min(sizes) < 1 or runs < 1:
        raise RequestError("A study takes sizes from 1 on, and one run or more.", "Such as --sizes 50,100 --runs 3.")
    if own := [pair for pair in settings if pair.partition("=")[0].strip() in STUDY_SETTINGS]:
        raise RequestError(f"{own[0]} is what the study itself sets.", "Leave it out: --sizes and --runs say it.")
    return [ScalePoint(size, seed) for size in sorted(set(sizes)) for seed in range(runs)]


def scale_folder(wanted: JobDraft) -> Path:
    """Where a study lies in the home: with further sizes or runs of the same it is the same study."""
    digest = hashlib.sha256(job_id_of_draft(wanted).encode()).hexdigest()[:ID_DIGITS]
    return wanted.home / RUNS_FOLDER / f"{wanted.request.job_name}-scale-{digest}"


def run_scale_study(
    wanted: JobDraft,
    points: Sequence[ScalePoint],
    settings: Sequence[str],
    out: Path,
    run: Callable[[Path], int],
    measure: ScoreFunction,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[ScaleResult], int]:
    """Run and measure what is not done yet: all results so far, and the exit code of what ended the study.

    Raises `UnderstudyError` where a folder cannot be made or an adapter is damaged, and `OSError`.
    """
    if (out / "request.json").exists():
        raise RequestError(f"{out} holds a run, and no study.", "Name another --out.")
    done: list[ScaleResult] = []
    left = _RemainingTime()
    missing = [point for point in points if read_scale_result(out, point) is None]
    for number, point in enumerate(points, 1):
        result = read_scale_result(out, point)
        if result is None:
            tell(f"{number} of {len(points)}: {point.samples} samples, seed {point.seed}{left.words(missing)}")
            began = clock()
            own = wanted.with_settings(parse_settings([*settings, *point.settings]))
            (out / RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
            folder = make_job_folder(own, out / RUNS_FOLDER / point.name)
            if code := run(folder):
                return done, code
            release_memory()
            result = _score_run(point, folder, measure)
            _write_scale_result(out, point, result)
            missing.remove(point)
            left.took(result, clock() - began)
        done.append(result)
    return done, 0


@dataclass
class _RemainingTime:
    """How long the rest may take, by the runs of this process: training takes so long for each sample, the rest of a
    run about as long whatever its size."""

    runs: int = 0
    samples: int = 0
    training_s: float = 0.0
    other_s: float = 0.0

    def took(self, result: ScaleResult, seconds: float) -> None:
        """A run is done, and took so long in this process; its training may have been done in an earlier one."""
        self.runs += 1
        self.samples += result.samples
        self.training_s += result.seconds
        self.other_s += max(0.0, seconds - result.seconds)

    def words(self, missing: Sequence[ScalePoint]) -> str:
        """For people; empty before anything is done."""
        if not self.runs:
            return ""
        training = self.training_s / self.samples * sum(point.samples for point in missing)
        minutes = (training + self.other_s / self.runs * len(missing)) / 60
        return f", about {max(round(minutes), 1):,} min left"


def read_scale_result(out: Path, point: ScalePoint) -> ScaleResult | None:
    """What is kept of a run; None where it is not done. Raises `RequestError` where it cannot be read."""
    file = out / SCALE_RESULTS_FOLDER / f"{point.name}.json"
    try:
        return ScaleResult(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(f"{file} is damaged: {error}.", "Remove it, and its run is measured again.") from error


def _score_run(point: ScalePoint, folder: Path, measure: ScoreFunction) -> ScaleResult:
    manifest = verify_adapter(folder / "adapter")
    scores, prompts = measure(folder)
    seconds = json.loads((folder / "adapter" / "report" / "training.json").read_text(encoding="utf-8"))["seconds"]
    trained = manifest.dataset["samples_train"]
    losses = (manifest.metrics.loss_tuned, manifest.metrics.loss_base)
    return ScaleResult(point.samples, point.seed, trained, *losses, scores, prompts, seconds)


def _write_scale_result(out: Path, point: ScalePoint, result: ScaleResult) -> None:
    (out / SCALE_RESULTS_FOLDER).mkdir(parents=True, exist_ok=True)
    write_private_file(
        out / SCALE_RESULTS_FOLDER / f"{point.name}.json", json.dumps(asdict(result), indent=1).encode() + b"\n"
    )
    shutil.rmtree(out / RUNS_FOLDER / point.name / CHECKPOINTS_FOLDER, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ all together


@dataclass(frozen=True)
class SizeSummary:
    """What the runs of one size say together."""

    samples: int
    loss: MeanStd
    scores: dict[str, MeanStd]


def summarise_sizes(results: Sequence[ScaleResult]) -> list[SizeSummary]:
    """Mean and standard deviation over the runs of each size, the smallest first."""
    sizes = []
    for samples in sorted({result.samples for result in results}):
        own = [result for result in results if result.samples == samples]
        scores = {name: mean_std([result.scores[name] for result in own]) for name in own[0].scores}
        sizes.append(SizeSummary(samples, mean_std([result.loss for result in own]), scores))
    return sizes
