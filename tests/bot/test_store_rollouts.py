"""Versions on trial in the store: which is on where, what ends it, and what is counted."""

import pytest

from bot.store import NewRollout, ReplySelection, ReplyTally, Store
from bot.versions.rollout.report import compare_rollout
from bot.versions.rollout.store import OBSERVATION_PERIOD_S
from personas.errors import RequestError
from tests.bot.version_rows import dislike, drawn, install, reply

GUILD = 9
CHANNEL = 2
MODERATOR = 7


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for _ in range(3):
            install(store, at=1.0)
        store.versions.promote("ballast", "v1", MODERATOR, 2.0)
        yield store


def new(version="v2", share=20, guild_id=GUILD, only_channel=None):
    return NewRollout("ballast", version, guild_id, CHANNEL, MODERATOR, share, only_channel)


def test_a_rollout_is_on_in_its_guild_until_it_is_ended_and_survives_a_restart(store, tmp_path):
    begun = store.rollouts.start(new(), 10.0)
    assert (begun.before, begun.share, begun.started_at, begun.is_randomised) == (
        "v1",
        20,
        10.0,
        True,
    )
    store.close()
    with Store.open(tmp_path / "understudy.sqlite") as again:
        assert again.rollouts.running("ballast", 11.0) == [begun] and again.rollouts.find_active(
            "ballast", GUILD, 11.0
        )
        assert again.rollouts.find_active("ballast", 10, 11.0) is None
        assert again.rollouts.end(begun.seq, "stopped", 12.0, MODERATOR)
        assert not again.rollouts.end(begun.seq, "worse", 13.0), "what has ended stays ended"
        assert again.rollouts.running("ballast", 13.0) == [] and again.rollouts.unannounced() == []
        assert again.rollouts.get(begun.seq).ending == "stopped"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (new("v9"), "no version v9"),
        (new("v1"), "answers everything already"),
        (new("v3"), "v2 is being rolled out"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(store, wanted, words):
    store.rollouts.start(new("v2"), 10.0)
    with pytest.raises(RequestError, match=words):
        store.rollouts.start(wanted, 11.0)
    assert len(store.rollouts.of_persona("ballast", GUILD)) == 1
    assert store.rollouts.start(new("v3", guild_id=10), 11.0), "in another guild"


def test_a_share_is_drawn_by_event_and_the_same_whenever_it_is_asked(store):
    first = store.rollouts.start(new(), 10.0)
    second = store.rollouts.start(new(guild_id=10), 10.0)
    draws = [first.draws(event) for event in range(20_000)]
    assert 0.19 < sum(draws) / len(draws) < 0.21
    assert draws == [store.rollouts.get(first.seq).draws(event) for event in range(20_000)]
    both = sum(a and second.draws(event) for event, a in enumerate(draws))
    assert 0.03 < both / len(draws) < 0.05, "each rollout draws anew"


def test_a_channel_takes_its_threads_along_and_nothing_else(store):
    begun = store.rollouts.start(new(share=100, only_channel=55), 10.0)
    taking = store.rollouts.counted_rollout
    assert (
        taking("ballast", 11.0, GUILD, 55, None)
        == taking("ballast", 11.0, GUILD, 77, 55)
        == begun.seq
    )
    assert taking("ballast", 11.0, GUILD, 56, None) is taking("oda", 11.0, GUILD, 55, None) is None
    assert begun.draws(1) and not begun.is_randomised


def test_promoting_the_version_ends_its_rollout_and_watches_it(store):
    begun = store.rollouts.start(new(), 10.0)
    elsewhere = store.rollouts.start(new("v3", guild_id=10), 10.0)
    assert store.rollouts.promote(new(), 20.0).version == "v2"
    assert store.rollouts.promote(new(), 21.0) is None, "it is live already"
    assert store.rollouts.get(begun.seq).ending == "promoted"
    trial, watched = store.rollouts.running("ballast", 20.0)
    assert trial == elsewhere and store.rollouts.unannounced() == [], "another guild's goes on"
    assert (watched.version, watched.before, watched.is_promoted, watched.share) == (
        "v2",
        "v1",
        True,
        100,
    )
    assert store.rollouts.find_active("ballast", GUILD, 20.0) is None
    assert store.rollouts.running("ballast", 20.0 + OBSERVATION_PERIOD_S) == [elsewhere], (
        "not for ever"
    )


def test_what_the_operator_promotes_ends_the_rollouts_where_it_is_heard(store):
    own = store.rollouts.start(new(guild_id=10), 10.0)
    follower = store.rollouts.start(new(), 10.0)
    store.versions.promote("ballast", "v3", MODERATOR, 11.0, guild_id=10)
    own = store.rollouts.start(new(guild_id=10), 12.0)
    assert store.rollouts.promote(new(guild_id=0), 20.0)
    assert store.rollouts.get(follower.seq).ending == "promoted"
    assert own in store.rollouts.running("ballast", 20.0), "that guild has its own live version"
    (watched,) = (it for it in store.rollouts.running("ballast", 20.0) if it.is_promoted)
    store.rollouts.promote(new("v3"), 30.0)
    assert store.rollouts.revert(watched, 40.0, "worse")
    assert [store.versions.live("ballast", guild) for guild in (0, 8, GUILD, 10)] == [
        "v1",
        "v1",
        "v3",
        "v3",
    ]


def test_rolling_back_by_hand_ends_the_watch_without_a_word(store):
    store.rollouts.promote(new(), 20.0)
    assert store.rollouts.roll_back("ballast", MODERATOR, 30.0, GUILD).version is None
    assert store.versions.live("ballast", GUILD) == "v1", "that of all guilds"
    assert store.rollouts.running("ballast", 31.0) == store.rollouts.unannounced() == []


def test_what_turned_out_worse_is_taken_back_once_and_waits_to_be_reported(store):
    begun = store.rollouts.start(new(), 10.0)
    assert store.rollouts.revert(begun, 11.0, "more 👎") and not store.rollouts.revert(
        begun, 12.0, "again"
    )
    assert store.versions.live("ballast", GUILD) == "v1"
    (untold,) = store.rollouts.unannounced()
    assert (untold.ending, untold.why, untold.ended_at) == ("worse", "more 👎", 11.0)
    store.rollouts.mark_announced(untold.seq)
    assert store.rollouts.unannounced() == []

    store.rollouts.promote(new(), 20.0)
    (watched,) = store.rollouts.running("ballast", 20.0)
    assert store.rollouts.revert(watched, 21.0, "more 👎")
    assert store.versions.live("ballast", GUILD) == "v1"
    last = store.versions.history("ballast")[-1]
    assert (last.kind, last.why, last.promoted_by, last.guild_id) == (
        "automatic rollback",
        "more 👎",
        0,
        GUILD,
    )


def test_a_version_that_is_withdrawn_or_no_longer_compared_answers_nothing(store):
    begun = store.rollouts.start(new(), 10.0)
    event = reply(store, at=11.0, rollout=begun.seq)
    assert store.rollouts.of_reply(event, 12.0) == begun
    store.versions.promote("ballast", "v3", MODERATOR, 13.0)  # past the rollouts
    assert (
        store.rollouts.of_reply(event, 14.0) is None
        and store.rollouts.running("ballast", 14.0) == []
    )
    store.versions.rollback("ballast", MODERATOR, 15.0)
    store.versions.withdraw("ballast", "v2", 16.0, "somebody is in it")
    assert store.rollouts.of_reply(event, 17.0) is None
    store.rollouts.end_superseded("ballast", 18.0)
    assert store.rollouts.get(begun.seq).ending == "withdrawn"


def test_only_who_asked_can_count_a_reply_as_interrupted_and_once(store):
    event = reply(store, at=10.0, asked_by=5)
    for by, at, noted in ((6, 11.0, None), (5, 12.0, 12.0), (5, 13.0, 12.0)):
        store.replies.record_interruption(event, by, at)
        assert store.replies.get(event).interrupted_at == noted


def test_the_replies_of_a_rollout_count_by_their_draw_and_each_by_its_first_vote(store):
    begun = store.rollouts.start(new(share=50), 10.0)
    liked = drawn(store, begun, new=True, at=11.0, asked_by=5)
    store.replies.vote(liked, 5, 1, 12.0)
    store.replies.vote(liked, 6, -1, 13.0)
    stopped = drawn(store, begun, new=False, at=11.0, asked_by=6)
    store.replies.record_interruption(stopped, 6, 12.0)
    failed = drawn(store, begun, new=True, at=11.0, asked_by=5)
    store.replies.begin_regeneration(failed, by=1, at=1.0)
    store.replies.finish(failed, "failed")
    reply(store, at=11.0, version="v2")  # in another place
    one, two = sorted(
        store.reply_stats.of_rollout(begun.seq), key=lambda row: row.event_id != liked
    )
    assert (one.event_id, one.voter, one.vote, one.tally) == (liked, 5, 1, ReplyTally(1, 1, 1, 0))
    assert (two.event_id, two.voter, two.interrupted) == (stopped, None, True)
    found = compare_rollout(store, begun)
    assert (found.new, found.before, found.worse) == (
        ReplyTally(1, 1, 1, 0),
        ReplyTally(1, 0, 0, 1),
        None,
    )


def test_members_who_dislike_the_new_version_show_that_it_is_worse(store):
    begun = store.rollouts.start(new(), 10.0)
    dislike(store, begun, 2, at=11.0)
    assert compare_rollout(store, begun).worse is None, "two are too few"
    dislike(store, begun, 6, at=12.0)
    found = compare_rollout(store, begun)
    assert found.worse == "votes" and found.interruptions == 1
    assert found.new.down == found.before.up == 32


def test_what_was_promoted_is_compared_with_each_members_replies_before(store):
    for member in range(1, 13):
        for at in range(3, 9):
            reply(store, at=float(at), version="v1", asked_by=member)
    store.rollouts.promote(new(), 20.0)
    (watched,) = store.rollouts.running("ballast", 20.0)
    for member in range(1, 13):
        for at in range(21, 27):
            event = reply(store, at=float(at), version="v2", asked_by=member)
            store.replies.record_interruption(event, member, at + 0.5)
        found = compare_rollout(store, watched)
        assert found.worse == ("interruptions" if member > 7 else None), member
    assert (found.new, found.before) == (ReplyTally(72, 0, 0, 72), ReplyTally(72, 0, 0, 0))


def test_whoever_always_complains_says_nothing_of_a_version(store):
    for version, start in (("v1", 3), ("v2", 21)):
        if version == "v2":
            store.rollouts.promote(new(), 20.0)
        for member in range(1, 13):
            for at in range(start, start + 6):
                event = reply(store, at=float(at), version=version, asked_by=member)
                store.replies.record_interruption(event, member, at + 0.5)
                store.replies.vote(event, member, -1, at + 0.5)
    (watched,) = store.rollouts.running("ballast", 30.0)
    found = compare_rollout(store, watched)
    assert (found.votes, found.interruptions, found.worse) == (1, 1, None)


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
    assert store.reply_stats.of(ReplySelection("ballast", "v1", until=5.0)) == ReplyTally()


def test_a_guild_that_goes_takes_its_rollouts_along_and_leaves_others(store):
    store.rollouts.start(new(), 10.0)
    kept = store.rollouts.start(new(guild_id=10), 10.0)
    store.rollouts.promote(new("v3"), 11.0)
    store.guilds.delete(GUILD)
    assert store.rollouts.of_persona("ballast", GUILD) == []
    assert store.rollouts.of_persona("ballast", 10)[0].seq == kept.seq
    assert {row.guild_id for row in store.versions.history("ballast")} == {0}
