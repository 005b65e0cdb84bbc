"""Checks that every row of docs/rows.md names tests or commands that exist, and that show what the
row's words name.
"""

from __future__ import annotations

import re
import shlex
from functools import cache

from tests.docs.programs import (
    collected,
    has_address,
    module_of,
    names_in,
    parser_of,
    slash_commands,
    wrong_slash,
    wrong_words,
)
from tests.docs.reading import COMMAND, ROOT, Row, rows
from trainer.recipe.recipe_file import load_recipe

PAGE = "docs/rows.md"
ROWS = {row.text(0): row for row in rows(PAGE)}
COUNTS = {"S0": 6, "S1": 7, "S2": 4, "S3": 14, "S4": 3}
NEEDED = {f"{system}.{n}" for system, count in COUNTS.items() for n in range(1, count + 1)}
FEATURE_COLUMN = 1
USAGE_COLUMN = 2
EVIDENCE_COLUMN = 3
LIMIT_COLUMN = 4
RECIPE = re.compile(r"python -m trainer .*?(?:recipes|--recipe) ([a-z0-9-]+)")
SETTING = re.compile(r"([a-z][a-z_]+) (\S+)")
"""A recipe's field and its value, as a row names them: `learning_rate 2e-4`."""
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
        return (
            ""
            if has_address("GET", evidence) or has_address("POST", evidence)
            else f"nothing answers {evidence}"
        )
    if evidence.startswith("/"):
        return wrong_slash(evidence)
    return (
        wrong_words(evidence)
        if COMMAND.match(evidence)
        else f"{evidence} is neither a test nor a command"
    )


def test_every_row_is_there_once():
    assert {name for name in ROWS if name.startswith("S")} == NEEDED
    assert all(name.isdecimal() for name in ROWS if not name.startswith("S"))
    assert sum(1 for _ in rows(PAGE)) == len(ROWS)


def test_the_evidence_of_a_row_exists():
    problems: list[str] = []
    for name in ROWS:
        row: Row = ROWS[name]
        with collected(problems, PAGE, row.line):
            assert row.code(USAGE_COLUMN) or row.links(USAGE_COLUMN), (
                f"{name} does not state how to use it"
            )
            assert any(it.startswith("tests/") for it in row.code(EVIDENCE_COLUMN)), (
                f"{name} names no test"
            )
            # The usage column also has settings and options; only what can be run, typed or opened is
            # checked.
            typed = [
                it
                for it in row.code(USAGE_COLUMN)
                if it.startswith("/") or RUN.match(it) or " /" in it
            ]
            wrong = [
                reason for reason in map(missing, [*row.code(EVIDENCE_COLUMN), *typed]) if reason
            ]
            assert not wrong, f"{name}: {'; '.join(wrong)}"
    assert not problems, "\n".join(problems)


@cache
def recipe(name: str) -> dict[str, object]:
    """Returns the values of a shipped recipe."""
    return load_recipe(name).model_dump()


def help_of(line: str) -> str:
    """Returns the help of a command line's program and of each of its commands on the way."""
    words = shlex.split(line)
    if words[0] == "make" or len(words) < 2 or words[1].startswith("examples/"):
        return line
    module, rest = module_of(words)
    parser = parser_of(module)
    text = line
    while parser:
        text += parser.format_help()
        choices = next(
            (it.choices for it in parser._actions if it.nargs == "A..." and it.choices), {}
        )
        parser = next((choices[word] for word in rest if word in choices), None)
    return text


def evidence_of(row: Row) -> str:
    """Returns the text in which what a row names must occur: its tests, its commands' help, its
    slash options.
    """
    texts = [row.text(USAGE_COLUMN)]
    for it in [*row.code(EVIDENCE_COLUMN), *row.code(USAGE_COLUMN)]:
        if it.startswith("tests/"):
            texts.append((ROOT / it.partition("::")[0]).read_text(encoding="utf-8"))
        elif it.startswith("/"):
            command = next(
                (name for name in slash_commands() if f"{it[1:]} ".startswith(f"{name} ")), ""
            )
            texts.extend(slash_commands().get(command, ()))
        elif COMMAND.match(it):
            texts.append(help_of(it))
    return " ".join(texts).casefold()


def lacking(row: Row) -> list[str]:
    """Returns the options, numbers and outputs that a row names and that its recipe, tests and
    commands do not have.
    """
    evidence = evidence_of(row)
    recipes = [recipe(name) for it in row.code(USAGE_COLUMN) for name in RECIPE.findall(it)]

    def is_shown(named: str) -> bool:
        if (setting := SETTING.fullmatch(named)) and any(
            setting[1] in values for values in recipes
        ):
            return any(_same(values.get(setting[1]), setting[2]) for values in recipes)
        return named.casefold() in evidence

    return [named for named in row.code(FEATURE_COLUMN) if not is_shown(named)]


def _same(value: object, stated: str) -> bool:
    try:
        return value == float(stated)
    except ValueError:
        return str(value).casefold() == stated


def test_what_a_row_names_is_shown():
    problems: list[str] = []
    for name in ROWS:
        row = ROWS[name]
        with collected(problems, PAGE, row.line):
            assert not (found := lacking(row)), (
                f"{name} names what nothing shows: {', '.join(found)}"
            )
            assert row.text(LIMIT_COLUMN), f"{name} does not state what is not shown (nothing: –)"
    assert not problems, "\n".join(problems)
