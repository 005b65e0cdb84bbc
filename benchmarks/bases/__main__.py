"""Benchmark of base models: the local engine in bf16 and int8, and llama.cpp on Q4_K_M.

One chat and eight, each with an adapter of its own (rank 16 on all linear layers), prompts of 200
tokens, cold. The engines run in processes of their own, in alternation; figures are medians over
the rounds. A model that cannot be had is skipped with the reason. Prints a table and writes
build/bench/bases.json: {model: {engine: {chats_N: {tokens_per_s, ttft_p95_s, memory_bytes}}}}, and
what it was measured with to build/bench/bases-machine.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bases.models import MODELS, MeasuredModel
from benchmarks.engine.__main__ import PACKAGES, built_llama, run_system
from benchmarks.engine.engine_summary import Figures, p95
from benchmarks.engine.engine_workload import PROMPT_TOKENS, load_chats, write_workload
from benchmarks.llama_cpp import files
from benchmarks.llama_cpp.build import LlamaBuild
from personas.models.base_model import load_config
from tools.real_model import ModelUnavailableError

FOLDER = Path("build/bench/bases")
RESULT_FILE = Path("build/bench/bases.json")
MACHINE_FILE = Path("build/bench/bases-machine.json")
CHAT_COUNTS = (1, 8)
NEW_TOKENS = 32
LOCAL_ENGINES = {"local_bf16": "bfloat16", "local_int8": "int8"}
LLAMA_ENGINE = "llamacpp_q4_k_m"
TIMEOUT_S = 3600.0


def write_specs(folder: Path, model: MeasuredModel, build: LlamaBuild) -> dict[str, Path]:
    """Write workload and specifications of all engines over a model; return these by engine."""
    write_workload(folder, model.base, max(CHAT_COUNTS))
    config = load_config(model.base)
    chats = load_chats(folder, max(CHAT_COUNTS))
    common = {"folder": str(folder), "chats": CHAT_COUNTS, "new_tokens": NEW_TOKENS}
    specs: dict[str, dict[str, Any]] = {
        name: {**common, "base": model.base.source, "precision": precision}
        for name, precision in LOCAL_ENGINES.items()
    }
    specs[LLAMA_ENGINE] = {
        **common,
        "server": build.server,
        "model": str(model.gguf),
        "adapters": [str(files.write_adapter(chat.adapter.folder, config)) for chat in chats],
        "prompts": [chat.prompt for chat in chats],
        "other_prompts": [list(reversed(chat.prompt)) for chat in chats],
        "context": PROMPT_TOKENS + NEW_TOKENS + 16,
        "threads": os.cpu_count(),
        "cached": False,
    }
    paths = {}
    for name, spec in specs.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(spec), encoding="utf-8")
    return paths


def measure_model(name: str, specs: Mapping[str, Path], rounds: int) -> dict[str, list[Figures]]:
    """Measure all engines over a model in alternation, `rounds` times."""
    figures: dict[str, list[Figures]] = {engine: [] for engine in specs}
    for number in range(rounds):
        for engine, spec in specs.items():
            print(f"{name}, round {number + 1} of {rounds}: {engine} …", flush=True)
            module = "llama_cpp.server" if engine == LLAMA_ENGINE else "bases.local_engine"
            command = [sys.executable, "-m", f"benchmarks.{module}", str(spec)]
            policy = "ACTIVE" if engine == LLAMA_ENGINE else "PASSIVE"
            figures[engine].append(run_system(command, policy, TIMEOUT_S))
    return figures


def summarise(figures: Mapping[str, Sequence[Figures]]) -> Figures:
    """Return the published figures of a model, by engine and number of chats."""
    summary: Figures = {}
    for engine, rounds in figures.items():
        summary[engine] = {}
        for count in CHAT_COUNTS:
            measured = [figures_of_round[f"{count} cold"] for figures_of_round in rounds]
            summary[engine][f"chats_{count}"] = {
                "tokens_per_s": statistics.median(run["tokens_per_s"] for run in measured),
                "ttft_p95_s": statistics.median(p95(run["ttft_s"]) for run in measured),
                "memory_bytes": max(run["memory_bytes"] for run in measured),
            }
    return summary


def format_table(result: Mapping[str, Figures]) -> str:
    """Format all models, engines and numbers of chats."""
    lines = [
        f"{'model':20}{'engine':18}{'chats':>6}{'tokens/s':>10}{'first p95':>11}{'memory':>11}"
    ]
    for model, engines in result.items():
        for engine, by_count in engines.items():
            for count in CHAT_COUNTS:
                row = by_count[f"chats_{count}"]
                gib = row["memory_bytes"] / 2**30
                lines.append(
                    f"{model:20}{engine:18}{count:6}{row['tokens_per_s']:10.1f}"
                    f"{row['ttft_p95_s']:9.2f} s{gib:7.2f} GiB"
                )
    return "\n".join(lines)


def main() -> int:
    """Measure the models that can be had, print the table and write the figures."""
    parser = argparse.ArgumentParser("python -m benchmarks.bases", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--only", choices=MODELS, action="append", help="measure this model alone")
    arguments = parser.parse_args()
    if (build := built_llama()) is None:
        return 1
    result: dict[str, Figures] = {}
    for name in arguments.only or MODELS:
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            model = MODELS[name](folder, build)
        except ModelUnavailableError as error:
            print(f"{name} is skipped: {error}")
            continue
        specs = write_specs(folder, model, build)
        result[name] = summarise(measure_model(name, specs, arguments.rounds))
    print(format_table(result))
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "rounds": arguments.rounds,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "llama_cpp": {"build": build.build, "cpu_features": build.cpu_features},
    }
    RESULT_FILE.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    MACHINE_FILE.write_text(json.dumps(machine, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULT_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
