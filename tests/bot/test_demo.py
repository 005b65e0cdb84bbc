"""`python -m bot demo`: what it does to the folder that it is given."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from bot.demo import (
    HOME_NAME,
    PROMOTED_TEXT,
    RESULT_NAME,
    DemoSession,
    make_output_folder,
)
from bot.training.backend_protocol import TrainingFailed
from personas.errors import RequestError, UnderstudyError
from tests.bot.test_finetune import start
from tests.bot.test_gate_verdict import trained
from tests.fakes import until


def test_an_earlier_demo_is_replaced(tmp_path):
    out = tmp_path / "parent" / "demo"
    make_output_folder(out)
    (out / RESULT_NAME).write_text(json.dumps({"job": 1}))
    (out / HOME_NAME).mkdir()
    make_output_folder(out)
    assert list(out.iterdir()) == [out / RESULT_NAME]
    assert json.loads((out / RESULT_NAME).read_text()) == {}
    (out / HOME_NAME).mkdir()
    make_output_folder(out)  # one that was interrupted


def test_the_home_of_a_bot_is_left_alone(tmp_path):
    database = tmp_path / HOME_NAME / "understudy.sqlite"
    database.parent.mkdir()
    database.write_text("messages")
    with pytest.raises(RequestError, match="it contains home"):
        make_output_folder(tmp_path)
    assert database.read_text() == "messages"


def test_a_file_in_place_of_the_folder_is_left_alone(tmp_path):
    file = tmp_path / "demo"
    file.write_text("mine")
    with pytest.raises(RequestError, match="is not a folder"):
        make_output_folder(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("kind", ["message", "edit"])
async def test_the_answer_to_promote_is_a_message_or_an_edit_of_one(kind):
    """On a machine with other load the bot says first that it is at work."""
    message = {"content": f"**v1** {PROMOTED_TEXT}."}
    events = [
        ("message", {"content": PROMOTED_TEXT}),
        ("reaction", {}),
        ("message", {"content": ""}),
    ]
    app = SimpleNamespace(sandbox=SimpleNamespace(events=events))
    waiting = asyncio.create_task(DemoSession(app, started=0.0)._wait_for_text(1, PROMOTED_TEXT))
    await asyncio.sleep(0)
    events.append((kind, message))
    assert await asyncio.wait_for(waiting, 5) is message


async def test_a_training_is_watched_to_the_result_that_the_bot_sends(stage, capsys):
    session = DemoSession(SimpleNamespace(sandbox=stage.sandbox), started=0.0)
    mark = stage.mark
    watching = asyncio.create_task(session._watch("weighbridge-quay", mark))
    await start(stage)
    await until(lambda: stage.backend.busy)
    stage.backend.finish(trained("promote"))
    result = await asyncio.wait_for(watching, 20)
    assert "Trained: **Ballast v1**" in capsys.readouterr().out
    await stage.moderator.click(result, "Promote")
    await session._wait_for_text(mark, PROMOTED_TEXT)
    assert stage.live("ballast") == "v1"


async def test_a_failed_training_ends_the_demo_with_its_reason(stage):
    session = DemoSession(SimpleNamespace(sandbox=stage.sandbox), started=0.0)
    watching = asyncio.create_task(session._watch("weighbridge-quay", stage.mark))
    await start(stage)
    await until(lambda: stage.backend.busy)
    stage.backend.finish(TrainingFailed("The loss was not finite.", "Lower the rate."))
    with pytest.raises(UnderstudyError, match="The loss was not finite"):
        await asyncio.wait_for(watching, 20)
