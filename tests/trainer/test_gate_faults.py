"""What was learned from is looked at: sound material passes, and each damage is found by the
criterion meant for it.
"""

import itertools
import json
from dataclasses import replace

import pytest

from benchmarks.studies.gate_detection import detection_result
from benchmarks.studies.gate_faults import (
    FAULTS,
    duplicate_samples,
    leak_heldout,
    mislabel_speakers,
    mix_in_persona,
    persona_author_id,
    plant_secrets,
    raise_learning_rate,
    truncate_samples,
)
from personas.home.job_folder import read_spec
from personas.home.job_material import ShippedData
from personas.schemas.scorecard import LossCurve
from personas.schemas.training_events import Progress
from tests.trainer.job_folders import persona_job
from tests.trainer.sample_scorecards import RECIPE, good_card
from trainer.anonymise.anonymiser import Anonymiser
from trainer.evaluate.data_checks import (
    data_checks_section,
    loss_curve_of,
    read_training_losses,
    training_losses,
)
from trainer.evaluate.memorisation import count_pii
from trainer.gate.criteria import NON_PATTERN_KINDS
from trainer.gate.verdict import judge, outcomes_of
from trainer.schemas import PromptReply


def log_of(persona):
    return json.loads((ShippedData.from_source_tree().logs / f"{persona}.json").read_text("utf-8"))


def exchanges(log, persona=None):
    """Each message of the persona's with the guest's before it."""
    persona = persona or persona_author_id(log)
    lines = log["messages"]
    return [
        PromptReply(str(place), asked["content"], answered["content"])
        for place, (asked, answered) in enumerate(itertools.pairwise(lines))
        if answered["author"]["id"] == persona != asked["author"]["id"]
    ]


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_base):
    """A job of Ada's that learns from Ballast's words, some of which are held out. Its samples
    stand for them.
    """
    from trainer.train.job import prepare_job

    folder = persona_job(tmp_path_factory.mktemp("jobs") / "ada", tiny_base.source)
    job = prepare_job(folder, read_spec(folder))
    said = exchanges(log_of("ballast"))
    train = tuple(said[30:230])
    heldout = tuple(said[:30])
    samples = job.data.train[:1]
    data = replace(
        job.data,
        train=samples * len(train),
        train_prompt_replies=train,
        heldout=samples * 30,
        heldout_prompt_replies=heldout,
    )
    return replace(job, data=data)


def outcomes(job, losses=()):
    return outcomes_of(good_card(learned=data_checks_section(job.data, job.recipe, losses)), RECIPE)


def test_sound_material_passes(job):
    found = data_checks_section(job.data, job.recipe, [])
    assert (
        found.replies == len(job.data.train_prompt_replies)
        and found.repeated < 0.02
        and found.leaked == 0
    )
    judged = outcomes_of(good_card(learned=found), RECIPE)
    assert {judged[name] for name in ("enough", "repeated", "unseen", "private")} == {"pass"}


@pytest.mark.parametrize(
    ("damage", "criterion"),
    [
        (truncate_samples, "enough"),
        (duplicate_samples, "repeated"),
        (leak_heldout, "unseen"),
        (plant_secrets, "private"),
    ],
)
def test_a_damage_behind_the_builder_is_found_by_its_criterion_alone(job, damage, criterion):
    damaged = damage(job)
    learned = data_checks_section(damaged.data, damaged.recipe, [])
    found = outcomes_of(good_card(learned=learned), RECIPE)
    assert found[criterion] == "fail"
    others = {"enough", "unseen", "private", "repeated"} - {criterion}
    # What is planted is planted several times, which is a repetition too.
    assert {found[name] for name in others} <= {"pass", "warn"}
    assert len(damaged.data.train) == len(damaged.data.train_prompt_replies)
    if damage is plant_secrets:
        kinds = {"PHONE_NUMBER", "EMAIL_ADDRESS", "SECRET", "IBAN_CODE", "CREDIT_CARD"}
        assert kinds <= learned.private.keys()


def test_what_the_anonymiser_has_put_in_place_of_something_is_not_found_to_be_private(job):
    real = (
        "Write to jan.novak@firma.cz or ring 020 7946 0958; the box is at 84.17.42.9, my card 4111 "
        "1111 1111 1111."
    )
    masked = Anonymiser(b"k" * 32).anonymise_text(real)
    assert masked != real and "firma" not in masked and "7946" not in masked
    kinds = [
        {kind for kind in count_pii(job.data, [("", text)]) if kind not in NON_PATTERN_KINDS}
        for text in (real, masked)
    ]
    assert {"EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "CREDIT_CARD"} <= kinds[0] and kinds[
        1
    ] == set()


@pytest.mark.slow
def test_a_training_that_rises_is_known_from_one_that_is_noisy(job):
    falling = [3.0 - 0.02 * step + 0.2 * (step % 2) for step in range(40)]
    rising = [3.0 + (step if step < 10 else 20 - step / 2) * 0.2 for step in range(40)]
    longer = [loss for loss in rising for _ in range(2)]
    assert outcomes(job, falling)["steady"] == "pass"
    learned = data_checks_section(job.data, job.recipe, falling)

    def steadiness(losses):
        """Its outcome with other losses of the same data."""
        changed = learned.model_copy(update={"course": loss_curve_of(losses)})
        return outcomes_of(good_card(learned=changed), RECIPE)["steady"]

    assert steadiness(longer) == "fail"
    # Means over the few steps of a short run are noisy: its end decides.
    assert steadiness(rising) == "pass" and steadiness(rising[:20]) == "fail"
    assert loss_curve_of(falling[:4]) is None and "steady" not in outcomes(job)
    assert loss_curve_of([1.0] * 10) == LossCurve(steps=10, first=1.0, highest=1.0, last=1.0)
    fast = raise_learning_rate(job)
    assert fast.recipe.learning_rate == pytest.approx(10 * job.recipe.learning_rate)
    verdict = judge(good_card(learned=data_checks_section(fast.data, fast.recipe, longer)), RECIPE)
    assert any(
        f"learning rate to {fast.recipe.learning_rate / 5:.1g}" in it for it in verdict.advice
    )


def test_losses_are_of_the_stage_on_the_personas_replies(tmp_path):
    assert read_training_losses(tmp_path) == ()
    report = tmp_path / "report" / "steps.csv"
    report.parent.mkdir()
    report.write_text("step,loss\n1,3.5\n2,2.5\n")
    assert read_training_losses(tmp_path) == (3.5, 2.5)
    report.write_text("step,loss,stage\n1,3.5,1\n2,2.5,2\n")
    steps = [
        Progress(step=step, of=2, epoch=1, loss=loss, lr=0, tokens_per_s=1, eta_s=0,
                 memory_bytes=0, stage=step)
        for step, loss in ((1, 3.5), (2, 2.5))
    ]  # fmt: skip
    assert read_training_losses(tmp_path) == training_losses(steps) == (2.5,)


# ------------------------------------------------------------------------------- damages to the log


def test_mislabelled_guests_are_said_to_be_the_persona():
    log = log_of("ballast")
    damaged = mislabel_speakers(log, {})
    before, after = (
        {it.reply for it in exchanges(one, persona_author_id(log))} for one in (log, damaged)
    )
    guests = {it.message for it in exchanges(log)}
    assert not before & guests and 0.25 * len(before) < len(after & guests) < 0.35 * len(before)
    assert [it["author"] for it in damaged["messages"]] == [it["author"] for it in log["messages"]]
    assert log == log_of("ballast"), "the log itself stays as it is"


def test_another_persona_comes_in_under_this_ones_name_later():
    log = log_of("ballast")
    other = log_of("oda")
    damaged = mix_in_persona(log, other)
    said = {it.reply for it in exchanges(damaged, persona_author_id(log))}
    assert {it.reply for it in exchanges(log)} | {it.reply for it in exchanges(other)} <= said
    times = [it["timestamp"][:10] for it in damaged["messages"]]
    assert times == sorted(times), "so that no talk of the two runs into the other"


@pytest.mark.slow
def test_a_classifier_learns_whose_words_they_are():
    from personas.schemas.scorecard import MEMBERS_VOICE
    from trainer.evaluate.generation.voice_classifier import AuthorshipClassifier

    log = log_of("ballast")
    other = log_of("oda")
    guests = [it.message for it in exchanges(log)]
    texts = {
        "oda": [it.reply for it in exchanges(other)],
        "thrip": [it.reply for it in exchanges(log_of("thrip"))],
    }

    def shares(damaged):
        own = [it.reply for it in exchanges(damaged, persona_author_id(log))]
        asked = [it.message for it in exchanges(damaged, persona_author_id(log))] or guests
        names = AuthorshipClassifier({"ballast": own, MEMBERS_VOICE: asked, **texts}).of_learned(
            "ballast"
        )
        return {name: names.count(name) / len(names) for name in {*names}}

    sound = shares(log)
    wrong = shares(mislabel_speakers(log, {}))
    foreign = shares(mix_in_persona(log, other))
    assert sound["ballast"] > 0.95
    assert wrong.get(MEMBERS_VOICE, 0) > 0.15 and foreign.get("oda", 0) > 0.15


# -------------------------------------------------------------------------- the benchmark's account


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_damage_is_caught_by_its_own_criterion_and_never_where_it_is_promoted(name):
    wanted = FAULTS[name].criteria[0]
    run = {"verdict": "hold", "outcomes": {"voice": "fail", wanted: "fail"}}
    assert detection_result(name, run) == {"caught": True, "by": wanted}
    assert detection_result(name, {**run, "verdict": "promote"})["caught"] is False
    assert detection_result(name, {**run, "outcomes": {"voice": "fail", wanted: "warn"}}) == {
        "caught": False,
        "by": "voice",
    }
    assert detection_result(name, {**run, "outcomes": {wanted: "pass"}}) == {
        "caught": False,
        "by": None,
    }
