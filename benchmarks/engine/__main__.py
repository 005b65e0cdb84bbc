"""Benchmark of many chats with many adapters: the engine next to peft and llama.cpp.

Each system runs in a process of its own, in alternation, for several rounds; the figures are
medians. Cold: nothing is cached. Cached: the persona's 150 tokens of each prompt for the engine,
the whole prompt for llama.cpp; peft has no cache, so its cold figure is compared with both. Prompts
of 4,096 and 8,192 tokens are measured with the engine alone; cached, all but the last message of
them. The other systems take minutes for 32 chats, which they run in three of the rounds only. Prints a table
and writes build/bench/chat-engine.json.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine.engine_summary import Figures, format_table, summarise_rounds
from benchmarks.engine.engine_workload import (
    CHAT_COUNTS,
    LONG_CONTEXTS,
    NEW_TOKENS,
    PROMPT_TOKENS,
    load_chats,
    write_workload,
)
from benchmarks.llama_cpp import files
from benchmarks.llama_cpp.build import BuildFailedError, LlamaBuild, build_llama_cpp
from personas.models.base_model import EMBEDDED, load_config, locate

WORK_FOLDER = Path("build/bench/chat-engine")
RESULT_FILE = Path("build/bench/chat-engine.json")
PACKAGES = ("torch", "transformers", "peft")
CHATS_BY_SYSTEM = {
    "switching": CHAT_COUNTS,
    "mixed": CHAT_COUNTS,
    "bare": (1,),
    "ours": CHAT_COUNTS,
    "long": LONG_CONTEXTS,
}
LONG_ROUNDS = 3
"""Rounds in which the other systems run the largest number of chats, too."""
TIMEOUT_S = 1200.0


def run_system(
    command: Sequence[str], wait_policy: str = "ACTIVE", timeout_s: float = TIMEOUT_S
) -> Figures:
    """Run a process and parse the last line of its output. Exits when it fails.

    Each system has its best wait policy. The others are 1.3 to 2 times as fast when waiting threads
    spin (ACTIVE); the engine's sleep (PASSIVE), as in the bot, where they share the cores.
    """
    environment = {**os.environ, "OMP_WAIT_POLICY": wait_policy}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    if done.returncode:
        raise SystemExit(f"The benchmark failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


# ---------------------------------------------------------------------------------------- llama.cpp


def built_llama() -> LlamaBuild | None:
    """Return llama.cpp as built for this machine; None, with the reason printed, if that fails."""
    WORK_FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        return build_llama_cpp(files.write_models(WORK_FOLDER)["Q4_1"])
    except BuildFailedError as error:
        print(f"llama.cpp is skipped: {error}")
        return None


def llama_specs(build: LlamaBuild) -> dict[str, Path]:
    """Write the specification that `benchmarks.llama_cpp.server` reads for each quantisation and
    return the files.
    """
    config = load_config(locate(EMBEDDED))
    chats = load_chats(WORK_FOLDER, max(CHAT_COUNTS))
    spec = {
        "server": build.server,
        "adapters": [str(files.write_adapter(chat.adapter.folder, config)) for chat in chats],
        "prompts": [chat.prompt for chat in chats],
        "other_prompts": [list(reversed(chat.prompt)) for chat in chats],
        "context": PROMPT_TOKENS + NEW_TOKENS + 16,
        "new_tokens": NEW_TOKENS,
        "threads": os.cpu_count(),
    }
    paths = {}
    for kind, model in files.write_models(WORK_FOLDER).items():
        paths[kind] = WORK_FOLDER / f"llama-{kind}.json"
        paths[kind].write_text(
            json.dumps({**spec, "model": str(model), "chats": list(CHAT_COUNTS)})
        )
    return paths


def fastest_llama(build: LlamaBuild) -> Path:
    """Return the specification of the quantisation that is fastest for eight chats on this
    machine.
    """
    speeds = {}
    specs = llama_specs(build)
    for kind, spec in specs.items():
        speeds[kind] = run_system(llama_command(spec, (8,)))["8 cold"]["tokens_per_s"]
        print(f"llama.cpp with {kind}: {speeds[kind]:.0f} tokens/s for eight chats", flush=True)
    return specs[max(speeds, key=speeds.__getitem__)]


def llama_command(spec: Path, counts: Sequence[int]) -> list[str]:
    """Return the command that measures llama.cpp with these numbers of chats."""
    request = WORK_FOLDER / "llama-asked.json"
    request.write_text(json.dumps({**json.loads(spec.read_text()), "chats": counts}))
    return [sys.executable, "-m", "benchmarks.llama_cpp.server", str(request)]


# ------------------------------------------------------------------------------------------- rounds


def run_rounds(count: int, build: LlamaBuild | None) -> dict[str, list[Figures]]:
    """Measure all systems in alternation, `count` times; llama.cpp is one where there is a build."""
    llama = fastest_llama(build) if build else None
    rounds: dict[str, list[Figures]] = {
        name: [] for name in (*CHATS_BY_SYSTEM, *(["llama"] if llama else []))
    }
    for number in range(count):
        for name in rounds:
            print(f"round {number + 1} of {count}: {name} …", flush=True)
            counts = CHATS_BY_SYSTEM.get(name, CHAT_COUNTS)
            if number >= LONG_ROUNDS and name != "ours":
                counts = tuple(chats for chats in counts if chats < max(CHAT_COUNTS))
            if not counts:
                continue
            if llama and name == "llama":
                command = llama_command(llama, counts)
            else:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.engine.engine_systems",
                    name,
                    str(WORK_FOLDER),
                ]
                command.append(",".join(map(str, counts)))
            rounds[name].append(
                run_system(command, "PASSIVE" if name in ("ours", "long") else "ACTIVE")
            )
    return rounds


def main() -> int:
    """Measure all systems, print the table and write the figures."""
    parser = argparse.ArgumentParser("python -m benchmarks.engine", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds whose medians are reported (default: 5)"
    )
    parser.add_argument("--without-llama", action="store_true", help="do not measure llama.cpp")
    arguments = parser.parse_args()
    WORK_FOLDER.mkdir(parents=True, exist_ok=True)
    write_workload(WORK_FOLDER)
    build = None if arguments.without_llama else built_llama()
    summary = summarise_rounds(run_rounds(arguments.rounds, build))
    summary["fairness"] = run_system(
        [sys.executable, "-m", "benchmarks.engine.guild_fairness", str(WORK_FOLDER)]
    )
    print(format_table(summary))
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    summary |= {"rounds": arguments.rounds, "machine": machine, "versions": versions}
    if build:
        summary["llama_cpp"] = {"build": build.build, "cpu_features": build.cpu_features}
    RESULT_FILE.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"written to {RESULT_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
