"""Measures how near a reply is to what a card's character says in it, by the runs of characters that
other dialogue has seldom.
"""

import json
from collections.abc import Sequence

from personas.schemas.chat import Persona
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.synthetic.speaking_notes import spoken_lines

GENERAL_FILE = SHIPPED_DATA / "general" / "dialogue.jsonl"
MAX_RUN = 3
"""Characters of the longest runs."""


class VoiceLikeness:
    """Compares replies with the examples and greetings of a persona's card: the mean TF-IDF cosine of
    a reply and each of these. A mean over single lines favours long replies less than one cosine to
    all lines together.
    """

    def __init__(self, persona: Persona) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # half a second to import

        spoken = spoken_lines(persona)
        self._vectoriser = TfidfVectorizer(
            analyzer="char", ngram_range=(1, MAX_RUN), lowercase=False, sublinear_tf=True
        )
        self._vectoriser.fit([*spoken, *_general_replies()])
        self._vectors = self._vectoriser.transform(spoken) if spoken else None

    def of(self, replies: Sequence[str]) -> list[float]:
        """Return the likeness of each reply, from 0 to 1; 0 where the card has nothing to compare."""
        if self._vectors is None or not replies:
            return [0.0] * len(replies)
        cosines = self._vectoriser.transform(replies) @ self._vectors.T
        return [float(mean) for mean in cosines.toarray().mean(axis=1)]


def _general_replies() -> list[str]:
    replies: list[str] = []
    for line in GENERAL_FILE.read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        replies += [message["content"] for message in messages if message["role"] == "assistant"]
    return replies
