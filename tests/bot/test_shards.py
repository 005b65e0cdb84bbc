"""Two processes of one bot on shards: who answers, what they share, and what each takes up from the
other.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from dataclasses import replace

import pytest

from bot.demo_guild import MEMBER, MODERATOR, SKERROW_SEED
from bot.generation.store import GenerationScope
from bot.operations.shards import ShardRange, request_limiter
from bot.operations.shards.request_limiter import RateBudget
from bot.operations.shards.shard_store import LOCAL_TABLES, open_shard_store
from bot.operations.shards.shared_log import SharedStateError
from bot.operations.shards.shared_state import SHARED_KEYS
from bot.platform.request_origin import OPERATOR_ORIGIN, RequestOrigin
from bot.store import Channel, ConsentDecision, JobResult, Memory, Store, StoreError
from bot.versions.member_feedback import record_vote, share_votes, summarise_votes
from personas.card.card_reader import parse_card
from personas.home.trash import KEPT_S
from sandbox import Sandbox, patch_discord
from sandbox.traffic_log import HttpExchange, observers
from tests.bot.conftest import QUAY
from tests.bot.shard_stage import PERSONA, shard_stage
from tests.bot.test_vote_summary import vote
from tests.bot.version_rows import install
from tests.fakes import until
from tests.personas.cards import V2, as_json, brought_in
from tests.samples import SCORECARD

GUILDS = [replace(SKERROW_SEED, name=f"Harbour {number}", bot_avatar=None) for number in (2, 3, 4)]


class Cluster:
    """A sandbox with four guilds, and both processes."""

    def __init__(self, sandbox, low, high):
        self.sandbox = sandbox
        self.low = low
        self.high = high

    def guild_of(self, stage):
        return next(one for one in self.sandbox.guild_ids if stage.client.serves(one))

    async def ask(self, guild_id, text, name=MEMBER):
        member = self.sandbox.member(name, guild_id)
        mark = len(self.sandbox.events)
        channel = self.sandbox.channel(QUAY, guild_id)["id"]
        await member.say(channel, text)
        return await self.sandbox.wait_for(
            "edit",
            lambda it: it["channel_id"] == channel and "AI-written" in it["content"],
            5,
            mark,
        )


@pytest.fixture
async def sandbox():
    made = Sandbox(SKERROW_SEED, rate_window=0.01, more_guilds=GUILDS, shards=2)
    await made.start()
    with patch_discord(made):
        yield made
    await made.stop()


@pytest.fixture
def quick_identify(monkeypatch):
    monkeypatch.setattr(request_limiter, "IDENTIFIES", RateBudget(0.06))


@pytest.fixture
async def cluster(sandbox, tmp_path, quick_identify):
    async with AsyncExitStack() as stack:
        low = await stack.enter_async_context(shard_stage(tmp_path, sandbox.token, "0/2"))
        high = await stack.enter_async_context(shard_stage(tmp_path, sandbox.token, "1/2"))
        yield Cluster(sandbox, low, high)


async def test_each_process_answers_its_guilds_once(cluster):
    for guild_id in cluster.sandbox.guild_ids:
        reply = await cluster.ask(guild_id, f"hello {guild_id}")
        assert f"hears: hello {guild_id}" in reply["content"]
        mine = cluster.low if guild_id % (2 << 22) < 1 << 22 else cluster.high
        assert mine.client.serves(guild_id)
    await asyncio.sleep(0.1)
    for guild_id in cluster.sandbox.guild_ids:
        assert (
            sum("AI-written" in one["content"] for one in cluster.sandbox.messages(QUAY, guild_id))
            == 1
        )
    assert {g.id for g in cluster.low.client.guilds} & {
        g.id for g in cluster.high.client.guilds
    } == set()


async def test_only_the_process_with_shard_0_registers_commands(sandbox, tmp_path, quick_identify):
    puts = []
    observers.append(
        lambda it: (
            puts.append(it.path) if isinstance(it, HttpExchange) and it.method == "PUT" else None
        )
    )
    try:
        async with shard_stage(tmp_path, sandbox.token, "1/2") as high:
            assert not high.client.is_primary and not puts
        async with shard_stage(tmp_path, sandbox.token, "0/2"):
            assert len(puts) == 1 and puts[0].endswith("/commands")
    finally:
        observers.pop()


async def test_the_operators_generation_settings_reach_the_other_process(cluster):
    scope = GenerationScope(0, persona_id=PERSONA)
    cluster.low.services.generation.change(scope, {"max_new_tokens": 99})
    high = cluster.high.services.generation
    guild_id = cluster.guild_of(cluster.high)
    await until(lambda: high.of_persona(PERSONA, guild_id).max_new_tokens == 99)
    cluster.low.services.generation.reset(scope)
    await until(lambda: high.of_persona(PERSONA, guild_id).max_new_tokens == 120)


async def test_a_promotion_reaches_the_other_process(cluster):
    install(cluster.low.store)
    await until(lambda: cluster.high.store.versions.installed(PERSONA))
    guild_id = cluster.guild_of(cluster.high)
    versions = cluster.high.services.versions
    origin = RequestOrigin(guild_id, channel_id=0, user_id=5)
    assert (await versions.promote(PERSONA, "v1", origin, anyway=True)).is_new
    await until(lambda: cluster.low.store.versions.live(PERSONA, guild_id) == "v1")
    assert "AI-written · v1" in (await cluster.ask(guild_id, "who is live?"))["content"]
    assert (
        "AI-written · base model"
        in (await cluster.ask(cluster.guild_of(cluster.low), "and here?"))["content"]
    )
    assert (await versions.promote(PERSONA, "v1", OPERATOR_ORIGIN, anyway=True)).is_new
    await until(lambda: cluster.low.store.versions.live(PERSONA, 0) == "v1")
    reply = await cluster.ask(cluster.guild_of(cluster.low), "who is live?")
    assert "AI-written · v1" in reply["content"]
    cluster.low.store.versions.withdraw(PERSONA, "v1", time.time(), "withdrawn")
    await until(lambda: [it.version for it in cluster.high.engine.dropped] == ["v1"])
    assert [cluster.high.store.versions.live(PERSONA, guild) for guild in (0, guild_id)] == [
        None,
        None,
    ]


async def test_a_shared_persona_that_is_removed_is_forgotten_on_every_shard(cluster):
    low = cluster.low
    high = cluster.high
    card = parse_card(as_json(V2), "it")
    mira = brought_in(low.services.personas, 0, card).persona
    high.services.personas.reload_guild_cards()
    for at in (low, high):
        guild_id = cluster.guild_of(at)
        at.store.channels.assign(Channel(guild_id, 9, mira.id, "mentions", 1, time.time()))
        for persona_id in (mira.id, PERSONA):
            for stored_at in (1.0, time.time() + 3600):  # by a clock that was ahead
                at.store.memories.add(
                    Memory(guild_id, persona_id, 5, "I sail.", False, None, stored_at)
                )
    await low.services.removal.remove(0, mira)
    await until(lambda: high.store.channels.get(cluster.guild_of(high), 9) is None)
    assert (
        high.services.personas.get(mira.id, 0) is None
        and low.store.channels.get(cluster.guild_of(low), 9) is None
    )
    for at in (low, high):
        at.services.removal.forget_memories(time.time() + KEPT_S + 60)
    for at in (low, high):
        guild_id = cluster.guild_of(at)
        assert at.store.memories.of_member(5, guild_id, mira.id) == []
        assert len(at.store.memories.of_member(5, guild_id, PERSONA)) == 2
    brought_in(low.services.personas, 0, card)
    high.store.channels.assign(
        Channel(cluster.guild_of(high), 9, mira.id, "mentions", 1, time.time())
    )
    high.store.guilds.forget_removed_personas()
    assert high.store.channels.get(cluster.guild_of(high), 9), (
        "what a persona of the same id has is its own"
    )


def test_a_shard_that_was_down_forgets_removed_personas_at_its_start(tmp_path):
    store, mirror = open_store(tmp_path, "1/2")
    store.memories.add(Memory(1 << 22, "mira", 5, "I sail.", False, None, 1.0))
    mirror.leave()
    store.close()
    other, other_mirror = open_store(tmp_path, "0/2")
    other.guilds.record_persona_removal("mira", 2.0)
    for _ in range(2):  # once while it is read from the log, and once more
        store, mirror = open_store(tmp_path, "1/2")
        mirror.take_up(mirror.log.read(mirror.log.database.open(), mirror.applied))
        mirror.leave()
        store.close()
    store, mirror = open_store(tmp_path, "1/2")
    assert store.guilds.personas_removed_before(3.0) == ["mira"]
    for opened, its_mirror in ((store, mirror), (other, other_mirror)):
        its_mirror.leave()
        opened.close()


@pytest.mark.parametrize(("choice", "decision"), [("b", "manual"), ("a", "promoted")])
async def test_an_automatic_promotion_counts_the_votes_of_another_shard(cluster, choice, decision):
    low = cluster.low
    high = cluster.high
    guild_id = cluster.guild_of(cluster.high)
    low.store.guilds.set_auto_promotion(guild_id, True)
    for _ in range(2):
        install(low.store)
    low.store.versions.promote(PERSONA, "v1", 1, 2.0)
    await until(lambda: high.store.versions.live(PERSONA, 0) == "v1")
    voted = [
        vote(high.store, user, choice, guild=guild_id, at=10.0 + 60 * n)
        for user in range(30)
        for n in range(10)
    ]
    await record_vote(high.services.home, high.store, high.services.personas, voted[-1])
    await until(lambda: low.store.guild_feedback.of_others(PERSONA, "v2", "v1", guild_id))
    assert not low.store.comparisons.voted(PERSONA), "the votes stay with their shard"
    everywhere = [await summarise_votes(it.store, PERSONA, "v2", 1e6, None) for it in (low, high)]
    assert everywhere[0] == everywhere[1] and everywhere[0].members == 30
    own_guild = cluster.guild_of(low)
    assert await summarise_votes(low.store, PERSONA, "v2", 1e6, own_guild) is None, (
        "another guild's are its own"
    )
    job = low.store.jobs.get(low.store.versions.job_of(PERSONA, "v2"))
    better = JobResult(
        adapter="a", seconds=1, scorecard=SCORECARD.model_copy(update={"verdict": "promote"})
    )
    low.store._connection.write(
        "update jobs set decision = null where job_id = :job", job=job.job_id
    )
    decided = await low.services.versions.decide(
        replace(job, guild_id=guild_id, result_json=better.model_dump_json())
    )
    assert decided.decision == decision


def test_members_on_both_shards_are_counted_together_and_forgotten(tmp_path):
    (low, low_mirror), (high, high_mirror) = (
        open_store(tmp_path, "0/2"),
        open_store(tmp_path, "1/2"),
    )
    for _ in range(2):
        install(low)
    low.versions.promote(PERSONA, "v1", 1, 2.0)
    high_mirror.take_up(low_mirror.log.read(low_mirror.log.database.open(), 0))
    for store, guild_id, users in ((low, 0, range(6)), (high, 1 << 22, range(6, 12))):
        for user in users:
            vote(store, user, "b", guild=guild_id)
        share_votes(store, PERSONA, "v2", "v1", guild_id)
    low_mirror.take_up(high_mirror.log.read(high_mirror.log.database.open(), low_mirror.applied))
    for store in (low, high):
        found = asyncio.run(summarise_votes(store, PERSONA, "v2", 1e6, None))
        assert (found.votes, found.members) == (12, 12) and found.most is not None
    high.erasure.erase(7, 1e9, str)
    assert not high.guild_feedback.of_others(PERSONA, "v2", "v1", 1 << 22)
    low_mirror.take_up(high_mirror.log.read(high_mirror.log.database.open(), low_mirror.applied))
    assert not low.guild_feedback.of_others(PERSONA, "v2", "v1", None)
    for guild_id, persona_id, version, against in high.guild_feedback.pairs():
        share_votes(high, persona_id, version, against, guild_id)
    low_mirror.take_up(high_mirror.log.read(high_mirror.log.database.open(), low_mirror.applied))
    assert asyncio.run(summarise_votes(low, PERSONA, "v2", 1e6, None)).members == 11
    for store, mirror in ((low, low_mirror), (high, high_mirror)):
        mirror.leave()
        store.close()


async def test_training_asked_on_one_shard_runs_on_shard_0_and_is_shown_where_it_was_asked(cluster):
    guild_id = cluster.guild_of(cluster.high)
    moderator = cluster.sandbox.member(MODERATOR, guild_id)
    mark = len(cluster.sandbox.events)
    await moderator.slash(cluster.sandbox.channel(QUAY, guild_id), "finetune start")
    await until(lambda: cluster.high.store.jobs.of_guild(guild_id))
    job = cluster.high.store.jobs.of_guild(guild_id)[0]
    await until(lambda: [it.job_id for it in cluster.low.backend.runs] == [job.job_id])
    await until(lambda: cluster.high.store.jobs.get(job.job_id).state == "running")
    assert not cluster.high.backend.runs
    shown = await cluster.sandbox.wait_for(
        "message", lambda it: "Cancel" in str(it["components"]), 5, mark
    )
    await moderator.click(shown, "Cancel")
    await until(lambda: cluster.low.store.jobs.get(job.job_id).state == "cancelled")


async def test_a_write_without_the_shared_database_is_refused_and_chat_goes_on(
    cluster, monkeypatch
):
    def refuse():
        raise sqlite3.OperationalError("unable to open database file")

    guild_id = cluster.guild_of(cluster.high)
    scope = GenerationScope(guild_id, channel_id=7)
    cluster.high.services.generation.change(scope, {"max_new_tokens": 99})
    cluster.high.mirror.log.close()
    monkeypatch.setattr(type(cluster.high.mirror.log.database), "open", lambda self: refuse())
    with pytest.raises(SharedStateError, match="cannot be reached"):
        cluster.high.store.people.decide(ConsentDecision(7, True, 1.0, "en"))
    assert cluster.high.store.people.decision(7) is None
    with cluster.high.store.atomic():  # nothing that shards share
        cluster.high.store.channels.assign(
            Channel(cluster.guild_of(cluster.high), 1, PERSONA, "mentions", 1, 1.0)
        )
    with pytest.raises(SharedStateError), cluster.high.store.atomic(shared=True):
        pass
    chat = cluster.high.client.get_cog("ChatCog")
    await chat._forget_channel(guild_id, 7)  # its settings are shared
    assert "AI-written" in (await cluster.ask(guild_id, "still there?"))["content"]
    monkeypatch.undo()
    monkeypatch.setattr("bot.operations.shards.shared_log.RETRY_S", 0.0)
    cluster.high.mirror.log._away = (0.0, "")
    cluster.high.store.people.decide(ConsentDecision(7, True, 1.0, "en"))
    await until(lambda: cluster.low.store.people.opted_in() == {7})


def dump(file):
    with closing(sqlite3.connect(file)) as db:
        return [file.name, *(line for line in db.iterdump() if "xbelkor" in line)]


async def test_forgetting_waits_for_every_shard(sandbox, tmp_path, quick_identify):
    async with AsyncExitStack() as stack:
        low = await stack.enter_async_context(shard_stage(tmp_path, sandbox.token, "0/2"))
        async with shard_stage(tmp_path, sandbox.token, "1/2") as high:
            cluster = Cluster(sandbox, low, high)
            for stage in (low, high):
                await cluster.ask(cluster.guild_of(stage), "I am xbelkor")
        asking = sandbox.member(MEMBER, cluster.guild_of(low))
        member = int(asking.id)
        answer = await asking.slash(QUAY, "privacy forget")
        await asking.click(answer.message, "Forget me")
        await until(lambda: (row := low.store.erasure_requests.get(1)) and row.step == "erase")
        assert low.store.erasure.counts(member)["messages"] == 0
        await asyncio.sleep(0.1)
        assert low.store.erasure_requests.get(1).step == "erase"  # the other shard is down
        with closing(sqlite3.connect(tmp_path / "shards-1-1-of-2.sqlite")) as db:
            assert db.execute(
                "select count(*) from messages where author_id = ?", (member,)
            ).fetchone() == (1,)
        high = await stack.enter_async_context(shard_stage(tmp_path, sandbox.token, "1/2"))
        assert high.store.erasure.counts(member)["messages"] == 0
        await until(
            lambda: [it.store.erasure_requests.get(1).step for it in (low, high)] == ["", ""]
        )
        assert low.store.erasure_requests.acknowledged(1) == {0, 1}
    for file in tmp_path.glob("*.sqlite*"):
        assert b"xbelkor" not in file.read_bytes(), "\n".join(dump(file))


def test_the_first_write_after_the_shared_database_was_restarted_succeeds(tmp_path):
    store, mirror = open_store(tmp_path, "0-1/4")
    mirror.log._session.close()
    store.people.decide(ConsentDecision(7, True, 1.0, "en"))
    assert store.people.opted_in() == {7}
    mirror.leave()
    store.close()


def open_store(home, shards):
    return open_shard_store(home, ShardRange.parse(shards), "")


def test_a_home_without_shards_is_split_once(tmp_path):
    guilds = [(shard << 22, f"secret {shard}") for shard in range(3)]
    with Store.open(tmp_path / "understudy.sqlite") as store:
        install(store)
        store.versions.promote(PERSONA, "v1", 1, 1.0)
        for guild_id, text in guilds:
            store.channels.assign(Channel(guild_id, guild_id + 1, PERSONA, "mentions", 1, 1.0))
            store.guilds.set_reply_candidates(guild_id, 2)
            place = {"guild_id": guild_id, "channel_id": guild_id + 1}
            store.messages.append(**place, author_id=5, author_name="Nils", text=text, at=1.0)
            store.channels.record_thread(guild_id, guild_id + 1, guild_id + 2)
        store.safety_answers.count("2026-11-28", "en")
    for shards, here in (("0-1/3", [0, 1]), ("2/3", [2])):
        store, mirror = open_store(tmp_path, shards)
        assert store.versions.live(PERSONA, 0) == "v1"
        for found in (store.channels.of_guild, store.guilds.reply_candidates):
            assert [bool(found(guild_id)) for guild_id, _ in guilds] == [
                at in here for at in range(3)
            ]
        assert [bool(store.channels.threads_of(it + 2)) for it, _ in guilds] == [
            at in here for at in range(3)
        ]
        assert bool(store.safety_answers.by_year()) is (0 in here)
        mirror.leave()
        store.close()
    assert not (tmp_path / "understudy.sqlite").exists()
    assert b"secret 2" not in (tmp_path / "shards-0-1-of-3.sqlite").read_bytes()


def test_each_table_with_guilds_is_split_or_shared(tmp_path):
    Store.open(tmp_path / "understudy.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "understudy.sqlite")) as db:
        rows = db.execute("""select t.name from sqlite_schema t, pragma_table_info(t.name) c
            where t.type = 'table' and c.name = 'guild_id'""").fetchall()
    assert {name for (name,) in rows} <= {*LOCAL_TABLES, *SHARED_KEYS}


def test_impossible_ranges_are_refused(tmp_path):
    store, mirror = open_store(tmp_path, "0-1/4")
    try:
        for other, words in (
            ("1-2/4", "have their data in shards-0-1-of-4"),
            ("2/3", "have their data in"),
        ):
            with pytest.raises(StoreError, match=words):
                open_store(tmp_path, other)
        with pytest.raises(StoreError, match="Another bot runs"):
            open_store(tmp_path, "0-1/4")
        with pytest.raises(StoreError, match="split among shards"):
            Store.open(tmp_path / "understudy.sqlite")
    finally:
        mirror.leave()
        store.close()
