"""Replies as pieces of text without links, for the API and the pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.chat.fixed_stream import FixedStream
from bot.chat.reply_text import LinkFilter, remove_links
from bot.platform.errors import error_text
from bot.platform.localisation import gettext_lazy
from bot.safety.actions import WITHHELD
from bot.safety.reply_guard import WITHDRAWN, ReplyGuard
from personas.engine import ReplyStream
from personas.prompt.renderer import PromptTooLongError
from personas.schemas.chat import ChatReply, ChatRequest


class FilteredReply:
    """A reply that is being generated. Iterate for pieces of text, after `WITHDRAWN` from the
    beginning; afterwards `text` and `reply` are complete.
    """

    def __init__(self, stream: ReplyStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[str]:
        links = LinkFilter()
        async for piece in self._stream:
            if piece is WITHDRAWN:
                links = LinkFilter()
                yield piece
            elif text := links.take(piece):
                yield text
        if text := links.end():
            yield text
        if self.reply.withheld:
            yield WITHHELD

    @property
    def reply(self) -> ChatReply:
        """The engine's reply, once it has ended."""
        return self._stream.reply

    @property
    def text(self) -> str:
        """The whole text; shorter than the streamed one where that began to repeat itself, and the
        bot's own where it was withheld.
        """
        return WITHHELD if self.reply.withheld else remove_links(self.reply.text, keeps_code=True)

    def cancel(self) -> None:
        """Stop generating."""
        self._stream.cancel()


class FixedReply(FilteredReply):
    """A text in place of a reply, which no model has written."""

    def __init__(self, text: str) -> None:
        super().__init__(FixedStream(text))
        self._text = text

    async def __aiter__(self) -> AsyncIterator[str]:
        async for piece in self._stream:
            yield piece

    @property
    def text(self) -> str:
        """The text, with its web addresses."""
        return self._text


@asynccontextmanager
async def stream_filtered_reply(
    guard: ReplyGuard, request: ChatRequest, *, fixed: str | None = None
) -> AsyncIterator[FilteredReply]:
    """Generate a reply; it is cancelled at the end of the block. A `fixed` text is the reply
    instead, and the engine is not asked.

    Raises `EngineBusyError`; iteration raises other errors of the engine.
    """
    if fixed is not None:
        yield FixedReply(fixed)
        return
    reply = FilteredReply(guard.submit(request))
    try:
        yield reply
    finally:
        reply.cancel()


def reply_error_text(error: Exception) -> str:
    """Describe why there is no reply. Unexpected errors get a code that is in the log too."""
    if isinstance(error, PromptTooLongError):
        return gettext_lazy(
            "The persona's card leaves no room for messages and a reply of this length. Ask for "
            "fewer tokens."
        )
    return error_text(error)
