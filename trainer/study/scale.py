"""Scaling study: trains on increasing numbers of samples with several seeds, and reports loss and ROUGE."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import write_private_file
from personas.home.job_folder import read_spec
from personas.prompt import Renderer
from personas.schemas.formatting import markdown_table
from personas.schemas.hyperparameters import parse_settings
from personas.schemas.scorecard import MeanStd
from trainer.data.charts import HELDOUT_COLOUR, SERIES_COLOURS, new_figure, save_figure
from trainer.evaluate.candidates import NEW, Candidate, Candidates
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder, heldout_prompts
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.reply_tasks import mean_std
from trainer.evaluate.generation.text_metrics import score_texts
from trainer.evaluate.paired_losses import TimeBudget
from trainer.machine import release_memory
from trainer.train.job import prepare_job
from trainer.train.job_folder import ID_DIGITS, RUNS_FOLDER, JobDraft, job_id_of_draft, make_job_folder
from trainer.train.resume_config import CHECKPOINTS_FOLDER

SCALE_RESULTS_FOLDER, STUDY_FILE = "results", "study.json"
STUDY_SETTINGS = ("train_samples", "seed")


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

    Losses are on held-out replies, in nats per token; `scores` compare replies to held-out prompts with the persona's
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
"""Scores the adapter in a job folder; returns the number of prompts, too."""


def scale_points(sizes: Sequence[int], runs: int, settings: Sequence[str]) -> list[ScalePoint]:
    """Return all runs, smallest sizes first for early results. Raises `RequestError`."""
    if not sizes or min(sizes) < 1 or runs < 1:
        raise RequestError("A study takes sizes from 1 on, and one run or more.", "Such as --sizes 50,100 --runs 3.")
    if own := [pair for pair in settings if pair.partition("=")[0].strip() in STUDY_SETTINGS]:
        raise RequestError(f"{own[0]} is what the study itself sets.", "Leave it out: --sizes and --runs say it.")
    return [ScalePoint(size, seed) for size in sorted(set(sizes)) for seed in range(runs)]


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
    """Run and measure missing points; return all results and the exit code. Raises `UnderstudyError`, `OSError`."""
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
            own = draft.with_settings(parse_settings([*settings, *point.settings]))
            (out / RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
            folder = make_job_folder(own, out / RUNS_FOLDER / point.name)
            if code := run(folder):
                return results, code
            release_memory()
            result = _score_run(point, folder, measure)
            _write_scale_result(out, point, result)
            missing.remove(point)
            remaining.add(result, clock() - started)
        results.append(result)
    return results, 0


@dataclass
class _RemainingTime:
    """Estimates the remaining time from this process's runs: training scales with samples, the rest is constant."""

    runs: int = 0
    samples: int = 0
    training_s: float = 0.0
    other_s: float = 0.0

    def add(self, result: ScaleResult, seconds: float) -> None:
        """Record a finished run and its seconds in this process; its training may have been done in an earlier one."""
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
    """Read a run's stored result; None if it is unfinished. Raises `RequestError` if it is unreadable."""
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
    file = out / SCALE_RESULTS_FOLDER / f"{point.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private_file(file, json.dumps(asdict(result), indent=1).encode() + b"\n")
    shutil.rmtree(out / RUNS_FOLDER / point.name / CHECKPOINTS_FOLDER, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ all together


@dataclass(frozen=True)
class SizeSummary:
    """Statistics over the runs of one size."""

    samples: int
    loss: MeanStd
    scores: dict[str, MeanStd]


def summarise_sizes(results: Sequence[ScaleResult]) -> list[SizeSummary]:
    """Return mean and standard deviation over the runs of each size, smallest first."""
    sizes = []
    for samples in sorted({result.samples for result in results}):
        own = [result for result in results if result.samples == samples]
        scores = {name: mean_std([result.scores[name] for result in own]) for name in own[0].scores}
        sizes.append(SizeSummary(samples, mean_std([result.loss for result in own]), scores))
    return sizes


CHARTED_METRICS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
METRIC_LABELS = {**CHARTED_METRICS, "chrf": "chrF", "length_ratio": "length"}


def write_study(out: Path, persona: str | None, results: Sequence[ScaleResult]) -> None:
    """Write table, JSON and chart. Raises `OSError`."""
    sizes = summarise_sizes(results)
    study = {
        "persona": persona,
        "loss_base": results[0].loss_base,
        "prompts": results[0].prompts,
        "sizes": [
            {"samples": size.samples, "loss": size.loss.model_dump()}
            | {"scores": {name: of.model_dump() for name, of in size.scores.items()}}
            for size in sizes
        ],
        "runs": [asdict(result) for result in results],
    }
    write_private_file(out / STUDY_FILE, json.dumps(study, indent=2).encode() + b"\n")
    write_private_file(out / "study.md", f"{study_markdown(persona, results)}\n".encode())
    draw_study(out, sizes, results[0].loss_base)


def study_markdown(persona: str | None, results: Sequence[ScaleResult]) -> str:
    """Render the table with notes."""
    sizes, first = summarise_sizes(results), results[0]
    head = ("samples", "runs", "held-out loss", *METRIC_LABELS.values())
    rows = []
    for size in sizes:
        scores = [_format_mean_std(size.scores[name], 3) for name in METRIC_LABELS]
        rows.append((f"{size.samples:,}", str(size.loss.runs), _format_mean_std(size.loss, 4), *scores))
    fewer = [result for result in results if result.trained < result.samples]
    notes = [
        f"Mean ± standard deviation over the runs of a size. The held-out loss is in nats per token (untrained: "
        f"{first.loss_base:.4f}); the scores compare replies to {first.prompts} held-out prompts with those that were "
        "really given, and length is that of these replies for each word of those.",
        *(f"With {it.samples:,} asked for there were {it.trained:,} samples (seed {it.seed})." for it in fewer),
    ]
    return "\n\n".join([f"# Growing data: {persona or 'dialogue'}", markdown_table(head, rows), *notes])


def draw_study(out: Path, sizes: Sequence[SizeSummary], loss_base: float) -> None:
    """Draw `study.svg` and `.png`: loss and ROUGE by number of samples, with standard deviations."""
    figure, left = new_figure(height=3.6)
    figure.delaxes(left)
    left, right = figure.subplots(1, 2)
    samples = [size.samples for size in sizes]
    _draw_line(left, samples, [size.loss for size in sizes], "this persona", HELDOUT_COLOUR)
    left.axhline(loss_base, color="#777777", linestyle="--", linewidth=1.0, label="untrained")
    for (name, label), colour in zip(CHARTED_METRICS.items(), SERIES_COLOURS, strict=False):
        _draw_line(right, samples, [size.scores[name] for size in sizes], label, colour)
    for axes, title, unit in ((left, "Held-out loss", "nats per reply token"), (right, "ROUGE", "F1")):
        axes.set(title=title, xlabel="samples trained on", ylabel=unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
    text = "Held-out loss and ROUGE by the number of samples; study.md has the figures as a table"
    save_figure(figure, out / "study", text)


def _draw_line(axes: object, samples: Sequence[int], values: Sequence[MeanStd], label: str, colour: str) -> None:
    means, deviations = [value.mean for value in values], [value.sd for value in values]
    axes.errorbar(samples, means, yerr=deviations, marker="o", capsize=3, linewidth=1.4, color=colour, label=label)  # type: ignore[attr-defined]


def _format_mean_std(value: MeanStd, digits: int) -> str:
    return f"{value.mean:.{digits}f} ± {value.sd:.{digits}f}"


def score_adapter(folder: Path) -> tuple[dict[str, float], int]:
    """Score a job's adapter on held-out prompts, with the run's seed, and count these. Raises `UnderstudyError`."""
    spec = read_spec(folder)
    job = prepare_job(folder, spec)
    data, renderer = job.data, Renderer(job.tokenizer)
    prompts = heldout_prompts(PromptBuilder(renderer, data.persona, data.lore), data)
    sides = Candidates.load(job.base, job.tokenizer, spec.serving_precision, prompts[0].ids)
    sides.add(NEW, Candidate.sealed(folder / "adapter"))
    assert sides.parts  # the candidates were loaded to generate
    generator = ReplyGenerator(sides.parts, renderer, {NEW: sides.ref(NEW)}, (job.recipe.seed,))
    answers = generator.answers(prompts, TimeBudget(math.inf))
    references = [data.heldout_prompt_replies[it.prompt.number].reply for it in answers]
    return score_texts(references, [it.text for it in answers]), len(answers)
