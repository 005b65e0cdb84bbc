"""Turns generated tokens into streamed text, and stops it at stop strings and repetition.

The local engine and those over servers share it. Imports no model library.
"""

from collections.abc import Callable, Iterable
from functools import partial

from personas.engine.speaker_labels import OwnWords, SpeakerLabels
from personas.engine.thoughts import SpokenText, remove_thoughts
from personas.prompt.renderer import Renderer

# A reply repeats itself once its last 8 tokens occur earlier in it; names that recur are shorter.
REPETITION_TOKENS = 8
SENTENCE_ENDS = (".", "!", "?", "…", "*", '"', "”", "。", "！", "？", "\n")
REPLACEMENT_CHARACTER = "\ufffd"
HEADING_WORDS = 2
"""Words of a passage's heading by which it is recognised: models change the rest."""


class StreamingDetokenizer:
    """Turns generated tokens into text and pushes the text that can no longer change, without
    thoughts.

    `text` is the text pushed so far, `tokens` the number of generated tokens including the end of
    turn, `ids` are those that are text. `stopped` is set by an end of turn, a stop string or, with
    `stop_loops`, by repetition, which also sets `repeated`. `prefill` is the beginning of the
    reply, which is not pushed again. While it `is_held`, no text is pushed until `release`.
    `labels` tell where it speaks as somebody else: the reply ends there, and `is_cut`. A reply ends
    before one of `headings`, those of the prompt's passages, and what may have become one is left
    out at its end: a model that writes a heading goes on to recite the passage.
    `starts_in_thought`: the server's template opened one. `spoken` tells of its thoughts.
    """

    def __init__(
        self,
        renderer: Renderer,
        stop: Iterable[str],
        push: Callable[[str], None],
        *,
        stop_loops: bool = False,
        prefill: str = "",
        labels: SpeakerLabels | None = None,
        headings: Iterable[str] = (),
    ) -> None:
        self._renderer = renderer
        self._headings = _heading_stops(headings)
        self._stop = [*(s for s in stop if s), *self._headings]
        self._push = push
        self._stop_loops = stop_loops
        self._prefill = prefill
        self._labels = labels or SpeakerLabels()
        self._prefill_ids = list(renderer.prefill_ids(prefill)) if prefill else []
        self.ids: list[int] = []
        self.text = ""
        self.tokens = 0
        self.stopped = False
        self.repeated = False
        self.is_cut = False
        self.is_held = False
        self.starts_in_thought = False
        self.spoken = SpokenText("")
        self._given: str | None = None  # text from a server, with thoughts

    def fork(self) -> "StreamingDetokenizer":
        """Return the detokenizer of another candidate of this reply, which is held."""
        other = StreamingDetokenizer(
            self._renderer,
            self._stop,
            self._push,
            stop_loops=self._stop_loops,
            prefill=self._prefill,
            labels=self._labels.anew(),
        )
        other._headings = self._headings
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

    def encode(self, text: str) -> tuple[int, ...]:
        """Return our tokens of a text."""
        return tuple(self._renderer.tokenizer(text, add_special_tokens=False)["input_ids"])

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
        """Take the text of a server for spoken if it was to begin with a thought, and ended without
        the end of that thought.
        """
        if self.starts_in_thought and not self.spoken.lone_closings and self.spoken.is_open:
            self.starts_in_thought = False

    def forget_open_thought(self) -> None:
        """Forget a thought without an end: another attempt begins after the text before it."""
        if self._given is not None and self.spoken.is_open:
            self._given = self.spoken.text

    def _encode_given(self, *, is_whole: bool) -> None:
        """Set `ids` to the server's text without thoughts: a reply that goes on elsewhere must not
        contain them.
        """
        assert self._given is not None  # callers have checked it
        self._remove_thoughts(self._given, is_whole=is_whole)
        text = self.spoken.text
        self.ids = self._renderer.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _remove_thoughts(self, text: str, *, is_whole: bool) -> str:
        before = self.spoken.lone_closings
        starts = self.starts_in_thought
        self.spoken = remove_thoughts(text, starts_in_thought=starts, is_whole=is_whole)
        if self.spoken.lone_closings > before:  # the text pushed so far was a thought
            self.text = ""
        return self.spoken.text

    def _advance(self) -> None:
        decoded = self._decode(self.ids, is_whole=False)
        places = [decoded.find(stop) for stop in self._stop]
        found = [place for place in places if place >= 0]
        if found:
            self._push_last(decoded[: min(found)])
            self.stopped = True
        elif not decoded.endswith(REPLACEMENT_CHARACTER):  # the character may be incomplete
            until = len(decoded) - self._held_back(decoded)
            own = self._own_words(decoded[:until], is_whole=False)
            self._push_up_to(own.text.rstrip())
            self.stopped = self.is_cut = own.is_cut
            # A penalty would distort words where only the repeated token fits; ending the reply
            # loses nothing. In the history, the repetition would cause the next one.
            if self._stop_loops and not self.stopped and is_repeating(self.ids):
                before = self._without_heading(self._decode(self.ids[:-REPETITION_TOKENS]))
                own = self._own_words(before, is_whole=True)
                self.text = trim_repetition(own.text) or self.text
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
        text = self._decode(self.ids).rstrip(REPLACEMENT_CHARACTER).rstrip()
        self._push_last(self._without_heading(text))

    def piece(self, token: int) -> str:
        """Decode one token alone; control tokens are included."""
        return self._renderer.decode_token(token)

    def drop_incomplete(self) -> int:
        """Drop tokens at the end that are a part of a character; returns their number."""
        count = len(self.ids)
        while self.ids and self.begun().endswith(REPLACEMENT_CHARACTER):
            self.ids.pop()
        dropped = count - len(self.ids)
        self.tokens -= dropped
        return dropped

    def begun(self) -> str:
        """Decode the beginning of the reply for a prompt: the prefill, and all tokens after it,
        thoughts too.
        """
        text: str = self._renderer.tokenizer.decode([*self._prefill_ids, *self.ids])
        return text

    def _decode(self, ids: list[int], *, is_whole: bool = True) -> str:
        text = self._continuation(ids)
        if self._given is None:
            text = self._remove_thoughts(text, is_whole=is_whole)
        if self._prefill and not self._prefill[-1].isspace():
            return text  # it goes on right after the last word of the prefill
        return text.lstrip()

    def _own_words(self, text: str, *, is_whole: bool) -> OwnWords:
        """Leave out the labels of the persona's lines, and all from a line of somebody else on."""
        # The first line of a continuation has begun before.
        begun = "." if self._prefill else ""
        own = self._labels.own_words(begun + text, is_whole=is_whole)
        text = own.text.removeprefix(begun)
        return OwnWords(text if begun else text.lstrip(), own.is_cut)

    def _push_last(self, text: str) -> None:
        own = self._own_words(text, is_whole=True)
        self.is_cut = own.is_cut
        self._push_up_to(own.text.rstrip())

    def _continuation(self, ids: list[int]) -> str:
        """Decode tokens after the prefill, where the first may begin with a blank, or within a
        character.
        """
        decode: Callable[[list[int]], str] = partial(
            self._renderer.tokenizer.decode, skip_special_tokens=True
        )
        if not self._prefill_ids:
            return decode(ids)
        # Together: decoded alone, some tokenizers drop the blank before the first token.
        whole = decode([*self._prefill_ids, *ids])
        return whole[len(decode(self._prefill_ids)) :]

    def _held_back(self, decoded: str) -> int:
        """Count the characters at the end that may begin a stop string, or are white space."""
        held = len(decoded) - len(decoded.rstrip())
        for stop in self._stop:
            for length in range(held + 1, min(len(stop), len(decoded) + 1)):
                if decoded.endswith(stop[:length]):
                    held = length
        return held

    def _without_heading(self, text: str) -> str:
        """Leave out a bracket at the end, alone or with the beginning of a heading."""
        for heading in self._headings:
            for length in range(len(heading) - 1, 1, -1):
                if text.endswith(heading[:length]):
                    return text[:-length].rstrip()
        return text

    def _push_up_to(self, text: str) -> None:
        if len(text) > len(self.text):
            if not self.is_held:
                self._push(text[len(self.text) :])
            self.text = text


def _heading_stops(headings: Iterable[str]) -> list[str]:
    """Return the beginnings of headings, such as "[The tower]", after what may stand before them."""
    stops = []
    for heading in dict.fromkeys(headings):
        words = heading.split(" ")
        begun = " ".join(words[:HEADING_WORDS]) if len(words) > HEADING_WORDS else heading
        stops += [f"{gap}{begun}" for gap in (" ", "\n", "")]
    return stops


def is_repeating(reply: list[int]) -> bool:
    """Return whether the last `REPETITION_TOKENS` tokens occur earlier in the reply; the two may
    overlap.
    """
    run = reply[-REPETITION_TOKENS:]
    if len(run) < REPETITION_TOKENS:
        return False
    starts = range(len(reply) - REPETITION_TOKENS)
    return any(reply[at : at + REPETITION_TOKENS] == run for at in starts)


def trim_repetition(text: str) -> str:
    """Cut a text that broke off at its first repetition after its last whole sentence, if it has
    one.
    """
    end = max((text.rfind(mark) + len(mark) for mark in SENTENCE_ENDS if mark in text), default=0)
    return (text[:end] or text).strip()
