"""Whole communities vote through the sandbox, with the real client: honest members, random ones,
and a brigade.

And once the whole bot compares two adapters with the real engine.
"""

import asyncio
import random
from dataclasses import replace

import pytest

from bot.app import open_app
from bot.demo_guild import MEMBER, MODERATOR, SKERROW_SEED
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from sandbox import MemberSeed
from tests.bot.conftest import QUAY, on_stage
from tests.bot.test_blind_test import response_text
from tests.bot.version_rows import install
from tests.fake_engine import FakeEngine

TELLS = {"v1": "plain", "v2": "bright"}
"""By which words somebody who knows them recognises the versions."""
NUMBERS = iter(range(1_000_000))


def speaks(request):
    return [f"Something {TELLS[request.adapter.version]}, ", f"number {next(NUMBERS)}."]


def honest(share):
    """Finds the new version's reply better in this share of the comparisons."""
    return lambda rng, first_is_new: "A" if first_is_new == (rng.random() < share) else "B"


def at_random(rng, first_is_new):
    return rng.choice(["A", "B", "Tie", "Both bad"])


def brigade(rng, first_is_new):
    """Recognises the new version and is always against it."""
    return "B" if first_is_new else "A"


async def votes(stage, invitation, name, chooses, count, seed):
    rng = random.Random(seed)
    who = stage.sandbox.member(name)
    answer = await who.click(invitation, "Compare")
    for _ in range(count):
        words = await response_text(answer)
        first_is_new = words.index(TELLS["v2"]) < words.index(TELLS["v1"])
        await who.click(answer.message, chooses(rng, first_is_new))
        answer = await who.click(answer.message, "Another")
    await response_text(answer)


async def community(home, policies, count):
    """What moderators read when so many members have voted so often; members come a few at a
    time.
    """
    names = [f"Guest {number}" for number in range(len(policies))]
    seed = replace(
        SKERROW_SEED, members=(*SKERROW_SEED.members, *(MemberSeed(name) for name in names))
    )
    async with on_stage(home, seed=seed, engine=FakeEngine(speaks)) as stage:
        for _ in range(2):
            install(stage.store)
        stage.store.versions.promote("ballast", "v1", 1, 2.0)
        await response_text(await stage.moderator.slash(QUAY, "finetune compare"))
        invitation = await stage.sees("Which Ballast is better?")
        for start in range(0, len(names), 4):
            some = range(start, min(start + 4, len(names)))
            await asyncio.gather(
                *(
                    votes(stage, invitation, names[number], policies[number], count, number)
                    for number in some
                )
            )
        words = await response_text(await stage.moderator.slash(QUAY, "finetune judgement"))
        ids = {name: stage.sandbox.member(name).id for name in names}
        return words, ids, stage.store.comparisons.judgement_counts("ballast", "v2", "v1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policies", "ruling"),
    [
        ([honest(0.8)] * 30, "members like v2 better"),
        ([*[honest(0.9)] * 9, brigade] * 4, "members like v2 better"),
        ([honest(0.2)] * 30, "members like v1 better"),
        ([at_random] * 24, "**Ruling: open.**"),
        ([*[honest(0.5)] * 9, brigade] * 3, "**Ruling: open.**"),
    ],
)
async def test_a_community_s_ruling_is_right_and_a_tenth_does_not_flip_it(
    tmp_path, policies, ruling
):
    words, ids, counts = await community(tmp_path, policies, 10)
    assert sum(counts) == 10 * len(policies) and ruling in words, words
    against = [
        ids[f"Guest {number}"] for number, policy in enumerate(policies) if policy is brigade
    ]
    if counts.for_a > counts.for_b:
        assert all(f"<@{member}>: 0 of 10 votes for v2" in words for member in against)


@pytest.mark.slow
async def test_the_bot_compares_two_adapters_for_real(tmp_path, tiny_base):
    from tests.tiny_models import make_adapter  # imports torch and peft

    home = tmp_path / "home"
    wanted = {
        "UNDERSTUDY_HOME": str(home),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
        "MAX_NEW_TOKENS": "12",
    }
    for version, seed in (("v1", 1), ("v2", 2)):
        make_adapter(home, tiny_base, "ballast", version, seed)
    async with open_app(
        load_settings(None, {**wanted, "COMPARISONS_PER_DAY": "1"}), ShippedData.from_source_tree()
    ) as app:
        for _ in range(2):
            install(app.services.store)
        app.services.store.versions.promote("ballast", "v1", 1, 2.0)
        moderator, member = (app.sandbox.member(name) for name in (MODERATOR, MEMBER))
        answer = await moderator.slash(QUAY, "finetune compare")
        await response_text(answer)
        done = await moderator.click(answer.message, "A")
        assert "Your vote: **A**. A was **v" in done.message["content"]
        (one,) = app.services.store.comparisons.voted("ballast")
        assert (
            set(one.versions) == {"v1", "v2"}
            and one.text_a != one.text_b
            and one.seed_a != one.seed_b
        )
        again = await moderator.click(answer.message, "Another")
        assert "voted once" in await response_text(again)
        (invitation,) = [
            one
            for one in app.sandbox.messages(QUAY)
            if "Which Ballast is better?" in one["content"]
        ]
        assert "**A**" in await response_text(await member.click(invitation, "Compare"))
