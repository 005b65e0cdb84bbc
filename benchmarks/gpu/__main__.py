"""`python -m benchmarks.gpu`: training and serving on a graphics card, ours beside others.

  python -m benchmarks.gpu run            measure on this card: TRL with peft, our trainer, our engine,
                                          and transformers' generate, each in its own process
  python -m benchmarks.gpu run --tiny     the same with a tiny model, also on a CPU
  python -m benchmarks.gpu pack           write a folder that measures on a machine that has CUDA and
                                          PyTorch and nothing else: python3 build/gpu-bench/run.py there

The model has the shape of a published one and random weights. Training: two optimiser steps of
warm-up, five measured between synchronised clocks, one counted under the profiler. Serving: 48 tokens
of each reply, with 1, 8 and 32 replies at once. The figures are in build/bench/gpu.json after each
line; ways that the time limit leaves no room for are named there.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.inputs import write_inputs
from benchmarks.gpu.machine import require_gpu
from benchmarks.gpu.pack import FOLDER_LIMIT_MIB, write_pack
from benchmarks.gpu.run import FIGURES_PREFIX, RunSettings, run_ways
from benchmarks.gpu.ways import PREPARE, SHAPES, WAYS, WayInputs, prepare
from trainer.process.environment import configure_process

OUT = Path("build/bench")
PACK = Path("build/gpu-bench")
LIMIT_S = 480.0


def main(words: Sequence[str] | None = None) -> int:
    """Measure, or write the folder for another machine."""
    options = _parser().parse_args(words)
    if options.command == "pack":
        size = write_pack(options.out, options.python, options.cuda, without=options.without)
        print(f"{options.out}: {size / 2**20:.1f} MiB. On the machine: python3 run.py")
        return 0
    if options.command == "measure":
        return _measure(options)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    if not options.tiny:
        require_gpu(
            "make bench-gpu needs a graphics card with at least 16 GiB",
            "python -m benchmarks.gpu run --tiny",
        )
    with tempfile.TemporaryDirectory(prefix="understudy-gpu-inputs-") as folder:
        inputs = options.inputs or Path(folder)
        if options.inputs is None:
            write_inputs(inputs)
        settings = RunSettings(
            inputs=inputs,
            out=options.out,
            shape=options.shape,
            ways=options.only or tuple(WAYS),
            limit_s=options.limit_s,
            tiny=options.tiny,
        )
        settings.out.mkdir(parents=True, exist_ok=True)
        results = run_ways(settings)
    print(f"written to {results.file}")
    return int(any("error" in row for row in (results.facts, *results.rows)))


def _measure(options: argparse.Namespace) -> int:
    configure_process(niceness=0, threads=None)
    given = WayInputs(options.inputs, options.scratch, options.shape, options.tiny)
    way = prepare if options.way == PREPARE else WAYS[options.way]
    way(given, _report)
    return 0


def _report(figures: dict[str, Any]) -> None:
    print(f"{FIGURES_PREFIX}{json.dumps(figures)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure on this card")
    run.add_argument("--only", action="append", choices=WAYS, help="this way; may repeat")
    run.add_argument("--out", type=Path, default=OUT, help=f"folder of the result (default: {OUT})")
    run.add_argument(
        "--limit-s", type=float, default=LIMIT_S, help=f"seconds (default: {LIMIT_S:.0f})"
    )
    run.add_argument("--inputs", type=Path, help="samples and tokenizer that pack wrote")
    pack = commands.add_parser("pack", help="write a folder for another machine")
    pack.add_argument("--out", type=Path, default=PACK, help=f"default: {PACK}")
    pack.add_argument("--python", default="3.12", help="Python there (default: 3.12)")
    pack.add_argument("--cuda", default="13.0", help="CUDA of its PyTorch (default: 13.0)")
    pack.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="PACKAGE",
        help=f"a package that is there; may repeat (the folder has at most {FOLDER_LIMIT_MIB} MiB)",
    )
    measure = commands.add_parser("measure")
    measure.add_argument("way", choices=[PREPARE, *WAYS])
    measure.add_argument("--inputs", type=Path, required=True)
    measure.add_argument("--scratch", type=Path, required=True)
    for command in (run, measure):
        command.add_argument("--shape", choices=SHAPES, default="qwen2.5-3b", help="of the model")
        command.add_argument("--tiny", action="store_true", help="a tiny shape, also on a CPU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
