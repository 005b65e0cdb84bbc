"""`python -m benchmarks.studies.gate_detection`: detection rate and false alarms of the gate on
injected faults.
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

from benchmarks.peak_memory import measure_in_subprocess
from benchmarks.studies.gate_faults import FAULTS
from trainer.process.environment import allocator_environment, configure_process

if TYPE_CHECKING:
    from personas.schemas.scorecard import EvaluationExtent, ScoreCard

RESULT = Path("build/bench/gate.json")
RUNS_FOLDER = Path("build/bench/gate")
PACKAGES = ("torch", "transformers", "peft", "scikit-learn")
PERSONA = "ballast"
OTHER_PERSONA = "oda"
RECIPE = "demo-cpu"
STEPS = 12
CLEAN = "clean"
SEEDS = (0, 1, 2, 3, 4)
"""Five trainings of the same data give ten pairs."""


def main() -> int:
    """Measure, print and write."""
    options = _options()
    if options.measure:
        configure_process(niceness=0, threads=options.threads)
        print(json.dumps(measure_run(options.measure, options.seed, options.steps)))
        return 0
    if options.pairs:
        configure_process(niceness=0, threads=options.threads)
        print(json.dumps(compare_seed_pairs()))
        return 0
    began = time.monotonic()
    configure_process(
        niceness=0, threads=options.threads
    )  # what it sets, each run's process has before it loads torch
    os.environ.update(allocator_environment(os.environ) or {})
    if not options.go_on:
        shutil.rmtree(RUNS_FOLDER, ignore_errors=True)
    figures = run_benchmark(options.steps)
    print(format_table(figures))
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    taken = {
        "seconds": round(time.monotonic() - began, 1),
        "persona": PERSONA,
        "recipe": RECIPE,
        "steps": options.steps,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(
        json.dumps({**figures, **taken, "machine": machine, "versions": versions}, indent=2) + "\n"
    )
    print(f"written to {RESULT}")
    return 0


# ---------------------------------------------------------------------------------------- one run


def measure_run(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train with one fault or none, and return the verdict and each criterion's outcome. Finished
    runs are reused.
    """
    from benchmarks.studies.gate_runs import read_scorecard, train_and_judge
    from personas.home.job_folder import ADAPTER_FOLDER

    folder = _run_folder(name, seed)
    if not (folder / ADAPTER_FOLDER).is_dir():
        train_and_judge(_make_job_folder(name, seed, steps), FAULTS.get(name), _extent(name, seed))
    return _run_figures(read_scorecard(folder))


def compare_seed_pairs() -> dict[str, Any]:
    """Judge each seed's version against each other's, and count pairs in which neither is shown to
    be worse.
    """
    from benchmarks.studies.gate_runs import difference_verdicts

    folders = [_run_folder(CLEAN, seed) for seed in SEEDS]
    found = difference_verdicts(folders)
    quiet = [
        pair for pair in itertools.combinations(SEEDS, 2) if not (found[pair] or found[pair[::-1]])
    ]
    return {"pairs": len(found) // 2, "quiet": len(quiet)}


def _run_figures(card: ScoreCard) -> dict[str, Any]:
    from trainer.gate.criteria import criterion_measurements
    from trainer.gate.verdict import outcomes_of

    assert card.verdict is not None  # every card is judged
    return {
        "verdict": card.verdict.verdict,
        "reasons": card.verdict.reasons,
        "advice": card.verdict.advice,
        "outcomes": outcomes_of(card, RECIPE),
        "values": {it.name: it.value for it in criterion_measurements(card)},
        "seconds": card.seconds,
    }


def _extent(name: str, seed: int) -> EvaluationExtent:
    """Return the extent of the evaluation: faults show in the data checks, seeds differ in
    losses.
    """
    if name != CLEAN:
        return "quick"
    return "full" if seed == SEEDS[0] else "losses"


def _run_folder(name: str, seed: int) -> Path:
    return RUNS_FOLDER / f"{name.replace(' ', '-').replace('×', 'x')}-{seed}"


def _make_job_folder(name: str, seed: int, steps: int) -> Path:
    """Create the job folder, with the log intact or damaged."""
    from benchmarks.studies.gate_runs import make_job_folder

    damage = FAULTS.get(name)
    # Of so few steps the last are the best.
    changes = (f"seed={seed}", f"max_steps={steps}", "eval_strategy=no")
    return make_job_folder(
        _run_folder(name, seed),
        RUNS_FOLDER,
        (PERSONA, OTHER_PERSONA),
        RECIPE,
        settings=changes,
        damage=damage.to_log if damage else None,
    )


# -------------------------------------------------------------------------------------- all of them


def run_benchmark(steps: int) -> dict[str, Any]:
    """Run everything, one process per run; keys as in the file."""
    runs = {CLEAN: _measure_in_subprocess(CLEAN, 0, steps)}
    runs |= {name: _measure_in_subprocess(name, 0, steps) for name in FAULTS}
    for seed in SEEDS[1:]:
        _measure_in_subprocess(CLEAN, seed, steps)
    _say("each seed against each other")
    same, _ = measure_in_subprocess(
        [sys.executable, "-m", "benchmarks.studies.gate_detection", "--pairs"]
    )
    return {
        "clean": {"verdict": runs[CLEAN]["verdict"]},
        "damages": {name: detection_result(name, runs[name]) for name in FAULTS},
        "same_data_quiet": same["quiet"] / same["pairs"],
        "same_data_pairs": same["pairs"],
        "runs": runs,
    }


def detection_result(name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether a criterion for this fault failed and the version was not promoted, and which
    one failed.
    """
    failed = [it for it, outcome in run["outcomes"].items() if outcome == "fail"]
    meant = [it for it in FAULTS[name].criteria if it in failed]
    return {
        "caught": bool(meant) and run["verdict"] != "promote",
        "by": next(iter([*meant, *failed]), None),
    }


def _measure_in_subprocess(name: str, seed: int, steps: int) -> dict[str, Any]:
    _say(f"{name}, seed {seed}")
    words = ["--measure", name, "--seed", str(seed), "--steps", str(steps)]
    found, _ = measure_in_subprocess(
        [sys.executable, "-m", "benchmarks.studies.gate_detection", *words]
    )
    return found


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


OUTCOME_SIGNS = {"fail": "fail", "warn": "warn", "not measured": "–", "pass": "·"}


def format_table(figures: Mapping[str, Any]) -> str:
    """Format the figures: a row per criterion, a column per run."""
    runs: Mapping[str, Any] = figures["runs"]
    names = list(dict.fromkeys(name for run in runs.values() for name in run["outcomes"]))
    columns = [str(number) for number in range(len(runs))]
    lines = [
        f"{number}: {name}: {run['verdict']}"
        for number, (name, run) in zip(columns, runs.items(), strict=True)
    ]
    lines += ["", f"{'criterion':22}" + "".join(f"{number:>6}" for number in columns)]
    for name in names:
        signs = [OUTCOME_SIGNS[run["outcomes"].get(name, "not measured")] for run in runs.values()]
        lines.append(f"{name:22}" + "".join(f"{sign:>6}" for sign in signs))
    for name, it in figures["damages"].items():
        lines.append(f"{name:26} {'caught' if it['caught'] else 'NOT CAUGHT'} by {it['by']}")
    lines.append(
        f"the same data with other seeds: no difference in {figures['same_data_quiet']:.0%} of "
        "pairs"
    )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.studies.gate_detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=int, default=STEPS, help=f"optimiser steps of each run (default: {STEPS})")
    add("--go-on", action="store_true", help=f"take runs that lie in {RUNS_FOLDER} as they are")
    add("--measure", choices=(CLEAN, *FAULTS), help="one run, as JSON")
    add("--seed", type=int, default=0, help="its seed")
    add("--pairs", action="store_true", help="the seeds' versions against each other, as JSON")
    add("--threads", type=int, help="how many threads compute (default: one for each core)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
