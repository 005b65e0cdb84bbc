"""`python -m trainer.bench.gate`: whether the gate finds what was damaged on purpose, and nothing where nothing was.

Trains a shipped persona on its own log, a short run each: once as it is, once with each damage of
`trainer.gate.damages`, and with four other seeds. What is sound gets a whole score card, what is damaged a quick one,
and both the gate's verdict; of the seeds each is judged, by its losses, against each other one as if that were live.
Prints the table of damage × criterion and writes build/bench/gate.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.bench.process import measured_apart
from trainer.gate.damages import DAMAGES
from trainer.process.environment import allocator_environment, settle

if TYPE_CHECKING:
    from personas.scorecard import FullScoreCard
    from trainer.scorecard.budget import Extent

RESULT = Path("build/bench/gate.json")
FOLDER = Path("build/bench/gate")
PACKAGES = ("torch", "transformers", "peft", "scikit-learn")
PERSONA, OTHER = "ballast", "oda"
RECIPE = "demo-cpu"
STEPS = 12
CLEAN = "clean"
SEEDS = (0, 1, 2, 3, 4)
"""Five trainings of the same data are ten pairs."""


def main() -> int:
    """Measure, print and write."""
    options = _options()
    if options.measure:
        settle(niceness=0, threads=options.threads)
        print(json.dumps(measure(options.measure, options.seed, options.steps)))
        return 0
    if options.pairs:
        settle(niceness=0, threads=options.threads)
        print(json.dumps(pairs()))
        return 0
    began = time.monotonic()
    settle(niceness=0, threads=options.threads)  # what it sets, each run's process has before it loads torch
    os.environ.update(allocator_environment(os.environ) or {})
    if not options.go_on:
        shutil.rmtree(FOLDER, ignore_errors=True)
    figures = compare(options.steps)
    print(table(figures))
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
    taken = {
        "seconds": round(time.monotonic() - began, 1),
        "persona": PERSONA,
        "recipe": RECIPE,
        "steps": options.steps,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**figures, **taken, "machine": machine, "versions": versions}, indent=2) + "\n")
    print(f"written to {RESULT}")
    return 0


# ---------------------------------------------------------------------------------------- one run


def measure(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train with one damage, or clean, and judge: the verdict and each criterion's outcome. Done before, it is read."""
    from trainer.bench.gate_run import ADAPTER, card_in, trained

    folder = _place(name, seed)
    if not (folder / ADAPTER).is_dir():
        trained(_made(name, seed, steps), DAMAGES.get(name), _extent(name, seed))
    return _told(card_in(folder))


def pairs() -> dict[str, Any]:
    """Each seed's version judged against each other's: in how many pairs neither is shown to be worse."""
    from trainer.bench.gate_run import difference_verdicts

    folders = [_place(CLEAN, seed) for seed in SEEDS]
    found = difference_verdicts(folders)
    quiet = [pair for pair in itertools.combinations(SEEDS, 2) if not (found[pair] or found[pair[::-1]])]
    return {"pairs": len(found) // 2, "quiet": len(quiet)}


def _told(card: FullScoreCard) -> dict[str, Any]:
    from trainer.gate.judge import outcomes_of
    from trainer.gate.measures import measures

    assert card.verdict is not None  # every card is judged
    return {
        "verdict": card.verdict.verdict,
        "reasons": card.verdict.reasons,
        "advice": card.verdict.advice,
        "outcomes": outcomes_of(card, RECIPE),
        "values": {it.name: it.value for it in measures(card)},
        "seconds": card.seconds,
    }


def _extent(name: str, seed: int) -> Extent:
    """How much of a card a run gets: damages show in what was learned from, seeds are told apart by losses."""
    if name != CLEAN:
        return "quick"
    return "full" if seed == SEEDS[0] else "losses"


def _place(name: str, seed: int) -> Path:
    return FOLDER / f"{name.replace(' ', '-').replace('×', 'x')}-{seed}"


def _made(name: str, seed: int, steps: int) -> Path:
    """The job's folder, with the log as it is or damaged."""
    from trainer.bench.gate_run import job_folder

    damage = DAMAGES.get(name)
    changes = (f"seed={seed}", f"max_steps={steps}", "eval_strategy=no")  # of so few steps the last are the best
    return job_folder(_place(name, seed), FOLDER, (PERSONA, OTHER), RECIPE, changes, damage.to_log if damage else None)


# ---------------------------------------------------------------------------------------- all of them


def compare(steps: int) -> dict[str, Any]:
    """All runs, one after another, each in a process of its own; keys as written to the file."""
    runs = {CLEAN: _apart(CLEAN, 0, steps)}
    runs |= {name: _apart(name, 0, steps) for name in DAMAGES}
    for seed in SEEDS[1:]:
        _apart(CLEAN, seed, steps)
    _say("each seed against each other")
    same, _ = measured_apart([sys.executable, "-m", "trainer.bench.gate", "--pairs"])
    return {
        "clean": {"verdict": runs[CLEAN]["verdict"]},
        "damages": {name: caught(name, runs[name]) for name in DAMAGES},
        "same_data_quiet": same["quiet"] / same["pairs"],
        "same_data_pairs": same["pairs"],
        "runs": runs,
    }


def caught(name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a criterion that has to find a damage failed, and the version was not promoted; and by which it was."""
    failed = [it for it, outcome in run["outcomes"].items() if outcome == "fail"]
    meant = [it for it in DAMAGES[name].criteria if it in failed]
    return {"caught": bool(meant) and run["verdict"] != "promote", "by": next(iter([*meant, *failed]), None)}


def _apart(name: str, seed: int, steps: int) -> dict[str, Any]:
    _say(f"{name}, seed {seed}")
    words = ["--measure", name, "--seed", str(seed), "--steps", str(steps)]
    found, _ = measured_apart([sys.executable, "-m", "trainer.bench.gate", *words])
    return found


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


SIGNS = {"fail": "fail", "warn": "warn", "not measured": "–", "pass": "·"}


def table(figures: Mapping[str, Any]) -> str:
    """The figures for people: a row for each criterion, a column for each run."""
    runs: Mapping[str, Any] = figures["runs"]
    names = list(dict.fromkeys(name for run in runs.values() for name in run["outcomes"]))
    columns = [str(number) for number in range(len(runs))]
    lines = [f"{number}: {name}: {run['verdict']}" for number, (name, run) in zip(columns, runs.items(), strict=True)]
    lines += ["", f"{'criterion':22}" + "".join(f"{number:>6}" for number in columns)]
    for name in names:
        signs = [SIGNS[run["outcomes"].get(name, "not measured")] for run in runs.values()]
        lines.append(f"{name:22}" + "".join(f"{sign:>6}" for sign in signs))
    for name, it in figures["damages"].items():
        lines.append(f"{name:26} {'caught' if it['caught'] else 'NOT CAUGHT'} by {it['by']}")
    lines.append(f"the same data with other seeds: no difference in {figures['same_data_quiet']:.0%} of pairs")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m trainer.bench.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=STEPS, help=f"optimiser steps of each run (default: {STEPS})")
    add("--go-on", action="store_true", help=f"take runs that lie in {FOLDER} as they are")
    add("--measure", choices=(CLEAN, *DAMAGES), help="one run, as JSON")
    add("--seed", type=int, default=0, help="its seed")
    add("--pairs", action="store_true", help="the seeds' versions against each other, as JSON")
    add("--threads", type=int, help="how many threads compute (default: one for each core)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
