"""`/finetune all`: says what it takes first, then queues a job for each persona of another base model."""

import pytest

from sandbox import SandboxRefusal
from tests.bot.conftest import QUAY
from tests.bot.retrainings import AUTO_PLAN, put_live_version, serve_another_model
from tests.fakes import until


async def answer_to(stage, who=None, **options):
    answer = await (who or stage.moderator).slash(QUAY, "finetune all", **options)
    await until(lambda: answer.message and not answer.message["flags"] & 128)
    return answer.message["content"]


async def test_a_moderator_retrains_the_personas_of_the_server(stage):
    services = stage.client.services
    stage.backend.result = AUTO_PLAN
    assert "Every live version here is for the served base model" in await answer_to(stage)
    for persona in ("ballast", "oda"):
        put_live_version(services, persona)
    serve_another_model(services, ("ballast", "v1"), ("oda", "v1"))
    said = await answer_to(stage)
    assert "**Ballast** v1" in said and "Together about" in said
    assert not services.store.jobs.in_state("queued") and not stage.backend.runs
    said = await answer_to(stage, start=True)
    assert said.count("queued as") == 2
    await until(lambda: stage.backend.busy)
    assert stage.backend.runs[0].request.persona == "ballast"
    (waiting,) = services.store.jobs.in_state("queued")
    assert waiting.persona == "oda" and waiting.guild_id == int(stage.sandbox.guild_id)
    said = await answer_to(stage, start=True)
    assert "⚠️" in said, "they are queued already"


async def test_members_may_not(stage):
    with pytest.raises(SandboxRefusal):
        await answer_to(stage, stage.member)
