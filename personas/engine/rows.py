"""One reply being made: its prompt, what of it has been computed, its draws, its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from personas.contracts import ChatRequest, Reply, Token
from personas.engine.decoder import Decoder
from personas.engine.sampling import Drawn, Draws
from personas.engine.seats import Seat
from personas.engine.text import StreamedText


class Listener(Protocol):
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

    def finish(self, reply: Reply) -> None:
        """Hear that the reply is complete."""
        ...


@dataclass(frozen=True)
class Job:
    """A request that was accepted. `ended` is called once, however it ends. The last two the reply tells."""

    request: ChatRequest
    prompt: tuple[int, ...]
    seed: int
    listener: Listener
    text: StreamedText
    ended: Callable[[], None]
    text_of_prompt: str = ""
    shortened: bool = False


class Row:
    """A job in the batch. `last` is the token to compute next, once the prompt has been computed.

    `is_kept` says whether others may take over what it has computed.
    """

    def __init__(self, job: Job, seat: Seat, decoder: Decoder, began: float) -> None:
        self.job, self.seat, self.decoder, self.began = job, seat, decoder, began
        self.cache = decoder.open(len(job.prompt) + job.request.sampling.max_new_tokens)
        self.draws = Draws(job.request.sampling, job.seed, set(job.prompt))
        self.last: int | None = None
        self.is_kept = True
        self._logprobs: list[float] = []
        self._tokens: list[Token] = []

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

    def take(self, drawn: Drawn) -> None:
        """Take the next token, and let the text of it be seen."""
        self.last = drawn.token
        self.job.text.take(drawn.token)
        if drawn.logprob is not None:
            self._logprobs.append(drawn.logprob)
            if self.job.request.sampling.alternatives is not None:
                piece = self.job.text.piece
                likeliest = tuple((piece(token), logprob) for token, logprob in drawn.likeliest)
                self._tokens.append(Token(piece(drawn.token), drawn.logprob, likeliest))

    def reply(self) -> Reply:
        """The whole reply, once it has ended."""
        job = self.job
        job.text.end()
        finish: Literal["stop", "length", "cancelled"] = (
            "stop" if job.text.stopped else "cancelled" if job.listener.cancelled.is_set() else "length"
        )
        version = self.seat.ref.version if self.seat.ref else None
        told, tokens = tuple(self._logprobs), tuple(self._tokens)
        return Reply(
            job.text.text,
            version,
            job.seed,
            len(job.prompt),
            job.text.tokens,
            finish,
            told,
            tokens,
            job.text_of_prompt,
            job.shortened,
            job.text.repeated,
        )
