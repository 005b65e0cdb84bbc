"""Who finds people that nobody in the log is: an installed model and the tagger, or rules where there is neither."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, cast

from trainer.anonymise import ner
from trainer.anonymise.entity import BY_MODEL, Kind, Span
from trainer.anonymise.ner import EVERY_LANGUAGE, Finder
from trainer.anonymise.refined import refined, without_code
from trainer.anonymise.rules import names_by_rules
from trainer.anonymise.tagger import load
from trainer.anonymise.tagger.tokens import is_east_asian
from trainer.anonymise.written import Written

RULES = "cue words and titles"
KANA, HANGUL = re.compile("[\u3040-\u30ff]"), re.compile("[\uac00-\ud7af]")
UNREADABLE = re.compile("[\x00-\x08\ud800-\udfff]")
"""What a model's own encoding refuses."""

log = logging.getLogger(__name__)


@dataclass
class Names:
    """Finds names; `patterns_only` counts texts in which nobody but patterns and the log's names looked, by language.

    `models` are by language, "" for any; `tagger` reads what is written in Latin letters.
    """

    models: Mapping[str, Finder] = field(default_factory=dict)
    tagger: Finder | None = None
    patterns_only: Counter[str] = field(default_factory=Counter)

    @classmethod
    def available(cls) -> Self:
        """What there is on this machine; nothing is downloaded."""
        return cls(*_available())

    @property
    def by(self) -> str:
        """Who finds names, for reports."""
        finders = [*dict.fromkeys(finder.name for finder in self.models.values())]
        finders += [f"tagger ({self.tagger.name})"] if self.tagger else []
        return ", ".join(finders) or RULES

    def found(self, text: str, written: Written, *, is_first: bool = True) -> list[Span]:
        """`PERSON` and `STREET_ADDRESS`; `written` is how all texts write words. `is_first`: no later piece of a text
        that is counted already."""
        text = without_code(UNREADABLE.sub("\ufffd", text))
        language = language_of(text)
        finders = [finder for key, finder in self.models.items() if key in (EVERY_LANGUAGE, language or "en")]
        if self.tagger and not language:
            finders.append(self.tagger)
        if not finders:
            self.patterns_only[language or "any"] += is_first
            return list(names_by_rules(text, sure=False))
        spans = (Span(cast(Kind, kind), s, e, BY_MODEL) for one in finders for kind, s, e, _ in one.find(text))
        return [*refined(text, spans, written), *names_by_rules(text, sure=True)]


@functools.cache
def _available() -> tuple[Mapping[str, Finder], Finder | None]:
    return ner.installed(), load()


def language_of(text: str) -> str:
    """zh, ja or ko where Chinese, Japanese or Korean prevails; empty elsewhere."""
    if not is_east_asian(text):
        return ""
    if KANA.search(text):
        return "ja"
    return "ko" if HANGUL.search(text) else "zh"
