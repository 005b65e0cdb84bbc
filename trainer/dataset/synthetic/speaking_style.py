"""Measures how a card's examples speak, and compares replies with them."""

import re
from dataclasses import dataclass

from personas.lore.passages import count_words
from personas.prompt.renderer import EXAMPLE_USER, example_turns
from personas.schemas.chat import Persona
from trainer.languages import detect_main_language

CONTRACTION = re.compile(
    r"\b(?:\w+n['’]t|(?:I|you|we|they|he|she|it|that|there)['’](?:m|re|ve|ll|d|s))\b", re.IGNORECASE
)
EXCLAMATION = re.compile("[!！¡]")
SELF = re.compile(r"\b(?:I|me|my|mine|myself)\b", re.IGNORECASE)
STARRED = re.compile(r"\*[^*]+\*")
MIN_EXAMPLES = 3
MAX_SENTENCE_LENGTH_RATIO = 3.0
MIN_WORDS_WITHOUT_I = 100
"""Words of English examples without "I" or "my" that show a character who never says it."""


@dataclass(frozen=True)
class SpeakingStyle:
    """Style of a card's examples, as shares of their replies; None if there are too few.

    `says_i`: the character speaks of itself as "I". `capitals`: some letter is a capital.
    """

    contracted: float | None
    exclaimed: float | None
    starred: float | None
    sentence_words: float | None
    says_i: bool = True
    capitals: bool = True

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
        if not self.says_i and SELF.search(reply):
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
        says_i=_says_i(" ".join(replies)),
        capitals=not _without_names(" ".join(replies), persona).islower(),
    )


def _without_names(text: str, persona: Persona) -> str:
    """Return a text without the names that macros may have put into it."""
    for name in (EXAMPLE_USER, persona.nickname or persona.name):
        text = text.replace(name, "")
    return text


def _says_i(text: str) -> bool:
    """Report whether a text has a word for its speaker; True for one that is short, or not English."""
    return (
        SELF.search(text) is not None
        or count_words(text) < MIN_WORDS_WITHOUT_I
        or detect_main_language([text]) != "en"
    )


def _share(pattern: re.Pattern[str], replies: list[str]) -> float:
    matching = [reply for reply in replies if pattern.search(reply)]
    return len(matching) / len(replies)


def _sentence_words(text: str) -> float:
    """Return the mean number of words of a sentence."""
    sentences = [piece for piece in re.split(r"[.!?…。！？]+", text) if piece.strip()]
    return count_words(text) / max(1, len(sentences))
