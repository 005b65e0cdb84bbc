"""Checks the held-out texts with labelled personal data (benchmarks/studies/pii_heldout)."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from benchmarks.studies.pii_heldout.kinds import KINDS
from benchmarks.studies.pii_heldout.values.numbers import card_number, iban, luhn_digit
from benchmarks.studies.pii_heldout.writing.filling import fill_template
from benchmarks.studies.pii_heldout.writing.generation import OTHER_LANGUAGES, generate_texts
from benchmarks.studies.pii_heldout.writing.habits import CASUAL_HABITS
from benchmarks.studies.pii_heldout.writing.labels import LABELS
from benchmarks.studies.pii_heldout.writing.pieces import Piece, join_pieces
from benchmarks.studies.pii_heldout.writing.slots import FillingContext

ROOT = Path(__file__).parent.parent.parent
COUNT = 2000


@pytest.fixture(scope="module")
def texts():
    return generate_texts(1, COUNT)


def spans_of(template, language="en", seed=1):
    """Returns the label and the value of each span of a filled template."""
    text, spans = join_pieces(fill_template(template, FillingContext(language, Random(seed))))
    return [(span["label"], text[span["start"] : span["end"]]) for span in spans]


def test_spans_lie_in_the_text_in_order_and_do_not_overlap(texts):
    for drawn in texts:
        end = 0
        for span in drawn["spans"]:
            assert end <= span["start"] < span["end"] <= len(drawn["text"]), drawn
            value = drawn["text"][span["start"] : span["end"]]
            assert value == value.strip(), drawn
            end = span["end"]


def test_values_have_the_form_of_their_label(texts):
    """A shift of the offsets by one would break these."""
    forms = {
        "EMAIL": r"[\w.+-]+@[\w-]+(\.[\w-]+)+",
        "IP": r"[0-9]+(\.[0-9]+){3}|2a02:[0-9a-f:]+",
        "IBAN": r"[A-Z]{2}[0-9]{2}[0-9A-Z ]{11,}",
        "CARD": r"[345][0-9 -]{14,18}",
        "PHONE": r"[+(0-9][0-9 ().-]{6,}[0-9]( ext\. [0-9]{3})?",
        "URL": r"(https?://)?[\w.-]+\.\w+(/\S+)?",
        "HANDLE": r"\S{3,}",
    }
    checked = Counter()
    for drawn in texts:
        for span in drawn["spans"]:
            form = forms.get(span["label"])
            if form:
                value = drawn["text"][span["start"] : span["end"]]
                assert re.fullmatch(form, value, re.IGNORECASE), (span, value)
                checked[span["label"]] += 1
    assert set(checked) == set(forms)


def test_the_same_seed_gives_the_same_texts_and_another_does_not(texts):
    assert generate_texts(1, COUNT) == texts
    other = {drawn["text"] for drawn in generate_texts(2, COUNT)}
    assert len(other & {drawn["text"] for drawn in texts}) < COUNT // 10


def test_kinds_languages_and_labels_are_all_present_and_few_texts_repeat(texts):
    assert {drawn["kind"] for drawn in texts} == {kind.name for kind in KINDS}
    languages = Counter(drawn["language"] for drawn in texts)
    assert set(languages) == {"en", *OTHER_LANGUAGES}
    assert languages["en"] == COUNT * 4 // 5
    assert {span["label"] for drawn in texts for span in drawn["spans"]} == set(LABELS)
    assert len({drawn["text"] for drawn in texts}) > COUNT * 0.98


def test_half_of_the_texts_have_no_personal_data_also_in_each_language(texts):
    neutral = Counter(drawn["language"] for drawn in texts if not drawn["spans"])
    assert abs(neutral.total() - COUNT // 2) <= COUNT // 100
    for language, total in Counter(drawn["language"] for drawn in texts).items():
        assert 0.4 < neutral[language] / total < 0.6, language


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_template_fills_and_only_the_personal_ones_have_spans(kind):
    for language, pair in kind.templates.items():
        for personal in (True, False):
            for block in pair.blocks(personal):
                assert bool(spans_of(block, language)) is personal, (language, block)


def test_adjacent_names_are_one_person_and_a_street_with_its_town_one_address():
    assert [label for label, _ in spans_of("{p1.first} {p1.last} lives at {street}, {city}.")] == [
        "PERSON",
        "ADDRESS",
    ]
    assert len(spans_of("{p1.first}, {p2.first} and {PERSON=will}")) == 3


def test_an_address_in_a_quote_is_quoted_on_every_line():
    ((label, value),) = spans_of("> I live at {address_lines}")
    assert label == "ADDRESS"
    lines = value.split("\n")
    assert len(lines) > 1
    assert all(line.startswith("> ") for line in lines[1:])


@pytest.mark.parametrize("habit", [habit for habit, _ in CASUAL_HABITS if habit])
def test_careless_writing_keeps_the_labels_on_their_values(habit):
    pieces = [Piece("Ask "), Piece("Groß", "PERSON"), Piece(", it's fine. "), Piece("DE1", "IBAN")]
    text, spans = join_pieces([habit(piece) for piece in pieces])
    assert [text[span["start"] : span["end"]].lower() for span in spans] in (
        ["groß", "de1"],
        ["gross", "de1"],
    )


def test_check_digits_are_right():
    rng = Random(5)
    assert luhn_digit("7992739871") == "3"  # the usual example of Luhn's formula
    for language in ("de", "en", "it", "nl", "el"):
        number = iban(language, rng).replace(" ", "")
        assert int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1
        card = re.sub("[ -]", "", card_number(rng))
        assert luhn_digit(card[:-1]) == card[-1]


def test_the_command_writes_json_lines(tmp_path):
    path = tmp_path / "texts.jsonl"
    command = [
        sys.executable,
        "-m",
        "benchmarks.studies.pii_heldout",
        "--seed",
        "4",
        "--count",
        "30",
    ]
    printed = subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout
    subprocess.run([*command, "--output", str(path)], check=True, cwd=ROOT)
    assert path.read_bytes() == printed
    lines = printed.decode("utf-8").split("\n")
    assert [json.loads(line) for line in lines if line] == generate_texts(4, 30)
