"""`python -m trainer lore ask|extract`: what is found and why; facts, card additions and pairs, by
rules.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.card.toml_card import SHIPPED_CARDS, read_card, read_cards
from personas.lore.lore_folder import read_lore
from personas.lore.passages import Passage, split_passages
from personas.schemas.chat import Persona
from tests.trainer.lore_server import home, lore_command
from trainer.dataset.synthetic.extraction_files import write_extraction
from trainer.dataset.synthetic.first_person import LoreSubject
from trainer.dataset.synthetic.lore_extraction import (
    extract_facts,
    extract_lore,
    question_about,
)
from trainer.dataset.synthetic.lore_subjects import find_subject

HE = LoreSubject(("Bo",), "he")
SHE = LoreSubject(("Ada Marsh", "Ada"), "she")
IT = LoreSubject(("Fog",), "it")
BOOTH = LoreSubject(("The booth", "Booth 19"), "it", says_i=False)
SHIPPED_LORE = Path(__file__).resolve().parents[2] / "data" / "rag-resources"


@pytest.mark.slow
def test_ask_says_what_matches_what_not_and_why(tmp_path):
    card, lore = home(tmp_path)
    done = lore_command("ask", "--persona", card, "--lore", lore, "How many wheels has the clock?")
    assert done.returncode == 0, done.stderr
    assert "words looked for: wheels, clock" in done.stdout
    assert "ada/clock.md  [The Clock: The tower]" in done.stdout and "shared: " in done.stdout
    assert done.stdout.index("\ngiven ") < done.stdout.index("\nnot found ")
    result = json.loads(
        lore_command("ask", "--persona", card, "--lore", lore, "--json", "--all", "hello!").stdout
    )
    assert (
        result["threshold"] == 1.0
        and len(result["matches"]) == 4
        and not any(m["found"] for m in result["matches"])
    )
    assert result["weight"] == 0.5 and "asks nothing" not in done.stdout
    told = lore_command("ask", "--persona", card, "--lore", lore, "the clock has stopped").stdout
    assert "; the message asks nothing, so its scores count half\n" in told
    assert {"score", "by_meaning", "cosine", "by_words", "words", "source", "heading"} <= result[
        "matches"
    ][0].keys()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("ask", "--persona", "nobody", "x"), "There is no persona 'nobody'."),
        (("ask", "--persona", "oda", "--lore", "/nowhere", "x"), "There is no folder /nowhere."),
        (
            ("extract", "--persona", "oda", "--lore", ".", "--out", "x"),
            "There is no lore of Oda Marrow",
        ),
        (("ask", "--persona", "oda", "?! 🍲"), "The question has no words."),
    ],
)
def test_what_cannot_be_asked_is_said(command, words, error):
    code, _, errors = command("lore", *words)
    assert code == 1 and error in errors and "Traceback" not in errors


def test_extract_writes_facts_a_card_addition_and_pairs_each_with_its_passage(command, tmp_path):
    card, lore = home(tmp_path)
    code, output, errors = command(
        "lore", "extract", "--persona", str(card), "--lore", str(lore), "--out", "out", "--json"
    )
    assert code == 0, errors
    counts = json.loads(output)
    assert counts["relations"] == 1 and counts["traits"] == 1 and counts["style"] == 2
    facts = [
        json.loads(line)
        for line in (tmp_path / "out" / "facts.jsonl").read_text("utf-8").splitlines()
    ]
    assert [fact["spoken"] for fact in facts if fact["spoken"]] == [
        "I wind the clock every evening.",
        "I cannot climb the ladder any more.",
        "I speak slowly.",
        "I never shout.",
    ]
    addition = tomllib.loads((tmp_path / "out" / "card_addition.toml").read_text("utf-8"))
    assert addition["id"] == "ada" and addition["speech"] == [
        "She speaks slowly.",
        "She never shouts.",
    ]
    assert addition["relations"] == ["Bram Weir is her cousin."]
    rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "ada_lore.jsonl").read_text("utf-8").splitlines()
    ]
    tower = next(row for row in rows if row["kind"] == "dialogue")
    assert [message["role"] for message in tower["messages"]] == ["user", "assistant"] * 2
    assert tower["provenance"][0]["source"] == "ada/clock.md" and tower["persona"] == "ada"
    assert all("She" not in message["content"] for row in rows for message in row["messages"])


@pytest.mark.parametrize(
    ("subject", "sentence", "spoken"),
    [
        (HE, "He weighs eighty-three tonnes.", "I weigh eighty-three tonnes."),
        (HE, "Bo is green and has his hook.", "I am green and has my hook."),
        (HE, "He never carries his own lamp.", "I never carry my own lamp."),
        (HE, "In every storm he lowers his jib.", "In every storm I lower my jib."),
        (SHE, "She gave her sister the ladle.", "I gave my sister the ladle."),
        (SHE, "Ada Marsh said it to herself.", "I said it to myself."),
        (HE, "He lights the lamp and writes letters.", None),
        (HE, "He met Jory Fenn, and he was glad.", None),
        (HE, 'He said "I had it."', None),
        (HE, "The lamp weighs forty pounds.", None),
        (SHE, "Wick empties the bucket.", None),
        (SHE, "Ada drinks to her at every full moon.", None),
        (SHE, "She says that a bell gave her the scar.", "I say that a bell gave me the scar."),
        (IT, "It once counted 212 snails on one wall.", "I once counted 212 snails on one wall."),
        (IT, "It used it once, by accident.", None),
        (IT, "Fog calls him its best friend.", None),
        (BOOTH, "The booth fears the blue lamp.", "The booth fears the blue lamp."),
        (BOOTH, "It fears the blue lamp.", None),
    ],
)
def test_a_sentence_is_turned_only_where_that_is_certain(subject, sentence, spoken):
    if spoken and " has my" in spoken:
        spoken = None  # the second verb cannot be told from a thing
    assert subject.to_first_person(sentence) == spoken


def test_he_means_the_persona_only_while_nobody_else_was_named():
    bo = Persona("bo", "Bo")
    text = (
        "# Bo\nBo carries tar. He likes it. Wilf Penhale drives trains. He wears a cap. Bo was "
        "painted. He is green."
    )
    spoken = [
        fact.spoken
        for fact in extract_facts(bo, split_passages("bo", "bo/x.md", text))
        if fact.spoken
    ]
    assert spoken == ["I carry tar.", "I like it.", "I was painted.", "I am green."]


def test_a_thing_is_meant_by_it_only_where_nothing_else_can_be():
    fog = Persona("fog", "Fog")
    text = (
        "# Fog Itself\nIt loves snails. It once filled a gauge. Fog drifts. It hides. Fog has a "
        "bolt. It is white.\n\n## The summer\nIt did not rain for sixty days. Tobit came out. He "
        "played in it. Fog fled in March."
    )
    passages = split_passages("fog", "fog/x.md", text)
    assert find_subject(fog, passages).pronoun == "it"
    spoken = [fact.spoken for fact in extract_facts(fog, passages) if fact.spoken]
    assert spoken == ["I love snails.", "I once filled a gauge.", "I drift.", "I hide.",
                      "I have a bolt.", "I fled in March."]  # fmt: skip
    said = [
        message["content"]
        for pair in extract_lore(fog, passages).pairs
        for message in pair.messages
    ]
    assert not [text for text in said if re.search(r"\b[Ii]t\b|\bHe\b", text)]
    assert not [text for text in said if "March to you" in text]


@pytest.mark.parametrize(
    ("text", "pronoun"),
    [
        ("Ada keeps an inn. It stands on the quay. She cooks.", "she"),
        ("Ada keeps an inn. It is old. Ada sings. She is loud.", "she"),
        ("Ada is a mill. It grinds rye.", "it"),
        ("Ada hums. Nobody listens.", ""),
    ],
)
def test_the_pronoun_is_the_one_after_the_name(text, pronoun):
    ada = Persona("ada", "Ada Marsh")
    assert find_subject(ada, split_passages("ada", "ada/x.md", f"# T\n{text}")).pronoun == pronoun


@pytest.mark.parametrize(
    ("heading", "question"),
    [
        ("Thrip's Habits: His day", "Tell me about your day."),
        ("Company: Nettie Quill", "Who is Nettie Quill?"),
        ("The Feud: How it began", "Tell me how it began."),
        ("The Marrow Family: Ned", "What can you tell me about Ned (The Marrow Family)?"),
        ("Ada's Kitchen: On the board", "What can you tell me about your Kitchen?"),
        ("The Piano: The letter", "What can you tell me about the letter?"),
        ("COMBAT", "What can you tell me about COMBAT?"),
        ("The Quay: What people do", "Tell me what people do."),
        ("The Quay: What is known", "What is known?"),
        ("Mrs. Ada's Own File", "What can you tell me about your Own File?"),
    ],
)
def test_a_heading_becomes_a_question(heading, question):
    assert question_about(heading, SHE) == question


@pytest.mark.parametrize(
    "persona", read_cards(SHIPPED_CARDS).values(), ids=lambda persona: persona.id
)
def test_the_shipped_lore_yields_pairs_in_the_first_person(tmp_path, persona):
    found = extract_lore(persona, read_lore(SHIPPED_LORE, [persona.id, "_world"]))
    counts = write_extraction(persona, found, tmp_path)
    assert counts["questions"] >= 20 and counts["dialogues"] >= 8
    subject = find_subject(persona, read_lore(SHIPPED_LORE, [persona.id]))
    assert subject.pronoun == ("she" if persona.id == "oda" else "he")
    for pair in found.pairs:
        assert pair.passages and all(passage.owner == persona.id for passage in pair.passages)
        for message in pair.messages:
            assert message["role"] == "user" or persona.name not in message["content"]
    assert tomllib.loads((tmp_path / "card_addition.toml").read_text("utf-8"))["id"] == persona.id


@settings(max_examples=80, deadline=None)
@given(
    st.text(
        alphabet=st.sampled_from("He She Ada's \"'.,!?\n—Bo\t is was's 港\x7f\\(["), max_size=120
    )
)
def test_no_lore_breaks_the_rules(text):
    ada = Persona("ada", "Ada (the) Marsh")
    facts = extract_facts(ada, [Passage("ada", "ada/x.md", "T: X", text)])
    assert "".join("".join(fact.text for fact in facts).split()) == "".join(text.split())


def test_no_fact_of_a_card_is_lost_in_toml(tmp_path):
    card, _ = home(tmp_path)
    persona = read_card(card)
    odd = 'Ada likes "tea"\\ and \x7f.'
    found = extract_lore(persona, split_passages("ada", "ada/x.md", f"# T\n{odd}"))
    write_extraction(persona, found, tmp_path)
    addition = tomllib.loads((tmp_path / "card_addition.toml").read_text("utf-8"))
    assert [line for key, lines in addition.items() if key != "id" for line in lines] == [odd]
