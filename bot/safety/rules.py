"""Recognises messages that speak of self-harm or suicide, or of an emergency, replies that suggest
self-harm, and questions whether a persona is an AI, by rules per language (data/safety).
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from bot.safety.asked_means import MeansRules
from bot.safety.emergency import EmergencyRules
from bot.safety.question_words import QuestionWords, without_addresses
from personas.errors import UnderstudyError
from personas.shipped_folders import SHIPPED_DATA

SAFETY_FOLDER = SHIPPED_DATA / "safety"
LANGUAGES = ("en", "de", "es", "vi", "zh")
"""In the order in which they are tried."""
DISSUADING_CHARS = 20
WITHOUT_BLANKS = frozenset({"zh"})
"""Languages that write no blanks between words."""
MAX_CHECKED_CHARS = 8_000
"""Beginning and end of a longer text, half each; messages on Discord have at most 4,000 characters."""
INVISIBLE_PATTERN = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
APOSTROPHE_PATTERN = re.compile("[\u2018\u2019\u02bc\u00b4]|(?<=[^\\W\\d_])`(?=[^\\W\\d_])")
AI_PATTERN = re.compile(r"\bAI\b")
LINK_PATTERN = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
QUOTED_PATTERN = re.compile(
    r"^> [^\n]*$|^```.*?^```|[\u201c\u201e][^\u201c\u201d\n]*[\u201c\u201d]"
    r"|\u00ab[^\u00ab\u00bb\n]*\u00bb|\u300c[^\u300d\n]*\u300d|(?<!\w)\"[^\"\n]+\"(?!\w)",
    re.MULTILINE | re.DOTALL,
)
"""What a message quotes: lines behind `>`, code, and words in quotation marks."""
BLANK_PATTERN = re.compile(r"(?:[\s*_~|`\\]|(?<=\n)[>#-]+)+")
"""Blanks, and the signs of Discord's markup: `kill **myself**` is read as it is shown."""


@dataclass(frozen=True)
class LanguageRules:
    """The rules of a language: a message speaks of self-harm if `speaks` matches outside of
    `figures`. A reply suggests it if `suggests` matches, and `dissuades` does not right before that.
    """

    language: str
    name: str
    figures: re.Pattern[str]
    speaks: re.Pattern[str]
    dissuades: re.Pattern[str]
    suggests: re.Pattern[str]
    means: MeansRules
    question: QuestionWords
    """The words of the question whether an AI or a person writes."""
    asked_if_human: str
    """The line of a persona whose author has written none."""
    text: str
    """The shipped answer."""
    emergency: EmergencyRules | None
    """None where a language has none."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of rules. Raises `UnderstudyError` for a file that is none."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(
                language=path.stem,
                name=table["name"],
                figures=_any_of(table["figures"]),
                speaks=_any_of(table["speaks"]),
                dissuades=re.compile(table["dissuades"]),
                suggests=_any_of(table["suggests"]),
                means=MeansRules.read(table["asked_means"]),
                question=QuestionWords.read(
                    table["human_question"], has_blanks=path.stem not in WITHOUT_BLANKS
                ),
                asked_if_human=table["asked_if_human"].strip(),
                text=table["text"].strip(),
                emergency=EmergencyRules.read(table.get("emergency")),
            )
        except (OSError, ValueError, KeyError, re.error) as error:
            raise UnderstudyError(
                f"{path} cannot be read: {error}.", "Restore it from the project's data."
            ) from error

    def speaks_of_self_harm(self, plain: str) -> bool:
        """Report whether a text without markup speaks of self-harm or suicide."""
        return self.speaks.search(self.figures.sub(" ", plain)) is not None

    def speaks_of_emergency(self, plain: str) -> bool:
        """Report whether a text without markup tells of an emergency."""
        return bool(self.emergency and self.emergency.signs.search(self.figures.sub(" ", plain)))

    def suggests_self_harm(self, plain: str) -> bool:
        """Report whether a reply without markup suggests self-harm or suicide."""
        return any(
            not self.dissuades.search(
                plain[max(0, match.start() - DISSUADING_CHARS) : match.start()]
            )
            for match in self.suggests.finditer(plain)
        )


@dataclass(frozen=True)
class SafetyRules:
    """The rules of all languages."""

    languages: tuple[LanguageRules, ...]

    @staticmethod
    @cache
    def shipped() -> "SafetyRules":
        """Return the rules of data/safety."""
        rules = [LanguageRules.read(SAFETY_FOLDER / f"{name}.toml") for name in LANGUAGES]
        return SafetyRules(tuple(rules))

    def find(self, text: str) -> str | None:
        """Return the language in which a text speaks of self-harm or suicide; None if it does
        not.
        """
        plain = plain_text(text)
        for rules in self.languages:
            if rules.speaks_of_self_harm(plain):
                return rules.language
        return None

    def find_emergency(self, text: str) -> str | None:
        """Return the language in which a text tells of an emergency or of sexual harm; None if it does
        not.
        """
        plain = plain_text(text)
        for rules in self.languages:
            if rules.speaks_of_emergency(plain):
                return rules.language
        return None

    def find_in_reply(self, text: str) -> str | None:
        """Return the language in which a reply suggests self-harm or suicide; None if it does not."""
        plain = plain_text(text)
        for rules in self.languages:
            if rules.suggests_self_harm(plain):
                return rules.language
        return None

    def find_asked_means(self, text: str) -> str | None:
        """Return the language in which a message asks for means of self-harm; None if it does not."""
        plain = plain_text(text)
        for rules in self.languages:
            if rules.means.asked(plain):
                return rules.language
        return None

    def find_sincere_question(self, text: str, *names: str) -> LanguageRules | None:
        """Return the rules of the language in which a text asks, in earnest and not in words that it
        quotes, whether an AI or a person writes; None if it does not. `names` are those of the
        persona that is asked.
        """
        asked = without_addresses(QUOTED_PATTERN.sub(" ", text), names)
        plain = "\n".join(map(plain_text, asked.splitlines()))
        for rules in self.languages:
            if rules.question.asks(plain):
                return rules
        return None

    def text(self, language: str) -> str:
        """Return the shipped answer in a language."""
        return self._of(language).text

    def emergency_text(self, language: str) -> str:
        """Return the answer to an emergency in a language that has rules for it."""
        emergency = self._of(language).emergency
        assert emergency  # `find_emergency` has named it
        return emergency.text

    def _of(self, language: str) -> LanguageRules:
        return next(rules for rules in self.languages if rules.language == language)


def plain_text(text: str) -> str:
    """Return a text for the rules: in lower case, composed, with plain apostrophes, without
    markup; "AI" as "a.i".
    """
    if len(text) > MAX_CHECKED_CHARS:
        half = MAX_CHECKED_CHARS // 2
        text = f"{text[:half]} {text[-half:]}"
    text = unicodedata.normalize("NFKC", text)
    if not text.isupper():  # in Vietnamese, "ai" is "who"
        text = AI_PATTERN.sub("A.I", text)
    text = text.lower()
    text = APOSTROPHE_PATTERN.sub("'", INVISIBLE_PATTERN.sub("", text))
    text = LINK_PATTERN.sub(r"\1", text)
    return BLANK_PATTERN.sub(" ", text).strip()


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
