"""What the documents lead to and name is there: files, headings, commands, settings, addresses."""

from __future__ import annotations

import re
from functools import cache

import pytest

from bot.permissions import REQUIRED_PERMISSIONS
from bot.settings import SETTINGS_BY_NAME
from tests.docs.programs import has_address, said_where, slash_commands, targets, wrong_slash, wrong_words
from tests.docs.reading import ROOT, anchors, commands, links, pages, rows, spans

FILE = re.compile(r"(?:bot|personas|trainer|tests|data|docs|examples|requirements)/[\w./*-]+")
VARIABLE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
ASKED = re.compile(r"(GET|POST|PUT|DELETE) (/\S+)")
SLASH = re.compile(r"/([a-z]+)(?: |$)")
ALL = pages()


@cache
def code() -> str:
    """All that could read a variable."""
    places, files = ("bot", "personas", "trainer", "tests"), ("Makefile", ".env.example", "Dockerfile", "compose.yaml")
    found = [path.read_text(encoding="utf-8") for place in places for path in (ROOT / place).rglob("*.py")]
    return "\n".join([*found, *((ROOT / name).read_text(encoding="utf-8") for name in files)])


@pytest.mark.parametrize("page", ALL)
def test_every_link_leads_somewhere(page):
    for line, address in links(page):
        if re.match(r"[a-z]+:", address):
            continue
        with said_where(page, line):
            name, _, heading = address.partition("#")
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.exists(), f"there is no {address}"
            if heading:
                there = target.resolve().relative_to(ROOT).as_posix()
                assert heading in anchors(there), f"{there} has no heading #{heading}"


@pytest.mark.parametrize("page", ALL)
def test_every_command_can_be_typed_so(page):
    for line, said in commands(page):
        with said_where(page, line):
            wrong = wrong_words(said)
            assert not wrong, f"`{said}`: {wrong}"


@pytest.mark.parametrize("page", ALL)
def test_what_is_named_in_code_is_there(page):
    for line, said in spans(page):
        with said_where(page, line):
            if (slash := SLASH.match(said)) and slash[1] in FIRST_WORDS:
                wrong = wrong_slash(said)
                assert not wrong, wrong
            elif asked := ASKED.match(said):
                assert has_address(asked[1], asked[2]), f"nothing answers {said}"
            elif FILE.fullmatch(said):
                assert list(ROOT.glob(said.rstrip("/"))), f"there is no {said}"
            elif VARIABLE.fullmatch(said):
                assert re.search(rf"\b{said}\b", code()), f"nothing reads {said}"


FIRST_WORDS = {name.split()[0] for name in slash_commands()}


def test_the_checks_see_what_is_wrong():
    assert "no option --frobnicate" in wrong_words("python -m trainer plan --persona oda --frobnicate 3")
    assert "takes no build/oda" in wrong_words("python -m trainer plan build/oda")
    assert not wrong_words("python -m trainer mask build/oda --json")
    assert "no command lift" in wrong_words(".venv/bin/python -m trainer dataset lift x")
    assert "no target" in wrong_words("make coffee") and not wrong_words("make run")
    assert "no program" in wrong_words("python -m trainer.frobnicate")
    assert "no option" in wrong_slash("/finetune start speed:9") and not wrong_slash("/finetune start epochs:3")
    assert "no command" in wrong_slash("/persona frobnicate") and "no command" in wrong_slash("/dance now")
    assert has_address("GET", "/finetune/jobs/JOB") and not has_address("GET", "/finetune/dances")
    assert not anchors("docs/backup.md") & {"nowhere"} and "what-is-in-it" in anchors("docs/backup.md")


def test_every_target_is_told_and_every_setting_explained():
    told = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert {name for name in targets() if name not in ("lint",)} <= set(re.findall(r"^([a-z-]+):.*##", told, re.M))
    assert set(SETTINGS_BY_NAME) == set(re.findall(r"^# ([A-Z_]+)=", explained, re.M))


def test_every_page_is_on_the_map():
    led_to = {(ROOT / "docs" / address.partition("#")[0]).resolve() for _, address in links("docs/README.md")}
    missing = {page for page in ALL if page.startswith("docs/") and page != "docs/README.md"}
    missing = {page for page in missing if (ROOT / page).resolve() not in led_to}
    assert not missing, f"docs/README.md does not lead to {', '.join(sorted(missing))}"


def test_going_live_asks_for_what_the_bot_needs():
    told = [row.text(0).casefold() for row in rows("docs/howto/go-live.md") if row.text(0)[0].isupper()]
    assert told == [
        it.permission.replace("_", " ").replace("view channel", "view channels") for it in REQUIRED_PERMISSIONS
    ]
