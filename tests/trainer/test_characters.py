"""The characters of benchmarks/characters: their cards and lore are read whole, and their held-out
exchanges are forty, unlike each other and unlike what a version could have read.
"""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from personas.card.card_reader import read_card_file
from personas.card.card_report import report_card
from personas.card.card_summary import summarise_card
from personas.card.toml_card import SHIPPED_CARDS, read_card, read_cards
from personas.home.rights import read_statement
from personas.lore.lore_folder import read_lore, scan_lore
from personas.prompt.renderer import example_turns
from trainer.dataset.minhash import MinHashIndex, split_words
from trainer.evaluate.generation.character_breaks import CharacterBreakDetector
from trainer.evaluate.generation.lore_facts import parse_question
from trainer.sources.conversation import Conversation
from trainer.sources.reader import read_source
from trainer.sources.source_format import ReadOptions

FOLDER = Path(__file__).parents[2] / "benchmarks" / "characters"
CHARACTERS = sorted(path.parent.name for path in FOLDER.glob("*/card.toml"))
KINDS = {
    "small talk": 13,
    "about themselves": 13,
    "advice": 7,
    "provocation": 4,
    "sincere": 3,
}
COPIED_WORDS = 8
"""Words in a row that an exchange may not share with the card or the lore."""
each_character = pytest.mark.parametrize("name", CHARACTERS)


@cache
def persona_of(name):
    return read_card(FOLDER / name / "card.toml")


def rows_of(name, file="exchanges.jsonl"):
    lines = (FOLDER / name / file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts_of(name, role):
    return [
        message["content"]
        for row in rows_of(name)
        for message in row["messages"]
        if message["role"] == role
    ]


def runs(text, length):
    words = split_words(text)
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def test_there_are_six_characters_and_none_ships():
    assert len(CHARACTERS) == 6
    assert not {persona_of(name).id for name in CHARACTERS} & read_cards(SHIPPED_CARDS).keys()


@each_character
def test_the_card_is_used_whole(name):
    path = FOLDER / name / "card.toml"
    card = read_card_file(path)
    assert summarise_card(card, str(path), None)["problems"] == []
    assert {item.outcome for item in report_card(card).items} == {"as_is"}
    persona = persona_of(name)
    assert persona.id == name and persona.license == "Apache-2.0"
    assert persona.first_mes and len(example_turns(persona)) == 8


@each_character
def test_the_lore_is_read_whole(name, caplog):
    persona = persona_of(name)
    folder = FOLDER / name / "lore"
    documents = list(scan_lore(folder, (persona,)))
    assert {(document.owners, document.skipped) for document in documents} == {((name,), "")}
    passages = read_lore(folder, (persona,))
    assert len(passages) >= 8 and not caplog.records
    for document in documents:
        read = [passage.text for passage in passages if passage.source.endswith(document.path.name)]
        prose = [line for line in document.text.splitlines() if not line.startswith("#")]
        assert split_words(" ".join(read)) == split_words(" ".join(prose))


@each_character
def test_the_trainer_reads_every_exchange(name):
    path = FOLDER / name / "exchanges.jsonl"
    options = ReadOptions(persona=persona_of(name))
    read = list(read_source(path, options))
    assert len(read) == 40 and all(isinstance(item, Conversation) for item in read)
    for file in (path, path.with_name("facts.jsonl")):
        assert read_statement(file).right == "own-writing"


@each_character
def test_exchanges_are_of_all_kinds_and_replies_are_short(name):
    rows = rows_of(name)
    assert Counter(row["kind"] for row in rows) == KINDS
    assert {row["persona"] for row in rows} == {name}
    assert sum(len(row["messages"]) in (6, 8) for row in rows) >= 4
    assert all(5 <= len(text.split()) <= 45 for text in texts_of(name, "assistant"))


@each_character
def test_no_phrase_is_in_more_than_one_of_eight_replies(name):
    replies = texts_of(name, "assistant")
    phrases = Counter(phrase for reply in replies for phrase in runs(reply, 3))
    openings = Counter(tuple(split_words(reply)[:2]) for reply in replies)
    for counts in (phrases, openings):
        assert counts.most_common(1)[0][1] <= len(replies) / 8


@each_character
def test_an_exchange_repeats_neither_card_nor_lore(name):
    folder = FOLDER / name
    known = set()
    for path in (folder / "card.toml", *folder.glob("lore/*.md")):
        known |= runs(path.read_text(encoding="utf-8"), COPIED_WORDS)
    assert runs(persona_of(name).first_mes, COPIED_WORDS) <= known  # a copy would be found
    for text in texts_of(name, "user") + texts_of(name, "assistant"):
        assert not runs(text, COPIED_WORDS) & known


def test_no_reply_of_any_character_is_like_another():
    replies = [text for name in CHARACTERS for text in texts_of(name, "assistant")]
    with MinHashIndex() as index:
        for text in [*replies, replies[0]]:
            index.add(text)
        _, near = index.clusters()
    assert near.tolist() == [*range(len(replies)), 0]


@each_character
def test_replies_stay_in_character_and_say_what_writes_them_if_asked_in_earnest(name):
    character = CharacterBreakDetector(persona_of(name))
    assert [text for text in texts_of(name, "assistant") if character.is_broken_by(text, "")] == []
    sincere = [row["messages"][1]["content"] for row in rows_of(name) if row["kind"] == "sincere"]
    assert any("ai" in split_words(text) for text in sincere)


@each_character
def test_the_lore_answers_every_question(name):
    lore = " ".join(passage.text for passage in read_lore(FOLDER / name / "lore", (name,)))
    rows = rows_of(name, "facts.jsonl")
    assert 5 <= len(rows) <= 8 and {row["persona"] for row in rows} == {name}
    questions = [parse_question(row) for row in rows]
    for question in questions:
        assert question.reworded and question.evidence in lore
        assert question.is_right(question.reference)
        assert not question.contradicts(question.reference)
        others = [other.reference for other in questions if other is not question]
        assert sum(map(question.is_right, others)) <= 1
