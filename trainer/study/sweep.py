"""Sweeps settings over several runs for the lowest held-out loss."""

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.errors import RequestError
from personas.home.adapters import verify_adapter, write_manifest
from personas.home.atomic_files import atomic_folder, replace_durably, write_private_file
from personas.home.job_attempt import EVENTS_FILE
from personas.schemas.formatting import markdown_table
from personas.schemas.hyperparameters import Hyperparameters, parse_settings
from personas.schemas.training_events import TRAINER_EVENT, Failed
from trainer.dataset.charts import SERIES_COLOURS, new_figure, save_figure
from trainer.machine import release_memory
from trainer.report.adapter_docs import read_run_seconds
from trainer.train.job_folder import (
    ID_DIGITS,
    RUNS_FOLDER,
    JobDraft,
    job_id_of_draft,
    make_job_folder,
)

LOGARITHMIC_SETTING = "learning_rate"
SWEEP_RUNS_FOLDER = "sweep"
SWEEP_RESULTS_FILE = "sweep.json"
SWEEP_ADAPTER_FOLDER = "adapter"
DIVERGED_CAUSE = "diverged"
SettingPairs = tuple[tuple[str, str], ...]


def draw_sweep(folder: Path, points: Sequence[tuple[Mapping[str, str], float | None]]) -> None:
    """Draw `sweep.svg` and `.png`: loss by the first setting, one line per combination of the
    others.

    Leaves out runs without an adapter. Rates are on a logarithmic axis, words are spaced evenly.
    """
    name = next(iter(points[0][0]))
    lines: dict[str, list[tuple[str, float]]] = {}
    for settings, loss in points:
        others = ", ".join(f"{key}={value}" for key, value in settings.items() if key != name)
        if loss is not None:
            lines.setdefault(others, []).append((settings[name], loss))
    are_numbers = all(_is_number(settings[name]) for settings, _ in points)
    figure, axes = new_figure(height=3.6)
    for place, (others, line) in enumerate(lines.items()):
        if are_numbers:
            line.sort(key=lambda pair: float(pair[0]))
        xs = [float(value) if are_numbers else value for value, _ in line]
        style = {
            "color": SERIES_COLOURS[place % len(SERIES_COLOURS)],
            "label": others or "held-out replies",
        }
        axes.plot(xs, [loss for _, loss in line], marker="o", linewidth=1.4, **style)
    if are_numbers and name.endswith(LOGARITHMIC_SETTING):
        axes.set_xscale("log")
    axes.set(title="Sweep", xlabel=name, ylabel="nats per held-out reply token")
    if len(lines) > 1:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    save_figure(figure, folder / "sweep", f"Held-out loss by {name}; sweep.json has the figures")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class SweepPoint:
    """A run of a sweep with its own settings, as written."""

    pairs: SettingPairs

    @property
    def name(self) -> str:
        """The name of its folder and table row: `learning_rate=1e-4`."""
        return ",".join(f"{name}={value}" for name, value in self.pairs)


@dataclass(frozen=True)
class SweepResult:
    """The result of a run. `loss` is on held-out replies in nats per token, None without an
    adapter.

    `why` is the reason for a missing adapter. `heldout_tokens` identifies runs measured on the same
    replies.
    """

    name: str
    settings: dict[str, str]
    loss: float | None = None
    loss_base: float | None = None
    general_loss: float | None = None
    heldout_tokens: int = 0
    seconds: float = 0.0
    why: str = ""


def sweep_points(
    sweeps: Sequence[str], settings: Sequence[str]
) -> list[tuple[SweepPoint, Hyperparameters]]:
    """Return all combinations of `name=value,value…`, with their settings. Raises `RequestError`
    for invalid values.
    """
    names: list[str] = []
    values: list[list[str]] = []
    for text in sweeps:
        name, _, listed = (part.strip() for part in text.partition("="))
        distinct = dict.fromkeys(value.strip() for value in listed.split(",") if value.strip())
        if len(distinct) < 2:
            raise RequestError(
                f"{text!r} is no sweep.", "Write name=value,value such as learning_rate=1e-4,2e-4."
            )
        if name == "target_modules":
            raise RequestError(
                "target_modules cannot be swept: its values are lists.", "Start a run for each."
            )
        names.append(name)
        values.append(list(distinct))
    points = []
    for combination in itertools.product(*values):
        point = SweepPoint(tuple(zip(names, combination, strict=True)))
        varied = [f"{name}={value}" for name, value in point.pairs]
        points.append((point, parse_settings([*settings, *varied])))
    return points


def sweep_folder(draft: JobDraft, points: Sequence[SweepPoint]) -> Path:
    """Return a sweep's folder in the home, the same for further values of these settings."""
    names = ",".join(name for name, _ in points[0].pairs)
    digest = hashlib.sha256(f"{job_id_of_draft(draft)} {names}".encode()).hexdigest()
    return draft.home / RUNS_FOLDER / f"{draft.request.job_name}-sweep-{digest[:ID_DIGITS]}"


def make_sweep_folders(
    draft: JobDraft, points: Sequence[tuple[SweepPoint, Hyperparameters]], out: Path
) -> list[tuple[SweepPoint, Path]]:
    """Create the job folders of a sweep, reusing existing ones. Raises the errors of
    `make_job_folder`.
    """
    if (out / "request.json").exists():
        raise RequestError(f"{out} holds a run, and no sweep.", "Name another --out.")
    (out / SWEEP_RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
    folders = []
    for point, settings in points:
        folder = out / SWEEP_RUNS_FOLDER / point.name
        folders.append((point, make_job_folder(draft.with_settings(settings), folder)))
    return folders


def run_sweep(
    folders: Sequence[tuple[SweepPoint, Path]],
    run: Callable[[Path], int],
    report: Callable[[str], None],
) -> tuple[list[SweepResult], int]:
    """Run unfinished jobs; return the results and the exit code. Only a run that may succeed later
    ends the sweep.
    """
    results: list[SweepResult] = []
    for number, (point, folder) in enumerate(folders, 1):
        result = read_sweep_result(point, folder)
        if result is None:
            report(f"{number} of {len(folders)}: {point.name}")
            code = run(folder)
            release_memory()
            failure = _read_failure(folder)
            if code and not failure.is_final:
                return results, code
            result = read_sweep_result(point, folder)
            result = result or SweepResult(point.name, dict(point.pairs), why=failure.cause)
        results.append(result)
    return results, 0


def read_sweep_result(point: SweepPoint, folder: Path) -> SweepResult | None:
    """Read the result of a finished or diverged run. Raises `AdapterError` for a damaged
    adapter.
    """
    settings = dict(point.pairs)
    adapter = folder / SWEEP_ADAPTER_FOLDER
    if adapter.is_dir():
        metrics = verify_adapter(adapter).metrics
        return SweepResult(
            point.name,
            settings,
            loss=metrics.loss_tuned,
            loss_base=metrics.loss_base,
            general_loss=metrics.general_loss_tuned,
            heldout_tokens=metrics.heldout_tokens,
            seconds=read_run_seconds(adapter),
        )
    cause = _read_failure(folder).cause
    if DIVERGED_CAUSE in cause:  # the same settings would diverge again
        return SweepResult(point.name, settings, why=cause)
    return None


def best_result(results: Sequence[SweepResult]) -> SweepResult:
    """Return the result with the lowest loss. Raises `RequestError` if there is none."""
    done = [result for result in results if result.loss is not None and math.isfinite(result.loss)]
    if not done:
        raise RequestError(
            "None of the runs ended in an adapter.", "Try smaller values, such as of learning_rate."
        )
    return min(done, key=lambda result: result.loss or 0.0)


def write_sweep_results(out: Path, results: Sequence[SweepResult], best: SweepResult) -> None:
    """Write `sweep.json`, its chart, and the best adapter. Raises `OSError`."""
    sweep = {"best": best.name, "runs": [asdict(result) for result in results]}
    write_private_file(out / SWEEP_RESULTS_FILE, json.dumps(sweep, indent=2).encode() + b"\n")
    draw_sweep(out, [(result.settings, result.loss) for result in results])
    _install_best_adapter(out, results, best)


def sweep_results_table(results: Sequence[SweepResult], best: SweepResult | None = None) -> str:
    """Format all runs with the best one marked, for terminals and model cards."""
    rows = []
    for result in results:
        name = f"{result.name} (best)" if result is best else result.name
        time = result.why or f"{result.seconds:,.0f} s"
        rows.append((name, _format_loss(result.loss), _format_loss(result.general_loss), time))
    lines = [markdown_table(("setting", "held-out loss", "general loss", "time"), rows)]
    if len({result.heldout_tokens for result in results if result.loss is not None}) > 1:
        note = (
            "These settings change what is held out or how it is asked: the losses are not of the "
            "same replies."
        )
        lines.append(note)
    return "\n\n".join(lines)


def _format_loss(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.4f}"


@dataclass(frozen=True)
class _RunFailure:
    cause: str = ""
    is_final: bool = True


def _read_failure(folder: Path) -> _RunFailure:
    """Return the last run's failure from its last event; empty if it did not fail."""
    try:
        last = (folder / EVENTS_FILE).read_bytes().splitlines()[-1]
        event = TRAINER_EVENT.validate_json(last)
    except (OSError, IndexError, ValueError):
        return _RunFailure()
    if not isinstance(event, Failed):
        return _RunFailure()
    return _RunFailure(event.cause, is_final=not event.retry)


def _install_best_adapter(out: Path, results: Sequence[SweepResult], best: SweepResult) -> None:
    """Copy the best adapter to the sweep's folder; its card names the candidates."""
    target = out / SWEEP_ADAPTER_FOLDER
    source = out / SWEEP_RUNS_FOLDER / best.name / SWEEP_ADAPTER_FOLDER
    text = (
        f"\n## Sweep\n\nChosen among {len(results)} runs by its loss on held-out replies, which is "
        f"therefore a little lower than on others.\n\n{sweep_results_table(results, best)}\n"
    )
    card = (source / "README.md").read_text(encoding="utf-8") + text
    if target.is_dir() and (target / "README.md").read_text(encoding="utf-8") == card:
        return
    manifest = verify_adapter(source)
    chosen = (
        f"Chosen among {len(results)} runs of a sweep by its loss on held-out replies: {best.name}."
    )
    fresh = out / f".{SWEEP_ADAPTER_FOLDER}.new"
    earlier = out / f".{SWEEP_ADAPTER_FOLDER}.earlier"
    for left_over in (fresh, earlier):
        shutil.rmtree(left_over, ignore_errors=True)
    with atomic_folder(fresh) as partial_folder:
        shutil.copytree(source, partial_folder, dirs_exist_ok=True)
        (partial_folder / "README.md").write_text(card, encoding="utf-8")
        write_manifest(
            partial_folder, manifest.model_copy(update={"caveats": (*manifest.caveats, chosen)})
        )
    if target.exists():
        target.rename(earlier)
    replace_durably(fresh, target)
    shutil.rmtree(earlier, ignore_errors=True)
