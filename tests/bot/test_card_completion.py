"""The rest of a score card is measured once nothing trains: its states, and what stops it."""

import asyncio
from pathlib import Path

import pytest

from bot.store import StoreError
from bot.training.actions import Trainings
from bot.training.backend_protocol import (
    TrainingFailed,
    TrainingInterrupted,
    TrainingSucceeded,
)
from bot.training.card_completion import MAX_ATTEMPTS
from bot.training.discord_progress import job_buttons
from bot.training.guild_turns import QueueConflictError
from bot.training.status_text import changed_verdict_text, job_result_text
from personas.schemas.training_events import Phase
from tests.fakes import until
from tests.samples import SCORECARD

FIRST = SCORECARD.model_copy(update={"pending": True, "verdict": "promote"})
WHOLE = SCORECARD.model_copy(update={"verdict": "hold", "first_verdict": "promote"})
PHASE = Phase(name="measuring the adapter", share=0.25, eta_s=9.0)


@pytest.fixture
async def home(home):
    home.queue.start()
    return home


def succeeded(card):
    return TrainingSucceeded(Path("/models/x"), 61.0, card)


async def trained(home, persona="oda"):
    """A finished job with a first card, whose rest is being measured."""
    job_id = home.ask(persona)
    await until(lambda: home.backend.runs and home.backend.runs[-1].job_id == job_id)
    home.backend.finish(succeeded(FIRST))
    await until(lambda: home.backend.cards and home.backend.cards[-1].job_id == job_id)
    return job_id


def card_of(home, job_id):
    return home.store.jobs.get(job_id).card_state


async def test_the_version_is_ready_at_once_and_its_card_is_completed_afterwards(home):
    job_id = await trained(home)
    job = home.store.jobs.get(job_id)
    assert (job.state, job.card_state, job.card_attempt) == ("done", "running", 1)
    (version,) = home.store.versions.installed("oda")
    assert version.scorecard == FIRST
    home.backend.on_event(PHASE)
    assert home.store.jobs.get(job_id).card_progress == PHASE
    assert home.changes[-1].card_progress == PHASE, "pages and messages show it"
    home.backend.finish(succeeded(WHOLE))
    await until(lambda: card_of(home, job_id) == "complete")
    assert home.store.jobs.get(job_id).result.scorecard == WHOLE
    (version,) = home.store.versions.installed("oda")
    assert version.scorecard == WHOLE and version.scorecard.first_verdict == "promote"
    assert home.changes[-1].card_state == "complete"


async def test_a_run_with_the_whole_card_has_nothing_to_complete(home):
    job_id = home.ask()
    await home.running()
    await home.finish(succeeded(SCORECARD))
    assert card_of(home, job_id) is None and not home.backend.cards


async def test_a_training_comes_first_and_never_runs_beside_it(home):
    card = await trained(home)
    job_id = home.ask("thrip")
    await until(lambda: home.backend.runs[-1].job_id == job_id)
    assert card_of(home, card) == "waiting", "it made way"
    assert home.store.jobs.get(card).card_attempt == 0, "which does not count"
    assert len(home.backend.cards) == 1
    await home.finish(succeeded(FIRST))
    await until(lambda: len(home.backend.cards) == 2)
    assert home.backend.cards[-1].job_id == card, "the oldest first"
    home.backend.finish(succeeded(WHOLE))
    await until(lambda: len(home.backend.cards) == 3)
    assert home.backend.cards[-1].job_id == job_id


async def test_it_can_be_cancelled_and_the_version_stays(home):
    job_id = await trained(home)
    assert home.queue.cancel(job_id).card_state == "cancelled"
    await until(lambda: not home.backend.busy)
    assert (home.state(job_id), card_of(home, job_id)) == ("done", "cancelled")
    assert home.store.versions.installed("oda")
    with pytest.raises(QueueConflictError, match="is done already"):
        home.queue.cancel(job_id)


async def test_it_survives_a_restart_and_a_kill(home):
    job_id = await trained(home)
    await home.queue.stop()
    assert (card_of(home, job_id), home.store.jobs.get(job_id).card_attempt) == ("waiting", 0)
    await home.crash_and_start()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await until(lambda: home.backend.cards)
        assert home.store.jobs.get(job_id).card_attempt == attempt, "a kill counts"
        await home.crash_and_start()
    await until(lambda: card_of(home, job_id) == "failed")
    assert "interrupted 3 times" in home.store.jobs.get(job_id).card_error
    assert not home.backend.cards and home.state(job_id) == "done"


async def test_a_failure_is_stored_and_a_crashed_backend_ends_one_card_only(home):
    job_id = await trained(home)
    home.backend.finish(TrainingFailed("The files are gone.", "Train again."))
    await until(lambda: card_of(home, job_id) == "failed")
    assert home.store.jobs.get(job_id).card_error == "The files are gone. Train again."
    other = await trained(home, "thrip")
    home.backend.finish(ValueError("a bug"))
    await until(lambda: card_of(home, other) == "failed")
    assert home.store.versions.installed("thrip")


async def test_an_erasure_stops_it_and_it_goes_on_afterwards(home):
    job_id = await trained(home)
    home.queue.hold()
    await home.queue.interrupt(job_id)
    assert card_of(home, job_id) == "waiting" and not home.backend.busy
    home.queue.go_on()
    await until(lambda: len(home.backend.cards) == 2)


async def test_a_trainer_that_was_killed_is_tried_again(home, caplog):
    job_id = await trained(home)
    home.backend.finish(TrainingInterrupted("killed"))
    await until(lambda: len(home.backend.cards) == 2)
    assert home.store.jobs.get(job_id).card_attempt == 2
    assert "was interrupted. killed" in caplog.text


def full(*_):
    raise StoreError("The disk is full.")


async def test_an_end_that_cannot_be_stored_delays_no_training_and_no_stop(home, monkeypatch):
    card = await trained(home)
    with monkeypatch.context() as patch:
        patch.setattr(home.store.jobs, "complete_card", full)
        home.backend.finish(succeeded(WHOLE))
        await until(lambda: home.clock.sleepers)
        job_id = home.ask("thrip")
        await until(lambda: home.backend.runs[-1].job_id == job_id)
        assert home.store.jobs.get(card).card_attempt == 1, "its attempt counts"
        await home.finish(succeeded(SCORECARD))
        await until(lambda: len(home.backend.cards) == 2)
        home.backend.finish(succeeded(WHOLE))
        await until(lambda: home.clock.sleepers)
        await asyncio.wait_for(home.queue.stop(), 5)
    home.queue.start()
    await until(lambda: len(home.backend.cards) == 3)
    home.backend.finish(succeeded(WHOLE))
    await until(lambda: card_of(home, card) == "complete")


# ------------------------------------------------------------------------------- what people see


async def test_a_result_says_how_far_the_rest_of_its_card_is_and_offers_to_stop_it(home):
    job_id = await trained(home)
    job = home.store.jobs.get(job_id)
    assert "being measured: it begins" in job_result_text(job)
    home.backend.on_event(PHASE)
    job = home.store.jobs.get(job_id)
    assert "being measured: 25%, at most 9 s left" in job_result_text(job)
    labels = [button.item.label for button in job_buttons(job, None)]
    assert labels == ["Promote", "Stop measuring", "Repeat with changes"], (
        "the version can be promoted meanwhile"
    )
    home.queue.cancel(job_id)
    job = home.store.jobs.get(job_id)
    assert "not measured. It was stopped." in job_result_text(job)
    assert [button.item.label for button in job_buttons(job, None)] == [
        "Promote",
        "Repeat with changes",
    ]


async def test_another_verdict_is_said_and_the_same_one_is_not(home):
    job_id = await trained(home)
    home.backend.finish(succeeded(WHOLE))
    await until(lambda: card_of(home, job_id) == "complete")
    job = home.store.jobs.get(job_id)
    said = "the gate says hold; it said promote before the rest was measured"
    assert said in job_result_text(job) and said in changed_verdict_text(job)
    other = await trained(home, "thrip")
    home.backend.finish(succeeded(WHOLE.model_copy(update={"first_verdict": ""})))
    await until(lambda: card_of(home, other) == "complete")
    job = home.store.jobs.get(other)
    assert changed_verdict_text(job) == "" and "rest" not in job_result_text(job)


# ------------------------------------------------------------------------------ the first training


async def test_the_first_training_of_a_persona_on_a_cpu_is_quick(home):
    trainings = Trainings(home.store, home.queue, None, lambda request: [])
    assert trainings.default_recipe("oda") == "demo-cpu", "a GPU is fast enough"
    home.backend.trains_on_cpu = True
    assert trainings.default_recipe("oda") == "quick"
    assert trainings.default_recipe("oda", "preference") == "preference"
    assert trainings.default_recipe("oda", from_card=True) == "card"
    assert trainings.default_recipe(None, "dialogue") == "demo-cpu"
    await trained(home)
    assert trainings.default_recipe("oda") == "demo-cpu", "the second one is whole"
    assert trainings.default_recipe("thrip") == "quick"
