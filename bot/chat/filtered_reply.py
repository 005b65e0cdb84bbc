"""Replies as pieces of text without links, for the API and the pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.chat.reply_text import LinkFilter, remove_links
from bot.platform.errors import error_text
from bot.platform.localisation import gettext_lazy
from bot.training.resource_sharing import TrainerThrottle
from personas.engine import Engine, ReplyStream
from personas.prompt.renderer import PromptTooLongError
from personas.schemas.chat import ChatReply, ChatRequest


class FilteredReply:
    """A reply that is being generated. Iterate for pieces of text; afterwards `text` and `reply`
    are complete.
    """

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
        return remove_links(self.reply.text, keeps_code=True)

    def cancel(self) -> None:
        """Stop generating."""
        self._stream.cancel()


class FixedReply(FilteredReply):
    """A text in place of a reply, which no model has written."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncIterator[str]:
        yield self._text

    @property
    def reply(self) -> ChatReply:
        """A reply without tokens."""
        return ChatReply(
            self._text,
            version=None,
            seed=0,
            prompt_tokens=0,
            new_tokens=0,
            finish="stop",
            seeded=False,
        )

    @property
    def text(self) -> str:
        """The text, with its web addresses."""
        return self._text

    def cancel(self) -> None:
        """Do nothing: it is complete."""


@asynccontextmanager
async def stream_filtered_reply(
    engine: Engine, throttle: TrainerThrottle, request: ChatRequest, *, fixed: str | None = None
) -> AsyncIterator[FilteredReply]:
    """Generate a reply; it is cancelled at the end of the block. The trainer is paused meanwhile.
    A `fixed` text is the reply instead, and the engine is not asked.

    Raises `EngineBusyError`; iteration raises other errors of the engine.
    """
    if fixed is not None:
        yield FixedReply(fixed)
        return
    reply = FilteredReply(throttle.submit(engine, request))
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
