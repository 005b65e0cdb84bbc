"""`python -m trainer.bench.data`: how fast material is read, beside `datasets.load_dataset` on the same files.

Makes one large file of each of three published shapes (some 2 GB in build/bench/files, gone afterwards), then reads
each in a process of its own: as `dataset build` does, every record parsed and made into conversations, and with
`load_dataset`, in turn, three times. Filters and duplicates are timed apart. Prints a table and writes
build/bench/data.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.bench.files import KINDS, write_rows
from trainer.bench.process import measured_apart

FILES = Path("build/bench/files")
RESULT = Path("build/bench/data.json")
PACKAGES = ("datasets", "pyarrow", "orjson", "numpy")
ROWS = 1_000_000
PASSES = 3
DEDUPED = "ultrachat"
"""The file whose conversations are filtered and deduplicated."""


def parse(path: Path) -> dict[str, float]:
    """Read every record; imports are not counted, as they are not for `load`."""
    from trainer.conversation import Conversation
    from trainer.sources import ReadOptions, read

    begun, conversations, records = time.perf_counter(), 0, 0
    for item in read(path, ReadOptions()):
        records += item.rows
        conversations += isinstance(item, Conversation)
    return {"seconds": time.perf_counter() - begun, "records": records, "conversations": conversations}


def load(path: Path) -> dict[str, float]:
    """The baseline, from an empty cache."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        begun = time.perf_counter()
        loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        return {"seconds": time.perf_counter() - begun, "records": len(loaded)}


def sift(path: Path) -> dict[str, float]:
    """Filters and duplicates over all conversations of a file."""
    from trainer.bench.duplicates import measure_rates
    from trainer.conversation import Conversation
    from trainer.sources import ReadOptions, read

    rates = measure_rates(item for item in read(path, ReadOptions()) if isinstance(item, Conversation))
    return {"filter_rows_per_s": rates.filter_rows_per_s, "dedupe_rows_per_s": rates.dedupe_rows_per_s}


MEASURES = {"parse": parse, "load": load, "sift": sift}


def apart(measure: str, path: Path) -> tuple[dict[str, Any], int]:
    """A measure in a process of its own, and the peak memory in bytes of it and all below it."""
    return measured_apart([sys.executable, "-m", "trainer.bench.data", "--measure", measure, str(path)])


def raced(path: Path) -> tuple[tuple[dict[str, float], int], tuple[dict[str, float], int]]:
    """The fastest pass of each, since other programs may have had the cores meanwhile, and the highest peak of each."""
    passes = [(apart("parse", path), apart("load", path)) for _ in range(PASSES)]
    ours, theirs = zip(*passes, strict=True)
    return _fastest(ours), _fastest(theirs)


def _fastest(passes: Sequence[tuple[dict[str, float], int]]) -> tuple[dict[str, float], int]:
    return min((figures for figures, _ in passes), key=lambda figures: figures["seconds"]), max(p for _, p in passes)


def compare(rows: int) -> dict[str, Any]:
    """Every measure over files of so many rows; keys as written to the file."""
    sets: dict[str, dict[str, float]] = {}
    peaks: list[int] = []
    rates: dict[str, float] = {}
    for kind in KINDS:
        path = FILES / f"{kind}-{rows}.jsonl"
        print(f"{kind}: making {path}, then reading it …", file=sys.stderr)
        write_rows(path, kind, rows)
        (ours, peak), (theirs, their_peak) = raced(path)
        peaks.append(peak)
        sets[kind] = {
            "file_bytes": path.stat().st_size,
            "rows_per_s": rows / ours["seconds"],
            "load_dataset_rows_per_s": rows / theirs["seconds"],
            "ratio": theirs["seconds"] / ours["seconds"],
            "records": ours["records"],
            "conversations": ours["conversations"],
            "peak_bytes": peak,
            "load_dataset_peak_bytes": their_peak,
        }
        if kind == DEDUPED:
            print("filters and duplicates …", file=sys.stderr)
            rates, peak = apart("sift", path)
            peaks.append(peak)
        path.unlink()
    ratio = min(figures["ratio"] for figures in sets.values())
    return {"rows": rows, "sets": sets, "parse_ratio": ratio, "peak_bytes": max(peaks), **rates}


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'':12}{'file':>9}{'rows/s':>11}{'load_dataset':>14}{'ratio':>8}{'memory':>10}{'its':>10}"]
    for kind, found in figures["sets"].items():
        lines.append(
            f"{kind:12}{found['file_bytes'] / 2**20:>6.0f} MB{found['rows_per_s']:>11,.0f}"
            f"{found['load_dataset_rows_per_s']:>14,.0f}{found['ratio']:>8.2f}"
            f"{found['peak_bytes'] / 2**20:>7.0f} MB{found['load_dataset_peak_bytes'] / 2**20:>7.0f} MB"
        )
    lines.append(f"worst ratio {figures['parse_ratio']:.2f}, most memory {figures['peak_bytes'] / 2**20:.0f} MB")
    lines.append(
        f"filters {figures['filter_rows_per_s']:,.0f} rows/s, duplicates {figures['dedupe_rows_per_s']:,.0f} rows/s"
    )
    return "\n".join(lines)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser("python -m trainer.bench.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of each file (default: {ROWS:,})")
    parser.add_argument("--measure", nargs=2, metavar=("MEASURE", "FILE"), help="take one measure and print it as JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure[0]](Path(options.measure[1]))))
        return 0
    figures = compare(options.rows)
    print(table(figures))
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
    RESULT.write_text(json.dumps({**figures, "machine": machine, "versions": versions}, indent=2) + "\n")
    print(f"written to {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
