"""Replies that no model has to write: honest and kind ones to what is asked in earnest, and answers that rules
take from a character's lore; and how long its replies are.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from personas.lore.index_terms import is_mostly_ascii, query_terms
from personas.lore.passages import Passage, split_sentences
from personas.prompt.renderer import example_turns
from personas.schemas.chat import LoreHit, Persona
from personas.shipped_folders import SHIPPED_DATA
from trainer.dataset.synthetic.lore_extraction import LoreFact, extract_facts
from trainer.dataset.synthetic.speaking_style import SELF
from trainer.languages import detect_main_language

SINCERE_REPLIES_FILE = SHIPPED_DATA / "questions" / "sincere_replies.jsonl"
"""Replies to the openers that ask in earnest whether a person answers, or speak of grief. A model that
plays a part claims to be human there, or jokes, and a version that learns this fails the gate.
"""
MIN_SENTENCES = 2
MIN_TOKENS = 40
MAX_TOKENS = 120
FOREIGN_BYTES_PER_TOKEN = 2.5
NON_LATIN_BYTES_PER_TOKEN = 1.5
MAX_FOREIGN_TOKENS = 240
"""Beyond English, a tokenizer that was made for it splits words, and letters: the bundled model's has
2.6 UTF-8 bytes of German in a token, 1.7 of Vietnamese and 1.6 of Japanese.
"""
TOKENS_PER_WORD = 1.6
LORE_SENTENCES = 2


def sincere_replies(persona: Persona, *, says_i: bool = True) -> dict[str, str]:
    """Return the replies to openers asked in earnest, by the opener as a persona is asked. A
    character that never `says_i` has those without "I", of which there are fewer.
    """
    name = persona.nickname or persona.name
    replies = {}
    for line in SINCERE_REPLIES_FILE.read_text(encoding="utf-8").splitlines():
        row = {key: text.replace("{{char}}", name) for key, text in json.loads(line).items()}
        reply = row["reply"]
        if not says_i and SELF.search(reply):
            reply = row.get("reply_without_i", "")
        if reply:
            replies[row["text"]] = reply
    return replies


@dataclass(frozen=True)
class ReplyLength:
    """The length of a character's replies: as many sentences as the longest example has."""

    sentences: int
    tokens: int

    @classmethod
    def measure(cls, persona: Persona) -> "ReplyLength":
        """Measure the examples of a persona's card."""
        spoken = [turn.text for turn in example_turns(persona) if turn.by_persona]
        if not spoken:
            return cls(MIN_SENTENCES, MAX_TOKENS)
        sentences = max(max(len(split_sentences(text)) for text in spoken), MIN_SENTENCES)
        if detect_main_language(spoken) == "en":
            words = max(len(text.split()) for text in spoken)
            tokens = math.ceil(words * TOKENS_PER_WORD)
            return cls(sentences, min(max(tokens, MIN_TOKENS), MAX_TOKENS))
        is_latin = is_mostly_ascii(" ".join(spoken))
        per_token = FOREIGN_BYTES_PER_TOKEN if is_latin else NON_LATIN_BYTES_PER_TOKEN
        tokens = math.ceil(max(len(text.encode()) for text in spoken) / per_token)
        return cls(sentences, min(max(tokens, MIN_TOKENS), MAX_FOREIGN_TOKENS))

    def cut(self, text: str) -> str:
        """Return the first sentences of a text, up to that number."""
        end = 0
        for sentence in split_sentences(text)[: self.sentences]:
            end = text.index(sentence, end) + len(sentence)
        return text[:end].strip()


class LoreAnswers:
    """Answers in the first person that rules take from a persona's own lore."""

    def __init__(self, persona: Persona, passages: Sequence[Passage]) -> None:
        own = [passage for passage in passages if passage.owner == persona.id]
        self._facts: dict[str, list[LoreFact]] = {}
        for fact in extract_facts(persona, own):
            self._facts.setdefault(fact.passage.text, []).append(fact)

    def answer(self, hits: Sequence[LoreHit], question: str) -> str:
        """Return what the best passage says of the persona, from the first sentence on that has a
        word of the question's; empty if nothing certain, or none has.
        """
        if not hits:
            return ""
        asked = set(query_terms(question))

        def misses(fact: LoreFact) -> bool:
            return asked.isdisjoint(query_terms(f"{fact.text} {fact.spoken}"))

        facts = [fact for fact in self._facts.get(hits[0].text, ()) if fact.spoken]
        told = itertools.islice(itertools.dropwhile(misses, facts), LORE_SENTENCES)
        return " ".join(fact.spoken for fact in told if fact.spoken)
