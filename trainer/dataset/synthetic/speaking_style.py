"""Measures how a card's examples speak, and compares replies with them."""

import re
from dataclasses import dataclass

from personas.lore.passages import count_words
from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona

CONTRACTION = re.compile(
    r"\b(?:\w+n['’]t|(?:I|you|we|they|he|she|it|that|there)['’](?:m|re|ve|ll|d|s))\b", re.IGNORECASE
)
EXCLAMATION = re.compile("[!！]")
STARRED = re.compile(r"\*[^*]+\*")
MIN_EXAMPLES = 3
MAX_SENTENCE_LENGTH_RATIO = 3.0


@dataclass(frozen=True)
class SpeakingStyle:
    """Style of a card's examples, as shares of their replies; None if there are too few."""

    contracted: float | None
    exclaimed: float | None
    starred: float | None
    sentence_words: float | None

    def fits(self, reply: str) -> bool:
        """Report whether a reply violates no habit that is common to all examples."""
        if self.contracted == 0 and CONTRACTION.search(reply):
            return False
        if self.exclaimed == 0 and EXCLAMATION.search(reply):
            return False
        if self.starred == 0 and STARRED.search(reply):
            return False
        if self.starred == 1 and "*" not in reply:
            return False
        if not self.sentence_words:
            return True
        return _sentence_words(reply) <= MAX_SENTENCE_LENGTH_RATIO * self.sentence_words


def measure_style(persona: Persona) -> SpeakingStyle:
    """Measure the common style of the card's example replies and greeting."""
    replies = [turn.text for turn in example_turns(persona) if turn.by_persona]
    if persona.first_mes:
        replies.append(persona.first_mes)
    if len(replies) < MIN_EXAMPLES:
        return SpeakingStyle(contracted=None, exclaimed=None, starred=None, sentence_words=None)
    return SpeakingStyle(
        contracted=_share(CONTRACTION, replies),
        exclaimed=_share(EXCLAMATION, replies),
        starred=_share(STARRED, replies),
        sentence_words=sum(map(_sentence_words, replies)) / len(replies),
    )


def _share(pattern: re.Pattern[str], replies: list[str]) -> float:
    matching = [reply for reply in replies if pattern.search(reply)]
    return len(matching) / len(replies)


def _sentence_words(text: str) -> float:
    """Return the mean number of words of a sentence."""
    sentences = [piece for piece in re.split(r"[.!?…。！？]+", text) if piece.strip()]
    return count_words(text) / max(1, len(sentences))
