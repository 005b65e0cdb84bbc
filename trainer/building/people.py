"""Who is in a data set, for the list that goes with it (`personas.people`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from personas.keys import keyed
from trainer.conversation import Conversation, Speaker

NOBODY = frozenset(("user", "others", "someone"))
"""Ids of speakers that stand for whoever it was."""


class Met:
    """Meets conversations before names are replaced, then counts samples.

    Whoever is met is listed, also with no sample: they may be named in one.
    """

    def __init__(self, strangers: Mapping[str, int] | None = None) -> None:
        """`strangers` are people who do not speak: casefolded names to the number of places that name them."""
        self._strangers = strangers if strangers is not None else {}
        self._names: dict[str, set[str]] = {}
        self._samples: Counter[str] = Counter()

    def meet(self, conversation: Conversation) -> None:
        """Note who speaks in a conversation, and who of its people is not heard in it."""
        for message in conversation.messages:
            if not message.speaker.is_persona:
                self._note(message.speaker)
            for id in message.by:
                self._names.setdefault(id, set())
        for speaker in conversation.unheard:
            self._note(speaker)

    def heard(self, people: Iterable[str]) -> None:
        """Count a sample in which people of these ids speak."""
        self._samples.update(people)

    def listed(self, key: bytes) -> dict[str, int]:
        """Keyed people to samples, each under the id and under all names."""
        listed: Counter[str] = Counter()
        for id, names in self._names.items():
            # Logs without ids know people by their names alone.
            own = [] if id in names else [id]
            for person in {*own, *(f"name:{name.casefold()}" for name in names)}:
                listed[keyed(key, person)] += self._samples[id]
        for name, count in self._strangers.items():
            listed[keyed(key, f"name:{name}")] += count
        return dict(listed)

    def _note(self, speaker: Speaker) -> None:
        if speaker.id not in NOBODY:
            self._names.setdefault(speaker.id, set()).update(speaker.names)
