"""Predictions beside measurements: real runs of a few steps, each in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from personas.errors import TrainingError
from trainer.loop.memory import machine_bytes
from trainer.predict.cases import EMBEDDED, Case, make_model

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
LIMIT_S = 900


@dataclass(frozen=True)
class Compared:
    """A run: what was predicted, what was measured. `memory` is the prediction by what holds it."""

    name: str
    base_model: str
    settings: dict[str, str]
    longest_tokens: int
    predicted_bytes: int
    measured_bytes: int
    predicted_s: float
    measured_s: float
    basis: str
    memory: dict[str, int]

    @property
    def memory_ratio(self) -> float:
        """Predicted by measured."""
        return self.predicted_bytes / self.measured_bytes

    @property
    def time_ratio(self) -> float:
        """Predicted by measured."""
        return self.predicted_s / self.measured_s


def compare(cases: Iterable[Case], folder: Path, say: Callable[[str], None]) -> list[Compared]:
    """Run each case in an empty folder. Raises `TrainingError` when one fails."""
    found = []
    for number, case in enumerate(cases, 1):
        say(f"{number}: {case.name} …")
        found.append(_compared(case, folder, folder / f"run-{number}"))
        say(
            f"   {found[-1].memory_ratio:.2f} of {found[-1].measured_bytes / 2**30:.2f} GiB, "
            f"{found[-1].time_ratio:.2f} of {found[-1].measured_s:.0f} s"
        )
    return found


def _compared(case: Case, folder: Path, job: Path) -> Compared:
    home, base = folder / "home", case.base
    home.mkdir(exist_ok=True)
    if base != EMBEDDED:
        base = str(folder / case.base)
        if not Path(base).exists():
            make_model(case.base, Path(base))
    made = ["train", *case.words, "--base-model", base, "--home", str(home), "--out", str(job)]
    _trainer(*made, "--make-only")
    nobody = str(folder / "nobody")  # no earlier run tells how fast this machine is
    planned = json.loads(_trainer("run", str(job), "--dry-run", "--json", "--home", nobody).splitlines()[-1])
    _trainer("run", str(job), "--home", str(home), "--ignore-memory", "--card", "losses")
    told = next(recipe for recipe in planned["recipes"] if recipe["recipe"] == planned["recipe"])
    report = json.loads((job / "adapter" / "report" / "training.json").read_text(encoding="utf-8"))
    settings = {word.partition("=")[0]: word.partition("=")[2] for word in case.words if "=" in word}
    return Compared(
        name=case.name,
        base_model=case.base,
        settings=settings,
        longest_tokens=planned["longest_tokens"],
        predicted_bytes=told["memory_bytes"],
        measured_bytes=report["peak_bytes"],
        predicted_s=told["seconds"],
        measured_s=report["seconds"],
        basis=told["basis"],
        memory=told["memory"],
    )


def _trainer(*words: str) -> str:
    """What `python -m trainer …` prints."""
    command = [sys.executable, "-m", "trainer", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or error.stdout.strip()).splitlines()[-1:]
        raise TrainingError(f"python -m trainer {' '.join(words)} failed: {''.join(last)}", "Run it alone.") from error
    except subprocess.TimeoutExpired as error:
        raise TrainingError(f"{words[0]} took longer than {LIMIT_S} s.", "Try again when less is running.") from error
    return done.stdout


def as_json(found: Iterable[Compared]) -> dict[str, Any]:
    """The published object of `predictions --json`."""
    return {
        "machine": {"cores": os.cpu_count(), "memory_bytes": machine_bytes(), "system": platform.platform(terse=True)},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "runs": [
            {**asdict(it), "memory_ratio": round(it.memory_ratio, 3), "time_ratio": round(it.time_ratio, 3)}
            for it in found
        ],
    }


def page(told: dict[str, Any]) -> str:
    """The same as a page of markdown."""
    machine, versions, runs = told["machine"], told["versions"], told["runs"]
    parts = list(dict.fromkeys(part for run in runs for part in run["memory"]))
    gib = 2**30
    lines = [
        "# Predictions and measurements",
        "",
        "Made by `python -m trainer predictions`: each configuration is planned, then run for a few steps in a process",
        "of its own. Memory is the most that the run held, as its report says it; time is the whole run, with a score",
        "card of losses alone (`--card losses`). Both are predicted before anything is loaded. Settings that are not",
        "named are those of demo-cpu.",
        "",
        f"{machine['cores']} cores, {machine['memory_bytes'] / gib:.0f} GiB, {machine['system']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "",
        "| configuration | base model | longest | memory predicted | measured | ratio "
        "| time predicted | measured | ratio |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
        *(
            f"| {run['name']} | {run['base_model']} | {run['longest_tokens']} | {run['predicted_bytes'] / gib:.2f} GiB "
            f"| {run['measured_bytes'] / gib:.2f} GiB | {run['memory_ratio']:.2f} | {run['predicted_s']:.0f} s "
            f"| {run['measured_s']:.0f} s | {run['time_ratio']:.2f} |"
            for run in runs
        ),
        "",
        f"Memory: {_worst(runs, 'memory_ratio')} Time: {_worst(runs, 'time_ratio')} Its basis: {runs[0]['basis']}.",
        "",
        "## What holds the predicted memory (MiB)",
        "",
        f"| configuration | {' | '.join(parts)} |",
        f"| --- |{' --: |' * len(parts)}",
        *(f"| {run['name']} | {' | '.join(str(run['memory'].get(part, 0) >> 20) for part in parts)} |" for run in runs),
        "",
        "## Settings",
        "",
        *(f"- {run['name']}: {', '.join(f'{key}={value}' for key, value in run['settings'].items())}" for run in runs),
    ]
    return "\n".join(lines) + "\n"


def _worst(runs: Iterable[dict[str, Any]], key: str) -> str:
    ratios = [run[key] for run in runs]
    return f"from {min(ratios):.2f} to {max(ratios):.2f} of what was measured."
