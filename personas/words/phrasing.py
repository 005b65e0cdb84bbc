"""What a sentence embedding does not see in a message: whom it speaks of, whom it calls, and whether
it denies.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Literal

Person = Literal["speaker", "persona", ""]
SPEAKER_WORDS = frozenset("i im i'm ive i've id i'd ill i'll my me mine myself".split())
PERSONA_WORDS = frozenset(
    "you youre you're youve you've youd you'd youll you'll your yours yourself u ur".split()
)
WORD_PATTERN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
SPOKEN_OF_AFTER = frozenset(
    """a about and are as at by called for from hate is know like love meet miss named of on or see
    than the to was with""".split()
)
"""Words after which a name is not called, but spoken of: "who is Oda"."""
NEGATION_PATTERN = re.compile(
    r"(?<!\A)\b(?:not|no|never|none|nothing|nobody|nowhere|neither|nor|without|cannot|unsafe|unhappy|unwell|unable"
    r"|(?:ai|are|ca|could|did|do|does|had|has|have|is|must|should|was|were|wo|would)n['’]?t)\b",
    re.IGNORECASE,
)
"""A negation, but for one that begins a message: "don't you sleep" asks whether, and "no" answers."""
HARMS = (
    r"(?:hit|hits|hurt|hurts|bull(?:y|ied|ies)|cheat(?:ed|s)?|kill(?:ed|s)?|kick(?:ed|s)?|lied"
    r"|beats?|touch(?:ed|es)?)"
)
BY_SPEAKER_PATTERN = re.compile(rf"\bi (?:\w+ )?{HARMS}\b", re.IGNORECASE)
TO_SPEAKER_PATTERN = re.compile(rf"\b{HARMS} (?:on |to )?me\b", re.IGNORECASE)

ASKED_WHO_PATTERN = re.compile(
    r"(?:\W*(?:hey|hi|hello|oh|ok|so|sorry|wait|hang on))?\W*"
    r"(?:are you|are u|r u|aren['’]?t you|is (?:this|that)(?: you)?|you['’]?re|you are|ur)\W+"
    r"(?P<name>\S.*?)(?:\W+(?:right|yes|then|no))?\W*",
    re.IGNORECASE | re.DOTALL,
)
WRITTEN_ASKED_WHO = "are you mina?"
"""How an author's exchanges ask whether the persona is somebody."""


def harm_to(text: str) -> Literal["other", "speaker", ""]:
    """Return to whom something bad is done, where a message says so: "i hit my wife" is near to "my
    husband hit me".
    """
    if TO_SPEAKER_PATTERN.search(text):
        return "speaker"
    return "other" if BY_SPEAKER_PATTERN.search(text) else ""


def is_negated(text: str) -> bool:
    """Report whether a message says that something is not so: "i'm not tired" is near to its
    opposite.
    """
    return NEGATION_PATTERN.search(text.strip()) is not None


@lru_cache(maxsize=4096)
def person_of(text: str) -> Person:
    """Return whom alone a message speaks of: who says it, or the persona. A question about one is no
    question about the other, however near they are: "what's my name".
    """
    words = {word.replace("’", "'") for word in WORD_PATTERN.findall(text.casefold())}
    of_speaker = bool(words & SPEAKER_WORDS)
    of_persona = bool(words & PERSONA_WORDS)
    if of_speaker == of_persona:
        return ""
    return "speaker" if of_speaker else "persona"


def asks_for_name(text: str, words: Collection[str]) -> bool:
    """Report whether a message asks only whether the persona is somebody, whose name is of these
    lower-case words: a vector of it is mostly that of the name.
    """
    asked = ASKED_WHO_PATTERN.fullmatch(text)
    return asked is not None and set(asked["name"].casefold().split()) <= set(words)


def without_call(text: str, names: Sequence[str]) -> str:
    """Return a message without the persona's name where it is called at its beginning or end: a
    vector is mostly that of the name. A message of the name alone stays.
    """
    called = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
    if not called:
        return text
    spoken_of = r"(?! +(?:is|was|isn['’]t|has|had|\w{3,}ed)\b)"  # "Oda is dead"
    opening = re.match(rf"\s*@?(?:{called})\b{spoken_of}[\s,:;.!?–—-]+(?=\w)", text, re.IGNORECASE)
    if opening:
        text = text[opening.end() :]
    closing = re.search(rf"(\S+?)(,?)\s+@?(?:{called})\s*([?!.]*)\s*\Z", text, re.IGNORECASE)
    if closing and (closing[2] or closing[1].casefold() not in SPOKEN_OF_AFTER):
        text = text[: closing.end(1)] + closing[3]
    return text
