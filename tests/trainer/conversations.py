"""Conversations made by hand, for tests of what is made of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from personas.home.holdout_index import HoldoutIndex
from trainer.dataset.dedup_split import ConversationSplitter
from trainer.dataset.quality_filters import QualityFilters
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

ADA = SourceSpeaker("ada", ("Ada",), is_persona=True)
BO = SourceSpeaker("1", ("Corin",))
ASSISTANT = SourceSpeaker("assistant", ("assistant",), is_persona=True)
USER = SourceSpeaker("user", ("user",))
WORDS = [
    f"{first}{last}"
    for first in "ba de fi go lu ma no pe ri so tu".split()
    for last in "ck lm nd rp st".split()
]


def talk(*texts: str, begins: SourceSpeaker = BO, **fields: object) -> Conversation:
    """Corin and Ada in turns; a record a message, as in a chat log."""
    speakers = [begins, ADA if begins is BO else BO]
    messages = [
        SourceMessage(speakers[n % 2], text, f"message {n}") for n, text in enumerate(texts)
    ]
    return Conversation.of(messages, "talk.json", "licensed", **{"rows": len(messages), **fields})  # type: ignore[arg-type]


def dialogue(*texts: str, row: str = "line 1", **fields: object) -> Conversation:
    """A user and an assistant in turns; one record, as in a table."""
    messages = [SourceMessage((USER, ASSISTANT)[n % 2], text, row) for n, text in enumerate(texts)]
    return Conversation.of(messages, "rows.jsonl", "licensed", **fields)  # type: ignore[arg-type]


def sentence(number: int, words: int = 30) -> str:
    """Words that no other number has in this order."""
    return " ".join(random.Random(number).choices(WORDS, k=words))


@dataclass(frozen=True)
class SplitResult:
    """The results of `ConversationSplitter.outcomes`."""

    outcomes: list[str]
    withheld_replies: dict[int, frozenset[int]]
    held_out: HoldoutIndex


def split_conversations(
    conversations: Sequence[Conversation],
    filters: QualityFilters,
    heldout_share: float,
    before: HoldoutIndex | None = None,
    dropped: Mapping[str, int] | None = None,
) -> SplitResult:
    """Split conversations, with those `before` held out earlier; raises as `ConversationSplitter`
    does.
    """
    with ConversationSplitter(filters, before=before) as splitter:
        for conversation in conversations:
            splitter.add(conversation)
        return SplitResult(
            splitter.outcomes(heldout_share, dropped), splitter.withheld_replies, splitter.held_out
        )
