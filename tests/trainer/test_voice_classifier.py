"""Who is heard: the classifier tells voices apart, and finds lines of others under a persona's
name.
"""

import random
from dataclasses import replace

import pytest

from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.schemas.chat import Persona
from personas.schemas.scorecard import GENERAL_VOICE, HELDOUT_TASK, MEMBERS_VOICE
from trainer.dataset.dataset import Dataset
from trainer.dataset.written_replies import WRITTEN_SOURCE
from trainer.evaluate.generation.author_texts import (
    AuthorTexts,
    collect_voices,
    shipped_voices,
    usable_voices,
)
from trainer.evaluate.generation.reply_copies import CopyDetector, count_replies
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt, GeneratedReply
from trainer.evaluate.generation.voice_classifier import AuthorshipClassifier, measure_voice
from trainer.evaluate.generation.voice_sections import VoiceJudge
from trainer.schemas import PromptReply

CARDS = read_cards(SHIPPED_CARDS)
ADA = Persona("ada", "Ada")
WORDS = {
    "ada": "i wind the old clock at dusk and oil its brass wheel slowly while gulls sleep on bells".split(),
    "bo": "Bravo! What soup, what jam! Marmalade for all, and pie, and cheese; hooray, dear guests!".split(),
    MEMBERS_VOICE: "whats up lol u ok?? brb gotta go cya tmrw pls thx hows ur day bro".split(),
}


def said(voice, count, seed):
    drawn = random.Random(f"{voice} {seed}")
    return tuple(" ".join(drawn.choices(WORDS[voice], k=12)) for _ in range(count))


def voices(**changed):
    made = {name: AuthorTexts(said(name, 40, 1), said(name, 15, 2)) for name in WORDS}
    return {name: changed.get(name, known) for name, known in made.items()}


def answers(side, by_seed):
    return [
        GeneratedReply(
            EvaluationPrompt(HELDOUT_TASK, number, (1,), "hm"), side, seed, text, 3, True
        )
        for seed, texts in by_seed.items()
        for number, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def voice():
    spoken = answers("base", {0: said("bo", 10, 3), 1: said("bo", 10, 4)})
    spoken += answers(
        "new", {0: said("ada", 10, 5), 1: (*said("ada", 5, 6), *said(MEMBERS_VOICE, 4, 6), "")}
    )
    return measure_voice(ADA, voices(), spoken, ("base", "new"), (0, 1))


def test_a_voice_lies_between_floor_and_ceiling(voice):
    assert (
        voice.ceiling >= 0.95 and voice.floor <= 0.05 and (voice.replies, voice.prompts) == (40, 10)
    )
    assert voice.classes == ("ada", "bo", MEMBERS_VOICE)


def test_runs_are_counted_apart_and_an_empty_reply_is_nobodys(voice):
    assert voice.right["base"].mean <= 0.05
    assert voice.right["new"].mean == pytest.approx(0.75, abs=0.06) and voice.right["new"].runs == 2
    assert voice.right["new"].sd == pytest.approx(0.5 / 2**0.5, abs=0.1)
    assert voice.taken_as["new"]["nobody"] == 1 / 20
    assert voice.taken_as["base"]["bo"] >= 0.95


def test_a_masked_text_is_somebodys_though_it_has_no_letters():
    authors = AuthorshipClassifier(
        {"ada": ["■ ■!", "■! ■!"] * 5, "bo": ["■, ■ ■ ■.", "■ ■, ■."] * 5}
    )
    assert authors.of(["■! ■ ■!", "", "?!"]) == ["ada", "", ""]


def test_what_is_trained_on_is_in_the_personas_own_voice(voice):
    assert voice.trained_as["ada"] >= 0.95


def test_lines_of_others_under_the_personas_name_are_found():
    mixed = AuthorTexts((*said("ada", 28, 1), *said(MEMBERS_VOICE, 12, 9)), said("ada", 15, 2))
    found = AuthorshipClassifier(
        {name: known.trained for name, known in voices(ada=mixed).items()}
    ).of_learned("ada")
    assert found.count(MEMBERS_VOICE) >= 9 and found.count("ada") >= 26


def test_twenty_replies_tell_the_shipped_personas_apart():
    voices = shipped_voices(ADA)
    authors = AuthorshipClassifier({name: known.trained[:20] for name, known in voices.items()})
    right = [
        name == author for name, known in voices.items() for author in authors.of(known.heldout)
    ]
    assert len(voices) == 3 and sum(right) / len(right) > 0.9


def exchanges(texts, messages=(), by_persona=True):
    asked = messages or ["what is it"] * len(texts)
    return tuple(PromptReply(str(n), asked[n], text, by_persona) for n, text in enumerate(texts))


def data(persona, trained, heldout, general=()):
    empty = {
        key: {}
        for key in ("counts", "rights", "sources", "days", "people", "replaced", "permission")
    }
    return Dataset(
        train=(), heldout=(), general=(), ledger=None, held_out=None, **empty,
        train_prompt_replies=exchanges(trained, said(MEMBERS_VOICE, len(trained), 1)),
        heldout_prompt_replies=exchanges(heldout, said(MEMBERS_VOICE, len(heldout), 2)),
        general_prompt_replies=exchanges(general, by_persona=False), persona=persona,
    )  # fmt: skip


def test_no_reply_that_a_model_wrote_makes_a_voice_or_its_ceiling():
    own = data(ADA, said("ada", 30, 1), said("ada", 5, 2), general=said("bo", 60, 8))
    written = data(ADA, said("bo", 30, 3), said("bo", 5, 4), general=said("bo", 60, 8))

    def as_written(pairs):
        return tuple(replace(pair, talk=f"{WRITTEN_SOURCE} {pair.talk}") for pair in pairs)

    alone = replace(
        written,
        train_prompt_replies=as_written(written.train_prompt_replies),
        heldout_prompt_replies=as_written(written.heldout_prompt_replies),
    )
    assert usable_voices(alone, {}) == {}
    mixed = replace(
        own,
        train_prompt_replies=own.train_prompt_replies + alone.train_prompt_replies,
        heldout_prompt_replies=own.heldout_prompt_replies + alone.heldout_prompt_replies,
    )
    assert usable_voices(mixed, {})["ada"] == AuthorTexts(said("ada", 30, 1), said("ada", 5, 2))


def test_copies_are_counted_apart_and_are_nobodys_voice():
    learned = said("ada", 40, 1)
    copies = CopyDetector.of_data(data(replace(ADA, first_mes="Mind the third step."), learned, ()))
    own = said("ada", 4, 5)
    half = " ".join(learned[0].split()[:8])
    copied = (learned[1], f"Well, {half}!", "mind the third step", "  Mind the third step. ")
    assert [copies.is_copy(text) for text in (*own, *copied, "", half[:20])] == [
        *[False] * 4, *[True] * 4, False, False,
    ]  # fmt: skip
    spoken = answers("new", {0: (*own, *copied)})
    counts = count_replies(copies, spoken, ("new",))
    assert counts.copied == {"new": 0.5} and counts.ended == {"new": 1.0} and counts.prompts == 8
    assert count_replies(copies, [], ("new",)) is None
    arguments = (ADA, voices(), spoken, ("new",), (0,))
    assert measure_voice(*arguments).right["new"].mean > 0.5
    assert measure_voice(*arguments, is_copy=copies.is_copy).right["new"].mean == 0.5
    assert sum(VoiceJudge(ADA, voices(), is_copy=copies.is_copy).is_own((*own, *copied))) == 4


def test_voices_are_the_personas_others_general_talk_and_members():
    own = data(ADA, said("ada", 30, 1), said("ada", 5, 2), general=said("bo", 60, 8))
    bo = data(Persona("bo", "Bo"), said("bo", 30, 1), said("bo", 5, 2))
    found = collect_voices(
        own, {"bo": bo, "few": data(Persona("few", "Few"), said("bo", 3, 5), said("bo", 3, 6))}
    )
    assert list(found) == ["ada", "bo", GENERAL_VOICE, MEMBERS_VOICE]
    assert found["bo"].heldout == said("bo", 5, 2) and found[MEMBERS_VOICE].trained == said(
        MEMBERS_VOICE, 30, 1
    )
    assert set(found[GENERAL_VOICE].trained) | set(found[GENERAL_VOICE].heldout) == set(
        said("bo", 60, 8)
    )
    assert not set(found[GENERAL_VOICE].trained) & set(found[GENERAL_VOICE].heldout)


def test_without_others_those_that_ship_are_distinguished_and_their_replies_kept_apart():
    found = shipped_voices(CARDS["oda"])
    assert found.keys() == {"ballast", "thrip"}
    for known in found.values():
        assert len(known.trained) > 150 and len(known.heldout) > 20
        assert not set(known.trained) & set(known.heldout)
