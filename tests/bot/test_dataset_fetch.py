"""Data sets that are not on this machine, on Discord: said with what to do, and fetched with a
press by who may.
"""

from __future__ import annotations

import json
import sys

import pytest

from bot.demo_guild import MODERATOR
from bot.training.request_materials import gather_materials
from sandbox import message_text
from tests.bot.conftest import QUAY
from tests.fakes import until
from tests.hub_server import COMMIT, FETCHER, Hub, Repository, reach

QUESTION = {"role": "prompter", "text": "What of gate 3?", "replies": []}
TREES = (json.dumps({"message_tree_id": "t", "prompt": QUESTION}) + "\n").encode() * 8000
OASST2 = {"2023-11-05_oasst2_ready.trees.jsonl.gz": TREES}


@pytest.fixture(autouse=True)
def fetcher(tmp_path, monkeypatch):
    (tmp_path / "fetcher.py").write_text(FETCHER)
    monkeypatch.setattr(
        "bot.data.jobs.TRAINER_COMMAND", (sys.executable, str(tmp_path / "fetcher.py"))
    )


@pytest.fixture
async def hub(monkeypatch, tmp_path):
    served = Hub(datasets={"OpenAssistant/oasst2": Repository({COMMIT: OASST2})})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


@pytest.fixture
def asking(stage, monkeypatch):
    """The stage, whose requests are checked against the catalogue as they are outside tests."""

    def check(request, guild_id=0):
        gather_materials(stage.client.services.catalogue, request, guild_id)

    monkeypatch.setattr(stage.backend, "check", check)
    return stage


async def answer_to(stage, command="finetune start", **options):
    answer = await stage.moderator.slash(QUAY, command, **({"task_type": "dialogue"} | options))
    await until(lambda: answer.message and not answer.message["flags"] & 128, 15)
    return answer.message


def downloads(hub):
    return [asked for asked in hub.asked if "/resolve/" in asked]


def allow(stage, policy):
    object.__setattr__(stage.client.services, "fetch_datasets", policy)


async def test_a_moderator_fetches_it_with_a_press_and_starts(asking, hub):
    stage = asking
    allow(stage, "moderators")
    named = await stage.moderator.autocomplete(QUAY, "finetune start", "dataset", dataset="oasst2")
    (choice,) = named
    assert choice["name"].split(" · ") == [
        "oasst2",
        "not fetched: 54.4 MB",
        "35 languages",
        "Apache-2.0",
    ]
    offered = await answer_to(stage, dataset="oasst2", job_name="dialogue_v1", epochs=3)
    for fact in ("OpenAssistant/oasst2", "54.4 MB", "Apache-2.0", "not been fetched"):
        assert fact in offered["content"]
    assert "Not for: A persona's voice" in offered["content"] and "http" not in offered["content"]
    preview = await answer_to(stage, "finetune preview", dataset="oasst2")
    assert "has not been fetched" in preview["content"] and preview["components"]
    hub.pause_s = 0.2
    await stage.moderator.click(offered, "Fetch it")
    shown = await stage.sees("Fetching `oasst2`")
    assert shown["components"]
    hub.pause_s = 0
    jobs = stage.client.services.data_jobs
    await until(lambda: jobs.latest("fetch", "oasst2").state == "done", 90)
    ended = await stage.sees("`oasst2` is here")
    assert ended["id"] == shown["id"] and not ended["components"]
    named = await stage.moderator.autocomplete(QUAY, "finetune start", "dataset", dataset="oasst2")
    (choice,) = named
    assert choice["name"].split(" · ") == ["oasst2", "35 languages", "Apache-2.0"]
    assert message_text(await answer_to(stage, dataset="oasst2")).startswith("Queued as")


async def test_only_the_owner_may_where_the_setting_says_operator(asking, hub):
    stage = asking
    assert stage.client.services.fetch_datasets == "operator", "the default"
    offered = await answer_to(stage, dataset="oasst2")
    assert "operator can fetch" in offered["content"]
    assert stage.sandbox.member(MODERATOR).id != (await stage.client.application_info()).owner.id
    await stage.moderator.click(offered, "Fetch it")
    await stage.sees("Only the bot's operator")
    assert not downloads(hub) and not stage.client.services.data_jobs.open()


async def test_without_a_hub_or_where_the_bot_may_not_fetch_there_is_no_button(
    asking, hub, monkeypatch
):
    stage = asking
    allow(stage, "off")
    refused = await answer_to(stage, dataset="oasst2")
    assert "catalogue fetch oasst2`" in refused["content"] and not refused["components"]
    allow(stage, "moderators")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    refused = await answer_to(stage, dataset="oasst2")
    assert "no hub can be reached" in refused["content"] and not refused["components"]


async def test_one_without_licence_is_not_offered(asking, hub):
    refused = await answer_to(asking, dataset="firefly")
    assert "its page states no licence" in refused["content"] and not refused["components"]


@pytest.mark.slow
async def test_a_fetch_is_cancelled_from_the_channel(asking, hub):
    stage = asking
    allow(stage, "moderators")
    hub.pause_s = 0.5
    await stage.moderator.click(await answer_to(stage, dataset="oasst2"), "Fetch it")
    shown = await stage.sees("Fetching `oasst2`")
    await until(lambda: downloads(hub), 60)
    await stage.moderator.click(shown, "Cancel")
    ended = await stage.sees("is cancelled; another one continues")
    assert not ended["components"]
