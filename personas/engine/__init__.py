"""The chat engine's protocol, state and metrics, all that most of the bot needs of it."""

from collections.abc import AsyncIterator, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal, Protocol

from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, Persona, Turn
from personas.schemas.training import ServingPrecision


class ReplyStream(Protocol):
    """A reply being generated. Iterate over its pieces of text; `reply` is the whole afterwards."""

    def __aiter__(self) -> AsyncIterator[str]: ...

    @property
    def reply(self) -> ChatReply:
        """The finished reply, without a repetition that was streamed. Raises `RuntimeError` before
        the end.
        """

    def cancel(self) -> None:
        """End the stream after the current token; a request that has not started ends empty. May be
        called twice.
        """


class Engine(Protocol):
    """Generates the replies of many channels at once with one base model.

    `precision` is the one in which the base model serves, and in which an adapter for it is trained
    best.
    """

    precision: ServingPrecision

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the base model; adapters are made for one."""

    @property
    def context_tokens(self) -> int:
        """The most tokens that a prompt and its reply have together; known once it has started."""

    @property
    def sampling_fields(self) -> Set[str]:
        """The fields of `SamplingParams` that replies follow, at least those of length and drawing;
        known once it has started.
        """

    async def start(self) -> None:
        """Load the base model, or connect to where it is served. Raises an `UnderstudyError`."""

    def submit(self, request: ChatRequest) -> ReplyStream:
        """Queue a request. Raises `EngineBusyError` when the queue is full; the stream raises all
        other errors.
        """

    async def load(self, adapter: AdapterRef) -> None:
        """Verify and load an adapter before it is needed. Raises `AdapterError` and changes nothing
        then.
        """

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        """Compute the common prefix of a persona's prompts in advance, while the engine has time
        for it.

        With a `talk`, the beginning of its next prompt: its last turn stands for the next message.
        `max_new_tokens` is the reply's room in `context_tokens` (0: the engine's). May do nothing.
        """

    async def drop(self, adapter: AdapterRef) -> None:
        """Remove an adapter from memory, after the replies that it is generating."""

    async def clear_prefix_cache(self) -> None:
        """Discard the keys and values stored of earlier prompts and replies."""

    def state(self) -> "EngineState":
        """Return the current load without waiting."""

    async def close(self) -> None:
        """Cancel all replies and unload the model."""


@dataclass(frozen=True)
class AdapterStatus:
    """An adapter in memory and the replies it generates; without a slot peft computes them, one at
    a time.
    """

    name: str
    replies: int
    in_slot: bool


@dataclass(frozen=True)
class EngineState:
    """Load of an engine: `running` of `rows` replies, `waiting` requests, and the adapters in
    memory.

    `precision` is the base model's; a GGUF file's name where a server computes that file.
    `slots` is the number of LoRA slots; `kept_bytes` of `kept_most_bytes` hold shared prompt
    prefixes. `problems` are servers' refusals, with advice, until they reply again.
    `context_reason` says what limits the window of `context_tokens`. The engine can choose the
    beginning of a reply among `candidates`; 1 where it chooses none. `sees_pictures`: its model
    is given the pictures of requests.
    """

    model: str
    device: str
    precision: str
    context_tokens: int
    running: int
    rows: int
    waiting: int
    slots: int
    adapters: tuple[AdapterStatus, ...]
    kept_bytes: int
    kept_most_bytes: int
    problems: tuple[str, ...] = ()
    context_reason: str = ""
    candidates: int = 1
    sees_pictures: bool = False


@dataclass(frozen=True)
class RequestMetrics:
    """Seconds to the first text (None: none) and to the end, and tokens (0 if it failed or never
    started).
    """

    first_s: float | None
    whole_s: float
    prompt_tokens: int
    new_tokens: int
    finish: Literal["stop", "length", "cancelled", "failed"]


MetricsCallback = Callable[[RequestMetrics], None]
"""Called when a request ends, on the engine's thread or on the event loop's; it must not block."""
