"""How many members it takes until a ruling, and how often it is wrong: communities that are made up, voting.

Members of ten votes each; in how many of them somebody chooses the new version differs from member to member (a beta
distribution, standard deviation 0.13 to 0.17). Beside honest ones there are communities of whose members one in ten, by
chance, is of a brigade that knows the versions: it votes against the better one, or where none is, for the new one.
Prints a table and writes `build/bench/votes.json`; exit code 1 where a ruling is wrong more often than is stated.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bot.judging.judgement import MOST_VOTES
from bot.judging.rule import BRIGADE, LEVEL, rule

RESULT = Path("build/bench/votes.json")
SHARES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
COMMUNITIES, MEMBERS = 1000, 150
ALIKE_TASTES = 8.0
"""Of the beta distribution: the higher, the less members differ."""

Figures = dict[str, float]
Floats = Any
"""A numpy array of floats."""


def honest_members(rng: np.random.Generator, share: float, members: int) -> Floats:
    """Members who choose the version in this share of their votes in the mean: what the rule counts of each."""
    own = rng.beta(share * ALIKE_TASTES, (1 - share) * ALIKE_TASTES, members)
    return rng.binomial(MOST_VOTES, own) / MOST_VOTES


def with_brigade(rng: np.random.Generator, values: Floats, says: float) -> Floats:
    """The same members, each with a chance of a tenth one of a brigade that always says the same."""
    return np.where(rng.random(len(values)) < BRIGADE, says, values)


def measure(share: float, brigade: bool, communities: int = COMMUNITIES) -> Figures:
    """Shares of communities: `wrong` for which the rule says at any time what is not so, `ruled` for which it finds
    the difference; `members` is the median of how many that takes (nan where fewer than half find it).
    """
    rng = np.random.default_rng(0)
    wrong, taken = 0, []
    for _ in range(communities):
        values = honest_members(rng, share, MEMBERS)
        if brigade:
            values = with_brigade(rng, values, float(share == SHARES[0]))
        said = rule(values.tolist())
        wrong += said in _untrue(share)
        taken.append(_ruled_at(values.tolist()) if said == "better" and share > SHARES[0] else MEMBERS + 1)
    ruled = sum(count <= MEMBERS for count in taken)
    return {
        "wrong": wrong / communities,
        "ruled": ruled / communities,
        "members": float(median(taken)) if ruled > communities / 2 else float("nan"),
    }


def print_table(figures: dict[str, dict[str, Figures]]) -> None:
    """A line for each share."""
    print(f"{'':8}{'honest':>28}{'with a brigade':>28}")
    print(f"{'share':8}" + f"{'wrong':>9}{'ruled':>9}{'members':>10}" * 2)
    for share, found in figures.items():
        columns = (found["honest"], found["brigade"])
        print(
            f"{share:8}" + "".join(f"{one['wrong']:9.1%}{one['ruled']:9.1%}{one['members']:10.0f}" for one in columns)
        )


def _untrue(share: float) -> tuple[str, ...]:
    """What may not be said of versions one of which is chosen so often; up to 60 % they may be called alike."""
    if share == SHARES[0]:
        return ("better", "worse")
    return ("worse",) if share <= 0.6 else ("worse", "alike")


def _ruled_at(values: list[float]) -> int:
    """After how many members it was ruled: what was certain once stays so."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rule(values[:middle]) == "open" else (low, middle)
    return high


def main() -> int:
    """Measure, print and write."""
    argparse.ArgumentParser("python -m bot.bench_votes", description=__doc__).parse_args()
    figures = {f"{share:.2f}": {"honest": measure(share, False), "brigade": measure(share, True)} for share in SHARES}
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    made = {"communities": COMMUNITIES, "members": MEMBERS, "shares": _without_nan(figures), "machine": machine}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    versions = {"numpy": importlib.metadata.version("numpy")}
    RESULT.write_text(json.dumps({**made, "versions": versions}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULT}")
    return int(any(one["wrong"] > LEVEL for found in figures.values() for one in found.values()))


def _without_nan(figures: dict[str, dict[str, Figures]]) -> dict[str, Any]:
    return {
        share: {
            who: {key: None if np.isnan(value) else value for key, value in one.items()} for who, one in found.items()
        }
        for share, found in figures.items()
    }


if __name__ == "__main__":
    sys.exit(main())
