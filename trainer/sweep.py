"""A sweep: the same run with several values of a setting, and the adapter that predicts held-out replies best.

Every run is a job folder of its own, `sweep/<name=value>/`. Those that are done are not run again, so a sweep goes on
where it was stopped, and grows where further values are asked for. That training diverges with a value is a result too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.adapters import seal, verify, written_aside
from personas.contracts import TRAINER_EVENT, Failed
from personas.durable import put_private
from personas.errors import RequestError
from personas.hyperparameters import Hyperparameters, settings_of
from trainer.building.data_sheet import table
from trainer.commands.job_making import ID_DIGITS, Asked, job_folder, job_id_of
from trainer.commands.job_making import RUNS as HOME_RUNS
from trainer.loop.memory import release_memory
from trainer.report.sweep_chart import draw_sweep
from trainer.report.training import seconds_in

RUNS, RESULTS, ADAPTER = "sweep", "sweep.json", "adapter"
DIVERGED = "diverged"

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the settings that are its own, as they were written."""

    pairs: Pairs

    @property
    def name(self) -> str:
        """Of its folder, and in tables: `learning_rate=1e-4`."""
        return ",".join(f"{name}={value}" for name, value in self.pairs)


@dataclass(frozen=True)
class Result:
    """What a run came to. `loss` is on held-out replies in nats per token, None without an adapter.

    `why` says why there is none. `heldout_tokens` tells whether two runs were measured on the same.
    """

    name: str
    settings: dict[str, str]
    loss: float | None = None
    loss_base: float | None = None
    general_loss: float | None = None
    heldout_tokens: int = 0
    seconds: float = 0.0
    why: str = ""


def points_of(sweeps: Sequence[str], settings: Sequence[str]) -> list[tuple[Point, Hyperparameters]]:
    """All combinations of `name=value,value…`, each with the settings of its run.

    Raises `RequestError` that names the wrong one, and what is allowed.
    """
    names, values = [], []
    for text in sweeps:
        name, _, listed = (part.strip() for part in text.partition("="))
        each = list(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
        if len(each) < 2:
            raise RequestError(f"{text!r} is no sweep.", "Write name=value,value such as learning_rate=1e-4,2e-4.")
        if name == "target_modules":
            raise RequestError("target_modules cannot be swept: its values are lists.", "Start a run for each.")
        names.append(name)
        values.append(each)
    points = [Point(tuple(zip(names, chosen, strict=True))) for chosen in itertools.product(*values)]
    return [(point, settings_of([*settings, *(f"{n}={v}" for n, v in point.pairs)])) for point in points]


def folder_of(wanted: Asked, points: Sequence[Point]) -> Path:
    """Where a sweep over these settings lies in the home: with further values of the same it is the same sweep."""
    names = ",".join(name for name, _ in points[0].pairs)
    digest = hashlib.sha256(f"{job_id_of(wanted)} {names}".encode()).hexdigest()
    return wanted.home / HOME_RUNS / f"{wanted.request.job_name}-sweep-{digest[:ID_DIGITS]}"


def make_folders(wanted: Asked, points: Sequence[tuple[Point, Hyperparameters]], out: Path) -> list[tuple[Point, Path]]:
    """The job folders of a sweep, those of an earlier one among them. Raises whatever `job_folder` does."""
    if (out / "request.json").exists():
        raise RequestError(f"{out} holds a run, and no sweep.", "Name another --out.")
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    return [(point, job_folder(wanted.with_settings(own), out / RUNS / point.name)) for point, own in points]


def run_all(
    folders: Sequence[tuple[Point, Path]], run: Callable[[Path], int], tell: Callable[[str], None]
) -> tuple[list[Result], int]:
    """Run what is not done yet, one after another: the results so far, and the exit code of what ended the sweep.

    A run that cannot succeed as it is does not end it; one that was stopped, or that could succeed later, does.
    """
    results: list[Result] = []
    for number, (point, folder) in enumerate(folders, 1):
        if not (ended := result_of(point, folder)):
            tell(f"{number} of {len(folders)}: {point.name}")
            code = run(folder)
            release_memory()
            failure = _failure(folder)
            if code and not failure.is_final:
                return results, code
            ended = result_of(point, folder) or Result(point.name, dict(point.pairs), why=failure.cause)
        results.append(ended)
    return results, 0


def result_of(point: Point, folder: Path) -> Result | None:
    """What a run came to, where it is done or has diverged. Raises `AdapterError` for a damaged adapter."""
    of = (point.name, dict(point.pairs))
    if (folder / ADAPTER).is_dir():
        metrics = verify(folder / ADAPTER).metrics
        losses = (metrics.loss_tuned, metrics.loss_base, metrics.general_loss_tuned)
        return Result(*of, *losses, metrics.heldout_tokens, seconds_in(folder / ADAPTER))
    cause = _failure(folder).cause
    return Result(*of, why=cause) if DIVERGED in cause else None


def best_of(results: Sequence[Result]) -> Result:
    """The one with the lowest loss. Raises `RequestError` where there is none."""
    done = [result for result in results if result.loss is not None and math.isfinite(result.loss)]
    if not done:
        raise RequestError("None of the runs ended in an adapter.", "Try smaller values, such as of learning_rate.")
    return min(done, key=lambda result: result.loss or 0.0)


def write_results(out: Path, results: Sequence[Result], best: Result) -> None:
    """`sweep.json`, its chart, and the best adapter as the sweep's own. Raises `OSError`."""
    told = {"best": best.name, "runs": [asdict(result) for result in results]}
    put_private(out / RESULTS, json.dumps(told, indent=2).encode() + b"\n")
    draw_sweep(out, [(result.settings, result.loss) for result in results])
    _take(out, results, best)


def results_table(results: Sequence[Result], best: Result | None = None) -> str:
    """All runs, the best one marked, for terminals and model cards alike."""
    rows = [
        (
            f"{result.name}{' (best)' if result is best else ''}",
            "–" if result.loss is None else f"{result.loss:.4f}",
            "–" if result.general_loss is None else f"{result.general_loss:.4f}",
            result.why or f"{result.seconds:,.0f} s",
        )
        for result in results
    ]
    lines = [table(("setting", "held-out loss", "general loss", "time"), rows)]
    if len({result.heldout_tokens for result in results if result.loss is not None}) > 1:
        lines.append(
            "These settings change what is held out or how it is asked: the losses are not of the same replies."
        )
    return "\n\n".join(lines)


@dataclass(frozen=True)
class _Failure:
    cause: str = ""
    is_final: bool = True


def _failure(folder: Path) -> _Failure:
    """How the last run in a folder failed, by its last event; nothing where it did not."""
    try:
        last = (folder / "events.jsonl").read_bytes().splitlines()[-1]
        event = TRAINER_EVENT.validate_json(last)
    except (OSError, IndexError, ValueError):
        return _Failure()
    return _Failure(event.cause, not event.retry) if isinstance(event, Failed) else _Failure()


def _take(out: Path, results: Sequence[Result], best: Result) -> None:
    """Have the best adapter lie in the sweep's folder, its card saying among which it was chosen."""
    target, source = out / ADAPTER, out / RUNS / best.name / ADAPTER
    text = (
        f"\n## Sweep\n\nChosen among {len(results)} runs by its loss on held-out replies, which is therefore a little "
        f"lower than on others.\n\n{results_table(results, best)}\n"
    )
    card = (source / "README.md").read_text(encoding="utf-8") + text
    if target.is_dir() and (target / "README.md").read_text(encoding="utf-8") == card:
        return
    manifest = verify(source)
    chosen = f"Chosen among {len(results)} runs of a sweep by its loss on held-out replies: {best.name}."
    fresh, earlier = out / f".{ADAPTER}.new", out / f".{ADAPTER}.earlier"
    for left_over in (fresh, earlier):
        shutil.rmtree(left_over, ignore_errors=True)
    with written_aside(fresh) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)
        (aside / "README.md").write_text(card, encoding="utf-8")
        seal(aside, manifest.model_copy(update={"caveats": (*manifest.caveats, chosen)}))
    if target.exists():
        target.rename(earlier)
    fresh.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)
