"""Takes members out of the card and lore of a training whose teacher is at a server."""

import re
from collections.abc import Collection, Iterable

from bot.platform.person_names import is_distinctive, is_distinctive_part, is_english_word
from bot.training.stored_datasets import MASKED_NAME, NameMask
from personas.schemas.chat import to_nfc

DISCORD_ID = re.compile(r"(?P<other><a?:\w+:\d+>|<#\d+>)|<@[!&]?\d+>|(?<!\d)\d{17,20}(?!\d)")
"""A mention or a number that may be a member's id; `other` is an emoji or a channel."""


class MemberNames:
    """Replaces members, given as pairs of id and name, in prose; the names `kept`, and their words,
    stay.

    A name that is an English word, too, and the first and last word of a longer name count in their
    spelling alone: lore has "rose" and "castle" of its own. A name without letters, as `---`, is mostly
    markup in a text.
    """

    def __init__(self, people: Iterable[tuple[int, str]], kept: Collection[str]) -> None:
        names = dict.fromkeys(to_nfc(name.strip()) for _, name in people)
        self._people = tuple(name for name in names if any(map(str.isalnum, name)))
        self._kept = {word.casefold() for name in kept for word in (name, *name.split())}

    def masked(self, text: str) -> str:
        """Return a text with "someone" in place of members' names, and of all ids."""
        text = DISCORD_ID.sub(lambda match: match["other"] or MASKED_NAME, to_nfc(text))
        names, words = self._found_in(text)
        text = NameMask(((0, name) for name in names), ()).apply(text)
        if words:
            # Before another capital it is the name of somebody else, or of a street.
            pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)(?! +[A-Z][a-z])"
            text = re.sub(pattern, MASKED_NAME, text)
        return text

    def _found_in(self, text: str) -> tuple[list[str], list[str]]:
        """Return the names to look for in a text in any spelling, and the words to look for in their
        own. Most names are in no text, and are looked up nowhere.
        """
        small = text.casefold()
        names: list[str] = []
        words: list[str] = []
        for name in self._people:
            parts = name.split()
            if not any(part.casefold() in small for part in parts):
                continue
            if name.casefold() not in self._kept and is_distinctive(name):
                (words if is_english_word(name) else names).append(name)
            if len(parts) > 1:
                for part in (parts[0], parts[-1]):
                    if part.casefold() not in self._kept and is_distinctive_part(part):
                        words.append(part)
        return names, sorted(set(words))
