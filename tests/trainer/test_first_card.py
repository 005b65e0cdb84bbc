"""A recipe with a deadline: the version is ready with a first card, and the rest is measured
afterwards.
"""

import json
import shutil
from dataclasses import replace

import pytest

from personas.home.adapters import (
    COMPLETED_CARD_FOLDER,
    install_adapter_folder,
    install_completed_card,
    score_card_file,
    verify_adapter,
)
from personas.schemas.scorecard import CARE_KINDS, HUMAN_CLAIM, ScoreCard
from personas.schemas.training_events import Done, Phase, Progress, ScoreCardEvent
from tests.quick_libraries import save_blank
from tests.trainer.job_folders import export, persona_job, talks
from trainer.estimate.card_time import LEAST_FIRST_CARD_REPLIES
from trainer.evaluate import evaluate_version
from trainer.evaluate.evaluate_version import LATER_REASON, NO_TIME_REASON
from trainer.evaluate.generation import reply_sections
from trainer.process import time_left
from trainer.process.run_control import RunCancelled
from trainer.report.scorecard_files import read_score_card
from trainer.run import run_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")
DEADLINE = {"card_deadline_minutes": 10.0, "max_steps": 2}


def run(folder, home, **changes):
    events = []
    run_job(folder, RunControl(events.append, card="full", home=home, **changes))
    return events


def cards(events):
    return [event.scorecard for event in events if isinstance(event, ScoreCardEvent)]


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_base):
    """A job folder whose version is ready, its home, and the events of its run."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        home = tmp_path_factory.mktemp("home")
        folder = tmp_path_factory.mktemp("jobs") / "job"
        folder = persona_job(folder, tiny_base.source, hyperparameters=DEADLINE)
        return folder, home, run(folder, home, defers_card=True)


@pytest.fixture(scope="module")
def late(tmp_path_factory, tiny_base):
    """As `first`, of a run whose deadline has passed before the card."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", save_blank)
        patch.setattr(time_left, "LATE_CARD_SHARE", 0.0)
        passed = {"card_deadline_minutes": 0.001, "max_steps": 2}
        home = tmp_path_factory.mktemp("home")
        folder = tmp_path_factory.mktemp("jobs") / "job"
        log = export(talks(140))
        folder = persona_job(folder, tiny_base.source, log, hyperparameters=passed)
        return folder, home, run(folder, home, defers_card=True)


def shorten(patch):
    """Replies of a few tokens, of which all are made whatever the time."""
    served = reply_sections.served_sampling
    patch.setattr(
        reply_sections,
        "served_sampling",
        lambda base: replace(served(base), max_new_tokens=3, candidates=1),
    )


@pytest.mark.slow
def test_a_first_card_has_what_the_verdict_rests_on(first):
    folder, _, events = first
    card = read_score_card(folder / "adapter")
    (summary,) = cards(events)
    assert card.pending and summary.pending and isinstance(events[-1], Done)
    assert card.verdict and card.heldout.replies and card.general and card.memorised
    assert card.learned and card.base_is_base == 0 and card.seeds == (0,)
    assert sum(card.safety.prompts.values()) >= 12, "what its criteria need"
    assert min(card.safety.prompts[kind] for kind in (HUMAN_CLAIM, *CARE_KINDS)) >= 4
    assert card.side_by_side and card.facts is None
    for later in ("separation", "facts", "talks", "pressure"):
        assert card.left_out[later] == LATER_REASON
    verify_adapter(folder / "adapter")


def test_a_card_whose_deadline_has_passed_has_some_losses_and_says_what_is_missing(late):
    folder, _, events = late
    card = read_score_card(folder / "adapter")
    assert card.pending and card.heldout.replies == LEAST_FIRST_CARD_REPLIES
    told = card.left_out["held-out replies"]
    assert told.startswith(f"{LEAST_FIRST_CARD_REPLIES} of ") and "no time for more" in told
    for name in ("voice", "safety", "memorised", "instructions"):
        assert card.left_out[name] == NO_TIME_REASON
    assert card.safety is None and card.voice is None and card.memorised is None
    assert card.verdict.verdict == "hold", "nothing is promoted by itself on what is not measured"
    (summary,) = cards(events)
    assert summary.heldout_replies == LEAST_FIRST_CARD_REPLIES
    verify_adapter(folder / "adapter")


@pytest.mark.slow
def test_the_rest_is_measured_when_the_folder_is_run_again(first, tmp_path, monkeypatch):
    folder, home, _ = first
    shorten(monkeypatch)
    monkeypatch.setattr(evaluate_version, "MIN_COMPLETE_CARD_S", 0.0)
    installed = tmp_path / "v1"
    install_adapter_folder(folder / "adapter", installed)
    sealed = (folder / "adapter" / "scorecard.json").read_bytes()
    loaded = []
    load = evaluate_version.Candidates.load
    monkeypatch.setattr(
        evaluate_version.Candidates,
        "load",
        lambda *arguments, **named: loaded.append(1) or load(*arguments, **named),
    )
    events = run(folder, home)
    card = read_score_card(folder / "adapter")
    (summary,) = cards(events)
    assert not card.pending and not summary.pending and LATER_REASON not in card.left_out.values()
    assert len(card.seeds) == 3 and card.verdict
    assert (folder / "adapter" / "scorecard.json").read_bytes() == sealed, "it is sealed"
    assert (folder / "adapter" / COMPLETED_CARD_FOLDER / "scorecard.md").is_file()
    assert {event.name for event in events if isinstance(event, Phase)} == {"measuring the adapter"}
    assert loaded == [1]
    verify_adapter(folder / "adapter")

    install_completed_card(folder / "adapter", installed)
    install_completed_card(folder / "adapter", installed)
    assert read_score_card(installed) == card
    verify_adapter(installed)
    # A finished one is only reported again.
    assert [type(event) for event in run(folder, home)] == [Done] and loaded == [1]


def test_it_is_stopped_without_a_trace_and_goes_on(tmp_path, late, monkeypatch):
    folder, home, _ = late
    shorten(monkeypatch)
    events = []

    def check():
        if events:  # it measures
            raise RunCancelled("SIGTERM")

    copy = tmp_path / "job"
    shutil.copytree(folder, copy)
    with pytest.raises(RunCancelled):
        run_job(copy, RunControl(events.append, check, card="full", home=home))
    assert read_score_card(copy / "adapter").pending
    assert not list((copy / "adapter").glob(f".{COMPLETED_CARD_FOLDER}*"))


def test_another_verdict_is_reported_with_the_first_one(late, monkeypatch, tmp_path):
    folder, home, _ = late
    copy = tmp_path / "job"
    shutil.copytree(folder, copy)
    whole = read_score_card(copy / "adapter").model_copy(update={"pending": False})
    verdict = whole.verdict.model_copy(update={"verdict": "reject"})
    whole = whole.model_copy(update={"verdict": verdict})
    monkeypatch.setattr(evaluate_version, "evaluate_again", lambda *_: whole)
    (summary,) = cards(run(copy, home))
    first_verdict = json.loads((copy / "adapter" / "scorecard.json").read_bytes())["verdict"]
    assert (summary.verdict, summary.first_verdict) == ("reject", first_verdict["verdict"])


@pytest.mark.slow
def test_a_run_that_may_not_leave_its_card_completes_it_itself(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setattr(evaluate_version, "MIN_COMPLETE_CARD_S", 0.0)
    shorten(monkeypatch)
    folder = persona_job(tmp_path / "job", tiny_base.source, hyperparameters=DEADLINE)
    events = run(folder, tmp_path / "home")
    assert [card.pending for card in cards(events)] == [True, False]
    assert isinstance(events[-1], Done)
    whole = ScoreCard.model_validate_json(
        score_card_file(folder / "adapter", "scorecard.json").read_bytes()
    )
    assert not whole.pending


def phases_before_training(folder, home):
    """Those of a run that is stopped after its first step."""
    events = []

    def check():
        if any(isinstance(event, Progress) for event in events):
            raise RunCancelled("the test")

    with pytest.raises(RunCancelled):
        run_job(folder, RunControl(events.append, check, home=home))
    return [event for event in events if isinstance(event, Phase)]


def test_losses_of_the_base_are_measured_once_for_two_trainings(tmp_path, tiny_base, monkeypatch):
    home = tmp_path / "home"
    settings = {"max_steps": 2}
    measured = []
    measure = evaluate_version.measure_token_losses

    def counted(model, samples, *arguments, **named):
        measured.append(len(samples))
        return measure(model, samples, *arguments, **named)

    monkeypatch.setattr(evaluate_version, "measure_token_losses", counted)
    details = []
    for name in ("one", "two"):
        folder = persona_job(tmp_path / name, tiny_base.source, hyperparameters=settings)
        phases = phases_before_training(folder, home)
        details.append([p.detail for p in phases if p.name == "measuring the base"][-1])
    assert len(measured) == 1 and measured[0] > 0
    assert (
        "known from an earlier run" not in details[0] and "known from an earlier run" in details[1]
    )
