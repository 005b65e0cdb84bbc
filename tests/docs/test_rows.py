"""Checks that every row of docs/rows.md names a test or command that shows it, and that each exists."""

from __future__ import annotations

import re

import pytest

from tests.docs.programs import has_address, located, names_in, wrong_slash, wrong_words
from tests.docs.reading import COMMAND, ROOT, Row, rows

PAGE = "docs/rows.md"
ROWS = {row.text(0): row for row in rows(PAGE)}
COUNTS = {"S0": 6, "S1": 7, "S2": 4, "S3": 14, "S4": 3}
NEEDED = {f"{system}.{n}" for system, count in COUNTS.items() for n in range(1, count + 1)}
USAGE_COLUMN, EVIDENCE_COLUMN = 2, 3
RUN = re.compile(r"make |\.venv|python -m|python examples/|model_inference")


def missing(evidence: str) -> str:
    """Returns why a test, command or address does not exist, or ""."""
    if evidence.startswith("tests/"):
        file, _, name = evidence.partition("::")
        if not (ROOT / file).is_file():
            return f"no file {file}"
        return f"no test {name} in {file}" if name and name not in names_in(file) else ""
    if request := re.fullmatch(r"(GET|POST|PUT|DELETE) (/\S+)", evidence):
        return "" if has_address(request[1], request[2]) else f"nothing answers {evidence}"
    if evidence.startswith(("/dashboard", "/v1", "/metrics")):
        return "" if has_address("GET", evidence) or has_address("POST", evidence) else f"nothing answers {evidence}"
    if evidence.startswith("/"):
        return wrong_slash(evidence)
    return wrong_words(evidence) if COMMAND.match(evidence) else f"{evidence} is neither a test nor a command"


def test_every_row_is_there_once():
    assert {name for name in ROWS if name.startswith("S")} == NEEDED
    assert {name for name in ROWS if not name.startswith("S")} == {str(n) for n in range(1, 8)}
    assert sum(1 for _ in rows(PAGE)) == len(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_evidence_of_a_row_exists(name):
    row: Row = ROWS[name]
    with located(PAGE, row.line):
        assert row.code(USAGE_COLUMN) or row.links(USAGE_COLUMN), f"{name} does not state how to use it"
        assert any(it.startswith("tests/") for it in row.code(EVIDENCE_COLUMN)), f"{name} names no test"
        # The usage column also has settings and options; only what can be run, typed or opened is checked.
        typed = [it for it in row.code(USAGE_COLUMN) if it.startswith("/") or RUN.match(it) or " /" in it]
        wrong = [reason for reason in map(missing, [*row.code(EVIDENCE_COLUMN), *typed]) if reason]
        assert not wrong, f"{name}: {'; '.join(wrong)}"


def test_missing_evidence_is_detected():
    assert missing("tests/docs/test_rows.py::test_nowhere") and missing("tests/docs/test_nowhere.py")
    assert not missing("tests/docs/test_rows.py::test_missing_evidence_is_detected")
    assert missing("make coffee") and missing("/finetune dance now") and missing("POST /finetune/dance")
    assert missing("python -m trainer dance") and missing("a wish")
