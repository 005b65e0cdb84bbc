"""What the store keeps of comparisons, and what it gives to those who train, judge and forget."""

import pytest

from bot.store import NewBlindComparison, Store
from bot.versions.blind_test.store import COMPARISON_LIFETIME_S
from tests.bot.version_rows import install

HERE = 11
THERE = 22


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def shown(store, user=7, *, guild=HERE, persona="oda", a="v2", b=None, at=10.0):
    new = NewBlindComparison(
        guild, persona, user, "p1", "Hello?", a, b, f"by {a}", f"by {b}", 1, 2**62
    )
    return store.comparisons.show(new, at)


def voted(store, choice, user=7, at=20.0, **more):
    one = shown(store, user, **more)
    assert store.comparisons.vote(one.seq, user, choice, at)
    return store.comparisons.get(one.seq)


def test_a_vote_is_given_once_by_the_member_who_was_shown_it(store):
    one = shown(store)
    assert not store.comparisons.vote(one.seq, 8, "a", 20.0)
    assert not store.comparisons.vote(404, 7, "a", 20.0)
    assert store.comparisons.vote(one.seq, 7, "a", 20.0)
    assert not store.comparisons.vote(one.seq, 7, "b", 21.0)
    kept = store.comparisons.get(one.seq)
    assert (kept.choice, kept.voted_at, kept.chosen) == ("a", 20.0, "v2")
    assert kept.seed_b == 2**62 and kept.versions == ("v2", "base")


def test_an_open_comparison_is_found_in_either_order_for_its_member_server_and_persona(store):
    one = shown(store)
    find = store.comparisons.find_open
    assert (
        find(7, HERE, "oda", ("v2", None), 20.0) == find(7, HERE, "oda", (None, "v2"), 20.0) == one
    )
    for other in (
        (8, HERE, "oda", ("v2", None)),
        (7, THERE, "oda", ("v2", None)),
        (7, HERE, "thrip", ("v2", None)),
        (7, HERE, "oda", ("v2", "v1")),
        (7, HERE, "oda", ("v2", "v2")),
    ):
        assert find(*other, 20.0) is None
    store.comparisons.mark_shown_again(one.seq, 15.0)
    assert store.comparisons.get(one.seq).shown_at == 15.0
    store.comparisons.vote(one.seq, 7, "tie", 20.0)
    store.comparisons.mark_shown_again(one.seq, 30.0)
    assert store.comparisons.get(one.seq).shown_at == 15.0
    assert find(7, HERE, "oda", ("v2", None), 30.0) is None


def test_after_a_day_an_open_comparison_is_found_no_more_and_takes_no_vote(store):
    one = shown(store, at=10.0)
    late = 10.0 + COMPARISON_LIFETIME_S
    assert store.comparisons.find_open(
        7, HERE, "oda", ("v2", None), late
    ) == one and not one.has_expired(late)
    assert store.comparisons.find_open(
        7, HERE, "oda", ("v2", None), late + 1
    ) is None and one.has_expired(late + 1)
    assert (
        not store.comparisons.vote(one.seq, 7, "a", late + 1)
        and store.comparisons.voted("oda") == []
    )
    assert sum(store.comparisons.judgement_counts("oda", "v2", None)) == 0
    assert store.comparisons.vote(one.seq, 7, "a", late)
    assert not store.comparisons.get(one.seq).has_expired(late + 1), (
        "what was voted on in time stays"
    )


def test_votes_of_a_day_and_prompts_are_counted_by_member(store):
    voted(store, "a", at=20.0)
    voted(store, "bad", at=30.0)
    voted(store, "a", user=8, at=30.0)
    shown(store)
    assert [store.comparisons.votes_since(7, since) for since in (0.0, 20.0, 25.0, 31.0)] == [
        2,
        2,
        1,
        0,
    ]
    assert store.comparisons.prompts_seen(7, "oda") == {"p1": 3}
    assert store.comparisons.prompts_seen(7, "thrip") == {}


def test_counts_are_by_version_whatever_stood_first(store):
    voted(store, "a", user=1)
    voted(store, "b", user=1, a=None, b="v2")
    voted(store, "b", user=2)
    voted(store, "tie", user=3)
    voted(store, "bad", user=3, guild=THERE)
    voted(store, "a", user=4, a="v2", b="v1")
    counts = store.comparisons.judgement_counts("oda", "v2", None)
    assert counts == (2, 1, 1, 1)
    turned = store.comparisons.judgement_counts("oda", None, "v2", HERE)
    assert (turned.for_a, turned.for_b, turned.both_bad, sum(turned)) == (1, 2, 0, 4)
    assert sum(store.comparisons.judgement_counts("oda", "v1", None)) == 0


def test_votes_become_preferences_but_ties(store):
    voted(store, "a", at=20.0)
    voted(store, "b", at=30.0, guild=THERE)
    voted(store, "tie", at=40.0)
    voted(store, "bad", at=50.0)
    shown(store)
    found = store.comparisons.preferences("oda", 0, 100)
    assert [(one.chosen, one.rejected) for one in found] == [
        ("by v2", "by None"),
        ("by None", "by v2"),
        (None, "by v2"),
        (None, "by None"),
    ]
    assert [(one.guild_id, one.at) for one in found[:2]] == [(HERE, 20.0), (THERE, 30.0)]
    assert {(one.prompt, one.user_id) for one in found} == {("Hello?", 7)}
    assert store.comparisons.preferences("thrip", 0, 100) == []


def test_nothing_is_learned_from_or_shown_of_a_version_that_was_withdrawn(store):
    for _ in range(2):
        install(store, "oda")
    voted(store, "a")
    voted(store, "a", a="v1")
    shown(store)
    store.versions.withdraw("oda", "v2", 60.0, "somebody was forgotten")
    assert [one.chosen for one in store.comparisons.preferences("oda", 0, 100)] == ["by v1"]
    assert store.comparisons.find_open(7, HERE, "oda", ("v2", None), 70.0) is None


def test_a_server_and_a_persona_take_their_comparisons_with_them(store):
    voted(store, "a")
    voted(store, "a", guild=THERE)
    voted(store, "a", guild=THERE, persona="mira-there")
    assert THERE in store.guilds.known()
    store.guilds.delete(THERE, ["mira-there"])
    assert len(store.comparisons.voted("oda")) == 1 and store.comparisons.voted("mira-there") == []


def test_a_member_is_reported_of_their_comparisons_and_forgotten_with_them(store):
    voted(store, "a")
    voted(store, "b", user=8)
    shown(store, at=90.0)
    assert store.erasure.counts(7)["comparisons"] == 2 and store.erasure.first_seen(7) == 10.0
    assert [row["choice"] for row in store.erasure.rows_of(7)["comparisons"]] == ["a", None]
    assert {7, 8} <= store.erasure.user_ids()
    done = store.erasure.erase(7, 50.0, lambda text: text.replace("by None", "by [removed]"))
    assert done["comparisons"] == 1 and done["mentions"] == 2
    assert [one.user_id for one in store.comparisons.voted("oda")] == [8]
    assert store.comparisons.preferences("oda", 0, 100)[0].chosen == "by [removed]"
    assert store.erasure.counts(7)["comparisons"] == 1, "what came later is left alone"
