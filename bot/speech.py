"""A reply on its way out of the bot, piece by piece and without links, which no persona may spread."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.errors import words_for
from bot.house import House
from bot.replies import LEFT_OUT, LINK, clean
from personas.contracts import ChatRequest, Reply
from personas.engine import ReplyStream
from personas.prompt import NoRoomError

LAST_WORD = re.compile(r"\S*\Z")
BEGINNINGS = ("https://", "http://", "www.")
"""How links begin (`bot.replies.LINK`)."""
BEGINNING = re.compile("|".join(map(re.escape, BEGINNINGS)), re.IGNORECASE)


class Speech:
    """A reply that is being made. Iterate for pieces of text; afterwards `text` and `reply` hold the whole."""

    def __init__(self, stream: ReplyStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[str]:
        without = WithoutLinks()
        async for piece in self._stream:
            if shown := without.take(piece):
                yield shown
        if shown := without.end():
            yield shown

    @property
    def reply(self) -> Reply:
        """What the engine tells of it, once it has ended."""
        return self._stream.reply

    @property
    def text(self) -> str:
        """The whole text; shorter than what was streamed where that had begun to repeat itself."""
        return clean(self.reply.text)

    def cancel(self) -> None:
        """Stop it; what there is stays."""
        self._stream.cancel()


@asynccontextmanager
async def speaking(house: House, request: ChatRequest) -> AsyncIterator[Speech]:
    """Have the engine make a reply; whatever is left of it at the end of the block is stopped.

    A training gives way meanwhile. Raises `EngineBusyError`; other errors come out of the speech.
    """
    with house.answerer.giving_way.reply():
        speech = Speech(house.answerer.engine.submit(request))
        try:
            yield speech
        finally:
            speech.cancel()


class WithoutLinks:
    """Takes links out of text that comes in pieces: what may become one is held back until it has ended."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """What can be shown, now that this has come."""
        self._held += piece
        certain = _certain(self._held)
        shown, self._held = self._held[:certain], self._held[certain:]
        return LINK.sub(LEFT_OUT, shown)

    def end(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        return LINK.sub(LEFT_OUT, held)


def _certain(text: str) -> int:
    """How many characters of a text are there to stay, whatever follows."""
    last = LAST_WORD.search(text)
    assert last is not None  # it matches nothing at the end, if nothing else
    if link := BEGINNING.search(text, last.start()):
        return link.start()
    half = [
        size
        for beginning in BEGINNINGS
        for size in range(1, min(len(beginning), len(last.group()) + 1))
        if text[-size:].casefold() == beginning[:size]
    ]
    return len(text) - max(half, default=0)


def words_of(error: Exception) -> str:
    """Why there is no reply, for people. What nobody foresaw gets a code that is in the log too."""
    if isinstance(error, NoRoomError):
        return "The persona's card leaves no room for the talk and a reply of this length. Ask for fewer tokens."
    return words_for(error)
