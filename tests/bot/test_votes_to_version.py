"""From blind votes on Discord to a version that has learned from them, which the gate compares with
the last one.
"""

import asyncio
import random
import re
from dataclasses import replace

import pytest

from bot.app import open_app
from bot.demo_guild import MODERATOR, SKERROW_HARBOUR, SKERROW_SEED
from bot.settings import load_settings
from personas.home.adapters import adapter_ref, verify_adapter
from personas.home.comparison_targets import read_comparison_targets
from personas.home.job_material import ShippedData
from personas.schemas.scorecard import ScoreCard
from sandbox import MemberSeed
from tests.bot.conftest import QUAY
from tests.bot.test_blind_test import response_text
from tests.fakes import until

MEMBERS, EACH = 12, 27
"""More than 300 preferences of members of whom none gives more than a tenth: what KTO asks for."""
FAST = "max_steps=6, lora_r=4, lora_alpha=8, max_length=2000"


async def trained(app, **asked):
    """What `/finetune start` leads to, with the real trainer: the job when it has ended well."""
    moderator = app.sandbox.member(MODERATOR)
    store = app.services.store
    guild = app.services.client.guilds[0].id
    before = {job.job_id for job in store.jobs.of_guild(guild)}
    await response_text(await moderator.slash(QUAY, "finetune start", **asked))
    (job,) = [job for job in store.jobs.of_guild(guild) if job.job_id not in before]
    await until(lambda: store.jobs.get(job.job_id).state not in ("queued", "running"), 300)
    ended = store.jobs.get(job.job_id)
    assert ended.state == "done", ended.error
    return ended


async def votes_of(app, invitation, name):
    """A member who likes what is shorter, and sometimes neither."""
    who = app.sandbox.member(name)
    rng = random.Random(name)
    answer = await who.click(invitation, "Compare")
    for _ in range(EACH):
        words = await response_text(answer)
        a, b = re.search(r"\*\*A\*\*\n(.*)\n\*\*B\*\*\n(.*)\n-#", words, re.DOTALL).groups()
        await who.click(
            answer.message, "Both bad" if rng.random() < 0.1 else "A" if len(a) < len(b) else "B"
        )
        answer = await who.click(answer.message, "Another")


@pytest.mark.slow
async def test_votes_become_a_version_that_the_gate_compares_with_the_live_one(tmp_path, tiny_base):
    names = [f"Guest {number}" for number in range(MEMBERS)]
    town = replace(
        SKERROW_HARBOUR,
        seed=replace(
            SKERROW_SEED, members=(*SKERROW_SEED.members, *(MemberSeed(name) for name in names))
        ),
    )
    wanted = {"UNDERSTUDY_HOME": str(tmp_path / "home"), "BASE_MODEL": tiny_base.source, "WEB_PORT": "0",
              "MAX_NEW_TOKENS": "12", "COMPARISONS_PER_DAY": "40", "TRAINER_CARD": "losses"}  # fmt: skip
    async with open_app(load_settings(None, wanted), ShippedData.from_source_tree(), town) as app:
        services = app.services
        moderator = app.sandbox.member(MODERATOR)
        first = await trained(app, settings=FAST)
        await moderator.slash(QUAY, "finetune promote", version=first.version)
        await until(
            lambda: (
                services.store.versions.live("ballast", int(app.sandbox.guild_id)) == first.version
            ),
            20,
        )

        await response_text(await moderator.slash(QUAY, "finetune compare", version="base"))
        (invitation,) = [
            one
            for one in app.sandbox.messages(QUAY)
            if "Which Ballast is better?" in one["content"]
        ]
        await asyncio.gather(*(votes_of(app, invitation, name) for name in names))
        cast = services.store.comparisons.voted("ballast")
        assert len(cast) == MEMBERS * EACH and {one.versions for one in cast} == {
            ("base", "v1"),
            ("v1", "base"),
        }

        second = await trained(
            app, task_type="preference", settings="max_steps=4, learning_rate=1e-3, max_length=2000"
        )
        folder = adapter_ref(services.home, "ballast", second.version).folder
        made = verify_adapter(folder)
        card = ScoreCard.model_validate_json((folder / "scorecard.json").read_bytes())
        assert (
            made.start_from.version == first.version
            and made.dataset["preferences_members"] == MEMBERS
        )
        assert (
            made.dataset["preferences_used"] >= 300
            and made.dataset["replies_bad"] > made.dataset["replies_good"]
        )
        assert read_comparison_targets(services.home / "jobs" / second.job_id).live.endswith(
            f"ballast/{first.version}"
        )
        assert (
            card.adapters["live"].version == first.version and card.heldout.against_live is not None
        )
        asked = {it.name: it.outcome for it in card.verdict.criteria}
        assert asked["no worse than the live version"] in ("pass", "warn", "fail")
        assert (
            second.result.scorecard.verdict == card.verdict.verdict in ("promote", "hold", "reject")
        )
