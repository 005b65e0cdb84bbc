"""A text in place of a model's reply, as a stream."""

from collections.abc import AsyncIterator

from personas.schemas.chat import ChatReply


class FixedStream:
    """A `ReplyStream` of one piece, which no model has written. `version` is the one that would have
    replied: later prompts of that version have the text.
    """

    def __init__(self, text: str, version: str | None = None) -> None:
        self._text = text
        self._version = version
        self._is_begun = False
        self._is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[str]:
        self._is_begun = True
        if not self._is_cancelled:
            yield self._text

    @property
    def reply(self) -> ChatReply:
        """The text as a reply without tokens."""
        return ChatReply(
            "" if self._is_cancelled else self._text,
            version=self._version,
            seed=0,
            prompt_tokens=0,
            new_tokens=0,
            finish="cancelled" if self._is_cancelled else "stop",
            seeded=False,
        )

    def cancel(self) -> None:
        """Leave the text out, unless it was read."""
        self._is_cancelled = not self._is_begun
