"""Long texts made to be slow to read, as a card or a file of lore could bring them. Matching an
expression holds up every thread of the process: its time must not grow with the square of a text.
"""

import signal

import pytest

from personas.card.card_draft import LABELLED_PATTERN, QUOTE_PATTERN
from personas.lore.markdown_sections import parse_sections
from personas.lore.prose_edit import edit_lore
from personas.prompt.macros import edit_between_marks, settle_macros
from personas.prompt.time_macros import fill_time_macros

MAX_CPU_S = 60
"""Some minutes and more are needed by expressions that try each beginning up to the end."""
CHARS = 400_000


@pytest.fixture(autouse=True)
def _ends_in_time():
    def stop(number, frame):
        raise AssertionError(f"not read in {MAX_CPU_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def repeated(piece: str, chars: int = CHARS) -> str:
    return piece * (chars // len(piece))


@pytest.mark.parametrize("piece", ["\n", "{{", "{{a", "{{random:", "{{//", "<user", "{{trim}}\n"])
@pytest.mark.parametrize("before", ["", "{{a"])
def test_macros_of_a_long_text_are_read(before, piece):
    text = before + repeated(piece) + "."
    settle_macros(text, "Mira", keeps_times=True)
    edit_between_marks(text, str)


def test_times_of_a_long_text_are_read():
    fill_time_macros(repeated("{{a") + repeated("a"), lambda macro: macro)


@pytest.mark.parametrize(
    "piece", ["**a ", "__a ", "<", "<!--", "<!-- lore", "[a](", "*a_", "a\n\n", "- a\n", "> - "]
)
def test_lore_of_a_long_line_is_read(piece):
    text = repeated(piece, 100_000)
    list(parse_sections(text))
    edit_lore(text, str)


def test_lore_comment_of_spaces_is_read():
    list(parse_sections("<!-- lore" + repeated(" ") + "-->"))


@pytest.mark.parametrize("piece", ["*", "+", " ", "“", "«", "« ", "「"])
def test_a_long_line_of_a_draft_is_read(piece):
    line = "+" + repeated(piece)
    LABELLED_PATTERN.match(line)
    QUOTE_PATTERN.sub("", line)
