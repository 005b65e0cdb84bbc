"""Withholds replies of personas that may suggest self-harm, before they are shown."""

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from bot.safety.rules import SafetyRules
from personas.engine import ReplyStream
from personas.errors import EngineBusyError
from personas.schemas.chat import ChatReply, ChatRequest, Turn

CHECK_INTERVAL_S = 0.5
"""Interval between two checks of an unfinished sentence; a check takes some milliseconds."""
MAX_SENTENCE_CHARS = 500
"""Of a longer sentence, the end is checked: no rule sees further."""
SENTENCE_END_PATTERN = re.compile(r"(?<!\.)\.(?=\s)|[!?。！？]")


class TextWithdrawn(str):
    """An empty piece of a stream: the pieces before it are withdrawn, and the reply begins anew."""


WITHDRAWN = TextWithdrawn()


class ReplyWithheldError(Exception):
    """A reply suggests self-harm, by the rules of a language."""

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self.language = language


class GrowingText:
    """Releases the text of a reply while it grows, except for what may have to be withheld.

    `find` returns the language in which a text suggests self-harm. Whether a sentence does is known at
    its end: "cut yourself" may go on with "a slice". Until then, one that may is held. `before` is
    what the reply continues.
    """

    def __init__(self, find: Callable[[str], str | None], before: str = "") -> None:
        self._find = find
        self._sentence = before[_last_end(before) :]
        self._held = ""
        self._checked_at = -CHECK_INTERVAL_S

    def take(self, piece: str) -> str:
        """Add a piece; return the text that can be shown now. Raises `ReplyWithheldError`."""
        self._held += piece
        self._sentence += piece
        end = _last_end(self._sentence)
        if end:
            self._require_safe(self._sentence[:end])
            self._sentence = self._sentence[end:]
        elif time.monotonic() - self._checked_at < CHECK_INTERVAL_S:
            return ""
        self._checked_at = time.monotonic()
        kept = 0
        if self._find(self._sentence):
            kept = min(len(self._sentence), len(self._held))
        else:
            self._sentence = self._sentence[-MAX_SENTENCE_CHARS:]
        return self._release(len(self._held) - kept)

    def end(self) -> str:
        """Return the text that was held, at the end. Raises `ReplyWithheldError`."""
        self._require_safe(self._sentence)
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        released = self._held[:count]
        self._held = self._held[count:]
        return released

    def _require_safe(self, text: str) -> None:
        if language := self._find(text):
            raise ReplyWithheldError(language)


def _last_end(text: str) -> int:
    """Return where the last finished sentence ends; 0 without one."""
    return max((match.end() for match in SENTENCE_END_PATTERN.finditer(text)), default=0)


def _asked_text(turns: Sequence[Turn]) -> str:
    """Return what a reply answers: the last message, with those of the same speaker right before."""
    lines: list[Turn] = []
    for turn in reversed(turns):
        if turn.answers_too:
            continue
        if lines and turn.name != lines[0].name:
            break
        lines.insert(0, turn)
    return "\n".join(turn.text for turn in lines)


@dataclass(frozen=True)
class ReplyGuard:
    """Has replies generated. One of a persona that suggests self-harm is withheld and
    generated once more; if that is withheld, too, the reply is empty, and says so (`withheld`). So
    is, at once, the reply to a message that asks for means of self-harm: no model answers that.

    `generate` submits a request to the engine. `on_withheld` is called with the language of the rule
    for each reply that is withheld.
    """

    generate: Callable[[ChatRequest], ReplyStream]
    rules: SafetyRules
    on_withheld: Callable[[str], None]

    def submit(self, request: ChatRequest) -> ReplyStream:
        """Submit a request. Raises as `Engine.submit`.

        The stream may have the piece `WITHDRAWN`. A model without a persona is no companion: its
        replies are not looked at.
        """
        if request.persona is None or not request.persona.id:
            return self.generate(request)
        if language := self.rules.find_asked_means(_asked_text(request.turns)):
            self.on_withheld(language)
            return WithheldStream(request)
        return GuardedStream(self, request)

    def permits(self, request: ChatRequest, text: str) -> bool:
        """Report whether a text that somebody wrote may be the reply to a request."""
        asks_for_means = self.rules.find_asked_means(_asked_text(request.turns))
        return not (asks_for_means or self.rules.find_in_reply(text))


class WithheldStream:
    """The stream of a reply that no model is asked for."""

    def __init__(self, request: ChatRequest) -> None:
        self.reply = _withheld_reply(request)

    async def __aiter__(self) -> AsyncIterator[str]:
        nothing: tuple[str, ...] = ()
        for piece in nothing:
            yield piece

    def cancel(self) -> None:
        """Do nothing: nothing is generated."""


def _withheld_reply(request: ChatRequest) -> ChatReply:
    return ChatReply(
        text="",
        version=request.adapter.version if request.adapter else None,
        seed=0,
        prompt_tokens=0,
        new_tokens=0,
        finish="stop",
        seeded=False,
        withheld=True,
    )


class GuardedStream:
    """The stream of a reply, with a second attempt where the first one is withheld."""

    def __init__(self, guard: ReplyGuard, request: ChatRequest) -> None:
        self._guard = guard
        self._request = request
        self._stream = guard.generate(request)
        self._generated = ""
        self._is_cancelled = False
        self._is_withheld = False

    async def __aiter__(self) -> AsyncIterator[str]:
        for is_last in (False, True):
            is_shown = False
            try:
                async for piece in self._safe_pieces():
                    is_shown = True
                    yield piece
            except ReplyWithheldError as error:
                self._stream.cancel()
                self._guard.on_withheld(error.language)
            else:
                return
            if is_shown:
                yield WITHDRAWN
            self._is_withheld = is_last or not self._generate_again()
            if self._is_withheld:
                return

    async def _safe_pieces(self) -> AsyncIterator[str]:
        text = GrowingText(self._guard.rules.find_in_reply, self._request.prefill)
        try:
            async for piece in self._stream:
                self._generated += piece
                if safe := text.take(piece):
                    yield safe
        except ReplyWithheldError:
            raise
        except Exception:  # the text that was held stands above the error
            if safe := text.end():
                yield safe
            raise
        if safe := text.end():
            yield safe

    def _generate_again(self) -> bool:
        """Submit the request with another seed. False where the queue is full, or the reply was
        stopped.
        """
        if self._is_cancelled:
            return False
        sampling = self._request.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + 1)
        try:
            self._stream = self._guard.generate(
                replace(
                    self._request,
                    sampling=sampling,
                    replaces=self._request.replaces or self._generated,
                )
            )
        except EngineBusyError:
            return False
        return True

    @property
    def reply(self) -> ChatReply:
        if self._is_withheld:
            return _withheld_reply(self._request)
        return self._stream.reply

    def cancel(self) -> None:
        self._is_cancelled = True
        self._stream.cancel()
