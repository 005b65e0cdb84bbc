"""Adapters from outside on Discord: a zip or a hub's repository becomes a version that a moderator
may promote.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import zipfile

import aiohttp
import pytest
import torch
from safetensors.torch import save

from bot.personas import discord_cards
from personas.errors import AdapterError
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE, verify_adapter
from personas.home.declared_base_model import EMBEDDED_HUB_ID
from personas.home.hub_download import HUB_ID_PATTERN
from sandbox.object_store import StoredFile
from tests.bot.conftest import OFFICE
from tests.bot.test_card_commands import bring_in, response_text
from tests.bot.web.conftest import dashboard_in
from tests.fakes import until
from tests.hub_server import Hub, Repository, hub_environment
from tests.personas.test_ssrf import HOSTILE_NAMES

NAME = "harbour/mira-lora"
COMMIT = "c" * 40
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def peft_files(**changes):
    """A small adapter of the bundled model, as peft saves it."""
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none",
              "base_model_name_or_path": "embedded", "task_type": "CAUSAL_LM"} | changes  # fmt: skip
    weights = {
        f"{LAYER}.lora_A.weight": torch.ones(4, 576),
        f"{LAYER}.lora_B.weight": torch.zeros(576, 4),
    }
    return {CONFIG_FILE: json.dumps(config).encode(), WEIGHTS_FILE: save(weights)}


def zipped(**changes):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in peft_files(**changes).items():
            archive.writestr(f"mira-lora/{name}", content)
    return StoredFile.named("mira-lora.zip", buffer.getvalue())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that processes of their own reach."""
    served = Hub({NAME: Repository({COMMIT: peft_files()}, licence="mit")})
    with served.serve() as address:
        for name, value in hub_environment(address, str(tmp_path / "cache")).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served


async def outcome(answer, words):
    """The response, once a process of its own has ended."""
    await until(lambda: words in (answer.message or {}).get("content", ""), 120)
    return await response_text(answer, words)


def let_moderators_fetch(stage):
    stage.client.services = dataclasses.replace(stage.client.services, fetch_adapters="moderators")


def versions(stage, persona="mira"):
    found = stage.client.services.personas.find(persona, stage.sandbox.guild_id)
    return found.id, [one.version for one in stage.store.versions.installed(found.id)]


async def importing(stage, **options):
    return await stage.moderator.slash(OFFICE, "persona import", **options)


@pytest.mark.slow
async def test_an_adapter_of_a_hub_comes_with_a_card_and_is_promoted(stage, hub, tmp_path):
    let_moderators_fetch(stage)
    words = f"The adapter of {NAME} is its version v1: **Promote** makes it live."
    said = await outcome(await bring_in(stage, hub=f"{NAME}@{COMMIT}"), words)
    assert "**Mira** (`mira`)" in said["content"]
    who, installed = versions(stage)
    assert installed == ["v1"] and stage.live(who) is None
    manifest = verify_adapter(tmp_path / "models" / "persona_adapters" / who / "v1")
    assert (manifest.source.name, manifest.source.commit, manifest.source.licence) == (
        NAME,
        COMMIT,
        "mit",
    )
    await stage.moderator.click(said, "Promote")
    await stage.sees("v1 of **Mira** is live from the next reply on.")
    assert stage.engine.loaded[0].name == f"{who}-v1"
    status = await response_text(
        await stage.moderator.slash(OFFICE, "finetune status"), "Imported: **Mira v1**"
    )
    assert "Nothing was measured of it" in status["content"]


@pytest.mark.slow
async def test_a_zip_is_for_the_persona_that_is_named(stage, tmp_path):
    said = await outcome(
        await importing(stage, id="oda", adapter=zipped(base_model_name_or_path=EMBEDDED_HUB_ID)),
        "The adapter of mira-lora.zip is its version v1: **Promote** makes it live.",
    )
    for fact in (EMBEDDED_HUB_ID, "`embedded`", "4-bit"):
        assert fact in said["content"]
    await outcome(
        await importing(
            stage, id="oda", adapter=zipped(base_model_name_or_path="someone/Other-7B")
        ),
        "No adapter was installed: It was made for another base model (someone/Other-7B) than is "
        "served (embedded).",
    )
    await outcome(
        await importing(stage, id="oda", adapter=zipped(base_model_name_or_path=EMBEDDED_HUB_ID)),
        "already: it is v1",
    )
    assert versions(stage, "oda")[1] == ["v1"]


@pytest.mark.slow
async def test_a_download_can_be_cancelled_and_then_continues(stage, hub, tmp_path):
    hub.repositories[NAME] = Repository({COMMIT: peft_files()})
    let_moderators_fetch(stage)
    hub.cuts = 1
    hub.stalls = True
    answer = await importing(stage, id="oda", hub=NAME)
    said = await response_text(answer, "Importing an adapter for **Oda")
    await until(lambda: f"GET /{NAME}/resolve/{COMMIT}/{WEIGHTS_FILE}" in hub.asked, 60)
    await stage.moderator.click(said, "Cancel")
    await response_text(answer, "The import was cancelled.")
    assert versions(stage, "oda")[1] == []
    await outcome(
        await importing(stage, id="oda", hub=NAME), f"The adapter of {NAME} is its version v1"
    )
    assert list(tmp_path.glob("cache/understudy-adapters/*/*/*")), "finished files are kept"


async def test_what_cannot_be_imported_is_refused_at_once(stage, hub):
    let_moderators_fetch(stage)
    for options, words in (
        ({"hub": NAME}, "An adapter needs a persona."),
        ({"hub": NAME, "id": "nobody"}, "An adapter needs a persona."),
        ({"hub": NAME, "id": "oda", "adapter": zipped()}, "There are two adapters."),
    ):
        await response_text(await importing(stage, **options), words)
    assert hub.asked == []


async def test_a_server_has_one_import_at_a_time(stage, monkeypatch):
    begun = []
    go_on = asyncio.Event()

    async def fail_later(*inputs, **more):
        begun.append(inputs)
        await go_on.wait()
        raise AdapterError("It cannot be read.")

    monkeypatch.setattr(discord_cards, "import_adapter_version", fail_later)
    first = await importing(stage, id="oda", adapter=zipped())
    await until(lambda: begun)
    refused = (
        "No adapter was installed: Another import of this server is not done yet. Wait for its end."
    )
    await response_text(await importing(stage, id="thrip", adapter=zipped()), refused)
    go_on.set()
    await response_text(first, "It cannot be read.")
    await response_text(await importing(stage, id="thrip", adapter=zipped()), "It cannot be read.")
    assert len(begun) == 2


async def test_no_name_that_leads_elsewhere_begins_an_import(stage, hub):
    let_moderators_fetch(stage)
    hostile = [
        name
        for name in HOSTILE_NAMES
        if len(name) >= 3 and not HUB_ID_PATTERN.fullmatch(name.partition("@")[0])
    ]
    assert len(hostile) >= 20
    for name in hostile:
        await response_text(
            await importing(stage, id="oda", hub=name.format(port=1)),
            "That is no repository's name.",
        )
    assert hub.asked == []


async def test_a_hub_is_only_asked_where_the_operator_allows_it(stage, hub):
    said = await response_text(await importing(stage, id="oda", hub=NAME), "not let this bot fetch")
    assert "FETCH_ADAPTERS" in said["content"] and hub.asked == []


@pytest.mark.slow
async def test_a_folder_of_the_machine_is_never_read_for_a_moderator(
    stage, hub, tmp_path, monkeypatch
):
    """The name of a repository may be that of a folder as well."""
    folder = tmp_path / "cwd" / "someone" / "secret"
    folder.mkdir(parents=True)
    for name, content in peft_files().items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(tmp_path / "cwd")
    let_moderators_fetch(stage)
    await outcome(
        await importing(stage, id="oda", hub="someone/secret"), "the hub has no someone/secret"
    )
    assert versions(stage, "oda")[1] == []


@pytest.mark.slow
async def test_the_page_imports_from_a_hub_and_a_zip_without_scripts(hub, tmp_path):
    page = "/dashboard/personas/oda/versions"
    async with dashboard_in(tmp_path / "home") as dashboard:
        for field in ({"source": NAME}, {"file": zipped().data}):
            form = aiohttp.FormData()
            form.add_field("source", field.get("source", ""))
            form.add_field(
                "file", field.get("file", b""), filename="mira.zip" if "file" in field else ""
            )
            own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
            async with dashboard.session.post(
                f"{page}/import", data=form, headers=own, allow_redirects=False
            ) as sent:
                assert (sent.status, sent.headers["Location"]) == (303, page)
            job = dashboard.services.data_jobs.latest("import", "oda")
            assert 'http-equiv="refresh"' in (await dashboard.page(page))[1]
            await until(lambda job=job: not job.is_open, 60)
            assert job.state == "done", job.error
        assert "mira.zip is installed already: it is v1" in (await dashboard.page(page))[1]
        assert [one.version for one in dashboard.store.versions.installed("oda")] == ["v1"]
        _, whole, _ = await dashboard.ask("GET", "/personas/oda/versions/v1")
        assert whole["manifest"]["source"] == {
            "name": NAME, "commit": COMMIT, "licence": "mit", "base_model": "embedded",
        }  # fmt: skip
        for shown in (page, "/dashboard/cards", "/dashboard/cards/oda/v1"):
            status, text, _ = await dashboard.page(shown)
            assert status == 200 and "0.000" not in text
        assert 'href="/dashboard/data' in (await dashboard.page("/dashboard/data"))[1]


async def test_the_page_offers_no_hub_where_the_bot_may_not_fetch(hub, tmp_path):
    async with dashboard_in(tmp_path / "home", fetch_adapters="off") as dashboard:
        text = (await dashboard.page("/dashboard/personas/oda/versions"))[1]
        assert (
            'name="source"' not in text
            and "does not fetch from a hub" in text
            and 'name="file"' in text
        )
