"""The chat engine: one base model, many adapters. Everything else sees only this protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from personas.engine.metrics import EngineState
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, Persona


class ReplyStream(Protocol):
    """A reply on its way. Iterate for pieces of text; afterwards `reply` holds the whole."""

    def __aiter__(self) -> AsyncIterator[str]: ...

    @property
    def reply(self) -> ChatReply:
        """The finished reply; shorter than what was streamed where that had begun to repeat itself.

        Raises `RuntimeError` before the stream has ended.
        """
        ...

    def cancel(self) -> None:
        """Stop after the token that is being made; the stream then ends with what there is. May be called twice.

        A request whose turn has not come ends at once, with an empty reply.
        """
        ...


class Engine(Protocol):
    """Answers many channels at once with one base model."""

    def submit(self, request: ChatRequest) -> ReplyStream:
        """Queue a request. Raises `EngineBusyError` when too many wait; other errors come out of the stream."""
        ...

    async def load(self, adapter: AdapterRef) -> None:
        """Verify and load an adapter before it is needed. Raises `AdapterError`; nothing changes then."""
        ...

    def prepare(self, persona: Persona, adapter: AdapterRef | None) -> None:
        """Have what a persona's prompts begin with ready before they come; computed only while nobody waits."""
        ...

    async def drop(self, adapter: AdapterRef) -> None:
        """Let go of an adapter if it is loaded; a reply that it is making ends first."""
        ...

    async def clear_prefix_cache(self) -> None:
        """Let go of what is kept of the texts of earlier requests, to be quicker with the next."""
        ...

    def state(self) -> EngineState:
        """How it stands now. Takes no time."""
        ...

    async def close(self) -> None:
        """Cancel what runs and let go of the model."""
        ...
