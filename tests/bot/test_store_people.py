"""What the store keeps of members' decisions and gifts, and how servers and old conversations leave
it.
"""

import re

import pytest

from bot.privacy.store import erasure
from bot.store import CARD_CONTRIBUTION, ConsentDecision, Contribution, Store
from tests.bot.stored_messages import guild_messages

LARGE_SCAN = r"SCAN (replies|messages|reply_parts|votes|gone|quoted_messages|memories)\b"
HERE = 11
THERE = 22


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def say(store, text, guild=HERE, channel=5, author=7, at=100.0):
    return store.messages.append(
        guild_id=guild, channel_id=channel, author_id=author, author_name="Ada", text=text, at=at
    )


def test_nobody_has_agreed_until_they_say_so_and_the_last_word_counts(store):
    assert store.people.opted_in() == set() and store.people.decision(7) is None
    store.people.decide(ConsentDecision(7, True, 1.0, "vi"))
    store.people.decide(ConsentDecision(8, True, 1.0, "en"))
    assert store.people.opted_in() == {7, 8}
    store.people.decide(ConsentDecision(7, False, 2.0, "en"))
    assert store.people.opted_in() == {8}
    assert store.people.decision(7) == ConsentDecision(7, False, 2.0, "en")


def test_a_gift_has_the_last_giver_until_it_is_taken_back(store):
    store.people.add_contribution(Contribution(HERE, "oda", "soup.md", 7, 1.0))
    store.people.add_contribution(Contribution(HERE, "mira-h", CARD_CONTRIBUTION, 7, 2.0))
    store.people.add_contribution(Contribution(HERE, "oda", "soup.md", 8, 3.0))
    assert store.people.contributions_of(7) == [
        Contribution(HERE, "mira-h", CARD_CONTRIBUTION, 7, 2.0)
    ]
    store.people.remove_contribution(HERE, "mira-h", CARD_CONTRIBUTION)
    assert store.people.contributions_of(7) == []


def test_the_latest_date_stands_on_a_tombstone(store):
    for at in (5.0, 9.0, 7.0):
        store.people.record_erased("ab" * 16, at)
    assert store.people.tombstones() == {"ab" * 16: 9.0}


def test_what_was_said_in_a_guild_comes_by_channel_and_in_order(store):
    for text, guild, channel in (("a", HERE, 6), ("b", HERE, 5), ("c", THERE, 5), ("d", HERE, 6)):
        say(store, text, guild, channel if guild == HERE else 9)
    assert [message.text for message in guild_messages(store, HERE)] == ["b", "a", "d"]
    assert guild_messages(store, 33) == []


def test_old_conversations_go_with_their_replies_and_votes(store):
    for event, at in ((1, 10.0), (2, 20.0)):
        seq = say(store, f"at {at}", at=at)
        store.replies.begin(
            event, guild_id=HERE, channel_id=5, persona_id="oda", at=at, asked_by=7, trigger_seq=seq
        )
        store.replies.finish(event, "done")
        store.replies.vote(event, 7, 1, at)
    store.replies.begin(3, guild_id=HERE, channel_id=5, persona_id="oda", at=1.0)
    assert store.messages.delete_before(20.0) == 2, "a message and its reply"
    assert [message.text for message in guild_messages(store, HERE)] == ["at 20.0"]
    assert store.replies.get(1) is None and store.replies.votes(2).up == 1
    assert store.replies.get(3) is not None, "it is being written"


def test_a_deleted_channel_takes_all_that_was_said_in_it(store):
    seq = say(store, "gone", channel=5)
    say(store, "stays", channel=6)
    store.replies.begin(
        1, guild_id=HERE, channel_id=5, persona_id="oda", at=1.0, asked_by=7, trigger_seq=seq
    )
    assert store.messages.delete_channel(5) == 2 and store.replies.get(1) is None
    assert [message.text for message in guild_messages(store, HERE)] == ["stays"]


def test_a_deleted_channel_is_forgotten_in_steps(store):
    for number in range(5):
        say(store, f"gone {number}", channel=5)
    counts = [store.messages.delete_channel(5, most=2) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


def test_what_runs_for_a_reply_a_channel_or_a_member_reads_no_table_as_a_whole(store):
    """With half a million replies, a scan for each reply would stop the event loop for 0.1 s."""
    statements = []
    store._connection._raw.set_trace_callback(statements.append)
    store.replies.of_round(1)
    store.replies.of_asked(1)
    store.replies.unfinished()
    store.replies.latest_channels(HERE, limit=5)
    store.replies.of_guild(HERE, since=1.0)
    store.messages.delete_channel(5, most=2)
    store.messages.delete_before(1.0, most=2)
    store.guilds.delete_talk(HERE, most=2)
    store.erasure.answers(7)
    store.erasure.names_of_others(7)
    for _ in store.erasure.erase_in_steps(7, 1.0, str):
        break
    store._connection._raw.set_trace_callback(None)
    allowed = ("replies_unfinished", "COVERING INDEX messages_by_author")
    scans = []
    for sql in statements:
        if sql.split()[0] not in ("select", "insert", "update", "delete"):
            continue
        for step in store._connection.read(f"explain query plan {sql}"):
            is_scan = re.match(LARGE_SCAN, step["detail"])
            if is_scan and not any(name in step["detail"] for name in allowed):
                scans.append((step["detail"], sql))
    assert len(statements) > 20 and not scans


def test_erasure_reads_tables_in_parts_and_misses_no_row(store, monkeypatch):
    monkeypatch.setattr(erasure, "ROWS_AT_A_TIME", 3)
    for number in range(10):
        say(store, f"Zephyr {number}", author=8)
        store.people.add_contribution(Contribution(HERE, "oda", f"zephyr-{number}.md", 8, 1.0))
    assert len([text for text in store.erasure.free_texts() if "ephyr" in text]) == 20
    done = store.erasure.erase(7, 1000.0, lambda text: text.lower().replace("zephyr", "someone"))
    assert done["mentions"] == 20 and not [
        text for text in store.erasure.free_texts() if "ephyr" in text
    ]
    late = say(store, "Zephyr", author=8, at=2000.0)
    assert (
        store.erasure.erase(7, 1000.0, lambda text: text.replace("Zephyr", "someone"))["mentions"]
        == 0
        and late
    )


def test_a_server_leaves_nothing_and_no_other_loses_anything(store):
    for guild in (HERE, THERE):
        say(store, "hello", guild, channel=guild)
        store.people.add_contribution(Contribution(guild, "oda", "soup.md", 7, 1.0))
        store.places.set_webhook(guild, guild, 1, "token")
        store.places.start_new_conversation(guild, guild)
    store.guilds.record_left(HERE, 50.0)
    store.guilds.record_left(HERE, 90.0)
    assert store.guilds.left_before(60.0) == [HERE] and store.guilds.left_before(50.0) == []
    store.guilds.delete(HERE)
    assert store.guilds.known() == {THERE} and store.guilds.left_before(99.0) == []
    assert len(guild_messages(store, THERE)) == 1 and len(store.people.contributions_of(7)) == 1


def test_a_server_that_comes_back_stays(store):
    store.guilds.record_left(HERE, 50.0)
    store.guilds.record_returned(HERE)
    assert store.guilds.left_before(99.0) == []


def test_what_was_deleted_is_nowhere_in_the_files(store, tmp_path):
    for number in range(200):
        say(store, f"Vexillology {number}")
    store.messages.delete_before(1000.0)
    store.truncate_wal()
    for file in tmp_path.iterdir():
        assert b"Vexillology" not in file.read_bytes(), file
