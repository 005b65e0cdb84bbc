"""Counts of replies by version, and which of them were stopped."""

import pytest

from bot.store import ReplySelection, ReplyTally, Store
from tests.bot.conftest import QUAY
from tests.bot.version_rows import reply
from tests.fakes import until


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def test_only_who_asked_can_count_a_reply_as_interrupted_and_once(store):
    event = reply(store, at=10.0, asked_by=5)
    for by, at, noted in ((6, 11.0, None), (5, 12.0, 12.0), (5, 13.0, 12.0)):
        store.replies.record_interruption(event, by, at)
        assert store.replies.get(event).interrupted_at == noted


def test_counts_are_of_the_guild_and_the_version_that_is_asked_for(store):
    for guild, version in ((9, "v1"), (9, None), (10, "v1")):
        store.replies.vote(reply(store, at=5.0, version=version, guild=guild), 5, 1, 6.0)
    store.replies.begin(3, guild_id=9, channel_id=2, persona_id="ballast", at=5.0)  # a greeting
    store.replies.finish(3, "done")
    assert store.reply_stats.of(ReplySelection("ballast", "v1", guild_id=9)) == ReplyTally(
        1, 1, 0, 0
    )
    assert store.reply_stats.of(ReplySelection("ballast", "v1")) == ReplyTally(2, 2, 0, 0)
    assert store.reply_stats.of(ReplySelection("ballast", None)) == ReplyTally(1, 1, 0, 0)


async def test_stopping_counts_for_who_asked_and_not_for_a_moderator(stage):
    for who, counts in ((stage.moderator, False), (stage.member, True)):
        stage.engine.free.clear()
        mark = stage.mark
        await stage.member.say(QUAY, "go on")
        growing = await stage.sees("…", kind="message", since=mark, by="Ballast")
        await until(lambda: stage.client.services.reply_service.running)
        await who.click(growing, "Stop")
        await stage.sees("stopped", kind="edit", since=mark)
        event = stage.store._connection.first("select max(event_id) as id from replies")["id"]
        assert (stage.store.replies.get(event).interrupted_at is not None) == counts
        stage.engine.free.set()
