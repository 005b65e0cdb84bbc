"""Messages of people who said them to nobody of the bot: kept while another message shows them, and
theirs to erase.
"""

import pytest

from bot.store import QuotedMessage, Store

GUILD = 1
CHANNEL = 10
THREAD = 500
MINA = 7
TOBIAS = 8


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def quoted(message_id=500, text="The ferry leaves at nine.", author_id=MINA):
    return QuotedMessage(message_id, CHANNEL, author_id, "Mina Vale", text)


def say(store, message_id, at=100.0, channel_id=CHANNEL, replies_to=None, persona_id=None):
    return store.messages.append(
        guild_id=GUILD, channel_id=channel_id, author_id=TOBIAS, author_name="Tobias", text="When?", at=at,
        discord_message_id=message_id, replies_to=replies_to, persona_id=persona_id,
    )  # fmt: skip


def test_it_is_deleted_with_the_last_message_that_shows_it(store):
    store.quoted.add(quoted(), GUILD, 100.0)
    say(store, 1, replies_to=500)
    say(store, 2, at=200.0, replies_to=500)
    say(store, 3, at=300.0, channel_id=THREAD)  # the thread that was started from it
    store.messages.delete(1)
    store.messages.delete_before(250.0)
    assert store.quoted.has(500)
    store.messages.delete(3)
    assert not store.quoted.has(500)


def test_what_the_history_has_is_not_stored_again(store):
    say(store, 500)
    assert store.quoted.add(quoted(), GUILD, 100.0) == 500 and not store.quoted.has(500)
    assert store.quoted.find([500])[500].text == "When?"
    store.replies.begin(9, GUILD, CHANNEL, "ballast", 1.0)
    store.replies.record_parts(9, [600, 601])
    say(store, 600, persona_id="ballast")
    assert store.quoted.add(quoted(601), GUILD, 100.0) == 600, (
        "a reply of two messages is stored under its first"
    )


def test_what_was_deleted_on_discord_is_not_stored_nor_restored(store, tmp_path):
    store.quoted.add(quoted(), GUILD, 100.0)
    store.quoted.add(quoted(501), GUILD, 100.0)
    with Store.open(tmp_path / "backup.sqlite") as backup:
        for message in (quoted(), quoted(501)):
            backup.quoted.add(message, GUILD, 100.0)
        store.messages.delete(500)
        store.quoted.update(501, "At ten.")
        backup.merge_later_decisions(store)
        assert not backup.quoted.has(500) and backup.quoted.find([501])[501].text == "At ten."
    store.quoted.add(quoted(), GUILD, 100.0)
    assert not store.quoted.has(500)


def test_its_author_is_shown_it_and_erases_it(store):
    store.quoted.add(quoted(), GUILD, 100.0)
    store.quoted.add(quoted(501, "Mina Vale is late.", TOBIAS), GUILD, 100.0)
    assert MINA in store.erasure.user_ids() and store.erasure.names(MINA) == {"Mina Vale"}
    assert store.erasure.counts(MINA)["messages"] == 1 and store.erasure.since(MINA) == 100.0
    assert [it["text"] for it in store.erasure.rows_of(MINA)["quoted_messages"]] == [
        "The ferry leaves at nine."
    ]
    store.erasure.erase(MINA, 1000.0, lambda text: text.replace("Mina Vale", "someone"))
    found = store.quoted.find([500, 501])
    assert [*found] == [501] and (found[501].text, found[501].author_name) == (
        "someone is late.",
        "someone",
    )
    store.guilds.delete(GUILD)
    assert not store.quoted.has(501)
