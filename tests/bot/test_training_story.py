"""`/finetune start job_name:dialogue_v1 dataset:oasst2 task_type:dialogue epochs:3`, through the
whole bot: it ends in an adapter. (The same over HTTP: `tests/bot/web/test_web_whole.py`.)
"""

import dataclasses

import aiohttp
import pytest

from bot.app import open_app
from bot.demo_guild import MODERATOR
from bot.settings import load_settings
from personas.home.adapters import verify_adapter
from personas.home.job_folder import REQUEST_FILE
from personas.home.job_material import ShippedData
from personas.models.base_model import fingerprint, locate
from personas.schemas.training import JobSpec
from sandbox import message_text
from tests.bot.conftest import QUAY
from tests.bot.web.conftest import put_talk
from tests.fakes import until
from tests.trainer.read_sources import jsonl
from tests.trainer.test_oasst import node, tree

CATALOGUE = """
[oasst2]
path = "{}"
right = "licensed:Apache-2.0"
stated_by = "Mina Vale"
stated_on = 2026-11-20
why = "Published under this licence."
"""
ASKED = ("Is the ferry late", "Who keeps the lamp", "What does rope cost", "Where is the pilot")


def trees(count):
    """Published trees of one question and two ranked answers."""
    return [
        tree(
            node(
                f"{ASKED[n % 4]} on day {n}, and why?",
                node(f"Ask at gate {n}; they know more about day {n} than I do.", rank=0),
                node(f"Nobody knows of day {n}.", rank=1),
            )
        )
        for n in range(count)
    ]


async def talk_to(app, name):
    """A real reply of a model over HTTP."""
    body = {
        "model": name,
        "messages": [{"role": "user", "content": "Is the ferry late?"}],
        "max_tokens": 8,
    }
    async with (
        aiohttp.ClientSession(app.url) as session,
        session.post("/v1/chat/completions", json=body) as answer,
    ):
        reply = await answer.json()
    assert answer.status == 200, reply
    assert reply["model"].startswith(f"{name}@v") and reply["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_dialogue_training_asked_for_on_discord_ends_in_an_adapter(
    tmp_path, tiny_base, to_the_end
):
    """What a trainer makes of such a folder is tried in `tests/bot/web/test_web_whole.py`, too."""
    home = tmp_path / "home"
    source = tmp_path / "2023-11-05_oasst2_ready.trees.jsonl"
    home.mkdir()
    source.write_bytes(jsonl(trees(24)))
    (home / "catalogue.toml").write_text(CATALOGUE.format(source))
    shipped = ShippedData.from_source_tree()
    small = dataclasses.replace(shipped, general=put_talk(tmp_path / "general", count=6).parent)
    environ = {
        "UNDERSTUDY_HOME": str(home),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
        "TRAINER_CARD": "losses",
    }
    async with open_app(load_settings(None, environ), small) as app:
        stage = app.sandbox
        moderator = stage.member(MODERATOR)
        named = await moderator.autocomplete(QUAY, "finetune start", "dataset", dataset="oas")
        assert [choice["value"] for choice in named] == ["oasst2", "oasst1"], (
            "the one that is here comes first"
        )
        assert "not fetched: 34.1 MB" in named[1]["name"].split(" · ")
        await moderator.slash(
            QUAY,
            "finetune start",
            job_name="dialogue_v1",
            dataset="oasst2",
            task_type="dialogue",
            epochs=3,
        )

        await until(lambda: list((home / "jobs").glob(f"*/{REQUEST_FILE}")), 30)
        (made,) = (home / "jobs").glob(f"*/{REQUEST_FILE}")
        spec = JobSpec.model_validate_json(made.read_bytes())
        asked = spec.request
        assert (asked.task_type, asked.persona, asked.hyperparameters.num_train_epochs) == (
            "dialogue",
            None,
            3,
        )
        assert next((it.kind, it.right) for it in spec.materials) == (
            "messages",
            "licensed:Apache-2.0",
        )
        if not to_the_end:
            return

        def shown(beginning):
            return [
                text
                for _, m in stage.events
                if (text := message_text(m).removeprefix("### ")).startswith(beginning)
            ]

        await until(lambda: shown("Trained") or shown("Failed"), 300)
        assert not shown("Failed"), shown("Failed")
        words = shown("Trained")[0]
        (job,) = app.services.store.jobs.of_guild(stage.guild_id)
        await talk_to(app, "dialogue/dialogue_v1")
        await moderator.slash(QUAY, "finetune promote", version="dialogue/dialogue_v1")
        await until(lambda: shown("v1 of **Ballast** is live from the next reply on."), 120)
        await moderator.say(QUAY, "Is the ferry late?")
        await until(
            lambda: [m for _, m in stage.events if "AI-written · v1" in m.get("content", "")], 120
        )
    adapter = home / "models" / "dialogue" / "dialogue_v1"
    assert "`start_from: dialogue_v1`" in words
    assert (
        "`/finetune promote version:dialogue/dialogue_v1`" in words
        and job.result.adapter == str(adapter)
    )
    assert str(tmp_path) not in words
    manifest = verify_adapter(adapter)
    assert (manifest.persona, manifest.hyperparameters["num_train_epochs"]) == (None, 3.0)
    assert manifest.base_model_hash == fingerprint(locate(tiny_base.source))
    assert manifest.rights == {
        "licensed:Apache-2.0": manifest.dataset["samples_train"]
        + manifest.dataset["samples_heldout"]
    }
    assert manifest.dataset["samples_train"] + manifest.dataset["samples_heldout"] == 24
    assert manifest.metrics.loss_tuned < manifest.metrics.loss_base
