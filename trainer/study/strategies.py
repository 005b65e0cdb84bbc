"""Compares three strategies of using general dialogue: none, mixed in, and in a first stage."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.atomic_files import write_private_file
from personas.schemas.formatting import markdown_table
from personas.schemas.hyperparameters import Hyperparameters, parse_settings
from personas.schemas.scorecard import MeanStd
from trainer.dataset.charts import SERIES_COLOURS, new_figure, save_figure
from trainer.report.adapter_docs import read_run_seconds
from trainer.study.sweep import SWEEP_ADAPTER_FOLDER, SweepPoint
from trainer.train.job_folder import ID_DIGITS, RUNS_FOLDER, JobDraft, job_id_of_draft

STRATEGIES_FILE = "strategies.json"
STRATEGY_SETTING = "strategy"
STRATEGY_NAMES = {
    "persona": "A: the persona's data alone",
    "mixed": "B: general dialogue mixed in",
    "two-stage": "C: general dialogue first, then the persona's data",
}
FIXED_SETTINGS = ("general_share", "first_stage_epochs", "seed")
NO_GENERAL_SHARE = 1e-9
"""Rounds to no samples, yet sets the general dialogue for measuring aside as a mixing run does: all
measure alike.
"""


@dataclass(frozen=True)
class StrategyRun:
    """A finished run of a strategy. `general` counts the samples of general dialogue that it
    trained on.
    """

    strategy: str
    seed: int
    samples: int
    general: int
    loss: float
    loss_base: float
    general_loss: float
    general_loss_base: float
    seconds: float


def strategy_points(
    share: float, runs: int, settings: Sequence[str]
) -> list[tuple[SweepPoint, Hyperparameters]]:
    """Return the runs of the three strategies, a seed of each first. Raises `RequestError`."""
    for pair in settings:
        if pair.partition("=")[0].strip() in FIXED_SETTINGS:
            raise RequestError(
                f"{pair} is set by the study itself.", "Leave it out: use --share and --runs."
            )
    shares = {
        "persona": (f"general_share={NO_GENERAL_SHARE:g}",),
        "mixed": (f"general_share={share:g}",),
        "two-stage": ("first_stage_epochs=1",),
    }
    points = []
    # Seed by seed, so that a study which is stopped has compared all strategies.
    for seed in range(runs):
        for strategy, share_settings in shares.items():
            point = SweepPoint(((STRATEGY_SETTING, strategy), ("seed", str(seed))))
            points.append((point, parse_settings([*settings, *share_settings, f"seed={seed}"])))
    return points


def strategies_folder(draft: JobDraft, share: float) -> Path:
    """Return a study's folder in the home, the same for further runs."""
    digest = hashlib.sha256(f"{job_id_of_draft(draft)} {share:g}".encode()).hexdigest()[:ID_DIGITS]
    return draft.home / RUNS_FOLDER / f"{draft.request.job_name}-strategies-{digest}"


def read_strategy_run(point: SweepPoint, folder: Path) -> StrategyRun | None:
    """Read a finished run's figures; None without an adapter. Raises `AdapterError` for a damaged
    one.
    """
    adapter = folder / SWEEP_ADAPTER_FOLDER
    if not adapter.is_dir():
        return None
    manifest = verify_adapter(adapter)
    metrics = manifest.metrics
    settings = dict(point.pairs)
    general = manifest.dataset.get("samples_general", 0)
    return StrategyRun(
        strategy=settings[STRATEGY_SETTING],
        seed=int(settings["seed"]),
        samples=manifest.dataset["samples_train"] - general,
        general=general,
        loss=metrics.loss_tuned,
        loss_base=metrics.loss_base,
        general_loss=metrics.general_loss_tuned,
        general_loss_base=metrics.general_loss_base,
        seconds=read_run_seconds(adapter),
    )


def write_strategies(out: Path, persona: str | None, runs: Sequence[StrategyRun]) -> str:
    """Write `strategies.md`, its JSON and chart; return the Markdown. Raises `OSError`."""
    text = strategies_markdown(persona, runs)
    study = {"persona": persona, "runs": [asdict(run) for run in runs]}
    write_private_file(out / STRATEGIES_FILE, json.dumps(study, indent=2).encode() + b"\n")
    write_private_file(out / "strategies.md", f"{text}\n".encode())
    _draw_strategies(out, runs)
    return text


def strategies_markdown(persona: str | None, runs: Sequence[StrategyRun]) -> str:
    """Render the table: mean and standard deviation over the seeds of each strategy."""
    losses = ("held-out loss", "general loss", "change")
    head = ("strategy", "samples", "general", "runs", *losses, "time")
    rows = []
    for strategy, seeds in _by_strategy(runs).items():
        general = MeanStd.of([run.general_loss for run in seeds])
        change = general.mean / statistics.fmean(run.general_loss_base for run in seeds) - 1
        row = (
            STRATEGY_NAMES[strategy],
            f"{seeds[0].samples:,}",
            f"{seeds[0].general:,}",
            str(len(seeds)),
            MeanStd.of([run.loss for run in seeds]).format(4),
            general.format(4),
            f"{change:+.1%}",
            f"{statistics.fmean(run.seconds for run in seeds):,.0f} s",
        )
        rows.append(row)
    first = runs[0]
    note = (
        "Losses in nats per reply token, mean ± standard deviation over seeds; the untrained base "
        f"model's are {first.loss_base:.4f} on held-out replies and "
        f"{first.general_loss_base:.4f} on general dialogue; change is relative to the latter. All "
        "strategies measure with the same dialogue, which none trains on."
    )
    return "\n\n".join([f"# Strategies: {persona or 'dialogue'}", markdown_table(head, rows), note])


def _by_strategy(runs: Sequence[StrategyRun]) -> dict[str, list[StrategyRun]]:
    grouped: dict[str, list[StrategyRun]] = {}
    for name in STRATEGY_NAMES:
        seeds = [run for run in runs if run.strategy == name]
        if seeds:
            grouped[name] = seeds
    return grouped


def _draw_strategies(out: Path, runs: Sequence[StrategyRun]) -> None:
    """Draw `strategies.svg` and `.png`: each run's losses on the persona's replies and on general
    dialogue.
    """
    figure, axes = new_figure(height=3.6)
    for colour, (strategy, seeds) in zip(SERIES_COLOURS, _by_strategy(runs).items(), strict=False):
        axes.scatter(
            [run.loss for run in seeds],
            [run.general_loss for run in seeds],
            color=colour,
            label=STRATEGY_NAMES[strategy],
        )
    axes.axhline(
        runs[0].general_loss_base, color="#777777", linestyle="--", linewidth=1.0, label="untrained"
    )
    axes.set(
        title="Strategies",
        xlabel="held-out loss, nats per token",
        ylabel="general loss, nats per token",
    )
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    save_figure(
        figure, out / "strategies", "Losses by strategy; strategies.md has the figures as a table"
    )
