"""What was learned from is looked at: sound material passes, and each damage is found by the criterion meant for it."""

import itertools
import json
from dataclasses import replace

import pytest

from personas.job_material import ShippedData
from personas.scorecard import Course
from tests.trainer.gate_cards import RECIPE, good_card
from tests.trainer.jobs import persona_job
from trainer.anonymise import Anonymiser
from trainer.bench.gate import caught
from trainer.exchange import Exchange
from trainer.gate.damages import DAMAGES, duplicated, leaked, mislabelled, mixed, persona_in, planted, too_fast, too_few
from trainer.gate.judge import judge, outcomes_of
from trainer.gate.measures import GUESSED
from trainer.material import read_spec
from trainer.scorecard.learned import course_of, learned_section, losses_in
from trainer.scorecard.private import private_in


def log_of(persona):
    return json.loads((ShippedData.beside_the_code().logs / f"{persona}.json").read_text("utf-8"))


def exchanges(log, persona=None):
    """Each message of the persona's with the guest's before it."""
    persona = persona or persona_in(log)
    lines = log["messages"]
    return [
        Exchange(str(place), asked["content"], answered["content"])
        for place, (asked, answered) in enumerate(itertools.pairwise(lines))
        if answered["author"]["id"] == persona != asked["author"]["id"]
    ]


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_base):
    """A job of Ada's that learns from Ballast's words, some of which are held out. Its samples stand for them."""
    from trainer.job import prepare

    folder = persona_job(tmp_path_factory.mktemp("jobs") / "ada", tiny_base.source)
    job = prepare(folder, read_spec(folder))
    said = exchanges(log_of("ballast"))
    train, heldout = tuple(said[30:]), tuple(said[:30])
    samples = job.data.train[:1]
    data = replace(job.data, train=samples * len(train), said_train=train, heldout=samples * 30, said_heldout=heldout)
    return replace(job, data=data)


def outcomes(job, losses=()):
    return outcomes_of(good_card(learned=learned_section(job.data, job.recipe, losses)), RECIPE)


def test_sound_material_passes(job):
    found = learned_section(job.data, job.recipe, [])
    assert found.replies == len(job.data.said_train) and found.repeated < 0.02 and found.leaked == 0
    assert {outcomes(job)[name] for name in ("enough", "repeated", "unseen", "private")} == {"pass"}


@pytest.mark.parametrize(
    ("damage", "criterion"),
    [(too_few, "enough"), (duplicated, "repeated"), (leaked, "unseen"), (planted, "private")],
)
def test_a_damage_behind_the_builder_is_found_by_its_criterion_alone(job, damage, criterion):
    found = outcomes(damage(job))
    assert found[criterion] == "fail"
    others = {"enough", "unseen", "private", "repeated"} - {criterion}
    # What is planted is planted several times, which is a repetition too.
    assert {found[name] for name in others} <= {"pass", "warn"}
    assert len(damage(job).data.train) == len(damage(job).data.said_train)


def test_each_kind_of_secret_is_found(job):
    private = learned_section(planted(job).data, job.recipe, []).private
    assert {"PHONE_NUMBER", "EMAIL_ADDRESS", "SECRET", "IBAN_CODE", "CREDIT_CARD"} <= private.keys()


def test_what_the_anonymiser_has_put_in_place_of_something_is_not_found_to_be_private(job):
    real = "Write to jan.novak@firma.cz or ring 020 7946 0958; the box is at 84.17.42.9, my card 4111 1111 1111 1111."
    masked = Anonymiser(b"k" * 32).masked_text(real)
    assert masked != real and "firma" not in masked and "7946" not in masked
    kinds = [{kind for kind in private_in(job.data, [("", text)]) if kind not in GUESSED} for text in (real, masked)]
    assert {"EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "CREDIT_CARD"} <= kinds[0] and kinds[1] == set()


def test_a_training_that_rises_is_known_from_one_that_is_noisy(job):
    falling = [3.0 - 0.02 * step + 0.2 * (step % 2) for step in range(40)]
    rising = [3.0 + (step if step < 10 else 20 - step / 2) * 0.2 for step in range(40)]
    assert outcomes(job, falling)["steady"] == "pass" and outcomes(job, rising)["steady"] == "fail"
    assert course_of(falling[:4]) is None and "steady" not in outcomes(job)
    assert course_of([1.0] * 10) == Course(steps=10, first=1.0, highest=1.0, last=1.0)
    fast = too_fast(job)
    assert fast.recipe.learning_rate == pytest.approx(10 * job.recipe.learning_rate)
    verdict = judge(good_card(learned=learned_section(fast.data, fast.recipe, rising)), RECIPE)
    assert any(f"learning_rate={fast.recipe.learning_rate / 5:.1g}" in it for it in verdict.advice)


def test_losses_are_read_from_a_report_and_of_two_stages_the_last(tmp_path):
    assert losses_in(tmp_path) == ()
    report = tmp_path / "report" / "steps.csv"
    report.parent.mkdir()
    report.write_text("step,loss\n1,3.5\n2,2.5\n")
    assert losses_in(tmp_path) == (3.5, 2.5)
    report.write_text("step,loss,stage\n1,3.5,1\n2,2.5,2\n")
    assert losses_in(tmp_path) == (2.5,)


# ------------------------------------------------------------------------------------------ damages to the log


def test_mislabelled_guests_are_said_to_be_the_persona():
    log = log_of("ballast")
    damaged = mislabelled(log, {})
    before, after = ({it.reply for it in exchanges(one, persona_in(log))} for one in (log, damaged))
    guests = {it.message for it in exchanges(log)}
    assert not before & guests and 0.25 * len(before) < len(after & guests) < 0.35 * len(before)
    assert [it["author"] for it in damaged["messages"]] == [it["author"] for it in log["messages"]]
    assert log == log_of("ballast"), "the log itself stays as it is"


def test_another_persona_comes_in_under_this_ones_name_later():
    log, other = log_of("ballast"), log_of("oda")
    damaged = mixed(log, other)
    said = {it.reply for it in exchanges(damaged, persona_in(log))}
    assert {it.reply for it in exchanges(log)} | {it.reply for it in exchanges(other)} <= said
    times = [it["timestamp"][:10] for it in damaged["messages"]]
    assert times == sorted(times), "so that no talk of the two runs into the other"


@pytest.mark.slow
def test_a_classifier_hears_whose_words_they_are():
    from trainer.scorecard.spoken.voice import MEMBERS, Authors

    log, other = log_of("ballast"), log_of("oda")
    guests = [it.message for it in exchanges(log)]
    texts = {"oda": [it.reply for it in exchanges(other)], "thrip": [it.reply for it in exchanges(log_of("thrip"))]}

    def shares(damaged):
        own = [it.reply for it in exchanges(damaged, persona_in(log))]
        asked = [it.message for it in exchanges(damaged, persona_in(log))] or guests
        names = Authors({"ballast": own, MEMBERS: asked, **texts}).of_learned("ballast")
        return {name: names.count(name) / len(names) for name in {*names}}

    sound, wrong, foreign = shares(log), shares(mislabelled(log, {})), shares(mixed(log, other))
    assert sound["ballast"] > 0.95
    assert wrong.get(MEMBERS, 0) > 0.15 and foreign.get("oda", 0) > 0.15


# ------------------------------------------------------------------------------------------ the benchmark's account


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damage_is_caught_by_its_own_criterion_and_never_where_it_is_promoted(name):
    wanted = DAMAGES[name].criteria[0]
    run = {"verdict": "hold", "outcomes": {"voice": "fail", wanted: "fail"}}
    assert caught(name, run) == {"caught": True, "by": wanted}
    assert caught(name, {**run, "verdict": "promote"})["caught"] is False
    assert caught(name, {**run, "outcomes": {"voice": "fail", wanted: "warn"}}) == {"caught": False, "by": "voice"}
    assert caught(name, {**run, "outcomes": {wanted: "pass"}}) == {"caught": False, "by": None}
