"""Checks that files, headings, commands, settings, addresses and code that the documents name
exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from bot.platform.permissions import REQUIRED_PERMISSIONS
from bot.settings import SETTINGS_BY_NAME
from tests.docs.programs import (
    PACKAGES,
    collected,
    defined_names,
    has_address,
    has_module,
    located,
    slash_commands,
    source_files,
    targets,
    wrong_slash,
    wrong_words,
)
from tests.docs.reading import ROOT, anchors, commands, fences, links, pages, rows, spans

FILE = re.compile(rf"(?:{'|'.join(PACKAGES)}|data|docs|examples|requirements)/[\w./*-]+")
PYTHON_FILE = re.compile(r"(?<![\w/.~-])(?:[\w-]+/)*\w+\.py\b")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[a-zA-Z_]\w*)+\b(?!\.\w)")
CLASS = re.compile(r"[A-Z][a-z0-9]+(?:[A-Z]\w*)+")
FUNCTION = re.compile(r"(?:\w+\.)*([a-z_]\w+)\([^()]*\)")
VARIABLE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
WORD_IN_CAPITALS = re.compile(r"\b[A-Z][A-Z_]+\b")
ADDRESS = re.compile(r"(GET|POST|PUT|DELETE) (/\S+)")
SLASH = re.compile(r"/([a-z]+)(?: |$)")
FOREIGN_NAMES = frozenset({"discord.py", "bot.example.org"})
"""Names that look like code of this project and are not."""
ALL = pages()
CODE_PAGES = [
    page
    for page in ALL
    if page in ("README.md", "CONTRIBUTING.md", "sandbox/README.md") or page.startswith("docs/")
]
FIRST_WORDS = {name.split()[0] for name in slash_commands()}


@cache
def variables() -> set[str]:
    """Returns every word in capitals in the files that could read a variable."""
    words: set[str] = set()
    for name in (*source_files(), "Makefile", ".env.example", "Dockerfile", "compose.yaml"):
        words.update(WORD_IN_CAPITALS.findall((ROOT / name).read_text(encoding="utf-8")))
    return words


def test_every_link_leads_somewhere():
    problems: list[str] = []
    for page in ALL:
        for line, address in links(page):
            if re.match(r"[a-z]+:", address):
                continue
            with collected(problems, page, line):
                name, _, heading = address.partition("#")
                target = (ROOT / page).parent / name if name else ROOT / page
                assert target.exists(), f"there is no {address}"
                if heading:
                    there = target.resolve().relative_to(ROOT).as_posix()
                    assert heading in anchors(there), f"{there} has no heading #{heading}"
    assert not problems, "\n".join(problems)


def test_every_command_can_be_typed_so():
    problems: list[str] = []
    for page in ALL:
        for line, typed in commands(page):
            with collected(problems, page, line):
                wrong = wrong_words(typed)
                assert not wrong, f"`{typed}`: {wrong}"
    assert not problems, "\n".join(problems)


def test_what_is_named_in_code_is_there():
    problems: list[str] = []
    for page in ALL:
        for line, span in spans(page):
            with collected(problems, page, line):
                if (slash := SLASH.match(span)) and slash[1] in FIRST_WORDS:
                    wrong = wrong_slash(span)
                    assert not wrong, wrong
                elif request := ADDRESS.match(span):
                    assert has_address(request[1], request[2]), f"nothing answers {span}"
                elif FILE.fullmatch(span):
                    assert list(ROOT.glob(span.rstrip("/"))), f"there is no {span}"
                elif VARIABLE.fullmatch(span):
                    assert span in variables(), f"nothing reads {span}"
    assert not problems, "\n".join(problems)


# --------------------------------------------------------------------------------------------- code


def missing_code(text: str) -> Iterator[str]:
    """Yields the files and modules of the project that a text names and that do not exist."""
    named = [path for path in PYTHON_FILE.findall(text) if not _is_file(path)]
    named += [
        name
        for name in MODULE.findall(text)
        if not name.endswith((".md", ".py", ".log", ".yaml")) and not has_module(name)
    ]
    yield from (name for name in named if name not in FOREIGN_NAMES)


def _is_file(path: str) -> bool:
    """Tells whether a Python file exists; a path below one of the packages has to be a whole
    one.
    """
    if path.split("/")[0] in (*PACKAGES, "examples"):
        return path in source_files()
    return any(f"/{known}".endswith(f"/{path}") for known in source_files())


def missing_name(span: str) -> str:
    """Returns the class or function that a code span names if the project does not define it, else
    "".
    """
    function = FUNCTION.fullmatch(span)
    name = function[1] if function else span if CLASS.fullmatch(span) else ""
    return "" if name in defined_names() else name


def test_files_modules_and_classes_named_in_a_page_exist():
    problems: list[str] = []
    for page in CODE_PAGES:
        for number, line in enumerate(
            (ROOT / page).read_text(encoding="utf-8").splitlines(), start=1
        ):
            with collected(problems, page, number):
                missing = list(missing_code(line))
                assert not missing, f"there is no {', '.join(missing)}"
        for number, span in spans(page):
            with collected(problems, page, number):
                assert not missing_name(span), f"nothing defines {span}"
    assert not problems, "\n".join(problems)


def test_the_tree_shows_the_folders_and_files_there_are():
    tree = next(fence for fence in fences("docs/where.md") if fence.body.startswith("personas/"))
    top = ""
    for line in tree.body.splitlines():
        names = re.match(r"((?:[\w.]+(?:/|\.py)\s+)+)", line.strip())
        assert names, line
        if not line.startswith(" "):
            top = names[1].split()[0]
        below = "" if not line.startswith(" ") else top
        with located("docs/where.md", tree.line):
            assert all((ROOT / below / name).exists() for name in names[1].split()), line


def test_the_checks_see_what_is_wrong():
    assert "no option --frobnicate" in wrong_words(
        "python -m trainer plan --persona oda --frobnicate 3"
    )
    assert "takes no build/oda" in wrong_words("python -m trainer plan build/oda")
    assert not wrong_words("python -m trainer mask build/oda --json")
    assert "no command lift" in wrong_words(".venv/bin/python -m trainer dataset lift x")
    assert "no target" in wrong_words("make coffee") and not wrong_words("make run")
    assert "no program" in wrong_words("python -m trainer.frobnicate")
    assert "no option" in wrong_slash("/finetune start speed:9") and not wrong_slash(
        "/finetune start epochs:3"
    )
    assert "no command" in wrong_slash("/persona frobnicate") and "no command" in wrong_slash(
        "/dance now"
    )
    assert has_address("GET", "/finetune/jobs/JOB") and not has_address("GET", "/finetune/dances")
    assert not anchors("docs/backup.md") & {"nowhere"} and "contents" in anchors("docs/backup.md")


def test_every_target_has_a_help_text_and_every_setting_an_explanation():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert {name for name in targets() if name != "lint"} <= set(
        re.findall(r"^([a-z-]+):.*##", makefile, re.M)
    )
    assert set(SETTINGS_BY_NAME) == set(re.findall(r"^# ([A-Z_]+)=", explained, re.M))


def test_every_page_is_on_the_map():
    linked = {
        (ROOT / "docs" / address.partition("#")[0]).resolve()
        for _, address in links("docs/README.md")
    }
    missing = {page for page in ALL if page.startswith("docs/") and page != "docs/README.md"}
    missing = {page for page in missing if (ROOT / page).resolve() not in linked}
    assert not missing, f"docs/README.md does not lead to {', '.join(sorted(missing))}"


def test_going_live_asks_for_what_the_bot_needs():
    named = [
        row.text(0).casefold() for row in rows("docs/howto/go-live.md") if row.text(0)[0].isupper()
    ]
    assert named == [
        it.permission.replace("_", " ").replace("view channel", "view channels")
        for it in REQUIRED_PERMISSIONS
    ]
