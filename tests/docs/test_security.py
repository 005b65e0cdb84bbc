"""Checks that each threat of docs/security.md names what stops it, and tests that exist."""

from __future__ import annotations

import ast
import itertools
from functools import cache

from tests.docs.programs import collected
from tests.docs.reading import ROOT, Row, rows, tokens

PAGE = "docs/security.md"
HEADINGS = {
    after.content: (after.map or [0])[0]
    for before, after in itertools.pairwise(tokens(PAGE))
    if before.type == "heading_open"
}
THREATS = [row for row in rows(PAGE) if row.line < HEADINGS["Connections"]]


@cache
def defined_in(file: str) -> dict[str, ast.AST]:
    """Returns the functions and classes of a test file by their names in node ids: `test_x`,
    `TestX::test_y`.
    """
    found: dict[str, ast.AST] = {}
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
            inner = node.body if isinstance(node, ast.ClassDef) else ()
            found |= {f"{node.name}::{it.name}": it for it in inner if hasattr(it, "name")}
    return found


def fault_of(test: str) -> str:
    """Returns why a node id, or the path of a file of tests, runs nothing; "" if it does."""
    file, _, name = test.partition("::")
    if not file.startswith("tests/") or not (ROOT / file).is_file():
        return f"there is no file {file}"
    ran = [it for it in defined_in(file) if it.split("::")[-1].startswith("test")]
    if name:
        return "" if name in ran else f"{file} has no test {name}"
    return "" if ran else f"{file} has no tests"


def named_tests(row: Row) -> list[str]:
    return [it for it in row.code(2) if it.startswith("tests/")]


def faults(row: Row) -> list[str]:
    """Returns what a row lacks."""
    lacking = [] if named_tests(row) else ["it names no test"]
    lacking += (
        [] if row.text(0) and row.text(1) else ["it does not say what threatens, or what stops it"]
    )
    return lacking + list(filter(None, map(fault_of, named_tests(row))))


def test_each_threat_is_stopped_and_shown():
    problems: list[str] = []
    for row in THREATS:
        with collected(problems, PAGE, row.line):
            assert not (found := faults(row)), f"{row.text(0)}: {'; '.join(found)}"
    assert not problems, "\n".join(problems)
