"""Measures how many members the blind test needs until a ruling, and how often the ruling is
wrong.
"""

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

from bot.versions.statistics.judgement import MAX_VOTES_PER_MEMBER
from bot.versions.statistics.sequential_test import ALPHA, MAX_CONTAMINATED_SHARE, decide_ruling

RESULT_FILE = Path("build/bench/votes.json")
SHARES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
COMMUNITIES = 1000
MEMBERS = 150
TASTE_CONCENTRATION = 8.0
"""Concentration of the beta distribution: the higher, the less members differ."""

Figures = dict[str, float]
Floats = Any
"""A numpy array of floats."""


def honest_members(rng: np.random.Generator, share: float, members: int) -> Floats:
    """Simulate members who choose the version in this share of their votes on average."""
    own = rng.beta(share * TASTE_CONCENTRATION, (1 - share) * TASTE_CONCENTRATION, members)
    return rng.binomial(MAX_VOTES_PER_MEMBER, own) / MAX_VOTES_PER_MEMBER


def with_brigade(rng: np.random.Generator, values: Floats, says: float) -> Floats:
    """Replace each member with probability 0.1 by one of a brigade that always votes the same."""
    return np.where(rng.random(len(values)) < MAX_CONTAMINATED_SHARE, says, values)


def measure(share: float, brigade: bool, communities: int = COMMUNITIES) -> Figures:
    """Return shares of communities: `wrong`, with a false ruling at any time, and `ruled`, with the
    difference found.

    `members` is the median number of members it takes (nan if fewer than half find it).
    """
    rng = np.random.default_rng(0)
    wrong = 0
    taken = []
    for _ in range(communities):
        values = honest_members(rng, share, MEMBERS)
        if brigade:
            values = with_brigade(rng, values, float(share == SHARES[0]))
        said = decide_ruling(values.tolist())
        wrong += said in _false_rulings(share)
        taken.append(
            _members_until_ruling(values.tolist())
            if said == "better" and share > SHARES[0]
            else MEMBERS + 1
        )
    ruled = sum(count <= MEMBERS for count in taken)
    return {
        "wrong": wrong / communities,
        "ruled": ruled / communities,
        "members": float(median(taken)) if ruled > communities / 2 else float("nan"),
    }


def print_table(figures: dict[str, dict[str, Figures]]) -> None:
    """Print a line per share."""
    print(f"{'':8}{'honest':>28}{'with a brigade':>28}")
    print(f"{'share':8}" + f"{'wrong':>9}{'ruled':>9}{'members':>10}" * 2)
    for share, found in figures.items():
        columns = (found["honest"], found["brigade"])
        print(
            f"{share:8}"
            + "".join(
                f"{one['wrong']:9.1%}{one['ruled']:9.1%}{one['members']:10.0f}" for one in columns
            )
        )


def _false_rulings(share: float) -> tuple[str, ...]:
    """Return the rulings that are false for a version chosen this often; up to 60 % a tie is
    allowed.
    """
    if share == SHARES[0]:
        return ("better", "worse")
    return ("worse",) if share <= 0.6 else ("worse", "alike")


def _members_until_ruling(values: list[float]) -> int:
    """Return the number of members at the ruling, which is final."""
    low = 0
    high = len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if decide_ruling(values[:middle]) == "open" else (low, middle)
    return high


def main() -> int:
    """Measure, print and write."""
    argparse.ArgumentParser(
        "python -m benchmarks.studies.vote_test_power", description=__doc__
    ).parse_args()
    figures = {
        f"{share:.2f}": {"honest": measure(share, False), "brigade": measure(share, True)}
        for share in SHARES
    }
    print_table(figures)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    made = {
        "communities": COMMUNITIES,
        "members": MEMBERS,
        "shares": _without_nan(figures),
        "machine": machine,
    }
    RESULT_FILE.parent.mkdir(parents=True, exist_ok=True)
    versions = {"numpy": importlib.metadata.version("numpy")}
    RESULT_FILE.write_text(
        json.dumps({**made, "versions": versions}, indent=2) + "\n", encoding="utf-8"
    )
    print(f"written to {RESULT_FILE}")
    return int(any(one["wrong"] > ALPHA for found in figures.values() for one in found.values()))


def _without_nan(figures: dict[str, dict[str, Figures]]) -> dict[str, Any]:
    return {
        share: {
            who: {key: None if np.isnan(value) else value for key, value in one.items()}
            for who, one in found.items()
        }
        for share, found in figures.items()
    }


if __name__ == "__main__":
    sys.exit(main())
