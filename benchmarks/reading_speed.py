"""`python -m benchmarks.reading_speed`: reading, filtering and deduplication speed beside
`datasets.load_dataset`.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import measure_in_subprocess
from benchmarks.synthetic_files import ROW_MAKERS, write_rows
from trainer.dataset.minhash import MinHashIndex
from trainer.dataset.quality_filters import QualityFilters
from trainer.sources.conversation import Conversation

FILES_FOLDER = Path("build/bench/files")
RESULT = Path("build/bench/data.json")
PACKAGES = ("datasets", "pyarrow", "orjson", "numpy")
DEFAULT_ROWS = 1_000_000
PASSES = 3
DEDUPLICATED_KIND = "ultrachat"
"""Kind of file whose conversations are filtered and deduplicated."""


@dataclass(frozen=True)
class DedupRates:
    """Rows per second; `duplicates` counts exact and near duplicates."""

    rows: int
    filter_rows_per_s: float
    dedupe_rows_per_s: float
    duplicates: int


def measure_rates(conversations: Iterable[Conversation], folder: Path | None = None) -> DedupRates:
    """Filter and deduplicate all conversations like a build does; `folder` is for the files of the
    index.

    Memory grows by some 40 bytes per conversation.
    """
    filters = QualityFilters()
    rows = 0
    filtering = deduplicating = 0.0
    with MinHashIndex(folder) as index:
        for conversation in conversations:
            started = time.perf_counter()
            for message in conversation.messages:
                if message.speaker.is_persona:
                    filters.reply_fault(message.text)
            filtered = time.perf_counter()
            index.add(conversation.raw_text)
            deduplicating += time.perf_counter() - filtered
            filtering += filtered - started
            rows += conversation.rows
        started = time.perf_counter()
        _, clusters = index.clusters()
        deduplicating += time.perf_counter() - started
        duplicates = int((clusters != range(len(index))).sum())
    return DedupRates(
        rows, rows / max(filtering, 1e-9), rows / max(deduplicating, 1e-9), duplicates
    )


def measure_parse(path: Path) -> dict[str, float]:
    """Read every record; excludes imports, like `measure_load_dataset`."""
    from trainer.sources.conversation import Conversation
    from trainer.sources.reader import read_source
    from trainer.sources.source_format import ReadOptions

    started = time.perf_counter()
    conversations = 0
    records = 0
    for item in read_source(path, ReadOptions()):
        records += item.rows
        conversations += isinstance(item, Conversation)
    return {
        "seconds": time.perf_counter() - started,
        "records": records,
        "conversations": conversations,
    }


def measure_load_dataset(path: Path) -> dict[str, float]:
    """Measure the baseline, from an empty cache."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        started = time.perf_counter()
        loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        return {"seconds": time.perf_counter() - started, "records": len(loaded)}


def measure_dedup(path: Path) -> dict[str, float]:
    """Filter and deduplicate all conversations of a file."""
    pass
    from trainer.sources.conversation import Conversation
    from trainer.sources.reader import read_source
    from trainer.sources.source_format import ReadOptions

    rates = measure_rates(
        item for item in read_source(path, ReadOptions()) if isinstance(item, Conversation)
    )
    return {
        "filter_rows_per_s": rates.filter_rows_per_s,
        "dedupe_rows_per_s": rates.dedupe_rows_per_s,
    }


MEASURES = {"parse": measure_parse, "load": measure_load_dataset, "sift": measure_dedup}


def run_in_subprocess(measure: str, path: Path) -> tuple[dict[str, Any], int]:
    """Run a measurement in a subprocess; also returns the peak memory in bytes of its process
    tree.
    """
    return measure_in_subprocess(
        [sys.executable, "-m", "benchmarks.reading_speed", "--measure", measure, str(path)]
    )


def best_of_passes(path: Path) -> tuple[tuple[dict[str, float], int], tuple[dict[str, float], int]]:
    """Return the fastest pass of each (the cores may be shared) and the highest peak memory."""
    passes = [
        (run_in_subprocess("parse", path), run_in_subprocess("load", path)) for _ in range(PASSES)
    ]
    ours, theirs = zip(*passes, strict=True)
    return _fastest(ours), _fastest(theirs)


def _fastest(passes: Sequence[tuple[dict[str, float], int]]) -> tuple[dict[str, float], int]:
    return min((figures for figures, _ in passes), key=lambda figures: figures["seconds"]), max(
        p for _, p in passes
    )


def run_benchmark(rows: int) -> dict[str, Any]:
    """Measure everything over files of this many rows; keys as in the file."""
    sets: dict[str, dict[str, float]] = {}
    peaks: list[int] = []
    rates: dict[str, float] = {}
    for kind in ROW_MAKERS:
        path = FILES_FOLDER / f"{kind}-{rows}.jsonl"
        print(f"{kind}: making {path}, then reading it …", file=sys.stderr)
        write_rows(path, kind, rows)
        (ours, peak), (theirs, their_peak) = best_of_passes(path)
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
        if kind == DEDUPLICATED_KIND:
            print("filters and duplicates …", file=sys.stderr)
            rates, peak = run_in_subprocess("sift", path)
            peaks.append(peak)
        path.unlink()
    ratio = min(figures["ratio"] for figures in sets.values())
    return {"rows": rows, "sets": sets, "parse_ratio": ratio, "peak_bytes": max(peaks), **rates}


def format_table(figures: dict[str, Any]) -> str:
    """Format the figures for people."""
    lines = [
        f"{'':12}{'file':>9}{'rows/s':>11}{'load_dataset':>14}{'ratio':>8}{'memory':>10}{'its':>10}"
    ]
    for kind, found in figures["sets"].items():
        lines.append(
            f"{kind:12}{found['file_bytes'] / 2**20:>6.0f} MB{found['rows_per_s']:>11,.0f}"
            f"{found['load_dataset_rows_per_s']:>14,.0f}{found['ratio']:>8.2f}"
            f"{found['peak_bytes'] / 2**20:>7.0f} "
            f"MB{found['load_dataset_peak_bytes'] / 2**20:>7.0f} MB"
        )
    lines.append(
        f"worst ratio {figures['parse_ratio']:.2f}, most memory "
        f"{figures['peak_bytes'] / 2**20:.0f} MB"
    )
    lines.append(
        f"filters {figures['filter_rows_per_s']:,.0f} rows/s, duplicates "
        f"{figures['dedupe_rows_per_s']:,.0f} rows/s"
    )
    return "\n".join(lines)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser("python -m benchmarks.reading_speed", description=__doc__)
    parser.add_argument(
        "--rows",
        type=int,
        default=DEFAULT_ROWS,
        help=f"rows of each file (default: {DEFAULT_ROWS:,})",
    )
    parser.add_argument(
        "--measure",
        nargs=2,
        metavar=("MEASURE", "FILE"),
        help="take one measure and print it as JSON",
    )
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure[0]](Path(options.measure[1]))))
        return 0
    figures = run_benchmark(options.rows)
    print(format_table(figures))
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    versions = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    RESULT.write_text(
        json.dumps({**figures, "machine": machine, "versions": versions}, indent=2) + "\n"
    )
    print(f"written to {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
