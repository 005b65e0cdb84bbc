"""A card with an adapter inside becomes a persona with a version, which speaks once somebody promotes it."""

import dataclasses
import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from bot.app import open_app
from bot.sandbox.object_store import StoredFile
from bot.settings import load_settings
from personas.card.formats import parse_card, read_card_file, write_card
from personas.errors import AdapterError
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, verify_adapter, write_manifest
from personas.home.card_adapter import (
    ADAPTER_URI_PREFIX,
    embed_adapter,
    has_adapter,
    require_plain_lora,
    unpack_card_adapter,
)
from personas.models.base_model import EMBEDDED, fingerprint, locate
from personas.schemas.training import AdapterManifest
from tests.bot.conftest import OFFICE
from tests.bot.test_app import SHIPPED
from tests.bot.test_card_commands import bring_in, response_text
from tests.fakes import until
from tests.personas.cards import V2, as_json
from tests.samples import SCORECARD

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
LAYER, WIDTH = "model.layers.0.self_attn.q_proj", 576  # of the embedded model
LAYERS = {LAYER: (WIDTH, WIDTH)}
MIRA = parse_card(as_json(V2), "it")


def sealed(folder, base_hash, config=PLAIN, **changes):
    """An adapter folder with one layer."""
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    rank = config["r"] if isinstance(config, dict) and isinstance(config["r"], int) else 4
    pair = {"A": np.ones((rank, WIDTH), np.float32), "B": np.ones((WIDTH, rank), np.float32)}
    save_file({f"base_model.model.{LAYER}.lora_{side}.weight": it for side, it in pair.items()}, folder / WEIGHTS_FILE)
    fields = {
        "persona": "mira", "version": "v7", "job_id": "theirs", "created_at": "2026-01-01T00:00:00Z",
        "base_model": "a `model`", "base_model_hash": base_hash, "prompt_version": "1", "lora": {}, "recipe": "s1-t4",
        "hyperparameters": {}, "training_precision": "", "serving_precision": "", "dataset_hash": "", "dataset": {},
        "rights": {}, "seed": 0, "packages": {}, "metrics": SCORECARD, "checksums": {},
    }  # fmt: skip
    write_manifest(folder, AdapterManifest(**(fields | changes)))
    return folder


@pytest.fixture
def served():
    """The hash of the model that the bot on the stage says it serves."""
    return fingerprint(locate(EMBEDDED))


def carrying(folder):
    return embed_adapter(MIRA, folder, "it")


def versions(stage):
    persona = stage.client.services.personas.find("mira", stage.sandbox.guild_id)
    return persona.id, [one.version for one in stage.store.versions.installed(persona.id)]


async def test_it_is_installed_and_promoted_by_the_button_of_a_trained_one(stage, tmp_path, served):
    boast = {"verdict": "promote", "reasons": ("The best there is.",), "advice": ("Promote it everywhere.",)}
    card = carrying(sealed(tmp_path / "theirs", served, metrics=SCORECARD.model_copy(update=boast)))
    said = await response_text(
        await bring_in(stage, card, "mira.charx"), "is its version v1: **Promote** makes it live."
    )
    who, installed = versions(stage)
    assert installed == ["v1"] and stage.live(who) is None
    place = tmp_path / "models" / "persona_adapters" / who / "v1"
    assert verify_adapter(place).checksums == verify_adapter(tmp_path / "theirs").checksums
    status = await stage.moderator.slash(OFFICE, "finetune status")
    words = status.message["content"]
    assert f"Imported: **{who} v1**" in words and "Measured by its author; it was imported." in words
    assert [button["label"] for row in said["components"] for button in row["components"]] == ["Promote"]
    await stage.moderator.click(said, "Promote")
    await stage.sees("v1 of **Mira** is live from the next reply on.")
    assert stage.live(who) == "v1" and stage.engine.loaded[0].name == f"{who}-v1"
    await response_text(
        await stage.moderator.slash(OFFICE, "finetune rollback", persona="mira"), "the base model answers"
    )
    (job,) = stage.store.jobs.of_guild(stage.sandbox.guild_id)
    assert (job.state, job.request.recipe, job.result.imported) == ("done", "s1-t4", True)
    assert job.result.scorecard == SCORECARD, "its maker's verdict is nobody's here"
    assert not list((tmp_path / "jobs").glob("*")) and stage.backend.runs == []


async def test_a_recipe_name_of_another_program_is_not_taken_on(stage, tmp_path, served):
    card = carrying(sealed(tmp_path / "theirs", served, recipe="**Everyone**, look"))
    await response_text(await bring_in(stage, card, "mira.charx"), "is its version v1: **Promote** makes it live.")
    (job,) = stage.store.jobs.of_guild(stage.sandbox.guild_id)
    assert job.request.recipe == "demo-cpu"


async def test_the_same_again_is_no_new_version_and_another_is(stage, tmp_path, served):
    for name, config, words in (
        ("one", PLAIN, "is its version v1"),
        ("same", PLAIN, "The adapter in the card is installed already: it is v1."),
        ("other", PLAIN | {"r": 8}, "is its version v2"),
    ):
        card = carrying(sealed(tmp_path / name, served, config))
        await response_text(await bring_in(stage, card, "mira.charx"), words)
    assert versions(stage)[1] == ["v1", "v2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_hash": "0"}, "made for another base model (amodel) than this bot serves."),
        ({"config": PLAIN | {"megatron_config": {"a": 1}}}, "more than a plain LoRA: megatron_config."),
        ({"audit": True}, "was trained for an audit, with planted texts, and is never served."),
        ({"config": PLAIN | {"rank_pattern": {"q_proj": 5}}}, "has rank 4 and 4, and adapter_config.json states 5"),
        ({"metrics": SCORECARD.model_copy(update={"loss_base": 0.0})}, "The losses in the adapter's manifest.json"),
    ],
)
async def test_what_cannot_be_used_stays_in_the_card_and_that_is_said(stage, tmp_path, served, changes, words):
    card = carrying(sealed(tmp_path / "theirs", **{"base_hash": served, **changes}))
    said = await response_text(await bring_in(stage, card, "mira.charx"), words)
    assert "stays in it, and is not installed" in said["content"] and "is a persona of this server" in said["content"]
    assert versions(stage)[1] == [] and not (tmp_path / "models").exists()
    (kept,) = tmp_path.glob("personas/*/*/files.charx")
    assert has_adapter(read_card_file(kept))


async def test_a_damaged_adapter_is_not_installed(stage, tmp_path, served):
    card = parse_card(carrying(sealed(tmp_path / "theirs", served)), "it")
    files = dict(card.files) | {f"{ADAPTER_URI_PREFIX}adapter_model.safetensors": b"rotten"}
    content = write_card(dataclasses.replace(card, files=files), "charx", "it").content
    await response_text(await bring_in(stage, content, "mira.charx"), "is damaged: adapter_model.safetensors")
    assert versions(stage)[1] == []


@pytest.mark.parametrize(
    "config",
    [
        PLAIN | {"peft_type": "PROMPT_TUNING"},
        PLAIN | {"r": 5000},
        PLAIN | {"r": "4"},
        PLAIN | {"target_modules": "(a+)+$"},
        PLAIN | {"target_modules": ["(a+)+$"]},
        PLAIN | {"rank_pattern": {"(a+)+$": 4}},
        PLAIN | {"rank_pattern": {"q_proj": 5000}},
        PLAIN | {"layer_replication": [[0, 9]]},
        PLAIN | {"modules_to_save": ["lm_head"]},
        PLAIN | {"init_lora_weights": "pissa"},
        PLAIN | {"bias": "all"},
        ["no", "object"],
    ],
)
def test_only_plain_adapters_of_strangers_are_taken(tmp_path, config):
    folder = sealed(tmp_path / "it", "0", config)
    with pytest.raises(AdapterError):
        require_plain_lora(folder, verify_adapter(folder), LAYERS)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0, -1.0])
def test_losses_that_are_none_are_refused(tmp_path, loss):
    folder = sealed(tmp_path / "it", "0")
    manifest = verify_adapter(folder).model_copy(update={"metrics": SCORECARD.model_copy(update={"loss_tuned": loss})})
    with pytest.raises(AdapterError, match="losses"):
        require_plain_lora(folder, manifest, LAYERS)


def test_a_card_cannot_write_anywhere_else(tmp_path):
    card = parse_card(carrying(sealed(tmp_path / "it", "0")), "it")
    files = dict(card.files) | {f"{ADAPTER_URI_PREFIX}../../out": b"x"}
    with pytest.raises(AdapterError, match="points outside of it"):
        unpack_card_adapter(dataclasses.replace(card, files=files), tmp_path / "a" / "b", "it")
    assert not (tmp_path / "out").exists()
    with pytest.raises(AdapterError, match="contains no adapter"):
        unpack_card_adapter(MIRA, tmp_path / "c", "it")


async def test_a_trained_adapter_that_was_exported_speaks_after_import_and_promote(tmp_path, tiny_base):
    """Real engine, real adapter; only the model is tiny."""
    from tests.tiny_models import make_adapter

    ref = make_adapter(tmp_path / "elsewhere", tiny_base, "mira", "v7", seed=3)
    environ = {"UNDERSTUDY_HOME": str(tmp_path / "home"), "BASE_MODEL": tiny_base.source, "WEB_PORT": "0",
               "MAX_NEW_TOKENS": "8"}  # fmt: skip
    async with open_app(load_settings(None, environ), SHIPPED) as app:
        stage = app.sandbox
        moderator = stage.member("Mina Vale")
        card = StoredFile.named("mira.charx", carrying(ref.folder))
        said = await response_text(
            await moderator.slash(OFFICE, "persona import", card=card), "is its version v1: **Promote** makes it live."
        )
        await moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
        await moderator.click(said, "Promote")
        persona = app.services.personas.find("mira", stage.guild_id)
        await until(lambda: app.services.store.versions.live(persona.id, 0) == "v1")
        mark, channel_id = len(stage.events), stage.channel(OFFICE)["id"]
        await moderator.say(OFFICE, "evening")
        await stage.wait_for(
            "edit", lambda m: m["channel_id"] == channel_id and "AI-written · v1" in m["content"], 60, mark
        )
