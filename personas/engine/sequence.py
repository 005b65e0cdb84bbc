"""A request being answered: prompt, KV cache, sampler state, generated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.lora_slots import LoraSlot
from personas.engine.model_runner import ModelRunner
from personas.engine.sampler import SampledToken, SamplerState
from personas.schemas.chat import ChatReply, ChatRequest, ReplyToken


class ReplySink(Protocol):
    """Who waits for a reply; `LocalReplyStream` in the bot."""

    @property
    def cancelled(self) -> Any:
        """A `threading.Event`."""
        ...

    def begin(self) -> bool:
        """Its turn has come. False when it does not want it any more."""
        ...

    def push(self, piece: object) -> None:
        """Hear a piece of text, or the exception that the reply ends with."""
        ...

    def finish(self, reply: ChatReply) -> None:
        """Hear that the reply is complete."""
        ...


@dataclass(frozen=True)
class EngineRequest:
    """A request that was accepted. `ended` is called once, however it ends. The last two the reply tells."""

    request: ChatRequest
    prompt: tuple[int, ...]
    seed: int
    listener: ReplySink
    text: StreamingDetokenizer
    ended: Callable[[], None]
    prompt_text: str = ""
    shortened: bool = False


class RunningSequence:
    """A job in the batch. `last` is the token to compute next, once the prompt has been computed.

    `is_kept` says whether others may take over what it has computed.
    """

    def __init__(self, job: EngineRequest, seat: LoraSlot, decoder: ModelRunner, began: float) -> None:
        self.job, self.seat, self.decoder, self.began = job, seat, decoder, began
        self.cache = decoder.open(len(job.prompt) + job.request.sampling.max_new_tokens)
        self.draws = SamplerState(job.request.sampling, job.seed, set(job.prompt))
        self.last: int | None = None
        self.is_cacheable = True
        self._logprobs: list[float] = []
        self._tokens: list[ReplyToken] = []

    def prompt_part(self, most: int) -> Sequence[int]:
        """The next tokens of the prompt to compute, at most so many; none when it has been computed."""
        at = len(self.cache.tokens)
        return self.job.prompt[at : at + most]

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be made of it."""
        text = self.job.text
        return bool(
            text.stopped
            or text.tokens >= self.job.request.sampling.max_new_tokens
            or self.job.listener.cancelled.is_set()
        )

    def take(self, drawn: SampledToken) -> None:
        """Take the next token, and let the text of it be seen."""
        self.last = drawn.token
        self.job.text.take(drawn.token)
        if drawn.logprob is not None:
            self._logprobs.append(drawn.logprob)
            if self.job.request.sampling.alternatives is not None:
                piece = self.job.text.piece
                likeliest = tuple((piece(token), logprob) for token, logprob in drawn.likeliest)
                self._tokens.append(ReplyToken(piece(drawn.token), drawn.logprob, likeliest))

    def reply(self) -> ChatReply:
        """The whole reply, once it has ended."""
        job = self.job
        job.text.end()
        finish: Literal["stop", "length", "cancelled"] = (
            "stop" if job.text.stopped else "cancelled" if job.listener.cancelled.is_set() else "length"
        )
        version = self.seat.ref.version if self.seat.ref else None
        told, tokens = tuple(self._logprobs), tuple(self._tokens)
        return ChatReply(
            job.text.text,
            version,
            job.seed,
            len(job.prompt),
            job.text.tokens,
            finish,
            told,
            tokens,
            job.prompt_text,
            job.shortened,
            job.text.repeated,
        )
