"""A reply while it grows: when its message is edited, and without links, wherever the pieces of
them break.
"""

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.chat import senders
from bot.chat.reply_text import (
    LINK_PATTERN,
    LINK_PLACEHOLDER,
    MAX_FOOTER_CHARS,
    MAX_PART_CHARS,
    LinkFilter,
    remove_links,
    reply_footer,
)
from bot.chat.streaming_reply import EDIT_INTERVAL_S, FIRST_EDIT_DELAY_S, StreamingReply
from personas.schemas.chat import ChatReply
from tests.bot.conftest import OFFICE
from tests.hostile_text import outside_code


class Shown:
    """A voice that keeps what a message says, and when it began to."""

    def __init__(self, clock):
        self.clock = clock
        self.says = []

    async def say(self, text, view=None, since=None):
        self.says.append((self.clock[0], text))
        return 1

    async def change(self, message_id, text, view=None):
        self.says.append((self.clock[0], text))


def reply_shown_by(sender) -> StreamingReply:
    class Senders:
        async def of(self, persona, channel):
            return sender

    return StreamingReply(
        senders=Senders(),
        persona=None,
        channel=None,
        growing=lambda: None,
        ended=lambda: None,
        on_parts=lambda parts: True,
    )


class Stream:
    """A word each `every_s` seconds."""

    def __init__(self, clock, words, every_s):
        self.clock = clock
        self.words = words
        self.every_s = every_s

    async def __aiter__(self):
        for word in self.words:
            self.clock[0] += self.every_s
            yield word + " "

    @property
    def reply(self):
        return ChatReply(" ".join(self.words), "v1", 7, 1, len(self.words), "stop")


async def test_edits_follow_later_while_requests_wait(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    shown = Shown(clock)
    live = reply_shown_by(shown)
    live.stretch_s = lambda: 3.0
    await live.begin()
    words = [f"word{number}" for number in range(200)]
    reply = await live.follow(Stream(clock, words, 0.1))
    await live.end(reply.text, reply_footer(reply))
    times = [at for at, _ in shown.says[1:-1]]
    assert (
        all(later - at >= EDIT_INTERVAL_S + 3.0 - 1e-6 for at, later in pairwise(times))
        and len(times) >= 4
    )


@pytest.mark.parametrize("every_s", [0.05, 0.3, 2.0])
async def test_the_first_words_come_soon_and_then_no_more_edits_than_discord_takes(
    monkeypatch, every_s
):
    clock = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    shown = Shown(clock)
    words = [f"word{number}" for number in range(120)]
    live = reply_shown_by(shown)
    await live.begin()
    reply = await live.follow(Stream(clock, words, every_s))
    await live.end(reply.text, reply_footer(reply))
    (begun, placeholder), *grown, (_, whole) = shown.says
    assert (
        placeholder == "…"
        and whole.startswith("word0 word1")
        and whole.endswith("-# AI-written · v1")
    )
    times = [at - begun for at, _ in grown]
    assert times[0] == pytest.approx(max(FIRST_EDIT_DELAY_S, every_s), abs=every_s + 1e-6)
    assert grown[0][1].startswith("word0") and all("AI-written" not in text for _, text in grown)
    assert all(len([at for at in times if start <= at < start + 5]) <= 5 for start in times), (
        "five edits in five seconds"
    )
    assert max(later - at for at, later in pairwise(times)) <= EDIT_INTERVAL_S + every_s + 1e-6


async def test_mentions_come_first_in_the_first_message_and_have_room():
    shown = {}

    class Sender:
        mentioned = ()

        def mentioning(self, member_ids):
            self.mentioned = member_ids
            return self

        async def say(self, text, view=None, since=None):
            shown[len(shown)] = text
            return len(shown) - 1

        async def change(self, message_id, text, view=None):
            shown[message_id] = text

        async def remove(self, message_id):
            del shown[message_id]

    live = reply_shown_by(Sender())
    live.mentioned = (10**19, 11**18)
    lead = f"<@{10**19}> <@{11**18}>\n"
    await live.begin()
    assert shown[0] == f"{lead}…" and live.sender.mentioned == live.mentioned
    footer = f"-# {'x' * (MAX_FOOTER_CHARS - 3)}"
    text = "word " * (MAX_PART_CHARS // 5)  # it has room but for the mentions
    await live.end(text, footer)
    assert shown[0].startswith(f"{lead}word") and "<@" not in shown[1]
    assert shown[1].endswith(footer) and len(shown) == 2
    await live.restore("word", "-# cut off")
    assert shown == {0: f"{lead}word\n-# cut off"}


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_full_message_keeps_buttons_until_its_id_is_stored(is_stored):
    """After a kill, a message without a stored id is found by its buttons alone."""
    views = {}

    class Sender:
        async def say(self, text, view=None, since=None):
            views[len(views)] = view
            return len(views) - 1

        async def change(self, message_id, text, view=None):
            views[message_id] = view

    live = reply_shown_by(Sender())
    live.growing = lambda: "growing"
    live.ended = lambda: "ended"
    live.on_parts = lambda parts: is_stored
    await live.begin()
    await live.end("word " * 900, "-# AI-written")
    assert len(views) == 3 and views[2] == "ended"
    assert [views[0], views[1]] == ([None, None] if is_stored else ["ended", "ended"])
    await live.remove_kept_buttons()
    assert [views[0], views[1]] == [None, None] and views[2] == "ended"
    live.generated = "word " * 900
    await live.fail("-# an error", 1)
    assert [views[0], views[1]] == ([None, None] if is_stored else ["ended", "ended"])


STARTS = (
    "http", "https://", "HTTP://x", "httpſ://x.y", "www", "www.", "WWW.a", "w", "ww", "h", "://", "d",
    "discord.", "gg/", "x", "\u202e", "\x85", "\0", "`", "``", "```", "**",
)  # fmt: skip
WORDS = st.sampled_from((*STARTS, "a", " ", "\n", "é", "ß", "İ", "."))


@given(st.lists(st.lists(WORDS, max_size=4).map("".join), max_size=8))
@settings(max_examples=200, deadline=None)
def test_pieces_lose_the_links_that_the_whole_would_lose(pieces):
    without = LinkFilter()
    shown = "".join([*map(without.take, pieces), without.end()])
    assert shown.strip() == remove_links("".join(pieces), keeps_code=True)
    assert not LINK_PATTERN.search(outside_code(shown))


def test_nothing_is_held_back_but_what_may_become_a_link():
    without = LinkFilter()
    assert [without.take(piece) for piece in ("See the ", "harbour w", "all, ", "then www", ".x.y", "/z too")] == [
        "See the ", "harbour ", "wall, ", "then ", "", f"{LINK_PLACEHOLDER} too",
    ]  # fmt: skip
    assert without.end() == ""


@pytest.mark.parametrize("text", ["www.", "http://", "https://\n", "see www"])
def test_what_only_begins_as_a_link_is_shown(text):
    without = LinkFilter()
    assert without.take(text) + without.end() == text
    assert not re.search(LINK_PATTERN, text)


async def test_the_messages_of_a_reply_are_found_among_many_others(stage, monkeypatch):
    """After a crash a placeholder must be found, or it would stay beside the reply."""
    monkeypatch.setattr(senders, "MAX_HISTORY_MESSAGES", 10)
    services = stage.client.services
    channel = stage.client.get_channel(int(stage.sandbox.channel(OFFICE)["id"]))
    sender = await services.reply_service.senders.of(
        services.personas.get("oda", channel.guild.id), channel
    )

    async def chatter():
        for number in range(15):
            await stage.member.say(OFFICE, f"chatter {number}")

    await chatter()
    event_id = int((await stage.member.say(OFFICE, "a question"))["id"])
    buttons = services.reply_service.views.growing(event_id)
    first = await sender.say("…", buttons)
    assert await sender.find(event_id) == [first], "what was said before does not count"
    await chatter()
    assert await sender.find(event_id) == [first]
    last = await sender.say("…", buttons)
    assert await sender.find(event_id) == [first, last], "posted by a later start of the bot"


@pytest.mark.parametrize("text", ["", "Good evening."])
def test_the_note_tells_that_a_line_of_somebody_else_was_cut(text):
    reply = ChatReply(text, "v1", 7, 1, 1, "stop", is_cut=True)
    assert reply_footer(reply).endswith("· cut before a line that was not its own")
