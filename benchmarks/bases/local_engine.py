"""Measures the local engine over a base model: `python -m benchmarks.bases.local_engine SPEC.json`."""

import json
import sys
from pathlib import Path

import psutil

from benchmarks.engine.engine_systems import EngineSystem
from benchmarks.engine.engine_workload import load_chats
from personas.models.base_model import locate


def main() -> int:
    """Measure all numbers of chats, cold, after a short warm-up; print the figures."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(spec["folder"])
    counts = spec["chats"]
    system = EngineSystem(
        folder, locate(spec["base"]), spec["precision"], max(counts), new_tokens=spec["new_tokens"]
    )
    system.measure(load_chats(folder, 1), False)
    figures = {}
    for count in counts:
        timer = system.measure(load_chats(folder, count), False)
        memory = {"memory_bytes": psutil.Process().memory_info().rss}
        figures[f"{count} cold"] = timer.figures() | memory
    print(json.dumps({**figures, "kernel": system.kernel}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
