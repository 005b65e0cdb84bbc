"""A card with an adapter inside becomes a persona with a version, which speaks once somebody
promotes it.
"""

import asyncio
import dataclasses
import hashlib
import json
import math
import pathlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from bot.app import open_app
from bot.guild_settings.definitions import AUDIT_CHANNEL
from bot.platform.errors import RefusedError
from bot.platform.request_origin import RequestOrigin
from bot.settings import load_settings
from bot.store import StoreError
from bot.training.store import NewTrainingJob
from bot.versions import installation
from bot.versions.installation import VersionInstaller
from personas.card import charx
from personas.card.card_reader import parse_card, read_card_file
from personas.card.spec_card import json_bytes
from personas.errors import AdapterError
from personas.home.adapters import (
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    install_adapter_folder,
    verify_adapter,
    write_manifest,
)
from personas.home.card_adapter import (
    ADAPTER_URI_PREFIX,
    embed_adapter,
    has_adapter,
    require_plain_lora,
    unpack_card_adapter,
)
from personas.models.base_model import EMBEDDED, fingerprint, locate
from personas.schemas.training import AdapterManifest, TrainingRequest
from sandbox.object_store import StoredFile
from tests.bot.conftest import OFFICE
from tests.bot.test_app import SHIPPED
from tests.bot.test_card_commands import bring_in, removed, response_text
from tests.fakes import until
from tests.personas.cards import V2, as_json
from tests.samples import SCORECARD

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
MANIFEST_URI = f"{ADAPTER_URI_PREFIX}{MANIFEST_FILE}"
# of the embedded model
LAYER = "model.layers.0.self_attn.q_proj"
WIDTH = 576
LAYERS = {LAYER: (WIDTH, WIDTH)}
MIRA = parse_card(as_json(V2), "it")


def sealed(folder, base_hash, config=PLAIN, **changes):
    """An adapter folder with one layer."""
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    rank = config["r"] if isinstance(config, dict) and isinstance(config["r"], int) else 4
    pair = {"A": np.ones((rank, WIDTH), np.float32), "B": np.ones((WIDTH, rank), np.float32)}
    save_file(
        {f"base_model.model.{LAYER}.lora_{side}.weight": it for side, it in pair.items()},
        folder / WEIGHTS_FILE,
    )
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


async def imported(stage, card, words):
    """The answer to an import, in place of the card before, if there was one."""
    answer = await bring_in(stage, card, "mira.charx")
    await until(lambda: answer.text)
    if "Replace its card" in answer.text:
        answer = await stage.moderator.click(answer.message, "Replace")
    return await response_text(answer, words)


async def test_it_is_installed_and_promoted_by_the_button_of_a_trained_one(stage, tmp_path, served):
    boast = {
        "verdict": "promote",
        "reasons": ("The best there is.",),
        "advice": ("Promote it everywhere.",),
    }
    card = carrying(sealed(tmp_path / "theirs", served, metrics=SCORECARD.model_copy(update=boast)))
    office = int(stage.sandbox.channel(OFFICE)["id"])
    AUDIT_CHANNEL.write(stage.store, office, int(stage.sandbox.guild_id))
    said = await response_text(await bring_in(stage, card, "mira.charx"), "is its version v1")
    who, installed = versions(stage)
    assert installed == ["v1"] and stage.live(who) is None
    await stage.sees(f"<@{stage.moderator.id}> imported v1 of **Mira**.")
    place = tmp_path / "models" / "persona_adapters" / who / "v1"
    assert verify_adapter(place).checksums == verify_adapter(tmp_path / "theirs").checksums
    status = await stage.moderator.slash(OFFICE, "finetune status")
    words = status.message["content"]
    assert "Imported: **Mira v1**" in words and "Measured by its author" in words
    assert [button["label"] for row in said["components"] for button in row["components"]] == [
        f"Use it in #{OFFICE}",
        "Promote",
    ]
    await stage.moderator.click(said, "Promote")
    await stage.sees("v1 of **Mira** is live")
    assert stage.live(who) == "v1" and stage.engine.loaded[0].name == f"{who}-v1"
    await response_text(
        await stage.moderator.slash(OFFICE, "finetune rollback", persona="mira"),
        "the base model answers",
    )
    (job,) = stage.store.jobs.of_guild(stage.sandbox.guild_id)
    assert (job.state, job.request.recipe, job.result.imported) == ("done", "s1-t4", True)
    assert job.result.scorecard == SCORECARD, "its maker's verdict is nobody's here"
    assert not list((tmp_path / "jobs").glob("*")) and stage.backend.runs == []


async def test_the_same_again_is_no_new_version_and_another_is(stage, tmp_path, served):
    for name, config, words in (
        ("one", PLAIN, "is its version v1"),
        ("same", PLAIN, "already: it is v1"),
        ("other", PLAIN | {"r": 8}, "is its version v2"),
    ):
        card = carrying(sealed(tmp_path / name, served, config, recipe="**Everyone**, look"))
        await imported(stage, card, words)
    assert versions(stage)[1] == ["v1", "v2"]
    jobs = stage.store.jobs.of_guild(stage.sandbox.guild_id)
    assert {job.request.recipe for job in jobs} == {"demo-cpu"}, "another program's is not taken on"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_hash": "0"}, "another base model (amodel)"),
        ({"audit": True}, "trained for an audit"),
    ],
)
async def test_what_cannot_be_used_stays_in_the_card_and_that_is_said(
    stage, tmp_path, served, changes, words
):
    card = carrying(sealed(tmp_path / "theirs", **{"base_hash": served, **changes}))
    said = await response_text(await bring_in(stage, card, "mira.charx"), words)
    assert "not installed" in said["content"] and "is a persona" in said["content"]
    assert versions(stage)[1] == [] and not (tmp_path / "models").exists()
    (kept,) = tmp_path.glob("personas/*/*/files.charx")
    assert has_adapter(read_card_file(kept))


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
        PLAIN | {"rank_pattern": {"q_proj": 5}},
        PLAIN | {"megatron_config": {"a": 1}},
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
    manifest = verify_adapter(folder).model_copy(
        update={"metrics": SCORECARD.model_copy(update={"loss_tuned": loss})}
    )
    with pytest.raises(AdapterError, match="losses"):
        require_plain_lora(folder, manifest, LAYERS)


def with_file(card, name, content=b"x", *, listed=True):
    """The card with another file of its adapter, which the manifest lists as whoever makes one up
    would.
    """
    manifest = json.loads(card.files[MANIFEST_URI])
    if listed:
        manifest["checksums"][name] = hashlib.sha256(content).hexdigest()
    files = {MANIFEST_URI: json.dumps(manifest).encode(), f"{ADAPTER_URI_PREFIX}{name}": content}
    return dataclasses.replace(card, files={**card.files, **files})


@pytest.mark.parametrize(
    "name",
    [
        "../../out",
        "{root}/out",
        "/{root}/out",
        "a//{root}/out",
        "a\\..\\out",
        "C:out",
        "con",
        "a.",
        "a\0b",
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_card_cannot_write_anywhere_else(tmp_path, name, listed):
    card = parse_card(carrying(sealed(tmp_path / "it", "0")), "it")
    bad = with_file(card, name.format(root=tmp_path), listed=listed)
    with pytest.raises(
        AdapterError, match="holds a file whose name" if listed else "not in its manifest"
    ):
        unpack_card_adapter(bad, tmp_path / "a" / "b", "it")
    assert not (tmp_path / "out").exists() and not (tmp_path / "a").exists()


def test_a_card_without_an_adapter_has_nothing_to_unpack(tmp_path):
    with pytest.raises(AdapterError, match="contains no adapter"):
        unpack_card_adapter(MIRA, tmp_path / "c", "it")


def test_nothing_is_written_before_every_file_equals_the_manifest(tmp_path):
    card = parse_card(carrying(sealed(tmp_path / "it", "0")), "it")
    for spoiled in (
        with_file(card, "more.md", listed=False),
        dataclasses.replace(
            card, files={**card.files, f"{ADAPTER_URI_PREFIX}{CONFIG_FILE}": b"{}"}
        ),
        dataclasses.replace(card, files={**card.files, MANIFEST_URI: b"{"}),
        with_file(with_file(card, "Notes.md"), "notes.md"),
    ):
        with pytest.raises(AdapterError) as refused:
            unpack_card_adapter(spoiled, tmp_path / "out", "it")
        assert str(tmp_path) not in str(refused.value) and not (tmp_path / "out").exists()
    unpack_card_adapter(with_file(card, "report/notes.md", b"# Notes"), tmp_path / "out", "it")
    assert (tmp_path / "out" / "report" / "notes.md").read_bytes() == b"# Notes"


async def test_an_imported_card_writes_no_file_of_the_host(stage, tmp_path, served):
    """A zip keeps `//` and a leading slash in its names, which a path takes for the root."""
    victim = tmp_path / "elsewhere" / "authorized_keys"
    card = parse_card(carrying(sealed(tmp_path / "theirs", served)), "it")
    for before in ("", "/", "report//"):
        bad = with_file(card, f"{before}{victim}")
        content = charx.write(json_bytes(card.document), bad.files)
        said = await response_text(
            await bring_in(stage, content, "mira.charx"), "holds a file whose name"
        )
        assert not victim.parent.exists() and "understudy-card-" not in said["content"]
        assert not list(tmp_path.glob("personas/*"))


def test_links_in_an_adapter_are_neither_followed_nor_installed(tmp_path):
    folder = sealed(tmp_path / "theirs", "0")
    (tmp_path / "secret").write_text("secret")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    for check in (verify_adapter, lambda folder: install_adapter_folder(folder, tmp_path / "v1")):
        with pytest.raises(AdapterError, match=r"holds a link: README\.md"):
            check(folder)
    assert not (tmp_path / "v1").exists()


# -------------------------------------------------------------------------------- room, and removal


async def install(stage, folder, guild_id, persona="oda"):
    """Install a checked adapter folder, as every way into a server does in the end."""
    request = TrainingRequest(job_name="imported", persona=persona)
    installer = VersionInstaller(stage.client.services.home, stage.store)
    origin = RequestOrigin(guild_id, 1, 2)
    return (await installer.install_folder(origin, request, folder, "The adapter")).version


async def test_one_moderator_cannot_fill_the_disk_with_versions(
    stage, tmp_path, served, monkeypatch
):
    monkeypatch.setattr(installation, "MAX_GUILD_IMPORTS", 2)
    for rank, words in (
        (4, "is its version v1"),
        (5, "is its version v2"),
        (6, "stays in it, and is not installed: "),
    ):
        card = carrying(sealed(tmp_path / f"rank-{rank}", served, PLAIN | {"r": rank}))
        said = await imported(stage, card, words)
    who, installed = versions(stage)
    assert "would have 3 versions; 2 is the most" in said["content"]
    assert "`/finetune remove`" in said["content"]
    assert f"`{who} v2` (1 MB), `{who} v1` (1 MB)" in said["content"]
    assert (
        installed == ["v1", "v2"] and len(list(tmp_path.glob("models/persona_adapters/*/*"))) == 2
    )
    await imported(stage, carrying(sealed(tmp_path / "again", served)), "already: it is v1")


async def test_versions_that_come_at_once_have_no_more_room_and_other_servers_and_the_operator_their_own(
    stage, tmp_path, served, monkeypatch
):
    monkeypatch.setattr(installation, "MAX_GUILD_IMPORTED_BYTES", 100_000)
    folders = [
        sealed(tmp_path / f"{rank}", served, PLAIN | {"r": rank}) for rank in range(4, 10)
    ]  # 20 kB and more
    here = await asyncio.gather(*(install(stage, it, 7) for it in folders), return_exceptions=True)
    refused = [str(it) for it in here if isinstance(it, RefusedError)]
    assert len(refused) == 3 and all(
        "1 MB is the most" in it and "/finetune remove" in it for it in refused
    )
    installed = tmp_path / "models" / "persona_adapters"
    assert sum(path.stat().st_size for path in installed.rglob("*") if path.is_file()) <= 100_000
    assert await install(stage, folders[-1], 8) == "v4"
    others = [sealed(tmp_path / f"{rank}", served, PLAIN | {"r": rank}) for rank in range(10, 16)]
    assert set(await asyncio.gather(*(install(stage, it, 0) for it in others))) == {
        f"v{n}" for n in range(5, 11)
    }


async def removal(stage, job_id, words):
    return await response_text(
        await stage.moderator.slash(OFFICE, "finetune remove", version=job_id), words
    )


async def offered(stage):
    return [
        it["value"]
        for it in await stage.moderator.autocomplete(
            OFFICE, "finetune remove", "version", version=""
        )
    ]


async def test_a_version_that_is_not_used_is_removed_after_a_second_look_and_makes_room(
    stage, tmp_path, served, monkeypatch
):
    monkeypatch.setattr(installation, "MAX_GUILD_IMPORTS", 1)
    card = carrying(sealed(tmp_path / "theirs", served))
    await response_text(await bring_in(stage, card, "mira.charx"), "is its version v1")
    who, _ = versions(stage)
    (job_id,) = await offered(stage)
    asked = await removal(stage, job_id, f"Delete v1 of `{who}` for good?")
    folder = tmp_path / "models" / "persona_adapters" / who
    assert versions(stage)[1] == ["v1"] and verify_adapter(folder / "v1"), (
        "nothing is deleted before the press"
    )
    await stage.moderator.click(asked, "Delete")
    await until(lambda: not list(folder.iterdir()))
    assert versions(stage)[1] == [] and await offered(stage) == []
    assert [ref.name for ref in stage.engine.dropped] == [f"{who}-v1"]
    again = await stage.moderator.slash(OFFICE, "finetune promote", persona="mira", version="v1")
    await response_text(again, "v1 was withdrawn.")
    await imported(stage, card, "is its version v2")
    assert [path.name for path in folder.iterdir()] == ["v2"]


async def test_a_version_in_use_stays_until_it_is_used_no_more(stage, tmp_path, served):
    guild_id = int(stage.sandbox.guild_id)
    services = stage.client.services
    for rank in (4, 5):
        await install(stage, sealed(tmp_path / f"{rank}", served, PLAIN | {"r": rank}), guild_id)
    await install(stage, sealed(tmp_path / "6", served, PLAIN | {"r": 6}), guild_id + 1)
    v2, v1 = await offered(stage)
    stage.store.versions.promote("oda", "v1", 7, 102.0, guild_id=guild_id)
    await removal(stage, v1, "v1 of oda is live. Promote another version")
    further = TrainingRequest(job_name="j", persona="oda", task_type="preference", start_from="v2")
    stage.store.jobs.add(NewTrainingJob("further", guild_id, 1, 7, further), 103.0)
    await removal(
        stage, v2, "v2 of oda is being trained further. Wait for the end of the job `further`"
    )
    stage.store.jobs.cancel("further", 104.0)
    asked = await removal(stage, v2, "Delete v2 of `oda` for good?")
    stage.store.versions.promote("oda", "v2", 7, 105.0, guild_id=guild_id)
    await stage.moderator.click(asked, "Delete")  # it has become live since the question
    await stage.sees("v2 of oda is live.")
    assert [it.version for it in stage.store.versions.installed("oda", guild_id)] == ["v1", "v2"]
    (theirs,) = stage.store.jobs.of_versions(guild_id + 1)
    await removal(stage, theirs.job_id, "There is no such version of this server.")
    stage.store.versions.rollback("oda", 7, 106.0, guild_id=guild_id)
    await services.versions.remove(stage.store.jobs.get(v2))
    assert stage.live("oda") == "v1"


async def test_the_live_version_of_a_removed_persona_can_be_removed(stage, tmp_path, served):
    said = await bring_in(stage, carrying(sealed(tmp_path / "theirs", served)), "mira.charx")
    await stage.moderator.click(await response_text(said, "is its version v1"), "Promote")
    await stage.sees("v1 of **Mira** is live")
    await removed(stage, "mira")
    (job_id,) = await offered(stage)
    await stage.moderator.click(await removal(stage, job_id, "for good?"), "Delete")
    await until(lambda: not list(tmp_path.glob("models/persona_adapters/*/*")))


async def test_a_version_whose_folder_cannot_be_renamed_stays_as_it_was(
    stage, tmp_path, served, monkeypatch
):
    guild_id = int(stage.sandbox.guild_id)
    await install(stage, sealed(tmp_path / "theirs", served), guild_id)
    (job,) = stage.store.jobs.of_versions(guild_id)

    def denied(self, target):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "rename", denied)
        with pytest.raises(StoreError, match="Permission denied"):
            await stage.client.services.versions.remove(job)
    assert [it.version for it in stage.store.versions.installed("oda", guild_id)] == ["v1"]
    await stage.client.services.versions.load("oda", "v1", guild_id)
    await stage.client.services.versions.remove(job)
    assert not list(
        tmp_path.glob("models/persona_adapters/*/*")
    ) and not stage.store.jobs.of_versions(guild_id)


async def test_a_trained_adapter_that_was_exported_speaks_after_import_and_promote(
    tmp_path, tiny_base
):
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
            await moderator.slash(OFFICE, "persona import", card=card),
            "is its version v1",
        )
        await moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
        await moderator.click(said, "Promote")
        persona = app.services.personas.find("mira", stage.guild_id)
        await until(lambda: app.services.store.versions.live(persona.id, 0) == "v1")
        mark = len(stage.events)
        channel_id = stage.channel(OFFICE)["id"]
        await moderator.say(OFFICE, "evening")
        await stage.wait_for(
            "edit",
            lambda m: m["channel_id"] == channel_id and "AI-written · v1" in m["content"],
            60,
            mark,
        )
