"""What the anonymiser finds in a persona's texts, though it should find nothing any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import compress
from operator import not_

from trainer.anonymise import Anonymiser
from trainer.anonymise.replacing import stands_in
from trainer.anonymise.staying import world_names
from trainer.dataset import Dataset

Said = tuple[str, str]
"""What was known before a text, such as its prompt, and the text."""


LEAST_WRITTEN_OTHERWISE = 8
"""Letters and digits of a piece by which it is known again however it is written; fewer are the same by chance."""


def private_in(data: Dataset, said: Iterable[Said]) -> dict[str, int]:
    """How often it finds what, by kind.

    What was known before does not count, nor what the persona's world holds, nor what the anonymiser itself puts in
    place of something.
    """
    return _by_kind(kind for kind, _ in _pieces_in(data, said))


def learned_and_made_up(
    data: Dataset, said: Iterable[Said], trained: Callable[[], str]
) -> tuple[dict[str, int], dict[str, int]]:
    """The same apart: what stands in the text that was trained on, and what does not, which a model has made up.

    `trained` is asked for only where there is something to look for.
    """
    pieces = list(_pieces_in(data, said))
    if not pieces:
        return {}, {}
    text = trained().casefold()
    bare = _bare(text)
    learned = [
        value.casefold() in text or (len(own := _bare(value.casefold())) >= LEAST_WRITTEN_OTHERWISE and own in bare)
        for _, value in pieces
    ]
    kinds = [kind for kind, _ in pieces]
    return _by_kind(compress(kinds, learned)), _by_kind(compress(kinds, map(not_, learned)))


def _pieces_in(data: Dataset, said: Iterable[Said]) -> Iterator[tuple[str, str]]:
    """Kind and text of each piece."""
    keep = world_names(data.persona, data.lore) if data.persona else ()
    anonymiser = Anonymiser(b"score card", persona=data.persona, keep=keep)
    for known, text in said:
        for it in anonymiser.found(text):
            value = text[it.start : it.end]
            if value.casefold() not in known.casefold() and not stands_in(value):
                yield it.kind, value


def _by_kind(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text))
