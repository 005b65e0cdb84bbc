"""All kinds of messages in a life without faults, and what the comparison with their answers sees."""

import asyncio
import itertools
import shutil
import sqlite3
from contextlib import closing

from bot.demo_guild import MEMBER, MODERATOR
from bot.moderation.limits import ReplyLimits
from bot.safety.texts import shipped_texts
from bot.store import HOME_DATABASE
from tests.chaos.conversation import CHANNELS, conversation, report, wait_for
from tests.chaos.message_kinds import BLOCKED, KINDS, SELF_HARM, WAITS
from tests.chaos.outcome import Outcome

QUAY = "weighbridge-quay"
(WAITING,) = WAITS
CONNECT_TIMEOUT_S = 20.0
SEED = 3
"""One without limits and without a face."""
DAMAGE = [
    ("delete from replies where event_id = {asked}", "lost", "has no reply"),
    ("update replies set persona_id = 'thrip' where event_id = {asked}", "orphans", "{'thrip'}"),
    (
        "create table twice as select * from replies where event_id = {asked};"
        "update twice set event_id = 1; insert into replies select * from twice",
        "doubled",
        "['ballast', 'ballast']",
    ),
    (
        "update messages set text = 'question 999' where discord_message_id = {asked}",
        "lost",
        "has not heard ['999']",
    ),
    (
        "update messages set text = 'question 999' where discord_message_id = {line}",
        "lost",
        "has not heard ['999']",
    ),
    (
        f"update messages set text = '{SELF_HARM}' where discord_message_id = {{asked}}",
        "orphans",
        "is stored",
    ),
    (
        "update messages set discord_message_id = {blocked} where discord_message_id = {asked}",
        "orphans",
        "not by set()",
    ),
]
"""Damage of a home, and what the comparison says of it."""


async def test_each_kind_of_message_is_answered_once_and_what_is_not_so_is_seen():
    async with conversation(SEED) as talk:
        process = talk.start_bot()
        await wait_for(lambda: talk.is_connected, CONNECT_TIMEOUT_S)
        for kind, channel in zip(KINDS, itertools.cycle(CHANNELS), strict=False):
            await talk.say(channel, kind)
            await asyncio.sleep(0.1)  # else a member has too many unfinished replies
        await talk.settle(process)
        await talk.say(QUAY, "reply")  # to one that has ended by now
        said = {
            "asked": await talk.traffic.say(QUAY, "mention", MEMBER),
            "line": await talk.traffic.say(WAITING, "quick lines", MODERATOR),
            "blocked": await talk.traffic.say(QUAY, "mention", BLOCKED),
        }
        await asyncio.sleep(0.2)
        await talk.settle(process)
        await talk.stop_bot(process)
        talk.check()
        assert {sent.kind for sent in talk.traffic.sent.values()} == {*KINDS}
        assert report(talk, SEED).is_clean, str(talk.outcome)
        ids = {name: sent[0].ids[0] for name, sent in said.items()}
        home = talk.home / HOME_DATABASE
        whole = shutil.copy(home, talk.home / "whole")
        for damage, found, words in DAMAGE:
            with closing(sqlite3.connect(home)) as db:
                db.executescript(damage.format(**ids))
            talk.outcome = Outcome()
            talk.check()
            assert words in str(getattr(talk.outcome, found)), damage
            shutil.copy(whole, home)
        assert talk.outcome.owed > len(KINDS)
        helped = talk.sandbox.messages(WAITING)[-1]
        talk.traffic.proxy.copy(helped, "Wren", shipped_texts()["en"])
        talk.outcome = Outcome()
        talk.check()
        assert "answer nobody" in str(talk.outcome.orphans)
        talk.answers.limits = ReplyLimits(per_day=1)
        talk.check()
        assert "replies" in str(talk.outcome.doubled) and talk.outcome.exempt
        for message in [one for name in CHANNELS for one in talk.sandbox.messages(name)]:
            if message["content"] == shipped_texts()["en"]:
                await talk.sandbox.member(MODERATOR).delete(message)
        talk.check()
        assert "no answer with helplines" in str(talk.outcome.lost)
