"""The reply side of a request: turns generated tokens into streamed text, stops it, and builds the
reply.

The local engine and those over servers share it. Imports no model library.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, Self

from personas.engine.thoughts import SpokenText, remove_thoughts
from personas.errors import NoMemoryError, is_out_of_memory
from personas.prompt.renderer import RenderedPrompt, Renderer
from personas.schemas.chat import AdapterRef, ChatReply, ChatRequest, ReplyToken

# A reply repeats itself once its last 8 tokens occur earlier in it; names that recur are shorter.
REPETITION_TOKENS = 8
SENTENCE_ENDS = (".", "!", "?", "…", "*", '"', "”", "。", "！", "？", "\n")
NO_MEMORY_ADVICE = (
    "Ask again when less is going on, or a shorter question; the operator can free memory on this "
    "machine."
)
REPLACEMENT_CHARACTER = "\ufffd"


class ReplySink(Protocol):
    """Receives one reply from the engine's thread; `llm_engine.QueuedReplyStream` is the bot's."""

    @property
    def cancelled(self) -> Any:
        """A `threading.Event`, set once the reply is no longer wanted."""

    def begin(self) -> bool:
        """Mark the request as started. Returns False when it was cancelled before."""

    def push(self, piece: object) -> None:
        """Deliver a piece of text, or the exception that ends the reply."""

    def finish(self, reply: ChatReply) -> None:
        """Deliver the complete reply."""


class StreamingDetokenizer:
    """Turns generated tokens into text and pushes the text that can no longer change, without
    thoughts.

    `text` is the text pushed so far, `tokens` the number of generated tokens including the end of
    turn, `ids` are those that are text. `stopped` is set by an end of turn, a stop string or, with
    `stop_loops`, by repetition, which also sets `repeated`. `prefill` is the beginning of the
    reply, which is not pushed again. While it `is_held`, no text is pushed until `release`.
    `speaker` and a colon are left out at the very beginning. `starts_in_thought`: the server's
    template opened one. `spoken` says what thoughts there were.
    """

    def __init__(
        self,
        renderer: Renderer,
        stop: Iterable[str],
        push: Callable[[str], None],
        *,
        stop_loops: bool = False,
        prefill: str = "",
        speaker: str = "",
    ) -> None:
        self._renderer = renderer
        self._stop = [s for s in stop if s]
        self._push = push
        self._stop_loops = stop_loops
        self._prefill = prefill
        self._speaker = speaker
        self._prefill_ids = list(renderer.prefill_ids(prefill)) if prefill else []
        self.ids: list[int] = []
        self.text = ""
        self.tokens = 0
        self.stopped = False
        self.repeated = False
        self.is_held = False
        self.starts_in_thought = False
        self.spoken = SpokenText("")
        self._given: str | None = None  # what a server sent as text, with thoughts

    def fork(self) -> "StreamingDetokenizer":
        """Return the detokenizer of another candidate of this reply, which is held."""
        options: dict[str, Any] = {
            "stop_loops": self._stop_loops,
            "prefill": self._prefill,
            "speaker": self._speaker,
        }
        other = StreamingDetokenizer(self._renderer, self._stop, self._push, **options)
        other.is_held = True
        return other

    def release(self) -> None:
        """Push the text that was held."""
        self.is_held = False
        if self.text:
            self._push(self.text)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a reply."""
        return self._renderer.stop_ids

    def append(self, token: int) -> None:
        """Decode the next token, then look for a stop string and repetition. Ignored once
        stopped.
        """
        if self.stopped:
            return
        self.tokens += 1
        if token in self._renderer.stop_ids:
            self.stop()
            return
        self.ids.append(token)
        self._advance()

    def append_text(self, piece: str) -> None:
        """Add the next token as text, where a server returns no ids; `ids` are then our tokens for
        the whole text.
        """
        if self.stopped or not piece:
            return
        self.tokens += 1
        if self._given is None:
            self._given = self._renderer.tokenizer.decode(self.ids, skip_special_tokens=True)
        self._given += piece
        self._encode_given(is_whole=False)
        self._advance()

    def end_given(self) -> None:
        """Take a server's text for spoken that was to begin with a thought, and ended of itself
        without its end.
        """
        if self.starts_in_thought and not self.spoken.lone_closings and self.spoken.is_open:
            self.starts_in_thought = False

    def forget_open_thought(self) -> None:
        """Forget a thought without an end: another attempt begins after the text before it."""
        if self._given is not None and self.spoken.is_open:
            self._given = self.spoken.text

    def _encode_given(self, *, is_whole: bool) -> None:
        """Make `ids` those of the server's text without thoughts, so that a reply that goes on has
        none.
        """
        assert self._given is not None  # callers have checked it
        self._remove_thoughts(self._given, is_whole=is_whole)
        text = self.spoken.text
        self.ids = self._renderer.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _remove_thoughts(self, text: str, *, is_whole: bool) -> str:
        before = self.spoken.lone_closings
        starts = self.starts_in_thought
        self.spoken = remove_thoughts(text, starts_in_thought=starts, is_whole=is_whole)
        if self.spoken.lone_closings > before:  # what was pushed was a thought
            self.text = ""
        return self.spoken.text

    def _advance(self) -> None:
        decoded = self._decode(self.ids, is_whole=False)
        stop_at = min((at for s in self._stop if (at := decoded.find(s)) >= 0), default=-1)
        if stop_at >= 0:
            self._push_up_to(decoded[:stop_at].rstrip())
            self.stopped = True
        elif not decoded.endswith(REPLACEMENT_CHARACTER):
            self._push_up_to(decoded[: len(decoded) - self._held_back(decoded)])
            if self._stop_loops and is_repeating(self.ids):
                self.text = (
                    trim_repetition(self._decode(self.ids[:-REPETITION_TOKENS])) or self.text
                )
                self.stopped = self.repeated = True
        if self.spoken.has_ended and not self.stopped:
            self.stop()

    def stop(self) -> None:
        """End the reply with the text that it has."""
        self.flush()
        self.stopped = True

    def flush(self) -> None:
        """Push text held back for stop strings, without an incomplete character or white space. May
        be called twice.
        """
        if self.stopped:
            return
        if self._given is not None:
            self._encode_given(is_whole=True)
        self._push_up_to(self._decode(self.ids).rstrip(REPLACEMENT_CHARACTER).rstrip())

    def piece(self, token: int) -> str:
        """Decode one token alone; control tokens are included."""
        return self._renderer.decode_token(token)

    def _decode(self, ids: list[int], *, is_whole: bool = True) -> str:
        text = self._continuation(ids)
        if self._given is None:
            text = self._remove_thoughts(text, is_whole=is_whole)
        goes_on = self._prefill and not self._prefill[-1].isspace()
        return text if goes_on else self._without_speaker(text.lstrip(), is_whole=is_whole)

    def _without_speaker(self, text: str, *, is_whole: bool) -> str:
        """Leave out the persona's own name with a colon, or what may become it, at the beginning of
        a reply.
        """
        label = f"{self._speaker}:".lower()
        if not self._speaker or self._prefill:
            return text
        if text[: len(label)].lower() == label:
            return text[len(label) :].lstrip()
        return "" if not is_whole and label.startswith(text.lower()) else text

    def _continuation(self, ids: list[int]) -> str:
        """Decode tokens after the prefill, where the first may begin with a blank, or within a
        character.
        """
        decode: Callable[[list[int]], str] = partial(
            self._renderer.tokenizer.decode, skip_special_tokens=True
        )
        if not self._prefill_ids:
            return decode(ids)
        return decode([*self._prefill_ids, *ids])[len(decode(self._prefill_ids)) :]

    def _held_back(self, decoded: str) -> int:
        """Count the characters at the end that may begin a stop string, or are white space."""
        blank = len(decoded) - len(decoded.rstrip())
        lengths = [
            n
            for s in self._stop
            for n in range(1, min(len(s), len(decoded) + 1))
            if decoded.endswith(s[:n])
        ]
        return max([blank, *lengths])

    def _push_up_to(self, text: str) -> None:
        if len(text) > len(self.text):
            if not self.is_held:
                self._push(text[len(self.text) :])
            self.text = text


def is_repeating(reply: list[int]) -> bool:
    """Return whether the last `REPETITION_TOKENS` tokens occur earlier in the reply; the two may
    overlap.
    """
    run = reply[-REPETITION_TOKENS:]
    if len(run) < REPETITION_TOKENS:
        return False
    return any(
        reply[at : at + REPETITION_TOKENS] == run for at in range(len(reply) - REPETITION_TOKENS)
    )


def trim_repetition(text: str) -> str:
    """Cut a text that broke off at its first repetition after its last whole sentence, if it has
    one.
    """
    end = max((text.rfind(mark) + len(mark) for mark in SENTENCE_ENDS if mark in text), default=0)
    return (text[:end] or text).strip()


class ReplySequence:
    """One request with its prompt and the reply so far; subclasses have it computed."""

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
        self.candidates = 1
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
        stop = (*sampling.stop, *renderer.stop_strings(request.persona, request.turns))
        options: dict[str, Any] = {
            "stop_loops": sampling.stop_loops,
            "prefill": request.prefill,
            "speaker": request.persona.name.strip() if request.persona else "",
        }
        detokenizer = StreamingDetokenizer(renderer, stop, sink.push, **options)
        request = replace(request, lore=prompt.lore)
        return cls(
            request, prompt.ids, seed, sink, detokenizer, on_end, prompt.text, prompt.shortened
        )

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
            others = tuple((piece(other), other_logprob) for other, other_logprob in alternatives)
            self._tokens.append(ReplyToken(piece(token), logprob, others))

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
        finish: Literal["stop", "length", "cancelled"] = (
            "stop" if text.stopped else "cancelled" if self.is_cancelled else "length"
        )
        return ChatReply(
            text=text.text,
            version=self.adapter.version if self.adapter else None,
            seed=self.seed,
            prompt_tokens=len(self.prompt),
            new_tokens=text.tokens,
            finish=finish,
            logprobs=tuple(self._logprobs)
            if sampling.logprobs or sampling.alternatives is not None
            else (),
            tokens=tuple(self._tokens),
            prompt=self._prompt_text,
            lore=self.request.lore,
            shortened=self._shortened,
            repeated=text.repeated,
            candidates=self.candidates,
        )
