"""`make fuzz`: feeds every parser of outside input with damaged files, by seed, and prints what
came of it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import Fuzzer, Parser, Tally
from tests.fuzz.parsers import PARSERS

RESULT = Path("build/fuzz/result.json")
CHUNK_INPUTS = 500
SAVE_INTERVAL_S = 10.0
FAULT_PLACE = re.compile(r"\A(?s:.*)(?=^  File )|[\d']+", re.MULTILINE)
"""All but the innermost frame and the error, and its numbers: faults that differ in nothing else
are shown once.
"""


def quotas(inputs: int, parsers: list[Parser]) -> dict[Parser, int]:
    """Share the inputs among the parsers; the last one gets what is left over."""
    shares = sum(parser.share for parser in parsers)
    numbers = {parser: inputs * parser.share // shares for parser in parsers}
    numbers[parsers[-1]] += inputs - sum(numbers.values())
    return numbers


def table(tallies: dict[str, Tally]) -> str:
    rows = [
        "| parser | inputs | accepted | refused | crashed | slowest | inputs/s |",
        "| --- " + "| ---: " * 6 + "|",
    ]
    for name, one in tallies.items():
        counts = (one.inputs, one.accepted, one.refused, len(one.crashes))
        numbers = " | ".join(f"{count:,}" for count in counts)
        rows.append(
            f"| {name} | {numbers} | {one.slowest_s * 1000:.0f} ms | "
            f"{one.inputs / max(one.seconds, 1e-9):,.0f} |"
        )
    total = (sum(one.inputs for one in tallies.values()), *(
        sum(getattr(one, name) for one in tallies.values()) for name in ("accepted", "refused")
    ), sum(len(one.crashes) for one in tallies.values()))  # fmt: skip
    return "\n".join([*rows, "| all | " + " | ".join(f"{count:,}" for count in total) + " | | |"])


def save(seed: int, tallies: dict[str, Tally]) -> None:
    content = {"seed": seed, "parsers": {name: one.as_json() for name, one in tallies.items()}}
    total = {
        "inputs": sum(one.inputs for one in tallies.values()),
        "crashed": sum(len(one.crashes) for one in tallies.values()),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({**total, **content}, indent=1) + "\n", encoding="utf-8")


def resumed(seed: int) -> dict[str, Tally]:
    """The counts of an earlier run with this seed, which this one continues."""
    try:
        earlier = json.loads(RESULT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return (
        {name: Tally(**one) for name, one in earlier["parsers"].items()}
        if earlier["seed"] == seed
        else {}
    )


def run(
    parsers: list[Parser], inputs: int, seed: int, first: int, tallies: dict[str, Tally]
) -> None:
    """Go round the parsers, so that each has been tried whenever the run is stopped."""
    wanted = quotas(inputs, parsers)
    saved = time.monotonic()
    shared_memory = Path("/dev/shm")
    scratch = Path(
        tempfile.mkdtemp(
            prefix="understudy-fuzz-", dir=shared_memory if shared_memory.is_dir() else None
        )
    )
    try:
        with Fuzzer(scratch, seed) as fuzzer:
            while waiting := [
                parser for parser in parsers if tallies[parser.name].inputs < wanted[parser]
            ]:
                for parser in waiting:
                    tally = tallies[parser.name]
                    count = min(CHUNK_INPUTS, wanted[parser] - tally.inputs)
                    fuzzer.run(parser, first + tally.inputs, count, tally)
                    if time.monotonic() - saved > SAVE_INTERVAL_S:
                        save(seed, tallies)
                        saved = time.monotonic()
    finally:
        save(seed, tallies)
        if (scratch / "crashes").is_dir():
            shutil.copytree(scratch / "crashes", RESULT.parent / "crashes", dirs_exist_ok=True)
        shutil.rmtree(scratch)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=20_000, help="of all parsers together (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument(
        "--first", type=int, default=0, metavar="INDEX", help="the first input of each parser"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="parsers with this in their name"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help=f"go on where the last run with this seed ended ({RESULT})",
    )
    args = parser.parse_args()
    chosen = [one for one in PARSERS if args.only in one.name]
    if not chosen or args.inputs < 1:
        parser.error(
            f"give at least one input, and one of: {', '.join(one.name for one in PARSERS)}"
        )
    earlier = resumed(args.seed) if args.resume else {}
    tallies = {one.name: earlier.get(one.name, Tally()) for one in chosen}
    run(chosen, args.inputs, args.seed, args.first, tallies)
    print(table(tallies))
    crashes = [(name, crash) for name, one in tallies.items() for crash in one.crashes]
    distinct = {(name, FAULT_PLACE.sub("", str(crash["fault"]))): crash for name, crash in crashes}
    for (name, _), crash in distinct.items():
        print(
            f"\n--only {name!r} --seed {crash['seed']} --first {crash['index']}:\n{crash['fault']}",
            file=sys.stderr,
        )
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
