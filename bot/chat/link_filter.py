"""Streams a reply piece by piece with links removed."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.chat.streaming_reply import LINK_PATTERN, LINK_PLACEHOLDER, remove_links
from bot.errors import error_text
from bot.training.resource_sharing import TrainerThrottle
from personas.engine import Engine, ReplyStream
from personas.prompt import PromptTooLongError
from personas.schemas.chat import ChatReply, ChatRequest

LAST_WORD_PATTERN = re.compile(r"\S*\Z")
LINK_PREFIXES = ("https://", "http://", "www.")  # prefixes of links (`bot.chat.streaming_reply.LINK_PATTERN`)
LINK_PREFIX_PATTERN = re.compile("|".join(map(re.escape, LINK_PREFIXES)), re.IGNORECASE)


class FilteredReply:
    """A reply that is being generated. Iterate for pieces of text; afterwards `text` and `reply` are complete."""

    def __init__(self, stream: ReplyStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[str]:
        links = LinkFilter()
        async for piece in self._stream:
            if text := links.take(piece):
                yield text
        if text := links.end():
            yield text

    @property
    def reply(self) -> ChatReply:
        """The engine's reply, once it has ended."""
        return self._stream.reply

    @property
    def text(self) -> str:
        """The whole text; shorter than the streamed one where that began to repeat itself."""
        return remove_links(self.reply.text)

    def cancel(self) -> None:
        """Stop generating."""
        self._stream.cancel()


@asynccontextmanager
async def stream_filtered_reply(
    engine: Engine, throttle: TrainerThrottle, request: ChatRequest
) -> AsyncIterator[FilteredReply]:
    """Generate a reply; it is cancelled at the end of the block. The trainer is paused meanwhile.

    Raises `EngineBusyError`; iteration raises other errors of the engine.
    """
    with throttle.reply():
        speech = FilteredReply(engine.submit(request))
        try:
            yield speech
        finally:
            speech.cancel()


class LinkFilter:
    """Removes links from text that comes in pieces; holds back what may become one."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """Add a piece; returns the text that can be shown now."""
        self._held += piece
        length = _final_length(self._held)
        text, self._held = self._held[:length], self._held[length:]
        return LINK_PATTERN.sub(LINK_PLACEHOLDER, text)

    def end(self) -> str:
        """Return the text that was held back, at the end."""
        held, self._held = self._held, ""
        return LINK_PATTERN.sub(LINK_PLACEHOLDER, held)


def _final_length(text: str) -> int:
    """Count the characters of a text that no following text can change."""
    last = LAST_WORD_PATTERN.search(text)
    assert last is not None  # it matches at least the empty end
    if link := LINK_PREFIX_PATTERN.search(text, last.start()):
        return link.start()
    partial = [
        size
        for prefix in LINK_PREFIXES
        for size in range(1, min(len(prefix), len(last.group()) + 1))
        if text[-size:].casefold() == prefix[:size]
    ]
    return len(text) - max(partial, default=0)


def reply_error_text(error: Exception) -> str:
    """Describe why there is no reply. Unexpected errors get a code that is in the log too."""
    if isinstance(error, PromptTooLongError):
        return "The persona's card leaves no room for messages and a reply of this length. Ask for fewer tokens."
    return error_text(error)
