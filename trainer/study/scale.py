"""How a persona's voice grows with its data: runs over more and more samples, each size with several seeds.

Each run is a job folder like any other, `runs/<samples=50,seed=0>/`, and what was measured of it is kept beside it in
`results/`. So a study goes on where it was stopped or killed, and grows where further sizes are asked for. The samples
of a size are drawn by the run's seed; with the same seed the smaller sets lie in the larger ones. What is held out, and
measured, is the same in all of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.adapters import verify
from personas.durable import put_private
from personas.errors import RequestError
from personas.hyperparameters import settings_of
from personas.scorecard import Spread
from trainer.commands.job_making import ID_DIGITS, RUNS, Asked, job_folder, job_id_of
from trainer.frozen import CHECKPOINTS
from trainer.loop.memory import release_memory
from trainer.scorecard.spoken.answers import spread

RESULTS, STUDY = "results", "study.json"
SET_BY_STUDY = ("train_samples", "seed")


@dataclass(frozen=True)
class Point:
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
class Result:
    """What a run came to. `trained` counts the samples that there were, of those asked for.

    Losses are on held-out replies, in nats per token; `scores` are of replies to held-out prompts against the persona's
    own (`trainer.scorecard.spoken.text`).
    """

    samples: int
    seed: int
    trained: int
    loss: float
    loss_base: float
    scores: dict[str, float]
    prompts: int
    seconds: float


Measure = Callable[[Path], tuple[dict[str, float], int]]
"""Scores of the adapter in a job folder, and of how many prompts."""


def points_of(sizes: Sequence[int], runs: int, settings: Sequence[str]) -> list[Point]:
    """All runs: the smallest sizes first, so that a study says something early. Raises `RequestError`."""
    if not sizes or min(sizes) < 1 or runs < 1:
        raise RequestError("A study takes sizes from 1 on, and one run or more.", "Such as --sizes 50,100 --runs 3.")
    if own := [pair for pair in settings if pair.partition("=")[0].strip() in SET_BY_STUDY]:
        raise RequestError(f"{own[0]} is what the study itself sets.", "Leave it out: --sizes and --runs say it.")
    return [Point(size, seed) for size in sorted(set(sizes)) for seed in range(runs)]


def folder_of(wanted: Asked) -> Path:
    """Where a study lies in the home: with further sizes or runs of the same it is the same study."""
    digest = hashlib.sha256(job_id_of(wanted).encode()).hexdigest()[:ID_DIGITS]
    return wanted.home / RUNS / f"{wanted.request.job_name}-scale-{digest}"


def run_all(
    wanted: Asked,
    points: Sequence[Point],
    settings: Sequence[str],
    out: Path,
    run: Callable[[Path], int],
    measure: Measure,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[Result], int]:
    """Run and measure what is not done yet: all results so far, and the exit code of what ended the study.

    Raises `UnderstudyError` where a folder cannot be made or an adapter is damaged, and `OSError`.
    """
    if (out / "request.json").exists():
        raise RequestError(f"{out} holds a run, and no study.", "Name another --out.")
    done: list[Result] = []
    left = _Left()
    missing = [point for point in points if read_result(out, point) is None]
    for number, point in enumerate(points, 1):
        result = read_result(out, point)
        if result is None:
            tell(f"{number} of {len(points)}: {point.samples} samples, seed {point.seed}{left.words(missing)}")
            began = clock()
            own = wanted.with_settings(settings_of([*settings, *point.settings]))
            (out / RUNS).mkdir(parents=True, exist_ok=True)
            folder = job_folder(own, out / RUNS / point.name)
            if code := run(folder):
                return done, code
            release_memory()
            result = _measured(point, folder, measure)
            _keep(out, point, result)
            missing.remove(point)
            left.took(result, clock() - began)
        done.append(result)
    return done, 0


@dataclass
class _Left:
    """How long the rest may take, by the runs of this process: training takes so long for each sample, the rest of a
    run about as long whatever its size."""

    runs: int = 0
    samples: int = 0
    training_s: float = 0.0
    other_s: float = 0.0

    def took(self, result: Result, seconds: float) -> None:
        """A run is done, and took so long in this process; its training may have been done in an earlier one."""
        self.runs += 1
        self.samples += result.samples
        self.training_s += result.seconds
        self.other_s += max(0.0, seconds - result.seconds)

    def words(self, missing: Sequence[Point]) -> str:
        """For people; empty before anything is done."""
        if not self.runs:
            return ""
        training = self.training_s / self.samples * sum(point.samples for point in missing)
        minutes = (training + self.other_s / self.runs * len(missing)) / 60
        return f", about {max(round(minutes), 1):,} min left"


def read_result(out: Path, point: Point) -> Result | None:
    """What is kept of a run; None where it is not done. Raises `RequestError` where it cannot be read."""
    file = out / RESULTS / f"{point.name}.json"
    try:
        return Result(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(f"{file} is damaged: {error}.", "Remove it, and its run is measured again.") from error


def _measured(point: Point, folder: Path, measure: Measure) -> Result:
    manifest = verify(folder / "adapter")
    scores, prompts = measure(folder)
    seconds = json.loads((folder / "adapter" / "report" / "training.json").read_text(encoding="utf-8"))["seconds"]
    trained = manifest.dataset["samples_train"]
    losses = (manifest.metrics.loss_tuned, manifest.metrics.loss_base)
    return Result(point.samples, point.seed, trained, *losses, scores, prompts, seconds)


def _keep(out: Path, point: Point, result: Result) -> None:
    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    put_private(out / RESULTS / f"{point.name}.json", json.dumps(asdict(result), indent=1).encode() + b"\n")
    shutil.rmtree(out / RUNS / point.name / CHECKPOINTS, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ all together


@dataclass(frozen=True)
class Size:
    """What the runs of one size say together."""

    samples: int
    loss: Spread
    scores: dict[str, Spread]


def sizes_of(results: Sequence[Result]) -> list[Size]:
    """Mean and standard deviation over the runs of each size, the smallest first."""
    sizes = []
    for samples in sorted({result.samples for result in results}):
        own = [result for result in results if result.samples == samples]
        scores = {name: spread([result.scores[name] for result in own]) for name in own[0].scores}
        sizes.append(Size(samples, spread([result.loss for result in own]), scores))
    return sizes
