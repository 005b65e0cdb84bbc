"""The gate: each criterion fails on what breaks it, a better card is never judged worse, and the
error rate holds.
"""

import random

import pytest

from personas.errors import RequestError
from personas.schemas.formatting import format_value
from personas.schemas.scorecard import LossCurve
from tests.trainer.sample_scorecards import RECIPE, good_card, interval, of_text, spread, with_new
from trainer.gate.advice import ADVICE_BY_CRITERION
from trainer.gate.criteria import criterion_measurements
from trainer.gate.significance import fisher_p_value, holm_rejections, p_value_of_interval
from trainer.gate.thresholds import read_default_table, thresholds_for
from trainer.gate.verdict import judge

GOOD = good_card()
TITLES = {it.name: it.info.title for it in criterion_measurements(GOOD)}


def voice(**changes):
    return {"voice": changes}


def trained_as(**shares):
    return voice(trained_as=shares)


BROKEN = {
    "better_than_base": {"heldout": {"against_base": interval(0.2)}},
    "no_worse_than_live": {"heldout": {"against_live": interval(0.2)}},
    "own_adapter": {"separation": {"own_best_new": 0.5}},
    "voice": voice(right=with_new(GOOD.voice.right, spread(0.3))),
    "voice_over_base": voice(right=with_new(GOOD.voice.right, spread(0.2))),
    "voice_kept": voice(right=with_new(GOOD.voice.right, spread(0.3))),
    "facts": {"facts": {"right_with_lore": {"base": 0.4, "live": 0.9, "new": 0.1}}},
    "contradictions": {"facts": {"contradictions": {"base": 0.2, "live": 0.1, "new": 0.8}}},
    "in_character": {"facts": {"breaks_character": {"base": 0.0, "live": 0.0, "new": 0.3}}},
    "length": {"text": of_text(length_ratio=0.2)},
    "repetition": {"text": of_text(repetition=0.5)},
    "ends": {"text": of_text(ended=0.3)},
    "general": {"general": {"dialogue_change": interval(0.3)}},
    "instructions": {"general": {"instruction_change": interval(0.5)}},
    "verbatim": {"memorised": {"verbatim": 0.4}},
    "private": {"memorised": {"private": {"EMAIL_ADDRESS": 1}}},
    "fitting": {"memorised": {"gap": {"base": 0.0, "live": 0.0, "new": 1.5}}},
    "safety": {
        "safety": {
            "prompts": {"injection": 20},
            "failed": {"injection": {"base": 2, "live": 2, "new": 18}},
        }
    },
    "members": {"heard": {"least": 0.1, "most": 0.44}},
    "thumbs": {"heard": {"evidence": 55.0}},
    "enough": {"learned": {"replies": 20}},
    "repeated": {"learned": {"repeated": 0.6}},
    "speakers": trained_as(ada=0.6, members=0.4),
    "one_voice": trained_as(ada=0.6, bob=0.4),
    "unseen": {"learned": {"leaked": 0.5}},
    "steady": {"learned": {"course": LossCurve(steps=60, first=3.0, highest=6.0, last=4.0)}},
    "base_is_base": {"base_is_base": 0.5},
}


def outcomes(card, thresholds=None):
    verdict = judge(card, RECIPE, thresholds)
    return {it.name: it.outcome for it in verdict.criteria}


def test_every_criterion_is_broken_by_some_card_here():
    assert BROKEN.keys() == ADVICE_BY_CRITERION.keys() == TITLES.keys()


def test_a_good_version_is_promoted_with_its_reason():
    verdict = judge(GOOD, RECIPE)
    assert verdict.verdict == "promote" and set(outcomes(GOOD).values()) == {"pass"}
    assert (
        "is 2.000, the base model's 3.000" in " ".join(verdict.reasons)
        and len(verdict.reasons) == 3
    )
    assert verdict.advice == () and verdict.error_rate == 0.05 and verdict.thresholds == "default"


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_criterion_fails_on_what_breaks_it_and_says_what_to_do(name):
    verdict = judge(good_card(**BROKEN[name]), RECIPE)
    failed = next(it for it in verdict.criteria if it.name == TITLES[name])
    assert failed.outcome == "fail" and failed.advice
    assert verdict.verdict in ("hold", "reject") and failed.advice in verdict.advice


@pytest.mark.parametrize(
    ("name", "verdict", "reason", "advice"),
    [
        ("private", "reject", "1 × email address", "python -m trainer anonymise"),
        (
            "members",
            "hold",
            "10% to 44% of comparisons (120 blind votes by 14",
            "task_type:preference",
        ),
        (
            "thumbs",
            "hold",
            "30 👍 and 9 👎, the live version's 28 and 11; the evidence",
            "train on their votes",
        ),
        ("enough", "hold", "trained on 20 replies", "own replies (20 now)"),
        ("repeated", "hold", "60% of the longer trained replies", "Remove duplicate replies"),
        ("speakers", "reject", "read like the people who talk", "Check the speaker labels"),
        ("one_voice", "reject", "mostly like bob.", "Remove bob's lines"),
        ("unseen", "reject", "50% of the longer held-out replies", "Remove the held-out replies"),
        ("steady", "hold", "rose to 6.00", "learning_rate=0.0002"),
        ("fitting", "hold", "1.50 below", "num_train_epochs=1 instead of 2"),
        ("general", "reject", "+30.0%", "mixed-80-20"),
    ],
)
def test_reasons_and_advice_follow_from_what_was_measured(name, verdict, reason, advice):
    found = judge(good_card(**BROKEN[name]), RECIPE)
    assert found.verdict == verdict
    assert reason in found.reasons[0] and advice in found.advice[0]


def test_a_training_that_lost_its_way_is_warned_about_its_learning_rate_whatever_else_failed():
    broken = {**BROKEN["steady"], **BROKEN["general"], **BROKEN["better_than_base"]}
    verdict = judge(good_card(**broken), RECIPE)
    assert "learning_rate=0.0002" in verdict.advice[0] and "rose to 6.00" in verdict.reasons[0]
    assert not any("mixed-80-20" in it for it in verdict.advice)


def test_what_members_have_not_made_certain_holds_nothing():
    uncertain = good_card(heard={"least": None, "most": None, "evidence": None})
    assert judge(uncertain, RECIPE).verdict == "promote"
    assert [outcomes(uncertain)[TITLES[name]] for name in ("members", "thumbs")] == [
        "not measured"
    ] * 2
    assert TITLES["members"] not in outcomes(good_card(heard=None))


def test_what_is_only_guessed_to_be_personal_rejects_nothing():
    assert judge(good_card(memorised={"private": {"PERSON": 9}}), RECIPE).verdict == "promote"


def test_a_gain_that_may_be_chance_is_not_promoted():
    verdict = judge(good_card(heldout={"against_base": interval(-0.01, 0.05)}), RECIPE)
    assert verdict.verdict == "hold" and outcomes(good_card(heldout={"against_base": interval(-0.01, 0.05)}))[
        TITLES["better_than_base"]
    ] == "warn"  # fmt: skip


def test_what_was_not_measured_is_not_taken_for_good():
    left_out = {"voice": "Only losses were measured.", "separation": "No other persona speaks."}
    verdict = judge(good_card(voice=None, separation=None, left_out=left_out), RECIPE)
    assert verdict.verdict == "hold" and verdict.reasons[0] == "The voice was not measured."
    bare = good_card(
        voice=None, separation=None, memorised=None, learned=None, safety=None, facts=None, text=()
    )
    assert judge(bare, RECIPE).verdict == "hold"
    assert {it.outcome for it in judge(bare, RECIPE).criteria} == {"pass", "not measured"}


def test_of_too_few_replies_nothing_is_reported_and_a_moderator_decides():
    facts = {"questions": 1}
    safety = {"prompts": {"harassment": 1}}
    few = judge(good_card(voice={"replies": 9}, facts=facts, safety=safety), RECIPE)
    outcome = {it.name: it.outcome for it in few.criteria}
    result = (
        "voice",
        "voice_over_base",
        "voice_kept",
        "facts",
        "contradictions",
        "in_character",
        "safety",
    )
    assert [outcome[TITLES[name]] for name in result] == ["not measured"] * len(result)
    assert (
        few.verdict == "hold"
        and "on 3, too few" in few.reasons[0]
        and "9 are needed" in few.reasons[0]
    )


def test_without_a_live_version_the_base_model_is_the_rival():
    card = good_card(
        adapters={"base": None, "new": GOOD.adapters["new"]}, heldout={"against_live": None}
    )
    verdict = judge(card, RECIPE)
    assert verdict.verdict == "promote" and TITLES["no_worse_than_live"] not in {
        it.name for it in verdict.criteria
    }
    assert "the base model 40%" in next(
        it.why for it in verdict.criteria if it.name == TITLES["facts"]
    )


def test_a_dialogue_adapter_is_nobody_and_is_not_asked_for_a_voice():
    card = good_card(persona=None, voice=None, facts=None, safety=None, separation=None, text=())
    assert judge(card, "s3-dialogue").verdict == "promote"
    assert TITLES["voice"] not in {it.name for it in judge(card, "s3-dialogue").criteria}


# ---------------------------------------------------------------------------- better is never worse

STEPS = {
    "better_than_base": lambda x: {"heldout": {"against_base": interval(0.3 - 0.6 * x)}},
    "no_worse_than_live": lambda x: {"heldout": {"against_live": interval(0.3 - 0.6 * x)}},
    "own_adapter": lambda x: {"separation": {"own_best_new": x}},
    "voice": lambda x: voice(right=with_new(GOOD.voice.right, spread(x))),
    "facts": lambda x: {"facts": {"right_with_lore": {"base": 0.4, "live": 0.5, "new": x}}},
    "contradictions": lambda x: {
        "facts": {"contradictions": {"base": 0.4, "live": 0.3, "new": 1 - x}}
    },
    "in_character": lambda x: {
        "facts": {"breaks_character": {"base": 0.4, "live": 0.3, "new": 1 - x}}
    },
    "length": lambda x: {"text": of_text(length_ratio=0.1 + 0.9 * x)},
    "repetition": lambda x: {"text": of_text(repetition=1 - x)},
    "ends": lambda x: {"text": of_text(ended=x)},
    "general": lambda x: {"general": {"dialogue_change": interval(0.3 - 0.4 * x)}},
    "instructions": lambda x: {"general": {"instruction_change": interval(0.5 - 0.6 * x)}},
    "verbatim": lambda x: {"memorised": {"verbatim": 1 - x}},
    "private": lambda x: {"memorised": {"private": {"SECRET": round(9 * (1 - x))}}},
    "fitting": lambda x: {"memorised": {"gap": {"base": 0.0, "live": 0.0, "new": 2 - 2 * x}}},
    "safety": lambda x: {
        "safety": {
            "prompts": {"injection": 20},
            "failed": {"injection": {"base": 5, "live": 5, "new": round(20 * (1 - x))}},
        }
    },
    "enough": lambda x: {"learned": {"replies": round(200 * x)}},
    "repeated": lambda x: {"learned": {"repeated": 1 - x}},
    "speakers": lambda x: trained_as(ada=x, members=1 - x),
    "one_voice": lambda x: trained_as(ada=x, bob=1 - x),
    "unseen": lambda x: {"learned": {"leaked": 1 - x}},
    "steady": lambda x: {
        "learned": {"course": LossCurve(steps=60, first=3.0, highest=6.0 - 4 * x, last=2.0)}
    },
    "base_is_base": lambda x: {"base_is_base": 0.1 * (1 - x)},
}
ORDER = {"fail": 0, "warn": 1, "pass": 2}
VERDICTS = {"reject": 0, "hold": 1, "promote": 2}


def merged(*changes):
    whole: dict = {}
    for change in changes:
        for section, fields in change.items():
            is_part = isinstance(fields, dict) and isinstance(whole.get(section), dict)
            whole[section] = {**whole[section], **fields} if is_part else fields
    return whole


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_better_card_never_gets_a_worse_outcome_on_any_criterion(name):
    draw = random.Random(name)
    for _ in range(12):
        chosen = {
            other: STEPS[other](draw.random())
            for other in draw.sample(sorted(STEPS), 5)
            if other != name
        }
        worse, better = sorted((draw.random(), draw.random()))
        cards = [good_card(**merged(*chosen.values(), STEPS[name](at))) for at in (worse, better)]
        before, after = (outcomes(card) for card in cards)
        assert all(ORDER[after[it]] >= ORDER[before[it]] for it in before), (worse, better, chosen)
        assert (
            VERDICTS[judge(cards[1], RECIPE).verdict] >= VERDICTS[judge(cards[0], RECIPE).verdict]
        )


# ------------------------------------------------------------------------------------------ chances


def test_holm_is_stricter_the_more_tests_there_are_and_goes_on_while_they_fail():
    assert holm_rejections({"a": 0.04}, 0.05) == {"a"}
    assert holm_rejections({"a": 0.04, "b": 0.5}, 0.05) == frozenset()
    assert holm_rejections({"a": 0.01, "b": 0.02, "c": 0.9}, 0.05) == {"a", "b"}
    assert holm_rejections({"a": 0.03, "b": 0.001, "c": 0.9}, 0.05) == {"b"}


def test_an_interval_that_begins_at_the_threshold_has_a_chance_of_one_in_forty():
    assert p_value_of_interval(interval(0.1, 0.1))(0.0) == pytest.approx(0.025)
    assert p_value_of_interval(interval(0.0, 0.1))(0.0) == pytest.approx(0.5)
    assert (
        p_value_of_interval(interval(0.1, 0.0))(0.0) == 0
        and p_value_of_interval(interval(0.1, 0.0))(0.2) == 1
    )


def test_two_shares_are_compared_by_fishers_exact_test():
    assert fisher_p_value(1.0, 0.0, 3)(0.0) == pytest.approx(
        1 / 20
    )  # one of the 20 ways to draw three of six
    assert fisher_p_value(0.5, 0.5, 4)(0.0) == pytest.approx(53 / 70)
    assert fisher_p_value(0.0, 1.0, 5)(0.0) == 1


def test_a_voice_is_compared_by_as_many_trials_as_there_were_different_prompts():
    def chance(prompts):
        card = good_card(
            voice={"prompts": prompts, "right": with_new(GOOD.voice.right, spread(0.7))}
        )
        measured = {it.name: it for it in criterion_measurements(card)}
        return measured["voice_kept"].chance(0.0)

    right = 0.7
    live = GOOD.voice.right["live"].mean
    assert chance(120) == fisher_p_value(1 - right, 1 - live, 120)(0.0) < chance(40)
    assert chance(0) == chance(40), (
        "an earlier card: 360 replies of three sides with three seeds each"
    )


def test_versions_that_are_no_worse_fail_by_accident_in_no_more_cases_than_is_said():
    """Cards whose truth is exactly at every test's threshold."""
    draw = random.Random(0)
    failed = 0
    rounds = 400
    for _ in range(rounds):
        right, wrong, harm = (
            [sum(draw.random() < p for _ in range(20)) / 20 for _ in range(2)]
            for p in (0.5, 0.2, 0.3)
        )
        card = good_card(
            heldout={
                "against_base": interval(draw.gauss(0, 0.02), 0.0392),
                "against_live": interval(draw.gauss(0.03, 0.02), 0.0392),
            },
            voice={"right": {"base": spread(0.4), "live": spread(0.85), "new": spread(0.85)}},
            facts={
                "right_with_lore": {"base": 0.5, "live": right[0], "new": right[1]},
                "contradictions": {"base": 0.5, "live": wrong[0], "new": wrong[1]},
            },
            general={
                "dialogue_change": interval(draw.gauss(0.05, 0.01), 0.0196),
                "instruction_change": interval(draw.gauss(0.25, 0.05), 0.098),
            },
            safety={
                "prompts": {"injection": 20},
                "failed": {"injection": {"base": 0, "live": harm[0] * 20, "new": harm[1] * 20}},
            },
        )
        failed += "fail" in outcomes(card).values()
    assert 0 < failed / rounds <= 0.05 + 0.02


# --------------------------------------------------------------------------------------- thresholds


def test_values_and_thresholds_are_in_the_same_words_and_never_negatively_fewer():
    facts = next(it for it in judge(GOOD, RECIPE).criteria if it.name == "knows the lore")
    assert facts.threshold.startswith("at most 15.0% fewer;") and "above 0.0%" in facts.threshold
    assert (
        format_value(-0.352, facts.unit) == "35.2% more"
        and format_value(0.1, facts.unit) == "10.0% fewer"
    )
    assert (
        format_value(0.971, "of the ceiling") == "97.1% of the ceiling"
        and format_value(1.0, "times") == "1.00 times"
    )
    assert (
        format_value(-0.1, "share more") == "10.0% fewer"
        and format_value(-0.1, "share") == "-10.0%"
    )


def test_a_recipe_overrides_single_thresholds():
    assert thresholds_for("preference").rules["enough"].fail == 20
    assert thresholds_for("demo-cpu").rules["enough"].fail == 40
    assert thresholds_for("preference").rules["enough"].on_fail == "hold"
    assert "preference" in judge(GOOD, "preference").thresholds


def test_wrong_thresholds_are_refused_by_name():
    table = read_default_table()
    without = {name: values for name, values in table.items() if name != "voice"}
    for wrong, words in (
        ({**table, "recipe": {"demo-cpu": {"vioce": {"warn": 1}}}}, "no criterion 'vioce'"),
        (without, "no table for 'voice'"),
        ({**table, "voice": {**table["voice"], "on_warn": "cheer"}}, "on_warn"),
        (
            {**table, "facts": {**table["facts"], "fail": 0.1}},
            "facts tests whether two shares differ",
        ),
        ({**table, "error_rate": 2}, "error_rate"),
    ):
        with pytest.raises(RequestError, match=words):
            thresholds_for("demo-cpu", wrong)
