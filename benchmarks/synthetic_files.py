"""Generates large files in the formats of well-known data sets."""

import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

SEED = 20
CONSONANTS = "bcdfghjklmnprstvwz"
VOWELS = "aeiou"
VOCABULARY_SIZE = 20_000
SENTENCE_COUNT = 50_000
LABELS = (
    "spam",
    "lang_mismatch",
    "pii",
    "not_appropriate",
    "hate_speech",
    "sexual_content",
    "quality",
    "toxicity",
)


class SyntheticRows:
    """Generates rows, reproducible by seed."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)
        self._words = [self._word() for _ in range(VOCABULARY_SIZE)]
        self._sentences = [self._sentence() for _ in range(SENTENCE_COUNT)]

    def _word(self) -> str:
        syllables = self._random.randint(1, 4)
        return "".join(
            self._random.choice(CONSONANTS) + self._random.choice(VOWELS) for _ in range(syllables)
        )

    def _sentence(self) -> str:
        return (
            " ".join(self._random.choices(self._words, k=self._random.randint(6, 18))).capitalize()
            + "."
        )

    def text(self, max_sentences: int) -> str:
        """Generate one to `most` sentences."""
        return " ".join(
            self._random.choices(self._sentences, k=self._random.randint(1, max_sentences))
        )

    def sharegpt(self, number: int) -> dict[str, Any]:
        """Generate a conversation of two to eight messages."""
        pairs = self._random.randint(1, 4)
        turns = [("human", 3), ("gpt", 14)] * pairs
        return {
            "id": f"talk_{number}",
            "conversations": [{"from": who, "value": self.text(n)} for who, n in turns],
        }

    def ultrachat(self, number: int) -> dict[str, Any]:
        """Generate a conversation of two to eight texts."""
        return {
            "id": str(number),
            "data": [self.text(n) for n in (3, 14) * self._random.randint(1, 4)],
        }

    def tree(self, number: int) -> dict[str, Any]:
        """Generate a tree: a question, one to three ranked answers, and sometimes another question
        and answer.
        """
        answers = [self._node("assistant", rank) for rank in range(self._random.randint(1, 3))]
        if number % 3 == 0:
            answers[0]["replies"] = [self._node("prompter", None, [self._node("assistant", 0)])]
        prompt = self._node("prompter", None, answers)
        return {
            "message_tree_id": prompt["message_id"],
            "tree_state": "ready_for_export",
            "prompt": prompt,
        }

    def _node(
        self, role: str, rank: int | None, replies: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        return {
            "message_id": str(uuid.UUID(int=self._random.getrandbits(128))),
            "user_id": str(uuid.UUID(int=self._random.getrandbits(128))),
            "created_date": "2023-02-05T14:23:50.983374+00:00",
            "text": self.text(3 if role == "prompter" else 8),
            "role": role,
            "lang": "en",
            "review_count": 3,
            "review_result": True,
            "deleted": False,
            "rank": rank,
            "synthetic": False,
            "emojis": {"+1": 1},
            "labels": {
                name: {"value": self._random.randint(2, 4) / 4, "count": 3} for name in LABELS
            },
            "replies": replies or [],
        }


ROW_MAKERS: dict[str, Callable[[SyntheticRows, int], dict[str, Any]]] = {
    "oasst": SyntheticRows.tree,
    "ultrachat": SyntheticRows.ultrachat,
    "sharegpt": SyntheticRows.sharegpt,
}


def write_rows(path: Path, kind: str, rows: int) -> None:
    """Write this many rows as JSON Lines, unless the file exists. A partial file never has the
    final name.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    maker = SyntheticRows()
    make = ROW_MAKERS[kind]
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        for number in range(rows):
            file.write(orjson.dumps(make(maker, number), option=orjson.OPT_APPEND_NEWLINE))
    aside.rename(path)
