"""Prints or writes held-out texts as JSON lines (README.md)."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.studies.pii_heldout.writing.generation import generate_texts


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.pii_heldout", description=__doc__
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the texts (default: 1)")
    parser.add_argument("--count", type=int, default=2000, help="number of texts (default: 2000)")
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")
    options = parser.parse_args()
    if options.count < 1:
        parser.error(f"--count is {options.count}; give at least 1")
    texts = generate_texts(options.seed, options.count)
    lines = "".join(f"{json.dumps(text, ensure_ascii=False)}\n" for text in texts)
    if options.output is None:
        sys.stdout.buffer.write(lines.encode("utf-8"))
    else:
        options.output.write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
