"""Estimated sense agrees with what readers marked, and says by how much."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from trainer.evaluate.generation.reply_sense import (
    SenseEstimator,
    fit_without,
    read_marks,
    remove_words_of,
    sense_features,
    share_of_different_words,
)

SOURCES = ("real", "trained", "base", "shuffled")  # as the readers order them
GENERATED = ("trained", "base")


def cross_validated(marked):
    """Estimate each marked reply by the marks of the other personas."""
    estimates = np.zeros(len(marked))
    for persona in {reply.persona for reply in marked}:
        places = [n for n, reply in enumerate(marked) if reply.persona == persona]
        features = np.array([marked[n].features for n in places])
        estimates[places] = fit_without(persona, marked).estimate(features)
    return estimates


MARKED = read_marks()
CHARACTERS = sorted({reply.persona for reply in MARKED})
SOURCE = np.array([reply.source for reply in MARKED])
READ = np.array([reply.mean_mark for reply in MARKED])
ESTIMATE = cross_validated(MARKED)


def share_of_pairs(better, worse):
    """Share of pairs in which the first is higher, ties counting half."""
    ranks = rankdata(np.concatenate([better, worse]))
    count = len(better)
    return (ranks[:count].sum() - count * (count + 1) / 2) / (count * len(worse))


def test_readers_marked_replies_of_nine_characters_and_agree():
    counts = {source: int((source == SOURCE).sum()) for source in SOURCES}
    assert counts == {"real": 123, "trained": 75, "base": 123, "shuffled": 123}
    assert len(CHARACTERS) == 9
    of_readers = []
    for reader in (0, 1):
        of_readers.append(
            [replace(reply, marks=(reply.marks[reader],)).mean_mark for reply in MARKED]
        )
    assert spearmanr(*of_readers).statistic > 0.9


def test_the_agreement_that_the_documents_state_is_that_with_the_marks():
    generated = np.isin(SOURCE, GENERATED)
    whole = spearmanr(ESTIMATE, READ).statistic
    part = spearmanr(ESTIMATE[generated], READ[generated]).statistic
    assert (round(whole, 2), round(part, 2)) == (0.49, 0.25)


@pytest.mark.parametrize("values", [READ, ESTIMATE], ids=["readers", "estimate"])
def test_the_sources_are_ordered_as_by_the_readers(values):
    means = [values[source == SOURCE].mean() for source in SOURCES]
    assert means == sorted(means, reverse=True)


def test_it_tells_the_base_model_from_real_replies_and_what_is_beside_the_point():
    assert share_of_pairs(ESTIMATE[SOURCE == "real"], ESTIMATE[SOURCE == "base"]) > 0.75
    assert share_of_pairs(ESTIMATE[SOURCE == "real"], ESTIMATE[SOURCE == "shuffled"]) > 0.8
    beside = np.array([reply.marks == ("beside",) * 2 for reply in MARKED])
    sensible = np.array([reply.marks == ("sensible",) * 2 for reply in MARKED])
    assert share_of_pairs(ESTIMATE[sensible], ESTIMATE[beside]) > 0.8


@pytest.mark.parametrize("persona", CHARACTERS)
def test_of_each_character_real_replies_lie_above_the_base_models(persona):
    """By an estimate that was fitted without its marks."""
    own = np.array([reply.persona == persona for reply in MARKED])
    real = ESTIMATE[own & (SOURCE == "real")]
    base = ESTIMATE[own & (SOURCE == "base")]
    assert share_of_pairs(real, base) > 0.55 and real.mean() > base.mean()


def test_saying_the_question_again_is_no_answer():
    questions = [reply.question for reply in MARKED[::12]]
    echoes = [(question, f"And you, {question}") for question in questions]
    estimates = SenseEstimator.fit(MARKED).estimate(sense_features(echoes))
    assert estimates.max() < ESTIMATE[SOURCE == "shuffled"].mean()


def test_words_of_the_question_and_stage_directions_are_left_out():
    question = "do you like the moths on your lamp?"
    said = "*nods at the lamp* The moths? I count them twice a night."
    assert remove_words_of(question, said) == "The I count them twice a night."
    assert remove_words_of(question, "Moths!") == "."
    assert remove_words_of(question, "*shrugs slowly*") == "*shrugs slowly*"
    assert share_of_different_words("No, no, yes.") == pytest.approx(2 / 3)
    assert share_of_different_words("…") == 0


def test_stored_features_are_those_of_the_texts():
    some = MARKED[::60]
    features = sense_features([(reply.question, reply.reply) for reply in some])
    assert features == pytest.approx(np.array([reply.features for reply in some]), abs=0.02)


@pytest.mark.slow
def test_all_stored_features_are_those_of_the_texts():
    features = sense_features([(reply.question, reply.reply) for reply in MARKED])
    # A rank among sixty questions moves by a sixtieth where two cosines are all but equal.
    assert features == pytest.approx(np.array([reply.features for reply in MARKED]), abs=0.02)


def test_nobody_is_judged_by_their_own_marks():
    turned = [
        replace(reply, marks=("beside", "beside")) if reply.persona == "oda" else reply
        for reply in MARKED
    ]
    of_oda = np.array([reply.features for reply in MARKED if reply.persona == "oda"])
    before = fit_without("oda", MARKED).estimate(of_oda)
    assert (fit_without("oda", turned).estimate(of_oda) == before).all()
    assert SenseEstimator.fit(turned).estimate(of_oda).mean() < before.mean() - 0.05


def test_without_marks_nothing_is_estimated():
    with pytest.raises(ValueError, match="no marks"):
        SenseEstimator.fit([])


def test_babble_what_is_beside_the_point_and_nothing_lie_below_an_answer():
    question = "how do i get the wax out of a tablecloth?"
    answer = "Scrape the wax off cold, then iron the tablecloth between two sheets of paper."
    beside = "The ferry leaves at nine, and the harbour master keeps the key."
    babble = "The wax is the wax. It is the wax of the tablecloth. It is the wax. It is the wax."
    pairs = [(question, text) for text in (answer, babble, beside, "")]
    estimates = SenseEstimator.fit(MARKED).estimate(sense_features(pairs))
    assert estimates[0] > max(estimates[1:]) + 0.2 and estimates.min() >= 0
