"""The kinds of messages that members send in a run, drawn by seed, and who has to answer each.

`KINDS` has all of them; `tests.chaos.conversation` compares what is sent with what comes of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bot.demo_guild import MEMBER, MODERATOR, NEWCOMER, OWNER
from sandbox import Sandbox
from sandbox.member_client import MemberClient
from sandbox.object_store import StoredFile
from sandbox.proxy_bot import ProxyBot
from tests.bot.scripted_recogniser import sound
from tests.personas.cards import PIXEL

BLOCKED = OWNER
"""A member whom no persona answers, in every conversation."""
PROXIED = NEWCOMER
"""A member whose messages a proxy posts again; those of others would wait for their deletion."""
NAMES = {"ballast": "Ballast", "oda": "Oda Marrow", "thrip": "Sir Aurelio Thrip"}
CALLS = {
    "Oda, Thrip": ("oda", "thrip"),
    "Thrip and Ballast": ("thrip", "ballast"),
    "Ballast, Oda and Thrip": ("ballast", "oda", "thrip"),
}
"""How a message calls several personas."""
WAITS = {"drowned-stage": 0.15}
"""Channels where a reply waits for further lines of its member, in seconds."""
MENTION = "@Understudy"
SELF_HARM = "I want to kill myself"
PLAIN_SHARE = 0.45
BLOCKED_SHARE = 0.06
DELETED_SHARE = 0.1
MAX_LINES = 4
FORWARDED = 20
"""Latest plain messages that may be forwarded."""
ENDED_BUTTON = "vote+1:"


@dataclass(frozen=True)
class Sent:
    """A message of a member. `ids` are its own, or a proxy's copy and its original.

    `personas` are those that answer, each once; None where that depends on the lines before, or on
    whether the bot has its face yet. `is_call`: the bot answers it, too, if it comes while the bot
    is away.
    """

    kind: str
    channel: str
    author: str
    ids: tuple[int, ...]
    personas: frozenset[str] | None = None
    is_call: bool = False


@dataclass
class Traffic:
    """What members send in a conversation; `channels` are those with a persona."""

    sandbox: Sandbox
    channels: Mapping[str, str]
    random: random.Random
    has_face: bool
    sent: dict[int, Sent] = field(default_factory=dict)
    """By the id of each message."""
    deleted: set[int] = field(default_factory=set)
    proxy: ProxyBot = field(init=False)
    _said: int = 0
    _plain: list[dict[str, Any]] = field(default_factory=list)
    _helped: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.proxy = self.sandbox.proxy_bot()

    async def say(self, channel: str, kind: str = "", author: str = "") -> list[Sent]:
        """Send a message of a kind, by default one that is drawn, or several lines."""
        if not kind:
            is_plain = self.random.random() < PLAIN_SHARE
            kind = "text" if is_plain else self.random.choice(list(KINDS))
        author = author or self._author(kind)
        sent = await KINDS[kind](Draft(self, kind, channel, author))
        for each in sent:
            self.sent |= dict.fromkeys(each.ids, each)
        return sent

    def _author(self, kind: str) -> str:
        if self.random.random() < BLOCKED_SHARE:
            return BLOCKED
        if kind == "proxy's copy":
            return PROXIED
        authors = (MEMBER, MODERATOR, *([PROXIED] if kind == "self-harm" else []))
        return self.random.choice(authors)

    def next_text(self) -> str:
        """Return a text that no other message has."""
        self._said += 1
        more = " at length" if self.random.random() < 0.3 else ""
        return f"question {self._said}{more}"

    async def delete(self, member: MemberClient, message: dict[str, Any]) -> None:
        await member.delete(message)
        self.deleted.add(int(message["id"]))

    def note_plain(self, message: dict[str, Any]) -> None:
        """Remember a message that may be forwarded."""
        self._plain = [*self._plain[-FORWARDED + 1 :], message]

    def plain(self) -> dict[str, Any] | None:
        """Draw a message to forward."""
        return self.random.choice(self._plain) if self._plain else None

    def ended_reply(self, channel: str) -> dict[str, Any] | None:
        """Draw one of the latest replies of a persona that have ended."""
        latest = self.sandbox.messages(channel)[-12:]
        ended = [message for message in latest if ENDED_BUTTON in str(message["components"])]
        return self.random.choice(ended) if ended else None

    def asks_for_help(self, channel: str, author: str) -> bool:
        """Note that a member speaks of self-harm in a channel. False where they did: a minute long,
        they get no second answer there.
        """
        is_new = (channel, author) not in self._helped
        self._helped.add((channel, author))
        return is_new


@dataclass(frozen=True)
class Draft:
    """A message to send: its kind, its place and its author."""

    traffic: Traffic
    kind: str
    channel: str
    author: str

    @property
    def member(self) -> MemberClient:
        return self.traffic.sandbox.member(self.author)

    @property
    def random(self) -> random.Random:
        return self.traffic.random

    def text(self) -> str:
        return self.traffic.next_text()

    def sent(
        self, *messages: dict[str, Any], personas: tuple[str, ...] = (), is_call: bool = False
    ) -> Sent:
        """Describe what was sent: to the personas that it calls, or else to the channel's."""
        asked: frozenset[str] | None = frozenset(personas)
        if self.author == BLOCKED:
            asked = frozenset()
        elif not personas:
            asked = frozenset([self.traffic.channels[self.channel]])
            is_of_face = is_call and self.traffic.has_face
            if self.channel in WAITS or is_of_face:
                asked = None
        ids = tuple(int(message["id"]) for message in messages)
        return Sent(self.kind, self.channel, self.author, ids, asked, is_call)


async def send_text(draft: Draft) -> list[Sent]:
    """A question, perhaps to several personas, and perhaps deleted at once."""
    call = ""
    if draft.random.random() < 0.25:
        call = draft.random.choice(list(CALLS))
    text = draft.text()
    message = await draft.member.say(draft.channel, f"{call}: {text}" if call else text)
    if draft.random.random() < DELETED_SHARE:
        await draft.traffic.delete(draft.member, message)
    elif not call:
        draft.traffic.note_plain(message)
    return [draft.sent(message, personas=CALLS.get(call, ()), is_call=bool(call))]


async def send_mention(draft: Draft) -> list[Sent]:
    message = await draft.member.say(draft.channel, f"{MENTION} {draft.text()}")
    return [draft.sent(message, is_call=True)]


async def send_reply(draft: Draft) -> list[Sent]:
    """A reply to a persona's message."""
    before = draft.traffic.ended_reply(draft.channel)
    if before is None:
        return await send_text(replace(draft, kind="text"))
    names = [key for key, name in NAMES.items() if name == before["author"]["username"]]
    message = await draft.member.say(draft.channel, draft.text(), reply_to=before)
    return [draft.sent(message, personas=tuple(names), is_call=True)]


async def send_file(draft: Draft) -> list[Sent]:
    """A text file, beside words or alone."""
    words = draft.text() if draft.random.random() < 0.7 else ""
    file = StoredFile.named("notes.txt", b"The ferry leaves at noon.")
    return [draft.sent(await draft.member.say(draft.channel, words, files=[file]))]


async def send_picture(draft: Draft) -> list[Sent]:
    words = draft.text() if draft.random.random() < 0.7 else ""
    file = StoredFile.named("quay.png", PIXEL)
    described = ["a crane at night"]
    sending = draft.member.say(draft.channel, words, files=[file], descriptions=described)
    return [draft.sent(await sending)]


async def send_sticker(draft: Draft) -> list[Sent]:
    return [draft.sent(await draft.member.sticker(draft.channel, "Wave"))]


async def send_poll(draft: Draft) -> list[Sent]:
    return [draft.sent(await draft.member.poll(draft.channel, draft.text(), ["yes", "no"]))]


async def send_voice(draft: Draft) -> list[Sent]:
    spoken = sound(f"say {draft.text()}")
    return [draft.sent(await draft.member.voice_message(draft.channel, sound=spoken))]


async def send_forward(draft: Draft) -> list[Sent]:
    """A forward of a member's message from any channel."""
    before = draft.traffic.plain()
    if before is None:
        return await send_text(replace(draft, kind="text"))
    return [draft.sent(await draft.member.forward(draft.channel, before))]


async def send_proxied(draft: Draft) -> list[Sent]:
    """A message that a proxy posts again under another name, before or after it deletes it."""
    return [draft.sent(*await _proxied(draft, draft.text()))]


async def _proxied(draft: Draft, text: str) -> list[dict[str, Any]]:
    proxy = draft.traffic.proxy
    message = await draft.member.say(draft.channel, f"W: {text}")
    messages = [message]
    steps = ["copy", "delete"]
    draft.random.shuffle(steps)
    for step in steps:
        await asyncio.sleep(draft.random.choice((0.0, 0.02, 0.2)))
        if step == "copy":
            messages.append(proxy.copy(message, "Wren", text))
        else:
            proxy.delete(message)
            draft.traffic.deleted.add(int(message["id"]))
    return messages


async def send_lines(draft: Draft) -> list[Sent]:
    """Lines in quick succession, which one reply answers where the channel waits for them."""
    sent = []
    for _ in range(draft.random.randint(2, MAX_LINES)):
        sent.append(draft.sent(await draft.member.say(draft.channel, draft.text())))
        await asyncio.sleep(draft.random.choice((0.0, 0.01, 0.05)))
    return sent


async def send_edited(draft: Draft) -> list[Sent]:
    """A command to another bot, which an edit makes a message to the persona."""
    text = draft.text()
    message = await draft.member.say(draft.channel, f"!play {text}")
    await asyncio.sleep(draft.random.choice((0.0, 0.02, 0.2)))
    await draft.member.edit(message, f"{MENTION} {text}")
    return [draft.sent(message, is_call=True)]


async def send_self_harm(draft: Draft) -> list[Sent]:
    """Words that a fixed text answers, and no persona."""
    if not draft.traffic.asks_for_help(draft.channel, draft.author):
        return await send_text(replace(draft, kind="text"))
    words = f"{SELF_HARM}, {draft.text()}"
    is_proxied = draft.author == PROXIED
    if is_proxied:
        messages = await _proxied(draft, words)
    else:
        messages = [await draft.member.say(draft.channel, f"{MENTION} {words}")]
    ids = tuple(int(message["id"]) for message in messages)
    return [Sent(draft.kind, draft.channel, draft.author, ids, frozenset(), not is_proxied)]


Kind = Callable[[Draft], Awaitable[list[Sent]]]
KINDS: dict[str, Kind] = {
    "text": send_text,
    "mention": send_mention,
    "reply": send_reply,
    "text file": send_file,
    "picture": send_picture,
    "sticker": send_sticker,
    "poll": send_poll,
    "voice message": send_voice,
    "forward": send_forward,
    "proxy's copy": send_proxied,
    "quick lines": send_lines,
    "mention by an edit": send_edited,
    "self-harm": send_self_harm,
}
