"""Earlier talk: which exchanges of a member come back into the prompt, and which never do."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from bot.chat.request import MAX_MISSING_VECTORS
from bot.chat.store.messages import MAX_EARLIER_EXCHANGES, MAX_SEQ
from bot.store import EarlierTalk, Store, StoreError
from personas.home.job_material import ShippedData
from personas.lore.earlier_talk import MAX_EXCHANGE_CHARS, MAX_EXCHANGE_WORDS, earlier_hits
from personas.lore.minilm import load_minilm
from personas.lore.semantic import embedding_scheme, match_earlier, pack_vectors
from personas.schemas.chat import EARLIER_SOURCE
from tests.bot.conftest import INN, QUAY

SAID = "my cousin Egon mends clocks in Tarn Alley"
ANSWERED = "Then Egon is never late."
ASKED = "what was it that my cousin Egon mends?"
GUILD = 7
CHANNEL = 5
WHO = 71
SCHEME = embedding_scheme("")
TALK = EarlierTalk(GUILD, CHANNEL, "ballast", WHO, MAX_SEQ, None)
ids = iter(range(10**15, 10**16))


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as opened:
        yield opened


def exchange(
    store,
    question=SAID,
    reply=ANSWERED,
    *,
    guild=GUILD,
    channel=CHANNEL,
    who=WHO,
    persona="ballast",
    version=None,
):
    """Store an exchange, as the bot does; returns the question's `seq` and Discord's id."""
    event = next(ids)
    place = {"guild_id": guild, "channel_id": channel, "at": time.time()}
    seq = store.messages.append(
        **place, author_id=who, author_name="Ada", text=question, discord_message_id=event
    )
    store.replies.begin(event, guild, channel, persona, time.time(), asked_by=who, trigger_seq=seq)
    store.replies.record_parts(event, [part := next(ids)])
    made = {"persona_id": persona, "adapter_version": version, "discord_message_id": part}
    store.messages.append(**place, author_id=0, author_name=persona, text=reply, **made)
    store.replies.finish(event, "done", version, 1)
    return seq, event


def remember(store, *seqs):
    texts = {
        seq: store._connection.value(str, "select text from messages where seq = :seq", seq=seq)
        for seq in seqs
    }
    vectors = pack_vectors([*texts.values()])
    store.messages.store_vectors(SCHEME, dict(zip(texts.items(), vectors, strict=True)))


def vectors(store):
    return store._connection.column(int, "select seq from message_vectors order by seq")


class Here:
    """Talk of a stage's people, with everything that was said long ago."""

    def __init__(self, stage):
        self.stage = stage
        self.store = stage.store
        self.guild = stage.sandbox.guild_id

    def past(self, question=SAID, reply=ANSWERED, *, who=None, channel=QUAY, **changes):
        place = {"guild": self.guild, "channel": int(self.stage.sandbox.channel(channel)["id"])}
        seq, event = exchange(
            self.store, question, reply, who=int((who or self.stage.member).id), **place | changes
        )
        remember(self.store, seq)
        return event

    def chatter(self, channel=QUAY):
        """As many messages as leave everything before them out of the prompt."""
        for number in range(10):
            self.past(f"the crates of row {number} are wet", "So is the crane.", channel=channel)

    async def ask(self, words=ASKED, who=None, channel=QUAY):
        mark = self.stage.mark
        await (who or self.stage.member).say(channel, words)
        return await self.stage.finished(channel, mark)

    @property
    def found(self):
        return [hit for hit in self.stage.engine.requests[-1].lore if hit.source == EARLIER_SOURCE]


@pytest.fixture
def here(stage):
    return Here(stage)


# --------------------------------------------------------------------------------------- in replies


async def test_what_a_member_said_long_ago_is_in_the_prompt_when_they_take_it_up(here):
    here.stage.engine.script = lambda request: [ANSWERED]
    assert "earlier talk" not in (await here.ask(SAID))["content"]
    here.chatter()
    reply = await here.ask()
    request = here.stage.engine.requests[-1]
    assert SAID not in [turn.text for turn in request.turns] and len(here.found) == 1
    (hit,) = here.found
    assert "Tobias Reed" in hit.heading and hit.text == f"“{SAID}” – “{ANSWERED}”"
    assert "base model · earlier talk" in reply["content"]
    assert "earlier talk" not in (await here.ask("good morning"))["content"] and not here.found


async def test_a_message_is_embedded_once_for_lore_and_earlier_talk(here, monkeypatch):
    model = load_minilm()
    embedded = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda texts: embedded.extend(texts) or embed(texts))
    question = "how heavy was the piano that my cousin Egon mends?"
    await here.ask(question)
    assert here.stage.engine.requests[-1].lore and embedded.count(question) == 1


async def test_nothing_comes_back_that_the_prompt_has_already(here):
    await here.ask(SAID)
    await here.ask()
    assert SAID in [turn.text for turn in here.stage.engine.requests[-1].turns] and not here.found


async def test_nobody_elses_talk_no_other_channel_s_and_no_other_persona_s_comes_back(here):
    """Each exchange differs from the one that counts in one way, and says so."""
    stage = here.stage
    here.past(f"{SAID} (theirs)", who=stage.moderator)
    here.past(f"{SAID} (elsewhere)", channel=INN)
    here.past(f"{SAID} (another server's)", guild=here.guild + 1)
    here.past(f"{SAID} (another persona's)", persona="oda")
    here.past(f"{SAID} (another version's)", version="v7")
    here.past(f"{SAID} (mine)")
    here.chatter()
    await here.ask()
    assert [hit.text.split(" – ")[0] for hit in here.found] == [f"“{SAID} (mine)”"]
    await here.ask(who=stage.sandbox.member("Wren Castle"))
    assert not here.found


async def test_a_new_conversation_has_no_earlier_talk(here):
    here.past()
    here.chatter()
    mark = here.stage.mark
    await here.stage.member.slash(QUAY, "persona fresh")
    await here.stage.sees("A new conversation starts here", since=mark)
    await here.ask()
    assert not here.found


async def test_two_whole_exchanges_come_back_in_their_order_or_one_beside_two_passages_of_lore(
    here,
):
    here.past("the exam in botany is on Friday and I panic", "moss " * MAX_EXCHANGE_WORDS)
    here.past("I sit the botany exam tomorrow", "Breathe\nslowly.")
    here.past("I bought a book about ferns", "Ferns forgive.")
    here.past("one more exam after botany", "One load at a time.")
    here.chatter()
    await here.ask("the botany exam is over, I passed")
    lore = here.stage.engine.requests[-1].lore
    assert len(lore) == 2 and [hit.text for hit in here.found] == [
        "“I sit the botany exam tomorrow” – “Breathe slowly.”",
        "“one more exam after botany” – “One load at a time.”",
    ]
    assert here.found[0].score < here.found[1].score
    about_lore = "what do you lift with your jib, and how long is the jib?"
    here.past(about_lore, "I lift sacks.")
    here.past(f"{about_lore} (again)", "I still lift sacks.")
    here.chatter()
    await here.ask(about_lore)
    assert len(here.stage.engine.requests[-1].lore) == 3 and len(here.found) == 1


def test_of_exchanges_with_the_same_question_the_latest_has_one_place():
    same = [(SAID, "Egon?", 1.5), (SAID.upper(), "Then he is late.", 1.4), (SAID, ANSWERED, 1.5)]
    hits = earlier_hits([*same[:2], (ASKED, "Clocks.", 1.1), same[2]], "Ada", [])
    assert [hit.text for hit in hits] == [f"“{ASKED}” – “Clocks.”", f"“{SAID}” – “{ANSWERED}”"]


def test_an_exchange_with_a_long_text_without_spaces_does_not_come_back():
    long = f"See https://example.org/{'x' * MAX_EXCHANGE_CHARS}"
    assert earlier_hits([(SAID, long, 1.5)], "Ada", []) == []


async def test_messages_from_before_an_update_are_embedded_a_few_at_a_time(here):
    place = {"guild": here.guild, "channel": int(here.stage.sandbox.channel(QUAY)["id"])}
    old = [exchange(here.store, who=int(here.stage.member.id), **place)[0]]
    old += [
        exchange(here.store, f"crate {n} is wet", who=int(here.stage.member.id), **place)[0]
        for n in range(12)
    ]
    here.chatter()
    chatter = len(vectors(here.store))
    await here.ask("good morning")
    assert len(vectors(here.store)) == chatter + MAX_MISSING_VECTORS + 1
    for _ in range(3):
        await here.ask()
    assert {*old} < {*vectors(here.store)} and [hit.text for hit in here.found] == [
        f"“{SAID}” – “{ANSWERED}”"
    ]


async def test_a_reply_does_not_wait_for_vectors_that_cannot_be_stored(here, monkeypatch, caplog):
    def fail(*args):
        raise StoreError("The database is full.", "Free some space.")

    here.past()
    here.chatter()
    monkeypatch.setattr(type(here.store.messages), "store_vectors", fail)
    await here.ask()
    assert len(here.found) == 1
    assert "not stored: The database is full" in caplog.text


# ------------------------------------------------------------------------------------- in the store


def test_a_vector_goes_with_its_message_and_with_its_text(store):
    seqs, events = zip(*(exchange(store, f"{SAID} {n}") for n in range(4)), strict=True)
    remember(store, *seqs)
    assert vectors(store) == [*seqs]
    store.messages.delete(events[0])
    store.messages.update(events[1], "nothing")
    store.messages.store_vectors(
        SCHEME, {(seqs[0], "gone"): b"1", (seqs[1], SAID): b"1", (seqs[2], f"{SAID} 2"): b"2"}
    )
    assert (
        vectors(store) == [*seqs[2:]]
        and store.messages.earlier_vectors(TALK, SCHEME)[seqs[2]] == b"2"
    )
    store.messages.delete_before(1e12)
    assert vectors(store) == []


def test_an_erased_member_has_no_earlier_talk_and_a_text_that_named_them_is_embedded_again(store):
    mine = exchange(store)[0]
    other = exchange(store, "Ada Blunt told me so", who=WHO + 1)[0]
    remember(store, mine, other)
    store.erasure.erase(WHO, 1e12, lambda text: text.replace("Ada Blunt", "someone"))
    assert (
        not {mine, other} & {*vectors(store)} and store.messages.earlier_vectors(TALK, SCHEME) == {}
    )
    theirs = replace(TALK, member_id=WHO + 1)
    assert store.messages.earlier_vectors(theirs, SCHEME) == {other: None}


def test_only_finished_exchanges_before_the_history_count_and_the_latest_of_them(store):
    seqs = [exchange(store, f"question {number}")[0] for number in range(5)]
    unfinished, event = exchange(store, "and this?")
    store.replies.begin_regeneration(event, by=1, at=1.0)
    assert [*store.messages.earlier_vectors(TALK, SCHEME)] == seqs[::-1]
    before = replace(TALK, before_seq=seqs[3])
    assert [*store.messages.earlier_vectors(before, SCHEME)] == seqs[2::-1]
    partly = replace(TALK, before_seq=seqs[2] + 1)  # its reply is in the history
    assert [*store.messages.earlier_vectors(partly, SCHEME)] == seqs[1::-1]
    found = store.messages.earlier_exchanges(TALK, [seqs[4], seqs[1], unfinished, 10**6])
    assert [it.seq for it in found] == [seqs[1], seqs[4]] and found[0].question == "question 1"
    remember(store, seqs[0])
    assert store.messages.earlier_vectors(TALK, "another encoder")[seqs[0]] is None
    for version, here in (("v1", 0), (None, 5)):
        assert len(store.messages.earlier_vectors(replace(TALK, version=version), SCHEME)) == here


def test_of_many_exchanges_the_latest_are_searched(store):
    with store.atomic():
        seqs = [
            exchange(store, f"question {number}")[0] for number in range(MAX_EARLIER_EXCHANGES + 9)
        ]
    assert [*store.messages.earlier_vectors(TALK, SCHEME)] == seqs[
        : -MAX_EARLIER_EXCHANGES - 1 : -1
    ]


# --------------------------------------------------------------------------------------- by meaning

TAKEN_UP = """my sister Nell keeps bees behind the chandlery|what animals did I say my sister has?
my cat Biscuit ate a whole smoked herring|guess what my cat stole today
we named the boat Thrift because we got it so cheap|what did we call our boat again?
my grandfather was a lighthouse keeper on Cold Nab|do you recall what my grandpa did for a living?
I got a C in chemistry and dad isn't talking to me|dad finally spoke to me about the grade
I'm trying to give up smoking, day four|I made it a whole week without a cigarette
I'm writing a novel about a drowned village|I finished the second chapter of my book
I'm saving up for a motorbike, have 400 so far|finally bought the bike I was saving for
I failed my driving test for the third time|I passed the driving exam today!!
I can't swim, never learned|someone wants me to go swimming with them
I bought a telescope and saw Saturn|looked at the planets again last night
my flatmate never washes a dish|the dishes are piling up again, guess who"""


@pytest.mark.slow
def test_a_message_finds_what_it_takes_up_among_two_hundred():
    pairs = [line.split("|") for line in TAKEN_UP.splitlines()]
    log = json.loads(
        (ShippedData.from_source_tree().logs / "ballast.json").read_text(encoding="utf-8")
    )
    others = [
        it["content"] for it in log["messages"] if not it["author"]["name"].startswith("ballast")
    ][:188]
    earlier = dict(enumerate(pack_vectors([said for said, _ in pairs] + others)))
    ranked = [
        [*match_earlier(vector, earlier)] for vector in pack_vectors([asked for _, asked in pairs])
    ]
    assert sum(number in found[:2] for number, found in enumerate(ranked)) >= 10
    assert [
        match_earlier(vector, earlier) for vector in pack_vectors(["hello", "thank you very much"])
    ] == [{}, {}]


def test_what_the_encoder_cannot_read_is_no_match_and_not_tried_again(store):
    (vector,) = pack_vectors(["我的表哥在巷子里修钟"])
    seq, _ = exchange(store, "我的表哥在巷子里修钟")
    store.messages.store_vectors(SCHEME, {(seq, "我的表哥在巷子里修钟"): vector})
    assert vector == b"" and store.messages.earlier_vectors(TALK, SCHEME) == {seq: b""}
    (readable,) = pack_vectors([SAID])
    assert (
        match_earlier(vector, {1: readable})
        == match_earlier(readable, {1: vector, 2: readable[:-2]})
        == {}
    )
    assert match_earlier(readable, {1: vector, 2: readable}).keys() == {2}
