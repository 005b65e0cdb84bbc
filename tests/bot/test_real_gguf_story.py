"""A real model of half a billion parameters, as a GGUF file, through the whole bot: members talk, a
moderator trains and promotes, and the tuned voice speaks. On both engines.
"""

import pytest
from huggingface_hub import constants

from bot.app import open_app
from bot.demo_guild import MEMBER, MODERATOR
from bot.settings import load_settings
from personas.home.adapters import adapter_ref
from personas.home.effect_probe import load_effect_probe, read_effect_results
from sandbox import message_text
from tests.bot.conftest import QUAY, finished_reply
from tests.fakes import until
from tests.real_llama import llama_program, real_model, setting_of
from tests.trainer.job_folders import shipping_few
from tools.real_model import FILE

HUB = FILE.parent / "hub"
"""Where the model is unpacked: two bytes a parameter, once for all runs."""
REPLY_TIMEOUT_S = 240.0
TRAINING_TIMEOUT_S = 1800.0
MESSAGES = 120
SMALL = (
    "max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=1, lora_r=8, "
    "lora_alpha=16, heldout_share=0.05"
)


@pytest.fixture
def environ(tmp_path, monkeypatch):
    hub = str(HUB.absolute())
    monkeypatch.setenv("HF_HOME", hub)  # the trainer's
    monkeypatch.setattr(constants, "HF_HOME", hub)
    return {
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "BASE_MODEL": str(real_model()),
        "WEB_PORT": "0",
        "CONTEXT_TOKENS": "1024",
        "MAX_NEW_TOKENS": "8",
        "REPLY_CANDIDATES": "1",
        "TRAINER_CARD": "quick",
        "TRAINER_NICE": "0",  # the tests beside it would take its core
    }


async def ask(app, text="Good evening, who is there?"):
    """Say something in the persona's channel; return the reply and its footer."""
    stage = app.sandbox
    mark = len(stage.events)
    await stage.member(MEMBER).say(QUAY, text)
    message = await finished_reply(stage, QUAY, mark, timeout_s=REPLY_TIMEOUT_S)
    reply, _, footer = message["content"].partition("\n-# ")
    return reply, footer


async def train(app):
    """Have a moderator train; return the message with the result."""
    stage = app.sandbox
    mark = len(stage.events)
    await stage.member(MODERATOR).slash(QUAY, "finetune start", settings=SMALL)

    def results():
        return [
            message
            for _, message in stage.events[mark:]
            if message_text(message).removeprefix("### ").startswith(("Trained", "Failed"))
        ]

    await until(results, TRAINING_TIMEOUT_S)
    result = results()[0]
    assert "Trained" in message_text(result), message_text(result)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "llamacpp"])
async def test_a_real_gguf_is_talked_to_trained_promoted_and_talked_to(
    environ, engine, tmp_path, record_property
):
    if engine == "llamacpp":
        environ |= {"ENGINE": "llamacpp", "LLAMA_SERVER": setting_of(llama_program())}
    settings = load_settings(None, environ)
    async with open_app(settings, shipping_few(tmp_path, MESSAGES)) as app:
        before, footer = await ask(app)
        assert before and "base model" in footer
        result = await train(app)
        await app.sandbox.member(MODERATOR).click(result, "Promote")
        guild_id = int(app.sandbox.guild_id)
        live = app.services.store.versions.live
        await until(lambda: live("ballast", guild_id) == "v1", REPLY_TIMEOUT_S)
        after, footer = await ask(app)
        assert after and "AI-written · v1" in footer
    [shown] = read_effect_results(settings.home)
    probe = load_effect_probe(adapter_ref(settings.home, "ballast", "v1").folder).probe
    assert shown.verdict == "shown" and shown.expected_shift == pytest.approx(probe.shift, abs=0.05)
    assert shown.cache and not shown.cache.leaks
    record_property(
        "figures",
        f"{engine}: effect {shown.shown_shift:.3f} of {shown.expected_shift:.3f} "
        f"nats a token ({shown.strength:.1%}, deviation {shown.deviation:.1%}) in "
        f"{shown.seconds:.0f} s; through the prompt cache {shown.cache.gap:.3f} nats, between the "
        f"adapters {shown.cache.separation:.3f}",
    )
