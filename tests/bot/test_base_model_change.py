"""Another base model is served: whose versions stay behind is told, and nobody who talks to them
meets an error.
"""

import logging
import time

import pytest

from bot.app import open_app
from bot.demo_guild import MEMBER
from bot.personas.base_model_compat import (
    IncompatibleVersions,
    compatibility_notes,
    find_incompatible_versions,
    is_same_model,
)
from bot.settings import load_settings
from bot.store import InstalledVersion, Store
from bot.training.store import NewTrainingJob
from personas.home.job_material import ShippedData
from personas.models.base_model import fingerprint, locate
from personas.schemas.training import TrainingRequest
from tests.bot.conftest import QUAY
from tests.bot.retrainings import put_live_version
from tests.fakes import until
from tests.samples import SCORECARD
from tests.tiny_models import make_adapter, make_tiny_model


@pytest.fixture
def home(tmp_path, tiny_base, renderer):
    """Ballast's live version was made for another model, Oda's for the one served, Thrip has one
    that is not live.
    """
    make_tiny_model(tmp_path / "other", renderer.tokenizer, seed=7)
    bases = {
        "ballast": locate(str(tmp_path / "other")),
        "oda": tiny_base,
        "thrip": locate(str(tmp_path / "other")),
    }
    with Store.open(tmp_path / "home" / "understudy.sqlite") as store:
        for persona_id, base in bases.items():
            make_adapter(tmp_path / "home", base, persona_id, "v1", seed=1)
            wanted = TrainingRequest(job_name=persona_id, persona=persona_id, base_model=base.name)
            store.jobs.add(NewTrainingJob(persona_id, 1, 1, 1, wanted), time.time())
            store.jobs.cancel(persona_id, time.time())
            store.versions.record_installed(
                InstalledVersion(persona_id, "v1", persona_id, time.time(), SCORECARD)
            )
            if persona_id != "thrip":
                store.versions.promote(persona_id, "v1", by=1, at=time.time())
    return tmp_path / "home"


async def test_a_bot_that_serves_another_model_says_whose_versions_stay_behind(
    home, tiny_base, tmp_path, caplog
):
    environ = {
        "UNDERSTUDY_HOME": str(home),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
        "MAX_NEW_TOKENS": "8",
    }
    async with open_app(load_settings(None, environ), ShippedData.from_source_tree()) as app:
        result = (
            f"Made for another base model than {tiny_base.source}: ballast v1 (for "
            f"{tmp_path / 'other'}). The base"
        )
        assert result in caplog.text and "oda" not in caplog.text and "thrip v1" not in caplog.text
        assert app.services.served_versions.speaking("oda", 0) == "v1"
        shown = await app.sandbox.member(MEMBER).slash(QUAY, "persona show")
        await until(lambda: "Live: v1, made for another base model" in shown.text)
        caplog.clear()
        for words in ("hello", "and again"):
            mark = len(app.sandbox.events)
            await app.sandbox.member(MEMBER).say(QUAY, words)
            reply = await app.sandbox.wait_for(
                "edit", lambda m: "AI-written" in m["content"], 20.0, mark
            )
            assert "AI-written · base model" in reply["content"]
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        # What it said itself stays in its history: no other version said it.
        channel = app.sandbox.channel(QUAY)["id"]
        stored = app.services.store.messages.latest(int(channel), 20)
        assert {m.adapter_version for m in stored if m.persona_id == "ballast"} == {None}
        assert app.services.served_versions.speaking("ballast", 0) is None


def test_a_version_is_left_behind_by_its_manifest(home, tmp_path, tiny_base):
    versions = [("ballast", "v1"), ("oda", "v1"), ("thrip", "v1"), ("nobody", "v9")]
    folder = home / "models" / "persona_adapters" / "thrip" / "v1" / "manifest.json"
    folder.write_text("{")  # damaged: found when it is loaded
    behind = find_incompatible_versions(home, versions, fingerprint(tiny_base))
    assert behind.models == {("ballast", "v1"): str(tmp_path / "other")}
    assert behind.model_of("ballast", None) is None and behind.model_of("ballast", "v2") is None
    assert behind.warning([("ballast", "v2"), ("oda", "v1")], "embedded") == ""
    assert IncompatibleVersions().warning([], "embedded") == ""


def request(base_model, **settings):
    return TrainingRequest(
        job_name="j", task_type="dialogue", base_model=base_model, hyperparameters=settings
    )


def test_what_cannot_be_served_here_is_said_before_it_starts(tiny_base):
    name = tiny_base.source
    assert (
        compatibility_notes(request(name), name)
        == compatibility_notes(request(f"{name}/"), name)
        == []
    )
    assert "BASE_MODEL=embedded" in compatibility_notes(request("embedded"), name)[0]
    scaled = compatibility_notes(request(name, rope_scaling_factor=2), name)
    assert f"for {name}#yarn:2 " in scaled[0] and f"serves {name}." in scaled[0]
    assert compatibility_notes(request(name, rope_scaling_factor=2), f"{name}#yarn:2") == []
    assert compatibility_notes(request(f"{name}#linear:2"), f"{name}#linear:2") == []
    assert compatibility_notes(request(f"{name}#linear:2"), f"{name}#linear:4")
    assert not is_same_model("no such model", name) and not is_same_model(name, f"{name}#wrong")


async def test_a_rollback_to_a_version_that_is_not_served_says_who_answers(stage):
    services = stage.client.services
    guild_id = int(stage.sandbox.guild_id)
    for at in (1.0, 2.0):
        put_live_version(services, "ballast", guild_id, at, live_in=guild_id)
    other = services.home / "other"
    models = IncompatibleVersions({("ballast", "v1"): str(other)}, "served")
    object.__setattr__(services.served_versions, "incompatible", models)
    answer = await stage.moderator.slash(QUAY, "finetune rollback")
    await until(lambda: answer.text)
    assert answer.text == (
        "Rolled back: the base model answers for **Ballast** from the next reply on. "
        "v1 was made for other, which is not served here."
    )
    assert services.store.versions.live("ballast", guild_id) == "v1"


async def test_a_moderator_is_reported_when_a_training_is_queued(stage):
    answer = await stage.moderator.slash(QUAY, "finetune start", settings="rope_scaling_factor=2")
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    note = answer.text
    assert "embedded#yarn:2 and cannot be served here" in note and "serves embedded." in note
    answer = await stage.moderator.slash(QUAY, "finetune start")
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    assert "cannot be served" not in answer.text
