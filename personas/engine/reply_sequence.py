"""One request and its reply so far.

The local engine and those over servers share it. Imports no model library.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, Protocol, Self

from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.speaker_labels import SpeakerLabels, own_names
from personas.errors import NoMemoryError, is_out_of_memory
from personas.prompt.frames import member_name
from personas.prompt.renderer import RenderedPrompt, Renderer
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, ReplyToken

NO_MEMORY_ADVICE = (
    "Ask again when less is going on, or a shorter question; the operator can free memory on this "
    "machine."
)


class ReplySink(Protocol):
    """Receives one reply from the engine's thread; `reply_stream.QueuedReplyStream` is the bot's."""

    @property
    def cancelled(self) -> Any:
        """A `threading.Event`, set once the reply is no longer wanted."""

    def begin(self) -> bool:
        """Mark the request as started. Returns False when it was cancelled before."""

    def push(self, piece: object) -> None:
        """Deliver a piece of text, or the exception that ends the reply."""

    def finish(self, reply: ChatReply) -> None:
        """Deliver the complete reply."""


class ReplySequence:
    """One request with its prompt and the reply so far; subclasses have it computed."""

    seeded = True

    def __init__(
        self,
        request: ChatRequest,
        prompt: tuple[int, ...],
        seed: int,
        sink: ReplySink,
        detokenizer: StreamingDetokenizer,
        on_end: Callable[[], None] = lambda: None,
        prompt_text: str = "",
        shortened: bool = False,
    ) -> None:
        """Create a waiting sequence. `on_end` is called once, however it ends; the last two go into
        the reply.
        """
        self.request = request
        self.prompt = prompt
        self.seed = seed
        self._sink = sink
        self._detokenizer = detokenizer
        self._on_end = on_end
        self._prompt_text = prompt_text
        self._shortened = shortened
        self.queued_at = self.started_at = 0.0
        self.overtaken = 0
        self.candidate_count = 1
        self._has_begun = False
        self._logprobs: list[float] = []
        self._tokens: list[ReplyToken] = []

    @classmethod
    def create(
        cls,
        request: ChatRequest,
        prompt: RenderedPrompt,
        renderer: Renderer,
        sink: ReplySink,
        on_end: Callable[[], None] = lambda: None,
    ) -> Self:
        """Create a sequence that streams its text into `sink`; a request without a seed gets a
        random one.

        Its request has only the lore that had room in the prompt.
        """
        sampling = request.sampling
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        stop = (*sampling.stop, *renderer.stop_strings(request.persona))
        detokenizer = StreamingDetokenizer(
            renderer,
            stop,
            sink.push,
            headings=renderer.lore_headings(request.persona, request.turns, prompt.lore),
            stop_loops=sampling.stop_loops,
            prefill=request.prefill,
            labels=_labels(request, renderer),
        )
        return cls(
            replace(request, lore=prompt.lore),
            prompt.ids,
            seed,
            sink=sink,
            detokenizer=detokenizer,
            on_end=on_end,
            prompt_text=prompt.text,
            shortened=prompt.shortened,
        )

    def use_prompt(self, prompt: RenderedPrompt) -> None:
        """Reply to another rendering of the request. Call it before the first token."""
        self.request = replace(self.request, lore=prompt.lore)
        self.prompt = prompt.ids
        self._prompt_text = prompt.text
        self._shortened = prompt.shortened

    @property
    def guild_id(self) -> int:
        return self.request.guild_id

    @property
    def member_id(self) -> int:
        return self.request.member_id

    @property
    def adapter(self) -> AdapterRef | None:
        return self.request.adapter

    @property
    def is_cancelled(self) -> bool:
        return bool(self._sink.cancelled.is_set())

    @property
    def is_finished(self) -> bool:
        """True once the reply stopped, reached its length or was cancelled."""
        reached_length = self._detokenizer.tokens >= self.request.sampling.max_new_tokens
        return self._detokenizer.stopped or reached_length or self.is_cancelled

    def begin(self) -> bool:
        """Mark the request as started. Returns False when it was cancelled before."""
        self._has_begun = self._has_begun or self._sink.begin()
        return self._has_begun

    def append_token(
        self, token: int, logprob: float | None, alternatives: Iterable[tuple[int, float]] = ()
    ) -> None:
        """Add a token to the reply, with its log-probability and the likeliest tokens if they were
        requested.
        """
        self._detokenizer.append(token)
        if logprob is None:
            return
        self._logprobs.append(logprob)
        if self.request.sampling.alternatives is not None:
            piece = self._detokenizer.piece
            likeliest = tuple((piece(other), its_logprob) for other, its_logprob in alternatives)
            self._tokens.append(ReplyToken(piece(token), logprob, likeliest))

    def drop_incomplete(self) -> int:
        """Drop tokens at the end that are a part of a character, with what is known of them; returns
        their number.
        """
        dropped = self._detokenizer.drop_incomplete()
        if dropped:
            del self._logprobs[-dropped:]
            del self._tokens[-dropped:]
        return dropped

    def append_text(self, piece: str) -> None:
        """Add a token as text to the reply."""
        self._detokenizer.append_text(piece)

    def finish(self) -> None:
        """Deliver the reply, or the error that prevents it."""
        try:
            self._sink.finish(self._reply())
        except Exception as error:
            self._sink.push(error)
        finally:
            self._on_end()

    def fail(self, error: Exception) -> None:
        """Deliver an error, unless the request was cancelled before it started."""
        if is_out_of_memory(error):
            error = NoMemoryError("There was too little memory for this reply.", NO_MEMORY_ADVICE)
        try:
            if self.begin():
                self._sink.push(error)
        finally:
            self._on_end()

    def discard(self) -> None:
        """End a waiting request that was cancelled; its sink is finished already, unless it had
        started before.
        """
        if self._has_begun:
            self.finish()
        else:
            self._on_end()

    def _reply(self) -> ChatReply:
        text = self._detokenizer
        sampling = self.request.sampling
        text.flush()
        finish: Literal["stop", "length", "cancelled"] = "length"
        if text.stopped:
            finish = "stop"
        elif self.is_cancelled:
            finish = "cancelled"
        # The sampler may have computed log-probabilities for the choice among candidates only.
        has_logprobs = sampling.logprobs or sampling.alternatives is not None
        return ChatReply(
            text=text.text,
            version=self.adapter.version if self.adapter else None,
            seed=self.seed,
            prompt_tokens=len(self.prompt),
            new_tokens=text.tokens,
            finish=finish,
            logprobs=tuple(self._logprobs) if has_logprobs else (),
            tokens=tuple(self._tokens),
            prompt=self._prompt_text,
            lore=self.request.lore,
            shortened=self._shortened,
            repeated=text.repeated,
            candidates=self.candidate_count,
            seeded=self.seeded,
            is_cut=text.is_cut,
        )


def _labels(request: ChatRequest, renderer: Renderer) -> SpeakerLabels:
    """Return the labels of a reply: those of its persona, and of everybody else who may speak."""
    own: tuple[str, ...] = ()
    others = list(request.sampling.speakers)
    if request.persona:
        own = own_names(request.persona.name, request.persona.nickname)
        if renderer.template.prints_speaker:
            others += [turn.name for turn in request.turns if not turn.by_persona]
        personas = (request.persona.name, request.persona.nickname)
        others += [member_name(name, personas) for name in others]
    return SpeakerLabels(own, others)
