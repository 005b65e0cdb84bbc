"""The bot with `ENGINE=vllm`: replies, promotion and the doctor, over servers that answer as vLLM
does.
"""

import pytest

from bot.app import open_app
from bot.operations.doctor import server_checks
from bot.operations.web.system_state import read_system_state
from bot.settings import load_settings
from personas.schemas.training import TrainingRequest
from sandbox.object_store import StoredFile
from tests.bot.conftest import OFFICE
from tests.bot.test_app import SHIPPED
from tests.bot.test_bundled_adapter import carrying
from tests.bot.test_card_commands import response_text
from tests.fakes import until
from tests.personas.vllm_engine.server import VllmServer


@pytest.fixture
async def servers(tiny_base, renderer):
    pair = [VllmServer(tiny_base.source, renderer.tokenizer, key="a-key-of-ours") for _ in range(2)]
    for server in pair:
        await server.start()
    yield pair
    for server in pair:
        await server.stop()


@pytest.fixture
def settings(tmp_path, tiny_base, servers):
    environ = {
        "UNDERSTUDY_HOME": str(tmp_path / "home"), "BASE_MODEL": tiny_base.source, "WEB_PORT": "0",
        "MAX_NEW_TOKENS": "12", "ENGINE": "vllm", "ENGINE_URLS": ",".join(server.url for server in servers),
        "ENGINE_KEY": "a-key-of-ours",
    }  # fmt: skip
    return load_settings(None, environ)


async def test_a_version_is_promoted_on_all_servers_and_its_loss_is_said_in_the_footer(
    settings, servers, tiny_base, tmp_path
):
    from tests.tiny_models import make_adapter  # imports torch and peft

    ref = make_adapter(tmp_path / "elsewhere", tiny_base, "mira", "v7", seed=3)
    async with open_app(settings, SHIPPED) as app:
        stage = app.sandbox
        services = app.services
        moderator = stage.member("Mina Vale")
        card = StoredFile.named("mira.charx", carrying(ref.folder))
        said = await response_text(
            await moderator.slash(OFFICE, "persona import", card=card),
            "is its version v1",
        )
        await moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
        persona = services.personas.find("mira", stage.guild_id)

        async def ask(footer: str) -> None:
            mark = len(stage.events)
            channel_id = stage.channel(OFFICE)["id"]
            await moderator.say(OFFICE, "evening")
            await stage.wait_for(
                "edit",
                lambda m: (
                    m["channel_id"] == channel_id and f"AI-written · {footer}" in m["content"]
                ),
                30,
                mark,
            )

        await ask("base model")
        await moderator.click(said, "Promote")
        await until(lambda: services.store.versions.live(persona.id, 0) == "v1")
        assert all(list(server.adapters) == [f"{persona.id}-v1"] for server in servers)
        await ask("v1")
        for server in servers:
            server.adapters.clear()
            server.faults.load_message = "out of memory"
        await ask("base model")
        engine = (await read_system_state(services)).engine
        assert engine.device == "2 of 2 vLLM servers" and engine.rows == 64


async def test_without_adapters_versions_are_kept_and_the_footer_says_so(
    settings, servers, tiny_base, tmp_path
):
    from tests.tiny_models import make_adapter  # imports torch and peft

    ref = make_adapter(tmp_path / "elsewhere", tiny_base, "mira", "v7", seed=3)
    settings = settings.model_copy(update={"engine": "openai"})
    async with open_app(settings, SHIPPED) as app:
        stage = app.sandbox
        services = app.services
        moderator = stage.member("Mina Vale")
        channel_id = stage.channel(OFFICE)["id"]

        async def ask(footer: str) -> None:
            mark = len(stage.events)
            await moderator.say(OFFICE, "evening")
            await stage.wait_for(
                "edit",
                lambda m: m["channel_id"] == channel_id and f"{footer} · cut off" in m["content"],
                30,
                mark,
            )

        card = StoredFile.named("mira.charx", carrying(ref.folder))
        said = await response_text(
            await moderator.slash(OFFICE, "persona import", card=card), "is its version v1"
        )
        await moderator.slash(OFFICE, "persona set", persona="mira", answers="everything")
        persona = services.personas.find("mira", stage.guild_id)
        await ask("AI-written · base model")
        mark = len(stage.events)
        why = "v1 is kept, but this engine serves no adapters. Start the bot with ENGINE=local"
        await moderator.click(said, "Promote")
        await until(lambda: any(why in str(data) for _, data in stage.events[mark:]))
        assert services.store.versions.live(persona.id, 0) is None
        services.store.versions.promote(persona.id, "v1", 0, 0.0)  # as with another engine, earlier
        await ask("AI-written · base model instead of v1")
        show = await moderator.slash(OFFICE, "persona show")
        await response_text(show, "v1 is kept")
        note = "The version is kept, but this engine serves no adapters."
        [found] = services.training_notes(
            TrainingRequest(job_name="mira", persona="mira", base_model=tiny_base.source)
        )
        assert found.startswith(note)
        assert not any(server.loads for server in servers)


async def test_the_doctor_says_what_to_do_without_a_graphics_card(settings, monkeypatch):
    own = settings.model_copy(update={"engine_urls": ()})
    monkeypatch.setattr(server_checks, "list_gpus", list)
    card, *others = await server_checks.check_replicas(own)
    assert (card.name, card.state) == ("vLLM card", "warn") and others
    assert "leave ENGINE out, or set ENGINE=llamacpp" in card.remedy
    monkeypatch.setattr(server_checks, "list_gpus", lambda: ["a card"])
    assert "vLLM card" not in [check.name for check in await server_checks.check_replicas(own)]


async def test_the_doctor_checks_each_server(settings, servers):
    checks = await server_checks.check_replicas(settings)
    assert [(check.name, check.state) for check in checks] == [
        ("vLLM model", "ok"), ("vLLM adapters", "ok"), ("vLLM cancel", "ok")
    ] * 2  # fmt: skip
    assert all(servers[number // 3].url in check.found for number, check in enumerate(checks))
    servers[0].max_model_len = 1000
    servers[1].max_lora_rank = 32
    first, _, second, _ = await server_checks.check_replicas(settings)
    assert first.state == "fail" and "--max-model-len 2048" in first.remedy
    assert second.state == "warn" and "--max-lora-rank" in second.remedy
    await servers[0].stop()
    [away] = await server_checks.check_replicas(
        settings.model_copy(update={"engine_urls": (servers[0].url,)})
    )
    assert away.state == "fail" and "cannot be reached" in away.found
    [model] = await server_checks.check_replicas(
        settings.model_copy(update={"base_model": "/not/there"})
    )
    assert (model.name, model.state) == ("vLLM", "fail")
    wrong = settings.model_copy(update={"engine_key": "another"})
    assert "ENGINE_KEY" in (await server_checks.check_replicas(wrong))[-1].found
    assert await server_checks.check_replicas(settings.model_copy(update={"engine": "local"})) == []
