"""The store: what goes in comes out, by concern."""

from dataclasses import replace
from itertools import permutations

import pytest

from bot.chat.store.attempts import RecentReplies
from bot.store import ALL_CHANNELS, ALL_PERSONAS, Channel, Mute, Store, StoreError, VoteCounts
from bot.training.store import NewTrainingJob
from personas.errors import RequestError
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Epoch, Progress

GUILD = 900000000000000001
CHANNEL = 900000000000000011
MEMBER = 900000000000000021
REQUEST = TrainingRequest(job_name="first", persona="ballast")


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "home" / "understudy.sqlite") as store:
        yield store


def say(store, number, channel_id=CHANNEL, **more):
    return store.messages.append(
        guild_id=GUILD,
        channel_id=channel_id,
        author_id=MEMBER,
        author_name="mira",
        at=float(number),
        **{"text": f"line {number}", "discord_message_id": channel_id + 100 * (number + 1), **more},
    )


def add_job(store, job_id="j1", persona="ballast", guild_id=GUILD, at=1.0):
    request = TrainingRequest(job_name="first", persona=persona)
    return store.jobs.add(NewTrainingJob(job_id, guild_id, CHANNEL, MEMBER, request), at)


# ----------------------------------------------------------------------------------------- channels


def test_a_channel_has_the_persona_it_was_given_last(store):
    store.channels.assign(Channel(GUILD, CHANNEL, "ballast", "mentions", MEMBER, 1.0))
    latest = Channel(GUILD, CHANNEL, "oda", "everything", MEMBER, 2.0)
    store.channels.assign(latest)
    assert store.channels.get(GUILD, CHANNEL) == latest
    assert store.channels.of_guild(GUILD) == [latest]
    assert (
        store.channels.of_guild(GUILD + 1) == [] and store.channels.get(GUILD + 1, CHANNEL) is None
    )


def test_a_thread_has_its_parents_persona_unless_it_has_its_own(store):
    parent = Channel(GUILD, CHANNEL, "ballast", "mentions", MEMBER, 1.0)
    own = Channel(GUILD, 77, "oda", "mentions", MEMBER, 2.0)
    store.channels.assign(parent)
    assert store.channels.get(GUILD, 77) is None
    assert store.channels.get(GUILD, 77, parent_id=CHANNEL) == parent
    store.channels.assign(own)
    assert store.channels.get(GUILD, 77, parent_id=CHANNEL) == own


def test_clearing_says_whether_there_was_something(store):
    store.channels.assign(Channel(GUILD, CHANNEL, "ballast", "mentions", MEMBER, 1.0))
    assert store.channels.clear(GUILD, CHANNEL) and not store.channels.clear(GUILD, CHANNEL)
    assert store.channels.get(GUILD, CHANNEL) is None


def test_personas_of_a_channel_move_up_when_one_before_them_is_removed(store):
    places = {}
    for first, *further in permutations(("ballast", "oda", "thrip")):
        channel_id = CHANNEL + len(places)
        channel = Channel(GUILD, channel_id, first, "mentions", MEMBER, float(len(places)))
        store.channels.assign(channel, further)
        places[channel] = [first, *further]
    store.channels.assign(Channel(GUILD, 1, "oda", "mentions", MEMBER, 1.0))
    assert store.channels.residents(places) == {
        channel.channel_id: personas for channel, personas in places.items()
    }
    assert [channel for _, channel in store.channels.where_live(["thrip"])] == list(places)
    assert store.erasure.counts(MEMBER)["channels"] == len(places) + 1
    store.channels.remove_persona("oda")
    assert store.channels.get(GUILD, 1) is None
    for channel, personas in places.items():
        first, second = [persona for persona in personas if persona != "oda"]
        assert store.channels.get(GUILD, channel.channel_id) == replace(channel, persona_id=first)
        assert store.channels.personas(GUILD, channel.channel_id) == [first, second]


def test_a_webhook_outlives_the_persona(store):
    store.channels.assign(Channel(GUILD, CHANNEL, "ballast", "mentions", MEMBER, 1.0))
    store.places.set_webhook(GUILD, CHANNEL, 5, "old")
    store.places.set_webhook(GUILD, CHANNEL, 6, "new")
    store.channels.clear(GUILD, CHANNEL)
    assert store.places.webhook(CHANNEL) == (6, "new")
    store.places.forget_webhook(CHANNEL)
    assert store.places.webhook(CHANNEL) is None


def test_a_channel_that_is_gone_is_known_as_that_alone_until_nothing_of_it_is_stored(store):
    store.places.set_webhook(GUILD, CHANNEL, 5, "token")
    store.places.start_new_conversation(GUILD, CHANNEL, 7)
    assert store.places.note_age_notice(GUILD, CHANNEL)
    assert not store.places.note_age_notice(GUILD, CHANNEL)
    assert store.places.webhook(CHANNEL) == (5, "token")
    assert store.places.has_new_conversation(CHANNEL) and not store.places.gone()
    store.places.note_gone(GUILD, CHANNEL)
    store.places.note_gone(GUILD, CHANNEL)
    assert store.places.gone() == {CHANNEL: GUILD}
    assert not store.places.webhook(CHANNEL) and not store.places.has_new_conversation(CHANNEL)
    store.places.forget(CHANNEL)
    assert not store.places.gone()


# ------------------------------------------------------------------------------------------ history


def test_history_comes_back_as_it_was_said(store):
    seq = say(store, 1, persona_id="ballast", adapter_version="v2")
    (message,) = store.messages.latest(CHANNEL, 20)
    assert (message.seq, message.text, message.persona_id, message.adapter_version) == (
        seq,
        "line 1",
        "ballast",
        "v2",
    )
    assert (message.guild_id, message.author_id, message.author_name, message.at) == (
        GUILD,
        MEMBER,
        "mira",
        1.0,
    )
    assert store.messages.latest(CHANNEL + 1, 20) == []


def test_the_latest_messages_are_those_of_one_channel_and_no_more_than_asked_for(store):
    for number in range(6):
        say(store, number)
        say(store, number, channel_id=5)
    assert [m.text for m in store.messages.latest(CHANNEL, 2)] == ["line 4", "line 5"]
    assert len(store.messages.latest(CHANNEL, 20)) == 6


def test_messages_keep_their_numbers_when_others_are_deleted(store):
    for number in range(20):
        say(store, number)
    before = store.messages.recent_numbered(CHANNEL, 8)
    assert [number for number, _ in before] == list(range(13, 21))
    assert store.messages.delete(CHANNEL + 300)  # before the window
    assert store.messages.recent_numbered(CHANNEL, 8) == before
    assert store.messages.delete(CHANNEL + 1600)
    assert store.messages.recent_numbered(CHANNEL, 8) == [
        (number, message) for number, message in before if message.text != "line 15"
    ]


def test_a_message_sent_twice_is_kept_once(store):
    assert say(store, 1) == say(store, 1) != say(store, 2)
    assert say(store, 3, discord_message_id=None) != say(store, 3, discord_message_id=None)
    assert [m.text for m in store.messages.latest(CHANNEL, 20)] == [
        "line 1",
        "line 2",
        "line 3",
        "line 3",
    ]


def test_a_reply_made_anew_after_a_crash_takes_the_place_of_the_first(store):
    first = say(store, 1, persona_id="ballast", text="before the crash", adapter_version="v1")
    again = say(store, 1, persona_id="ballast", text="after the crash", adapter_version="v2")
    (kept,) = store.messages.latest(CHANNEL, 20)
    assert first == again and (kept.text, kept.adapter_version) == ("after the crash", "v2")


def test_edits_and_deletions_reach_the_copies(store):
    say(store, 1)
    assert store.messages.update(CHANNEL + 200, "mended")
    assert [m.text for m in store.messages.latest(CHANNEL, 20)] == ["mended"]
    assert store.messages.delete(CHANNEL + 200)
    assert store.messages.latest(CHANNEL, 20) == []
    assert not store.messages.update(404, "x") and not store.messages.delete(404)


# ------------------------------------------------------------------------------------------ replies


def begin(store, event, at=1.0, channel=CHANNEL, persona="oda", seq=None):
    return store.replies.begin(
        event,
        guild_id=GUILD,
        channel_id=channel,
        persona_id=persona,
        at=at,
        asked_by=5,
        trigger_seq=seq,
    )


def test_an_event_is_taken_once(store):
    seq = say(store, 1)
    assert begin(store, 1, seq=seq) and not begin(store, 1, 2.0, seq=seq)
    store.replies.record_parts(1, [99])
    store.replies.record_parts(1, [99, 98])
    assert store.replies.finish(1, "done", "v3", 42)
    assert not store.replies.finish(1, "failed") and not begin(store, 1, 3.0)
    reply = store.replies.get(1)
    assert (reply.state, reply.parts, reply.adapter_version, reply.seed) == (
        "done",
        (99, 98),
        "v3",
        42,
    )
    assert (reply.guild_id, reply.asked_by, reply.attempt) == (GUILD, 5, 1)
    assert store.replies.get(2) is None
    assert store.replies.of_message(98) == reply and store.replies.of_message(97) is None


def test_what_a_crash_cut_off_is_found(store):
    for event in range(4):
        begin(store, event, float(event))
    store.replies.record_parts(1, [99])
    store.replies.finish(2, "stopped")
    assert [(reply.event_id, reply.state) for reply in store.replies.unfinished()] == [
        (0, "waiting"),
        (1, "streaming"),
        (3, "waiting"),
    ]


def test_what_a_crash_cut_off_is_read_a_page_at_a_time(store):
    for event in range(5):
        begin(store, event, float(event))
    pages = []
    after = -1
    while page := store.replies.unfinished(after, limit=2):
        pages.append([reply.event_id for reply in page])
        after = page[-1].event_id
    assert pages == [[0, 1], [2, 3], [4]]


def test_deleting_the_question_keeps_the_reply(store):
    seq = say(store, 1)
    begin(store, 1, seq=seq)
    store.messages.delete(CHANNEL + 200)
    assert store.replies.get(1).trigger_seq is None
    assert say(store, 2) > seq  # a seq is not given out again


def test_a_reply_is_made_anew_only_once_it_has_ended(store):
    begin(store, 1)
    assert not store.replies.begin_regeneration(1, by=5, at=1.0)
    store.replies.finish(1, "stopped")
    assert store.replies.begin_regeneration(
        1, by=5, at=1.0
    ) and not store.replies.begin_regeneration(1, by=5, at=1.0)
    assert (store.replies.get(1).state, store.replies.get(1).attempt) == ("waiting", 2)


def test_only_the_attempt_that_failed_does_not_count(store):
    store.replies.begin(1, 9, CHANNEL, "oda", 1.0, asked_by=5)
    store.replies.finish(1, "done")
    store.replies.begin_regeneration(1, by=6, at=2.0)
    assert store.reply_attempts.since(9, 6, 0.0) == RecentReplies(1, 2.0)
    store.replies.finish(1, "failed")
    store.replies.finish(1, "failed")
    assert store.reply_attempts.since(9, 6, 0.0) == RecentReplies(0, None)
    assert store.reply_attempts.since(9, 5, 0.0) == RecentReplies(1, 1.0)


def test_votes_are_one_a_member_and_one_attempt_and_come_back(store):
    begin(store, 1)
    store.replies.finish(1, "done")
    assert store.replies.vote(1, 7, 1, 1.0) == VoteCounts(1, 0)
    assert store.replies.vote(1, 8, 1, 1.0) == VoteCounts(2, 0)
    assert store.replies.vote(1, 7, -1, 1.0) == VoteCounts(1, 1)
    assert store.replies.vote(1, 7, -1, 1.0) == VoteCounts(1, 0)
    store.replies.begin_regeneration(1, by=5, at=1.0)
    assert store.replies.votes(1) == store.replies.votes(404) == VoteCounts()


def test_what_was_said_is_found_by_place_persona_and_time_as_long_as_it_is_there(store):
    for event, channel, persona in ((1, 10, "oda"), (2, 10, "thrip"), (3, 11, "oda")):
        begin(store, event, float(event), channel, persona)
        store.replies.record_parts(event, [event * 100, event * 100 + 1])

    def said(guild=GUILD, **which):
        return [reply.event_id for reply in store.replies.of_guild(guild, **which)]

    assert said() == [3, 2, 1] and said(GUILD + 1) == []
    assert said(channel_ids=[10]) == [2, 1] and said(channel_ids=[10, 11], persona_id="oda") == [
        3,
        1,
    ]
    assert said(since=2.0) == [3, 2]
    store.replies.delete_part(200)
    assert store.replies.get(2).parts == (201,) and said(since=2.0) == [3, 2]
    store.replies.delete_part(201)
    assert said() == [3, 1]


def test_a_silence_holds_where_and_for_whom_it_was_made(store):
    mutes = store.mutes

    def holds(channel, persona, parent=None):
        return mutes.find_applying(GUILD, channel, parent, persona) is not None

    mutes.add(Mute(GUILD, 10, "oda", 1, 1.0))
    assert holds(10, "oda") and holds(99, "oda", parent=10)
    assert not holds(10, "thrip") and not holds(11, "oda")
    mutes.add(Mute(GUILD, ALL_CHANNELS, ALL_PERSONAS, 1, 2.0))
    assert holds(11, "thrip") and mutes.find_applying(GUILD + 1, 11, None, "thrip") is None
    assert not mutes.remove(GUILD, 11, "oda") and mutes.remove(GUILD, ALL_CHANNELS, ALL_PERSONAS)
    assert [(mute.channel_id, mute.persona_id) for mute in mutes.of_guild(GUILD)] == [(10, "oda")]


# --------------------------------------------------------------------------------------------- jobs


def test_a_job_comes_back_as_it_was_asked(store):
    job = add_job(store)
    assert store.jobs.get("j1") == job and store.jobs.get("j2") is None
    assert job.request == REQUEST and (job.state, job.attempt, job.version) == ("queued", 0, "v1")
    store.jobs.set_progress_message(job, 5)
    assert store.jobs.get("j1").progress_message_id == 5
    assert [job.job_id for job in store.jobs.of_guild(GUILD)] == ["j1"] and store.jobs.of_guild(
        1
    ) == []


def test_versions_are_numbered_by_persona_and_never_reused(store):
    jobs = [add_job(store, "a"), add_job(store, "b", persona="oda"), add_job(store, "c")]
    assert [job.version for job in jobs] == ["v1", "v1", "v2"]
    store.jobs.cancel("c", 2.0)
    assert add_job(store, "d").version == "v3"


def test_a_job_that_cannot_be_added_uses_no_number(store):
    add_job(store)
    with pytest.raises(Exception, match="UNIQUE"):
        add_job(store)
    assert add_job(store, "j2").version == "v2"


def test_progress_that_nobody_understands_is_none(store):
    job = add_job(store)
    claimed = store.jobs.claim(job, "t", 2.0)
    step = Progress(
        step=1, of=2, epoch=0.5, loss=3, lr=1e-4, tokens_per_s=300, eta_s=4, memory_bytes=1
    )
    assert store.jobs.report("j1", "t", step).progress == step
    epoch = Epoch(epoch=1, train_loss=3.0, eval_loss=None, seconds=9.0)
    assert store.jobs.report("j1", "t", epoch).progress == step, "which says how far it is"
    assert store.jobs.report("j1", "earlier", epoch) is None
    store._connection.write('update jobs set progress = \'{"event": "dance"}\'')
    assert store.jobs.get("j1").progress is None and claimed.progress is None


def test_a_claim_of_what_has_changed_meanwhile_fails(store):
    job = add_job(store)
    first = store.jobs.claim(job, "first", 2.0)
    assert (first.state, first.attempt, first.started_at) == ("running", 1, 2.0)
    assert store.jobs.claim(job, "second", 3.0) is None
    assert store.jobs.claim(first, "second", 3.0).attempt == 2


def test_reading_while_the_bot_runs_and_after(store, tmp_path):
    path = tmp_path / "home" / "understudy.sqlite"
    add_job(store)
    with Store.read_only(path) as reader:
        assert reader.jobs.get("j1").state == "queued"
        store.jobs.cancel("j1", 2.0)
        assert reader.jobs.get("j1").state == "cancelled"
        with pytest.raises(StoreError, match="readonly"):
            reader.channels.clear(GUILD, CHANNEL)
    store.close()
    with Store.read_only(path) as reader:
        assert reader.jobs.get("j1").state == "cancelled"


def test_the_database_is_its_owners_only(store, tmp_path):
    for file in (tmp_path / "home").iterdir():
        assert file.name.endswith(".lock") or file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "home").stat().st_mode & 0o077 == 0


def test_promoting_what_is_not_there_names_what_is(store):
    with pytest.raises(RequestError, match=r"no version v9\. Train"):
        store.versions.promote("ballast", "v9", MEMBER, 1.0)
