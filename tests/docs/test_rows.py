"""Every row of docs/rows.md names what shows it, and each name is looked up."""

from __future__ import annotations

import re

import pytest

from tests.docs.programs import has_address, located, names_in, wrong_slash, wrong_words
from tests.docs.reading import PROGRAMS, ROOT, Row, rows

PAGE = "docs/rows.md"
ROWS = {row.text(0): row for row in rows(PAGE)}
COUNTS = {"S0": 6, "S1": 7, "S2": 4, "S3": 14, "S4": 3}
NEEDED = {f"{system}.{n}" for system, count in COUNTS.items() for n in range(1, count + 1)}
HERE, SHOWN_BY = 2, 3
RUN = re.compile(r"make |\.venv|python -m|python examples/|model_inference")


def missing(said: str) -> str:
    """Why there is nothing by this name; "" where there is."""
    if said.startswith("tests/"):
        file, _, name = said.partition("::")
        if not (ROOT / file).is_file():
            return f"no file {file}"
        return f"no test {name} in {file}" if name and name not in names_in(file) else ""
    if asked := re.fullmatch(r"(GET|POST|PUT|DELETE) (/\S+)", said):
        return "" if has_address(asked[1], asked[2]) else f"nothing answers {said}"
    if said.startswith(("/dashboard", "/v1", "/metrics")):
        return "" if has_address("GET", said) or has_address("POST", said) else f"nothing answers {said}"
    if said.startswith("/"):
        return wrong_slash(said)
    return wrong_words(said) if PROGRAMS.match(said) else f"{said} is nothing that is looked up"


def test_every_row_is_there_once():
    assert {name for name in ROWS if name.startswith("S")} == NEEDED
    assert {name for name in ROWS if not name.startswith("S")} == {str(n) for n in range(1, 8)}
    assert sum(1 for _ in rows(PAGE)) == len(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_what_shows_a_row_is_there(name):
    row: Row = ROWS[name]
    with located(PAGE, row.line):
        assert row.code(HERE) or row.links(HERE), f"{name} does not say how it is done"
        assert any(said.startswith("tests/") for said in row.code(SHOWN_BY)), f"{name} names no test"
        wrong = [said for said in map(missing, row.code(SHOWN_BY)) if said]
        # A setting or an option stands there too; what can be run, typed or opened is looked up.
        named = [said for said in row.code(HERE) if said.startswith("/") or RUN.match(said) or " /" in said]
        wrong += [said for said in map(missing, named) if said]
        assert not wrong, f"{name}: {'; '.join(wrong)}"


def test_what_is_not_there_is_found_out():
    assert missing("tests/docs/test_rows.py::test_nowhere") and missing("tests/docs/test_nowhere.py")
    assert not missing("tests/docs/test_rows.py::test_what_is_not_there_is_found_out")
    assert missing("make coffee") and missing("/finetune dance now") and missing("POST /finetune/dance")
    assert missing("python -m trainer dance") and missing("a wish")
