"""Checks that docs/asvs.md answers each requirement of levels 1 and 2 once, and that what it refers
to exists.
"""

from __future__ import annotations

import re
from collections import Counter

from tests.docs.programs import collected
from tests.docs.reading import ROOT, Row, rows
from tests.docs.test_security import fault_of

PAGE = "docs/asvs.md"
ANSWERS = ("met", "does not apply", "not met")
ID = re.compile(r"\d+\.\d+\.\d+")
ROWS = [row for row in rows(PAGE) if ID.fullmatch(row.text(0))]


def levels() -> dict[str, str]:
    """Returns the level of each requirement of levels 1 and 2 by its id."""
    lines = (ROOT / "tests/docs/asvs-5.0.0.txt").read_text(encoding="utf-8").splitlines()[1:]
    sections = (line.split(": ") for line in lines)
    numbered = (
        (section, n, level)
        for section, all in sections
        for n, level in enumerate(all.split(), start=1)
    )
    return {f"{section}.{n}": level for section, n, level in numbered if level in "12"}


def test_each_requirement_is_answered_once():
    assert Counter(levels().values()) == {"1": 70, "2": 183}, "the standard's own counts"
    assert Counter(row.text(0) for row in ROWS) == Counter(levels().keys())
    assert {row.text(0): row.text(1) for row in ROWS} == levels()


def fault_in(row: Row) -> str:
    """Returns what an answer lacks, or ""."""
    where = row.text(4)
    answer = row.text(3)
    if not row.text(2) or answer not in ANSWERS or not where:
        return "it has no requirement, answer or reason"
    wrong = [
        fault for test in row.code(4) if test.startswith("tests/") and (fault := fault_of(test))
    ]
    return "; ".join(wrong)


def test_an_answer_has_its_reason():
    problems: list[str] = []
    for row in ROWS:
        with collected(problems, PAGE, row.line):
            assert not (found := fault_in(row)), f"{row.text(0)}: {found}"
    assert not problems, "\n".join(problems)


def test_the_summary_counts_the_answers():
    counts = Counter((row.text(1), row.text(3)) for row in ROWS)
    for row in rows(PAGE):
        if row.text(0) in "12":
            assert [int(row.text(n)) for n in (1, 2, 3)] == [
                counts[row.text(0), answer] for answer in ANSWERS
            ]
