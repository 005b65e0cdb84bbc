"""What becomes of conversations: dropped or kept, trained on or held out, for ever; every record is
accounted for.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError
from tests.trainer.conversations import ADA, dialogue, sentence, split_conversations, talk
from trainer.dataset.dedup_split import HELD_OUT, SIDES, SplitKey
from trainer.dataset.ledger import LEADS_TO_NO_REPLY, Ledger
from trainer.dataset.quality_filters import QualityFilters
from trainer.sources.conversation import RejectedRecord

SHARE = 0.2


def fates(conversations, share=SHARE, **filters):
    return split_conversations(conversations, QualityFilters(**filters), share).outcomes


def draw(conversation):
    return SplitKey.of(conversation).draw


def many(count, start=0):
    return [talk(sentence(n), sentence(-n - 1)) for n in range(start, start + count)]


def test_each_drop_has_its_reason():
    good = many(5)
    conversations = [
        *good,
        talk("hello"),
        talk("Good day.", begins=ADA),
        talk(*good[1].raw_text.split("\n")),
        talk(good[2].messages[0].text, good[2].messages[1].text + " Indeed."),
        talk("who are you", "As an AI language model, I am nobody."),
        talk("Guten Morgen, wie geht es dir heute?", "Sehr gut, danke der Nachfrage!"),
    ]
    got = fates(conversations, languages=("en", "de")[:1])
    assert got[5:] == [
        "nobody answers",
        "reply to nobody",
        "duplicate",
        got[8],
        "boilerplate",
        "language: de",
    ]
    assert Counter(got[number] == "near duplicate" for number in (2, 8)) == {True: 1, False: 1}


def test_of_a_growing_talk_the_longest_row_stays():
    """Some data sets repeat a talk in each row and go on by a turn."""
    turns = [sentence(n, 12) for n in range(40)]
    rows = [dialogue(*turns[:length]) for length in range(20, 41, 2)]
    got = fates([*rows, *many(5)])
    assert [fate in SIDES for fate in got[: len(rows)]] == [False] * 10 + [True]
    assert set(got[: len(rows) - 1]) == {"near duplicate"}


def test_the_whole_cluster_is_on_the_side_of_the_lowest_draw():
    held_out = next(c for c in many(100) if draw(c) < SHARE)
    trained = next(c for c in many(400, 200) if draw(c) > 0.9)
    like_it = next(c for c in variants(held_out) if draw(c) > SHARE)
    got = fates([held_out, trained, like_it, *many(5, 500)])
    assert got[:3] == ["near duplicate", "train", HELD_OUT], (
        "the longer one stays, on the other's side"
    )


def variants(conversation):
    """Near duplicates whose beginning is another."""
    first, reply = (message.text for message in conversation.messages)
    return (
        talk(f"{word} {first}", f"{reply} indeed so it is")
        for word in "well so now then look hear oh".split()
    )


pool = many(60)
near = [
    talk(c.messages[0].text, c.messages[1].text + f" {word}")
    for c in pool[:20]
    for word in ("so", "then")
]
# One is drawn and one is not: where none of few is drawn, one is held out only as long as that is
# so.
anchors = [next(c for c in many(400, 1000) if (draw(c) < SHARE) is side) for side in (True, False)]
some = st.lists(st.sampled_from([*pool, *near]), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(some, some)
def test_growth_never_moves_a_conversation_from_held_out_to_train(before, more):
    few = [*anchors, *before]
    grown = [*anchors, *before, *more]
    held_out = {c.raw_text for c, fate in zip(few, fates(few), strict=True) if fate == HELD_OUT}
    trained = {c.raw_text for c, fate in zip(grown, fates(grown), strict=True) if fate == "train"}
    assert not held_out & trained


def test_talks_that_begin_alike_are_on_one_side():
    """The paths of a tree, and rows that repeat a talk and go on."""
    talks = [
        talk(sentence(n), sentence(n + 1000), sentence(way, 40 + way), sentence(-way, 40 + way))
        for n in range(30)
        for way in range(3)
    ]
    got = fates([*talks, *many(9)])
    assert all(len(set(got[at : at + 3])) == 1 for at in range(0, 90, 3)) and set(got) == set(SIDES)
    greetings = [talk("hello", "Good day.", sentence(n), sentence(-n)) for n in range(1, 200)]
    assert Counter(fates(greetings))[HELD_OUT] < 60, "many begin so, and that makes them no family"


def test_about_the_share_is_held_out():
    got = Counter(fates(many(1000), 0.15))
    assert 0.12 < got[HELD_OUT] / 1000 < 0.18 and got.keys() == set(SIDES)


def test_nothing_to_split_is_an_error():
    with pytest.raises(MaterialError, match="no conversation with a reply"):
        fates([talk("hello"), talk("anyone")])
    with pytest.raises(MaterialError, match="only one conversation"):
        fates([*many(1), *many(1)])


# -------------------------------------------------------------------------------------- the account


def test_a_logs_messages_are_accounted_for_one_by_one():
    received = []
    ledger = Ledger(received.append)
    ledger.settle(talk("a", "b", "c", "d", "e"), {0, 1}, {3: "too long"})
    assert (ledger.rows, ledger.rows_used, dict(ledger.dropped)) == (
        5,
        2,
        {LEADS_TO_NO_REPLY: 2, "too long": 1},
    )
    assert [(drop.row, drop.reason, drop.rows) for drop in received] == [
        ("message 2", LEADS_TO_NO_REPLY, 1),
        ("message 3", "too long", 1),
        ("message 4", LEADS_TO_NO_REPLY, 1),
    ]


def test_a_dropped_reply_that_stands_before_another_is_used_as_a_record():
    received = []
    ledger = Ledger(received.append)
    ledger.settle(talk("a", "b", "c", "d"), {0, 1, 2, 3}, {1: "boilerplate"})
    assert (ledger.rows, ledger.rows_used, dict(ledger.replies)) == (4, 4, {"boilerplate": 1})
    assert [(drop.row, drop.rows) for drop in received] == [("message 1", 0)]


def test_a_row_that_holds_a_talk_is_used_or_not():
    ledger = Ledger()
    ledger.settle(dialogue("a", "b", "c", "d"), {0, 1}, {3: "too long"})
    ledger.settle(dialogue("a", "b"), set(), {1: "too long"})
    ledger.drop(dialogue("a", "b", rows=3), "duplicate")
    ledger.reject("rows.jsonl", RejectedRecord("line 9", "no JSON", 2))
    ledger.reject("talk.json", RejectedRecord("message 1", "command", 4))
    assert (ledger.rows, ledger.rows_used) == (11, 1)
    assert dict(ledger.dropped) == {"too long": 1, "duplicate": 3, "no JSON": 2, "command": 4}
    assert dict(ledger.by_source["rows.jsonl"]) == {"used": 1, "dropped": 6}
