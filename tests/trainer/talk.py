"""Conversations made by hand, for tests of what is made of them."""

from __future__ import annotations

import random

from trainer.conversation import Conversation, Message, Speaker

ADA = Speaker("ada", ("Ada",), is_persona=True)
BO = Speaker("1", ("Corin",))
ASSISTANT = Speaker("assistant", ("assistant",), is_persona=True)
USER = Speaker("user", ("user",))
WORDS = [f"{first}{last}" for first in "ba de fi go lu ma no pe ri so tu".split() for last in "ck lm nd rp st".split()]


def talk(*texts: str, begins: Speaker = BO, **fields: object) -> Conversation:
    """Corin and Ada in turns; a record a message, as in a chat log."""
    speakers = [begins, ADA if begins is BO else BO]
    messages = [Message(speakers[n % 2], text, f"message {n}") for n, text in enumerate(texts)]
    return Conversation.of(messages, "talk.json", "licensed", **{"rows": len(messages), **fields})  # type: ignore[arg-type]


def dialogue(*texts: str, row: str = "line 1", **fields: object) -> Conversation:
    """A user and an assistant in turns; one record, as in a table."""
    messages = [Message((USER, ASSISTANT)[n % 2], text, row) for n, text in enumerate(texts)]
    return Conversation.of(messages, "rows.jsonl", "licensed", **fields)  # type: ignore[arg-type]


def sentence(number: int, words: int = 30) -> str:
    """Words that no other number has in this order."""
    return " ".join(random.Random(number).choices(WORDS, k=words))
