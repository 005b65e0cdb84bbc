"""`python -m benchmarks.gpu_rows`: trains the recipes for graphics cards on the card that is there.

Each row is a recipe as shipped (its precision, 4-bit type, optimiser, batches and length) over a
model with the shape of the one it was published for and random weights: speed and memory depend on
the shape, not on the weights. The loss therefore begins near the logarithm of the vocabulary; that
it falls shows that the run computes. Samples are those of a shipped persona, with the bundled
model's tokenizer.

  python -m benchmarks.gpu_rows                     all rows; the table goes to docs/benchmarks.md
  python -m benchmarks.gpu_rows --only s0-6gb       one row
  python -m benchmarks.gpu_rows --tiny              tiny shapes and a few steps, also on a CPU, to another file

A row's memory is capped to that of the card it is for
(`torch.cuda.set_per_process_memory_fraction`), if the card has more. A row that does not fit or
fails has its error in the table, and the exit code is 1.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import machine
from benchmarks.gpu.machine import GIB, cap_gpu_memory, describe_machine
from benchmarks.gpu.random_models import LLAMA_3B, QWEN_3B, scratch_parent, write_random_model

BEGIN = "<!-- gpu-rows: begin -->"
END = "<!-- gpu-rows: end -->"
PAGE = Path("docs/benchmarks.md")
TINY_PAGE = Path("build/bench/gpu-rows-tiny.md")
PERSONA = "ballast"
STEPS = 40
TINY_STEPS = 2
TINY_SAMPLES = 24
SCRATCH_BYTES = 20 * 2**30
"""Space for two 3B models in 16 bits and the jobs' folders."""
ERROR_LINES = 3


@dataclass(frozen=True, eq=False)
class GpuRow:
    """A recipe, the shape it was published for, and the memory of the card it is for."""

    recipe: str
    model: str
    shape: Mapping[str, Any]
    card_gib: int
    serving_precision: str


ROWS = (
    GpuRow("s0-6gb", "Qwen2.5-3B", QWEN_3B, card_gib=6, serving_precision="nf4"),
    GpuRow("s1-t4", "Llama-3.2-3B", LLAMA_3B, card_gib=16, serving_precision="bfloat16"),
    GpuRow("s3-persona-16gb", "Qwen2.5-3B", QWEN_3B, card_gib=16, serving_precision="bfloat16"),
)


@dataclass(frozen=True)
class RowFigures:
    """Figures of a finished row. Losses are in nats per reply token, memory is the process's peak.

    `seconds` covers loading, the untrained model's losses and training; `samples_per_s` the steps
    after the first.
    """

    first_loss: float
    last_loss: float
    heldout_base: float
    heldout_tuned: float
    steps: int
    seconds: float
    peak_bytes: int
    samples_per_s: float
    precision: str
    optimiser: str
    notes: tuple[str, ...]


# ------------------------------------------------------------------------------------------ one row


def write_model(row: GpuRow, folder: Path, *, tiny: bool) -> None:
    """Write the row's model in a process of its own: the card's memory is free again then. Raises
    `SystemExit`.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_rows", "--write", "--row", row.recipe]
    command += ["--model", str(folder)]
    if tiny:
        command.append("--tiny")
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(f"No model could be written to {folder}: exit code {code}.")


def run_row(row: GpuRow, model: Path, folder: Path, steps: int, *, tiny: bool) -> RowFigures:
    """Create the row's job folder with the command line, run it, and read its figures. Raises
    `SystemExit`.
    """
    from trainer.cli import main as trainer_cli  # imports much of the trainer

    settings = [f"max_steps={steps}", "logging_steps=1"]
    if tiny:
        settings.append(f"train_samples={TINY_SAMPLES}")
    options = []
    for setting in settings:
        options += ["--set", setting]
    named = [
        "--persona",
        PERSONA,
        "--recipe",
        row.recipe,
        "--base-model",
        str(model),
        "--out",
        str(folder),
    ]
    _run_trainer(trainer_cli.main, ["train", *named, *options, "--make-only"])
    request = folder / "request.json"
    spec = json.loads(request.read_text(encoding="utf-8"))
    request.write_text(
        json.dumps({**spec, "serving_precision": row.serving_precision}), encoding="utf-8"
    )
    cap_gpu_memory(row.card_gib)
    _run_trainer(trainer_cli.main, ["run", str(folder), "--card", "losses", "--nice", "0"])
    return read_figures(folder)


def _run_trainer(main: Any, words: list[str]) -> None:
    sys.argv = ["trainer", *words]
    if code := main():
        raise SystemExit(code)


def read_figures(folder: Path) -> RowFigures:
    """Read a finished job's events, manifest and report."""
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "progress"]
    trained_s = steps[-1]["seconds"] - steps[0]["seconds"]
    manifest = json.loads((folder / "adapter" / "manifest.json").read_text(encoding="utf-8"))
    training = json.loads(
        (folder / "adapter" / "report" / "training.json").read_text(encoding="utf-8")
    )
    settings = manifest["hyperparameters"]
    metrics = manifest["metrics"]
    samples = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    # The first event comes after the first step, whose time is therefore not known.
    samples_per_s = samples * (len(steps) - 1) / trained_s if trained_s else math.nan
    return RowFigures(
        first_loss=steps[0]["loss"],
        last_loss=steps[-1]["loss"],
        heldout_base=metrics["loss_base"],
        heldout_tuned=metrics["loss_tuned"],
        steps=settings["max_steps"],
        seconds=training["training_seconds"],
        peak_bytes=training["peak_bytes"],
        samples_per_s=samples_per_s,
        precision=manifest["training_precision"],
        optimiser=settings["optim"],
        notes=tuple(manifest["caveats"]),
    )


def run_in_subprocess(
    row: GpuRow, model: Path, steps: int, scratch: Path, *, tiny: bool
) -> RowFigures | str:
    """Run a row in its own process, for its memory cap and peak; return the last lines of its error
    if it fails.
    """
    job = scratch / row.recipe
    result = scratch / f"{row.recipe}.json"
    words = ["--row", row.recipe, "--model", str(model), "--job", str(job), "--result", str(result)]
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu_rows",
        *words,
        "--steps",
        str(steps),
    ]
    if tiny:
        command.append("--tiny")
    environment = {**os.environ, "UNDERSTUDY_HOME": str(scratch / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not result.exists():
        said = done.stderr.strip().splitlines()
        return " ".join(said[-ERROR_LINES:]) or f"exit code {done.returncode}"
    fields = json.loads(result.read_text(encoding="utf-8"))
    return RowFigures(**{**fields, "notes": tuple(fields["notes"])})


# ---------------------------------------------------------------------------------------- the table


def render_table(results: Mapping[GpuRow, RowFigures | str], machine: str, *, tiny: bool) -> str:
    """Render the table, the machine, and each row's notes as Markdown."""
    from personas.schemas.formatting import markdown_table

    head = (
        "recipe",
        "shape",
        "memory",
        "loss, first → last step",
        "held-out loss",
        "time",
        "peak",
        "samples/s",
        "in",
    )
    lines = []
    for row, found in results.items():
        shape = "tiny" if tiny else row.model
        start = (f"`{row.recipe}`", shape, f"{row.card_gib} GiB")
        if isinstance(found, str):
            lines.append((*start, "failed", "", "", "", "", ""))
            continue
        losses = f"{found.first_loss:.3f} → {found.last_loss:.3f}"
        heldout = f"{found.heldout_base:.3f} → {found.heldout_tuned:.3f}"
        spent = f"{found.seconds:.0f} s, {found.steps} steps"
        peak = f"{found.peak_bytes / GIB:.2f} GiB"
        how = f"{found.precision}; {found.optimiser}"
        lines.append((*start, losses, heldout, spent, peak, f"{found.samples_per_s:.2f}", how))
    parts = [machine, markdown_table(head, lines)]
    notes = []
    for row, found in results.items():
        if isinstance(found, str):
            parts.append(f"`{row.recipe}` failed: {found}")
        else:
            notes += [f"- `{row.recipe}`: {note}" for note in found.notes]
    parts.append("\n".join(notes))
    return "\n\n".join(part for part in parts if part)


def write_between_markers(page: Path, text: str) -> None:
    """Replace what stands between a page's markers; a page without them is created. Raises
    `SystemExit`.
    """
    body = f"{BEGIN}\n{text}\n{END}\n"
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(body, encoding="utf-8")
        return
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not (begin and end):
        raise SystemExit(
            f"{page} has no lines {BEGIN} and {END}: add them where the table belongs."
        )
    page.write_text(before + body + after, encoding="utf-8")


def require_gpu() -> None:
    """Raise `SystemExit` saying what is missing if no graphics card can be used."""
    machine.require_gpu(
        "make gpu-rows needs a graphics card with at least 6 GiB (16 GiB for all rows)",
        "python -m benchmarks.gpu_rows --tiny",
    )


def parse_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the options of a row's own process are hidden."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [row.recipe for row in ROWS]
    parser.add_argument(
        "--tiny", action="store_true", help=f"tiny shapes, {TINY_STEPS} steps, also on a CPU"
    )
    parser.add_argument(
        "--only", action="append", choices=names, help="this row; may repeat (default: all)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=f"optimiser steps of each row (default: {STEPS}; tiny: {TINY_STEPS})",
    )
    parser.add_argument(
        "--out", type=Path, help=f"the page with the markers (default: {PAGE}; tiny: {TINY_PAGE})"
    )
    for name in ("--row", "--model", "--job", "--result"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.steps = options.steps or (TINY_STEPS if options.tiny else STEPS)
    if not 1 <= options.steps <= math.inf:
        parser.error("--steps is a number from 1 on")
    return options


def main() -> int:
    """Run all rows, or in its own process one of them."""
    options = parse_options()
    rows = {row.recipe: row for row in ROWS}
    if options.write:
        from personas.models.base_model import EMBEDDED, locate
        from personas.models.loading import load_tokenizer

        tokenizer = load_tokenizer(locate(EMBEDDED))
        row = rows[options.row]
        write_random_model(row.shape, Path(options.model), tokenizer, tiny=options.tiny)
        return 0
    if options.row:
        found = run_row(
            rows[options.row],
            Path(options.model),
            Path(options.job),
            options.steps,
            tiny=options.tiny,
        )
        Path(options.result).write_text(json.dumps(asdict(found)), encoding="utf-8")
        return 0
    if not options.tiny:
        require_gpu()
    results: dict[GpuRow, RowFigures | str] = {}
    page = options.out or (TINY_PAGE if options.tiny else PAGE)
    with tempfile.TemporaryDirectory(
        prefix="understudy-gpu-rows-", dir=scratch_parent(SCRATCH_BYTES)
    ) as scratch:
        for row in (rows[name] for name in options.only or rows):
            model = Path(scratch) / row.model
            if not model.exists():
                shape = "a tiny shape" if options.tiny else f"the shape of {row.model}"
                print(f"writing {shape} with random weights", flush=True)
                write_model(row, model, tiny=options.tiny)
            print(f"{row.recipe}: {options.steps} steps", flush=True)
            results[row] = run_in_subprocess(
                row, model, options.steps, Path(scratch), tiny=options.tiny
            )
            print(f"  {results[row]}", flush=True)
            # After each row: a machine that is lent for minutes may be gone before the last.
            write_between_markers(
                page, render_table(results, describe_machine(), tiny=options.tiny)
            )
    print(f"written to {page}")
    return int(any(isinstance(found, str) for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
