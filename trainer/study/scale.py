"""Scaling study: trains on increasing numbers of samples with several seeds, and reports loss and
ROUGE by task.
"""

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from filecmp import cmp
from pathlib import Path
from statistics import fmean

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import write_private_file
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.home.job_folder import read_spec
from personas.models.base_model import recommended_sampling
from personas.prompt.renderer import Renderer
from personas.schemas.formatting import markdown_table
from personas.schemas.hyperparameters import parse_settings
from personas.schemas.scorecard import MeanStd
from trainer.dataset.charts import HELDOUT_COLOUR, SERIES_COLOURS, new_figure, save_figure
from trainer.dataset.sample_renderer import RenderedSample, SampleRenderer
from trainer.evaluate.candidates import BASE, NEW, Candidate, Candidates
from trainer.evaluate.generation.evaluation_prompts import (
    PromptBuilder,
    heldout_prompts,
    select_places,
)
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, mean_std, select_replies
from trainer.evaluate.generation.text_metrics import score_texts
from trainer.evaluate.paired_losses import INSTRUCTIONS_FILE, TimeBudget
from trainer.machine import release_memory
from trainer.report.adapter_docs import read_run_seconds
from trainer.schemas import PromptReply, Recipe
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions
from trainer.train.job import prepare_job, prepare_job_without_torch
from trainer.train.job_folder import (
    ID_DIGITS,
    RUNS_FOLDER,
    JobDraft,
    job_id_of_draft,
    make_job_folder,
)

SCALE_RESULTS_FOLDER = "results"
STUDY_FILE = "study.json"
STUDY_SETTINGS = ("train_samples", "seed")
SHIPPED_DATA = INSTRUCTIONS_FILE.parents[1]
DIALOGUE_TASKS = {
    "instructions": INSTRUCTIONS_FILE,
    "general dialogue": SHIPPED_DATA / "general" / "dialogue.jsonl",
    "summarising": SHIPPED_DATA / "evaluation" / "summaries.jsonl",
}
"""Held-out conversations by task, for studies of dialogue. Nothing trains on them."""
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
    """Run and measure missing points; return all results and the exit code. Raises
    `UnderstudyError`, `OSError`.
    """
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
            if code := run(folder):
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
    shutil.rmtree(out / RUNS_FOLDER / point.name / CHECKPOINTS_FOLDER, ignore_errors=True)


# ---------------------------------------------------------------------------------------- measuring


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


def require_untrained_tasks(draft: JobDraft, tasks: Mapping[str, Path]) -> None:
    """Raise `RequestError` if a task's file is missing, or among the material that is trained
    on.
    """
    for task, file in tasks.items():
        if not file.is_file():
            raise RequestError(
                f"There is no file {file} for the task {task}.",
                "Check the path after --task NAME=.",
            )
        for material in draft.materials:
            if material.kind == "general":  # every job has it, to measure forgetting
                continue
            sources = [path for path, _ in material.copies if path.is_file()]
            if any(cmp(path, file, shallow=False) for path in sources):
                raise RequestError(
                    f"{file} cannot measure {task}: it is trained on.", "Name another data set."
                )


def task_scorer(
    points: Sequence[ScalePoint], tasks: Mapping[str, Path], most: int
) -> ScoreFunction:
    """Return the function that scores a run's adapter; with tasks, runs of the smallest size score
    the base, too.
    """
    first = {point.name for point in points if tasks and point.samples == points[0].samples}
    return lambda folder: score_adapter(folder, tasks, most, with_base=folder.name in first)


def score_adapter(
    folder: Path, tasks: Mapping[str, Path], most: int, *, with_base: bool
) -> StudyScores:
    """Score a job's adapter on held-out prompts and the files of further tasks, `most` of each,
    with the run's seed.

    `with_base` scores the base model, too. Raises `UnderstudyError`.
    """
    spec = read_spec(folder)
    job = prepare_job(folder, spec)
    data = job.data
    renderer = Renderer(job.tokenizer)
    builder = PromptBuilder(renderer, data.persona, data.lore)
    seeds = (job.recipe.seed,)
    heldout = heldout_prompts(builder, data, (0,))[:most]
    prompts = [replace(prompt, own_seeds=seeds) for prompt in heldout]
    pairs: dict[str, Sequence[PromptReply]] = {prompts[0].task: data.heldout_prompt_replies}
    names = {prompts[0].task: HELDOUT_REPLIES}
    for task, file in tasks.items():
        task_prompts, pairs[task] = _task_prompts(
            task, file, builder=builder, recipe=job.recipe, most=most
        )
        prompts += task_prompts
        names[task] = task
    sides = Candidates.load(job.base, job.tokenizer, spec.serving_precision, prompts[0].ids)
    sides.add(NEW, Candidate.sealed(folder / "adapter"))
    assert sides.parts  # the candidates were loaded to generate
    refs = {NEW: sides.ref(NEW)}
    if with_base:
        refs[BASE] = sides.ref(BASE)
    generator = ReplyGenerator(
        sides.parts, renderer, refs, seeds=seeds, sampling=recommended_sampling(job.base)
    )
    answers = generator.answers(prompts, TimeBudget(math.inf))
    scores: dict[str, TaskScores] = {NEW: {}, BASE: {}}
    for side in refs:
        for task, name in names.items():
            replies = select_replies(answers, task, side=side)
            references = [pairs[task][reply.prompt.number].reply for reply in replies]
            scores[side][name] = score_texts(references, [reply.text for reply in replies])
    counts = Counter(names[prompt.task] for prompt in prompts)
    return StudyScores(tasks=scores[NEW], prompts=dict(counts), untrained=scores[BASE])


def _task_prompts(
    task: str, file: Path, builder: PromptBuilder, recipe: Recipe, most: int
) -> tuple[list[EvaluationPrompt], list[PromptReply]]:
    """Read a task's conversations; return at most `most` prompts, selected by a hash, and all
    messages and replies.
    """
    maker = SampleRenderer(builder.renderer, None, None, recipe=recipe, filters=None)
    samples: list[RenderedSample] = []
    for talk in read_usable(file, ReadOptions()):
        if isinstance(talk, Conversation):
            samples += maker.render(talk, {})
    pairs = [PromptReply(it.talk, it.turns[-1].text, it.reply) for it in samples]
    if not pairs:
        raise RequestError(
            f"No reply in {file} fits max_length {recipe.max_length}.", "Set a higher max_length."
        )
    bare = replace(builder, persona=None)
    selected = select_places(range(len(pairs)), pairs, most)
    return [bare.from_sample(task, n, samples[n].sample, pairs[n]) for n in selected], pairs


# ------------------------------------------------------------------------------------- all together


@dataclass(frozen=True)
class SizeSummary:
    """Statistics over the runs of one size; `tasks` has them by task, and for the mean of all
    tasks.
    """

    samples: int
    loss: MeanStd
    scores: dict[str, MeanStd]
    tasks: dict[str, dict[str, MeanStd]] = field(default_factory=dict)


def summarise_sizes(results: Sequence[ScaleResult]) -> list[SizeSummary]:
    """Return mean and standard deviation over the runs of each size, smallest first."""
    sizes = []
    for samples in sorted({result.samples for result in results}):
        runs = [result for result in results if result.samples == samples]
        by_task = [{HELDOUT_REPLIES: run.scores, **run.tasks} for run in runs if run.tasks]
        summary = SizeSummary(
            samples=samples,
            loss=mean_std([run.loss for run in runs]),
            scores=_summarise_metrics([run.scores for run in runs]),
            tasks=_summarise_tasks(by_task),
        )
        sizes.append(summary)
    return sizes


def _summarise_metrics(runs: Sequence[Mapping[str, float]]) -> dict[str, MeanStd]:
    return {metric: mean_std([run[metric] for run in runs]) for metric in runs[0]}


def summarise_untrained(results: Sequence[ScaleResult]) -> dict[str, dict[str, MeanStd]]:
    """Return the base model's scores by task over the seeds; empty in studies of a persona."""
    by_seed = {result.seed: result.untrained for result in results if result.untrained}
    return _summarise_tasks(list(by_seed.values()))


def _summarise_tasks(runs: Sequence[TaskScores]) -> dict[str, dict[str, MeanStd]]:
    """Return mean and standard deviation over runs by task and metric, and of each run's mean over
    the tasks.
    """
    if not runs:
        return {}
    summary = {task: _summarise_metrics([run[task] for run in runs]) for task in runs[0]}
    means = []
    for run in runs:
        tasks = run.values()
        means.append({name: fmean(scores[name] for scores in tasks) for name in CHARTED_METRICS})
    summary[ALL_TASKS] = _summarise_metrics(means)
    return summary


CHARTED_METRICS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
METRIC_LABELS = {**CHARTED_METRICS, "chrf": "chrF", "length_ratio": "length"}
ALL_TASKS = "mean of the tasks"


def write_study(out: Path, persona: str | None, results: Sequence[ScaleResult]) -> None:
    """Write table, JSON and chart. Raises `OSError`."""
    sizes = summarise_sizes(results)
    untrained = summarise_untrained(results)
    study = {
        "persona": persona,
        "loss_base": results[0].loss_base,
        "prompts": results[0].prompts,
        "sizes": [
            {
                "samples": size.samples,
                "loss": size.loss.model_dump(),
                "scores": _as_json(size.scores),
                "tasks": {task: _as_json(scores) for task, scores in size.tasks.items()},
            }
            for size in sizes
        ],
        "untrained": {task: _as_json(scores) for task, scores in untrained.items()},
        "runs": [asdict(result) for result in results],
    }
    write_private_file(out / STUDY_FILE, json.dumps(study, indent=2).encode() + b"\n")
    write_private_file(out / "study.md", f"{study_markdown(persona, results)}\n".encode())
    draw_study(out, sizes, results[0].loss_base, untrained)


def _as_json(scores: Mapping[str, MeanStd]) -> dict[str, object]:
    return {name: score.model_dump() for name, score in scores.items()}


def study_markdown(persona: str | None, results: Sequence[ScaleResult]) -> str:
    """Render the table with notes."""
    sizes = summarise_sizes(results)
    first = results[0]
    head = ("samples", "runs", "held-out loss", *METRIC_LABELS.values())
    rows = []
    for size in sizes:
        scores = [size.scores[name].format() for name in METRIC_LABELS]
        rows.append((f"{size.samples:,}", str(size.loss.runs), size.loss.format(4), *scores))
    note = (
        "Mean ± standard deviation over the runs of a size. The held-out loss is in nats per token "
        f"(untrained: {first.loss_base:.4f}); the scores compare replies to {first.prompts} "
        "held-out prompts with those that were really given, and length is that of these replies "
        "for each word of those."
    )
    parts = [f"# Growing data: {persona or 'dialogue'}", markdown_table(head, rows), note]
    for result in results:
        if result.trained < result.samples:
            parts.append(
                f"With {result.samples:,} asked for there were {result.trained:,} samples "
                f"(seed {result.seed})."
            )
    if sizes[0].tasks:
        parts.append(_tasks_markdown(sizes, results))
    return "\n\n".join(parts)


def _tasks_markdown(sizes: Sequence[SizeSummary], results: Sequence[ScaleResult]) -> str:
    """Render the table by task, with the untrained model first."""
    untrained = summarise_untrained(results)
    first = results[0]
    prompts = {HELDOUT_REPLIES: first.prompts, **first.task_prompts}
    rows = []
    for task in sizes[0].tasks:
        lines = [(f"{size.samples:,}", size.tasks[task]) for size in sizes]
        if untrained:
            lines.insert(0, ("untrained", untrained[task]))
        label = f"{task} ({prompts[task]} prompts)" if task in prompts else task
        for samples, scores in lines:
            rows.append((label, samples, *(scores[name].format() for name in CHARTED_METRICS)))
            label = ""  # the task is named once
    note = (
        "The same prompts for every run; mean ± standard deviation of F1 over the runs of a size."
    )
    return "\n\n".join(
        ["## By task", markdown_table(("task", "samples", *CHARTED_METRICS.values()), rows), note]
    )


def draw_study(
    out: Path,
    sizes: Sequence[SizeSummary],
    loss_base: float,
    untrained: Mapping[str, Mapping[str, MeanStd]] | None = None,
) -> None:
    """Draw `study.svg` and `.png`: loss and ROUGE by number of samples, with standard deviations.

    In studies of several tasks, each has a panel, with the untrained model's scores as dashed
    lines.
    """
    panels = {task: [size.tasks[task] for size in sizes] for task in sizes[0].tasks}
    panels = panels or {"ROUGE": [size.scores for size in sizes]}
    rows = -(-(len(panels) + 1) // 3) if len(panels) > 1 else 1
    figure, axes = new_figure(height=3.6 if rows == 1 else 2.9 * rows)
    figure.delaxes(axes)
    left, *others = figure.subplots(rows, 3 if rows > 1 else 2, squeeze=False).flat
    samples = [size.samples for size in sizes]
    _draw_line(left, samples, [size.loss for size in sizes], label="trained", colour=HELDOUT_COLOUR)
    left.axhline(loss_base, color="#777777", linestyle="--", linewidth=1.0, label="untrained")
    for axes, (task, scores) in zip(others, panels.items(), strict=False):
        for (name, label), colour in zip(CHARTED_METRICS.items(), SERIES_COLOURS, strict=False):
            _draw_line(axes, samples, [score[name] for score in scores], label=label, colour=colour)
            if untrained:
                axes.axhline(
                    untrained[task][name].mean, color=colour, linestyle="--", linewidth=1.0
                )
        axes.set(title=task.capitalize() if len(panels) > 1 else task, ylabel="F1")
        axes.set_ylim(bottom=0)
    left.set(title="Held-out loss", ylabel="nats per reply token")
    for axes in others[len(panels) :]:
        figure.delaxes(axes)
    for axes in (left, *others[: len(panels)]):
        axes.set(xlabel="samples trained on")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (left, others[0]):
        axes.legend(frameon=False, fontsize="small")
    text = "Held-out loss and ROUGE by the number of samples; study.md has the figures as a table"
    save_figure(figure, out / "study", text)


def _draw_line(
    axes: object, samples: Sequence[int], values: Sequence[MeanStd], label: str, colour: str
) -> None:
    means = [value.mean for value in values]
    deviations = [value.sd for value in values]
    axes.errorbar(  # type: ignore[attr-defined]
        samples,
        means,
        yerr=deviations,
        marker="o",
        capsize=3,
        linewidth=1.4,
        color=colour,
        label=label,
    )
