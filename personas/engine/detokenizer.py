"""Streaming detokenizer: stop strings, incomplete characters and repetition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from personas.prompt import Renderer

REPETITION_TOKENS = 8


"""So many tokens in a row that the reply has had before are a circle; a name that comes again is shorter."""


SENTENCE_ENDS = (".", "!", "?", "…", "*", '"', "”", "。", "！", "？", "\n")


def trim_repetition(text: str) -> str:
    """What is worth keeping of a text that broke off where it began to repeat itself: its whole sentences."""
    end = max(text.rfind(mark) + len(mark) for mark in SENTENCE_ENDS if mark in text) if _has_sentence_end(text) else 0
    return (text[:end] or text).strip()


def _has_sentence_end(text: str) -> bool:
    return any(mark in text for mark in SENTENCE_ENDS)


def is_repeating(reply: Sequence[int]) -> bool:
    """Whether the last `REPETITION_TOKENS` tokens stand earlier in the reply too; the two places may overlap."""
    run = list(reply[-REPETITION_TOKENS:])
    if len(run) < REPETITION_TOKENS:
        return False
    return any(list(reply[at : at + REPETITION_TOKENS]) == run for at in range(len(reply) - REPETITION_TOKENS))


REPLACEMENT_CHARACTER = "\ufffd"


class StreamingDetokenizer:
    """Collects generated tokens and pushes the text that is certain. A `streamer` for transformers' `generate`.

    `text` is all that was pushed, `tokens` counts what was generated (the end of turn included), `stopped` is True once
    the end of turn or a stop string came, or (with `stop_loops`) the reply had gone round in a circle: `repeated`.
    """

    def __init__(
        self, renderer: Renderer, stop: Sequence[str], push: Callable[[str], None], *, stop_loops: bool = False
    ) -> None:
        self._renderer, self._stop, self._push = renderer, [s for s in stop if s], push
        self._stop_loops = stop_loops
        self._ids: list[int] = []
        self._prompt_seen = False
        self.text = ""
        self.tokens = 0
        self.stopped = False
        self.repeated = False

    def put(self, value: Any) -> None:
        """Take the next token ids; the first call brings the prompt, which is skipped."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in value.flatten().tolist():
            self.take(token)

    def end(self) -> None:
        """Push what was held back in case it became a stop string. May be called twice."""
        if not self.stopped:
            self._show(self._whole())

    def take(self, token: int) -> None:
        """Take the next token."""
        if self.stopped:
            return
        self.tokens += 1
        if token in self._renderer.stop_ids:
            self._show(self._whole())
            self.stopped = True
            return
        self._ids.append(token)
        decoded = self._decoded()
        cut = min((at for s in self._stop if (at := decoded.find(s)) >= 0), default=-1)
        if cut >= 0:
            self._show(decoded[:cut].rstrip())
            self.stopped = True
        elif not decoded.endswith(REPLACEMENT_CHARACTER):
            self._show(decoded[: len(decoded) - self._held_back(decoded)])
            if self._stop_loops and is_repeating(self._ids):
                self.text = trim_repetition(self._text_of(self._ids[:-REPETITION_TOKENS])) or self.text
                self.stopped = self.repeated = True

    def piece(self, token: int) -> str:
        """A token alone, as text, control tokens too."""
        return self._renderer.decode_token(token)

    def _whole(self) -> str:
        """What was said, once nothing more comes: without half a character, nor white space, at its end."""
        return self._decoded().rstrip(REPLACEMENT_CHARACTER).rstrip()

    def _decoded(self) -> str:
        return self._text_of(self._ids)

    def _text_of(self, ids: Sequence[int]) -> str:
        text: str = self._renderer.tokenizer.decode(ids, skip_special_tokens=True)
        return text.lstrip()

    def _held_back(self, decoded: str) -> int:
        """Characters at the end that a stop string begins with; white space at the end waits too."""
        blank = len(decoded) - len(decoded.rstrip())
        lengths = [n for s in self._stop for n in range(1, min(len(s), len(decoded) + 1)) if decoded.endswith(s[:n])]
        return max([blank, *lengths])

    def _show(self, text: str) -> None:
        if len(text) > len(self.text):
            self._push(text[len(self.text) :])
            self.text = text
