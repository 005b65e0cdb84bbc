"""The backend completes a score card: it runs the finished job's folder again, and installs the
card beside the adapter.
"""

import json

import pytest

from bot.store import JobResult
from bot.training.backend_protocol import TrainingFailed, TrainingSucceeded
from personas.home.adapters import COMPLETED_CARD_FOLDER, score_card_file, verify_adapter
from tests.bot.subprocess_trainer import Workshop
from tests.trainer.sample_scorecards import good_card
from trainer.gate.verdict import judge

CARD = good_card()
CARD = CARD.model_copy(update={"verdict": judge(CARD, "demo-cpu")})


@pytest.fixture
def workshop(tmp_path):
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.store.close()


async def finished(workshop, first_verdict):
    """A job whose run has ended with a first card of this verdict."""
    success = await workshop.run("good")
    scorecard = success.scorecard.model_copy(update={"pending": True, "verdict": first_verdict})
    job = workshop.store.jobs.get("j1")
    claimed = workshop.store.jobs.claim(job, "token", 2.0)
    result = JobResult(adapter=str(success.adapter), seconds=1.5, scorecard=scorecard)
    return workshop.store.jobs.complete(claimed.job_id, "token", result, 3.0)


def measured(workshop):
    """What a trainer leaves that has completed the card."""
    card = workshop.folder() / "adapter" / COMPLETED_CARD_FOLDER
    card.mkdir()
    (card / "scorecard.json").write_text(CARD.model_dump_json())


@pytest.mark.parametrize(("first", "kept"), [("promote", ""), ("hold", "hold")])
async def test_a_completed_card_is_installed_and_its_summary_returned(workshop, first, kept):
    job = await finished(workshop, first)
    measured(workshop)
    result = await workshop.backend("good").complete_card(job, workshop.events.append)
    assert isinstance(result, TrainingSucceeded)
    assert (result.scorecard.verdict, result.scorecard.first_verdict) == ("promote", kept)
    assert not result.scorecard.pending
    shown = score_card_file(result.adapter, "scorecard.json")
    assert shown.parent.name == COMPLETED_CARD_FOLDER
    assert json.loads(shown.read_bytes())["version"] == CARD.version
    assert verify_adapter(result.adapter).job_id == "j1", "the sealed files stay as they are"
    again = await workshop.backend("good").complete_card(job, workshop.events.append)
    assert again == result, "a kill before it was stored costs nothing"


async def test_without_its_folder_or_with_a_damaged_card_it_fails_with_a_reason(workshop):
    job = await finished(workshop, "promote")
    measured(workshop)
    card = workshop.folder() / "adapter" / COMPLETED_CARD_FOLDER / "scorecard.json"
    card.write_text("{")
    failed = await workshop.backend("good").complete_card(job, workshop.events.append)
    assert isinstance(failed, TrainingFailed) and "is damaged" in failed.error
    (workshop.folder() / "adapter").rename(workshop.folder() / "gone")
    failed = await workshop.backend("good").complete_card(job, workshop.events.append)
    assert isinstance(failed, TrainingFailed) and "files of the training are gone" in failed.error
