"""Learns from a whole chat who speaks in it, so that names are told from sentences with colons.

A line is `Name: text`, or a notice without a name. Names may contain colons and quotation marks or
be long, editors remove the space behind the colon, and notices and texts contain colons too. A
name recurs; a sentence does not.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from personas.schemas.chat import fold_name
from trainer.sources.formats.whatsapp_notices import (
    DIRECTION_MARKS,
    QUOTATION_MARKS,
    AppText,
    is_you,
    match_app_text,
)
from trainer.sources.markup import clean_text

APP_MARK = "\u200e"
COLON = re.compile("[ \u00a0\u202f]?[:：]")
INCHES = re.compile('(?<=\\d)["”]')
NOTICE_KINDS = ("certain", "notices")
MAX_NAME_CHARS = 120
"""Contacts and groups have names of up to some 100 characters."""
PLAIN_NAME_CHARS = 60
PLAIN_NAME_WORDS = 3
MAX_COLONS = 4
MIN_RECURRENCES = 3
"""Lines of a name that has a single quotation mark, as a notice with a colon in a quotation has."""


class Split(NamedTuple):
    """A line as a name and a text. `is_spaced`: a space or the line's end follows the colon."""

    name: str
    text: str
    is_spaced: bool


def clean_name(written: str) -> str:
    """Return a name without the tilde that WhatsApp puts before people who are no contacts."""
    return clean_text(written).strip().lstrip("~\u202f ")


def possible_splits(rest: str) -> list[Split]:
    """List the ways to split what follows the time into a name and a text, the shortest name
    first.
    """
    splits = list[Split]()
    line = rest.partition("\n")[0][: 2 * MAX_NAME_CHARS]
    for colon in COLON.finditer(line):
        written = line[: colon.start()]
        if APP_MARK in written[1:].lstrip(APP_MARK):
            break  # what follows the mark are the app's words
        name = clean_name(written)
        after = DIRECTION_MARKS.sub("", rest[colon.end() : colon.end() + 8])[:2]
        is_time = name[-1:].isdigit() and after[:1].isdigit()
        if name and len(name) <= MAX_NAME_CHARS and not is_time and after != "//":
            is_spaced = not after or after[0].isspace()
            splits.append(Split(name, rest[colon.end() :], is_spaced))
        if len(splits) == MAX_COLONS:
            break
    return splits


@dataclass
class ChatNames:
    """The names of a chat's speakers. `has_brackets`: each line has a speaker, notices too.

    Counts are numbers of messages: `_heard` that begin with a name and a colon, `_alone` that have
    no other colon, `_spoken` whose text is no notice. `_longer` are the names with a further colon
    that begin with a name.
    """

    has_brackets: bool
    _heard: Counter[str] = field(default_factory=Counter)
    _alone: Counter[str] = field(default_factory=Counter)
    _spoken: Counter[str] = field(default_factory=Counter)
    _longer: dict[str, Counter[str]] = field(default_factory=dict)
    _notices: dict[str, set[AppText]] = field(default_factory=dict)

    def add(self, rest: str) -> None:
        """Learn from a message: what follows its time."""
        splits = possible_splits(rest)
        for index, split in enumerate(splits):
            self._heard[split.name] += 1
            self._alone[split.name] += len(splits) == 1
            app_text = match_app_text(split.text)
            if app_text and app_text.kind in NOTICE_KINDS:
                self._notices.setdefault(split.name, set()).add(app_text)
            else:
                self._spoken[split.name] += 1
            if index + 1 < len(splits) and app_text is None:
                self._longer.setdefault(split.name, Counter())[splits[index + 1].name] += 1

    def split(self, rest: str) -> Split | None:
        """Split what follows the time of a message; None for a notice without a speaker."""
        splits = [split for split in possible_splits(rest) if self._may_be_name(split)]
        known = [split for split in splits if self._alone[split.name]]
        spaced = [split for split in splits if split.is_spaced]
        whole = [split for split in spaced if not self._is_part_of_names(split.name)]
        return next(iter(known or whole or spaced or splits), None)

    def is_group(self, name: str) -> bool:
        """Report whether a speaker is the group: on iOS, some notices have its name before them.

        It says nothing but notices, about people of the chat.
        """
        notices = self._notices.get(name, set())
        if self._spoken[name] or not all(map(self._is_about_people, notices)):
            return False
        return any(self._is_known(notice.who) for notice in notices)

    def tells_of_itself(self, name: str, notice: AppText) -> bool:
        """Report whether a speaker is the one who acts in a notice, as on iOS, where some have their
        name before them.
        """
        is_own = fold_name(clean_name(notice.who)) == fold_name(name)
        return is_own and self._is_about_people(notice)

    @cached_property
    def _folded(self) -> frozenset[str]:
        """Folded names; asked for once the whole chat is learned."""
        return frozenset(map(fold_name, self._heard))

    def _is_known(self, name: str) -> bool:
        folded = fold_name(clean_name(name))
        return not folded or is_you(folded) or folded in self._folded

    def _is_about_people(self, notice: AppText) -> bool:
        return not notice.whom[:1].islower() or self._is_known(notice.whom)

    def _is_part_of_names(self, name: str) -> bool:
        """Report whether a name is only ever the beginning of few longer ones, which recur."""
        longer = self._longer.get(name, Counter[str]())
        return 0 < 2 * len(longer) <= self._heard[name]

    def _may_be_name(self, split: Split) -> bool:
        name = split.name
        recurs = self._heard[name] > 1
        is_plain = len(name.split()) <= PLAIN_NAME_WORDS and len(name) <= PLAIN_NAME_CHARS
        without_inches = INCHES.sub("", name)
        if all(sum(map(text.count, QUOTATION_MARKS)) % 2 for text in (name, without_inches)):
            return is_plain and self._heard[name] >= MIN_RECURRENCES
        if self.has_brackets or recurs:
            return True
        return is_plain or (split.is_spaced and len(name) <= PLAIN_NAME_CHARS)
