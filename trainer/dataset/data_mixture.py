"""Mixes sources and general dialogue: limits, ratios, and what measures forgetting."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from personas.errors import MaterialError, RequestError
from personas.home.column_maps import read_mapping, split_pairs
from personas.home.rights import RightsStatement
from trainer.dataset.dedup_split import hash_fraction
from trainer.schemas import Recipe
from trainer.sources.conversation import Conversation

Item = TypeVar("Item")
GENERAL_HOLDOUT_SHARE = 1 / 3
"""Share of general dialogue that is never trained on where the rest is."""
LORE_SHARE_TOLERANCE = 0.9
"""Part of the requested share of lore pairs that counts as enough: filters drop some after they are
drawn.
"""
SOURCE_PATTERN = re.compile(
    r"(?P<path>.+?)(?:=(?P<format>[a-z0-9][a-z0-9-]*))?(?::(?P<limit>\d+))?", re.DOTALL
)


def mixes_general(recipe: Recipe) -> bool:
    """Report whether a persona's recipe also trains on general dialogue."""
    return recipe.general_share > 0 or recipe.first_stage_epochs > 0


def split_general(
    messages: Sequence[Conversation], general: Sequence[Conversation]
) -> tuple[list[Conversation], list[Conversation]]:
    """Split into general dialogue that measures forgetting and dialogue to train on, in order of
    use.

    `messages` were supplied for training; `general` is the evaluation dialogue. Raises
    `MaterialError` if there is too little for both.
    """
    training_texts = set(map(_conversation_text, messages))
    measuring = [talk for talk in general if talk.raw_text not in training_texts]
    if not (messages and measuring):
        # The same dialogue would be trained on and measure.
        measuring = _general_holdout_third(general)
    texts = set(map(_conversation_text, measuring))
    training = [talk for talk in messages or general if talk.raw_text not in texts]
    return measuring, order_by_text(training, _conversation_text)


def order_by_text(items: Sequence[Item], text: Callable[[Item], str]) -> list[Item]:
    """Order general dialogue by a hash of its text."""
    return sorted(items, key=lambda item: hash_fraction("general", text(item)))


def general_sample_count(recipe: Recipe, own: int) -> int | None:
    """Return the number of general samples for this many persona samples; None for all."""
    share = recipe.general_share
    return round(own * share / (1 - share)) if share else None


def mixture_caveat(recipe: Recipe, own: int, taken: int) -> str:
    """Describe a shortage of general dialogue for the requested share; empty if there was
    enough.
    """
    requested = general_sample_count(recipe, own)
    if requested is None or taken >= requested:
        return ""
    return (
        f"General dialogue was to be {recipe.general_share:.0%} of the training samples. There are "
        f"{taken:,} samples "
        f"of it to {own:,} of the persona's: it is {taken / (taken + own):.0%}."
    )


def select_lore_pairs(
    pairs: Sequence[Conversation], own: Sequence[Conversation], share: float
) -> tuple[list[Conversation], list[Conversation]]:
    """Split lore pairs into those to use and the others: their replies are this share of all, if
    there are enough.

    They are drawn by a hash of their text; a share of 1 takes all of them.
    """
    wanted = count_replies(pairs)
    if share < 1:
        wanted = round(count_replies(own) * share / (1 - share))
    ordered = order_by_text(pairs, _conversation_text)
    used = 0
    replies = 0
    while replies < wanted and used < len(ordered):
        replies += count_replies([ordered[used]])
        used += 1
    return ordered[:used], ordered[used:]


def lore_pairs_caveat(share: float, from_lore: int, samples: int) -> str:
    """Describe a shortage of lore pairs for the requested share; empty if there were enough."""
    if from_lore >= share * samples * LORE_SHARE_TOLERANCE:
        return ""
    return (
        f"Lore pairs were to be {share:.0%} of the samples. There are {from_lore:,} samples of "
        f"them among {samples:,}: "
        f"it is {from_lore / max(samples, 1):.0%}."
    )


def count_replies(conversations: Iterable[Conversation]) -> int:
    """Count the replies of the persona or assistant."""
    replies = 0
    for conversation in conversations:
        replies += sum(message.speaker.is_persona for message in conversation.messages)
    return replies


def _general_holdout_third(general: Sequence[Conversation]) -> list[Conversation]:
    """Select the conversations below the border of the draw; if none or all are, the nearest
    one.
    """
    ordered = order_by_text(general, _conversation_text)
    if len(set(map(_conversation_text, ordered))) < 2:
        raise MaterialError(
            "There is only one general dialogue; training on some and measuring with others takes "
            "two.",
            "Add more.",
        )
    # By a hash, so that dialogue stays on its side when more is added.
    below = []
    for talk in ordered:
        if hash_fraction("general", talk.raw_text) < GENERAL_HOLDOUT_SHARE:
            below.append(talk)
    if len(below) == len(ordered):
        below = [talk for talk in below if talk.raw_text != ordered[-1].raw_text]
    return below or ordered[:1]


def _conversation_text(conversation: Conversation) -> str:
    return conversation.raw_text


@dataclass(frozen=True)
class SourceSpec:
    """A source from the command line. `limit` is its maximum number of samples, None for all.

    `statement` is the catalogue's rights statement, if any; `persona_names` are the persona's names
    in it. `origin` is its name in data sheets, if not that of its path. `mapping` are the
    catalogue's pairs for the columns of a table.
    """

    path: Path
    format: str | None = None
    limit: int | None = None
    statement: RightsStatement | None = None
    persona_names: tuple[str, ...] = ()
    origin: str = ""
    mapping: tuple[str, ...] = ()

    def find_mapping(self) -> dict[str, str]:
        """Return the mapping of its columns, from the catalogue or stored beside it. Raises
        `MaterialError`.
        """
        return split_pairs(self.mapping or read_mapping(self.path))


def parse_source(text: str) -> SourceSpec:
    """Parse `PATH[=FORMAT][:COUNT]`; an existing path takes precedence. Raises `RequestError`."""
    whole = Path(text).expanduser()
    if text and whole.exists():
        return SourceSpec(whole)
    found = SOURCE_PATTERN.fullmatch(text)
    if not found:
        raise RequestError(
            f"{text!r} names no source.",
            "Write PATH, PATH=FORMAT, PATH:COUNT or PATH=FORMAT:COUNT.",
        )
    limit = int(found["limit"]) if found["limit"] else None
    if limit == 0:
        raise RequestError(
            f"{text!r} takes none of its samples.", "Leave the source out, or give a count from 1."
        )
    return SourceSpec(Path(found["path"]).expanduser(), found["format"], limit)


def parse_mix(text: str) -> tuple[float, ...]:
    """Parse a ratio such as `80:20`: two or more positive numbers. Raises `RequestError`."""
    parts = text.split(":")
    try:
        weights = tuple(float(part) for part in parts)
    except ValueError:
        weights = ()
    if len(weights) < 2 or not all(0 < weight < float("inf") for weight in weights):
        raise RequestError(
            f"{text!r} is no ratio.", "Write numbers above zero with : between them, such as 80:20."
        )
    return weights


def source_names(sources: Sequence[SourceSpec]) -> list[str]:
    """Name sources by file name, with as much of the path as makes them unique."""
    paths = [source.path.absolute() for source in sources]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise RequestError(f"{twice.name} is named twice as a source.", "Name each source once.")
    names = [source.origin or path.name for source, path in zip(sources, paths, strict=True)]
    depth = 1
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in paths]
    return names


def interleave(streams: Sequence[Iterator[Item]], weights: Sequence[float]) -> Iterator[Item]:
    """Yield items in the ratio of the weights until a stream ends on its turn: continuing would
    break the ratio.
    """
    taken = [0] * len(streams)
    while True:
        turn = min(range(len(streams)), key=lambda number: (taken[number] + 1) / weights[number])
        try:
            item = next(streams[turn])
        except StopIteration:
            return
        taken[turn] += 1
        yield item


def split_limit(limit: int | None, train: int, heldout: int) -> tuple[int, int]:
    """Return the sample limits (train, held out) of a source, in proportion to its
    conversations.
    """
    unbounded = 2**62
    if limit is None:
        return unbounded, unbounded
    if not train or not heldout:
        return limit, limit
    of_heldout = min(max(round(limit * heldout / (train + heldout)), 1), max(limit - 1, 0))
    return limit - of_heldout, of_heldout
