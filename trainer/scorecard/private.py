"""What the anonymiser finds in a persona's texts, though it should find nothing any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trainer.anonymise import Anonymiser
from trainer.anonymise.replacing import stands_in
from trainer.anonymise.staying import world_names
from trainer.dataset import Dataset

Said = tuple[str, str]
"""What was known before a text, such as its prompt, and the text."""


def private_in(data: Dataset, said: Iterable[Said]) -> dict[str, int]:
    """How often it finds what, by kind.

    What was known before does not count, nor what the persona's world holds, nor what the anonymiser itself puts in
    place of something.
    """
    keep = world_names(data.persona, data.lore) if data.persona else ()
    anonymiser = Anonymiser(b"score card", persona=data.persona, keep=keep)
    found = (
        (it.kind, text[it.start : it.end], known.casefold()) for known, text in said for it in anonymiser.found(text)
    )
    kinds = Counter(kind for kind, value, known in found if value.casefold() not in known and not stands_in(value))
    return dict(sorted(kinds.items()))
