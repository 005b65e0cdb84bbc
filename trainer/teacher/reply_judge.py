"""Judges what a teacher writes: drops drafts with a fault, each with its reason, and chooses one of the others."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from personas.human_claims import claims_to_be_human
from personas.lore.index_terms import is_mostly_ascii
from personas.lore.passages import Passage, split_sentences
from personas.prompt.renderer import EXAMPLE_USER, closing_text, example_turns, system_text
from personas.schemas.chat import Persona
from trainer.dataset.minhash import split_words
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.dataset.synthetic.speaking_notes import spoken_lines
from trainer.evaluate.generation.character_breaks import CharacterBreakDetector
from trainer.evaluate.generation.reply_sense import (
    content_words,
    fit_without,
    read_marks,
    sense_features,
)
from trainer.evaluate.generation.text_metrics import has_shared_run, is_unsegmented
from trainer.teacher.voice_likeness import VoiceLikeness

ASSISTANT = re.compile(
    r"\bfeel free to (?:ask|contact|reach)\b|\b(?:happy|here) to (?:help|assist)\b"
    r"|\bglad (?:that )?I could (?:help|assist)\b|\bhow (?:can|may|could) I (?:help|assist)\b"
    r"|\blet me know (?:if|when|how|what) you\b"
    r"|\byou need (?:any )?(?:more |further |my )?(?:help|assistance)\b"
    r"|\bmore (?:context|details|information) (?:or|about|so|on)\b"
    r"|\bclarify (?:your|the) (?:question|request)\b"
    r"|\bdo(?: not|n['’]t) understand what you (?:mean|are asking|are saying)\b",
    re.IGNORECASE,
)
"""What an assistant says, and hardly a character."""
COPIED_SENTENCE_WORDS = 5
"""A draft copies a whole sentence of the card that has so many words."""
COPIED_INSTRUCTION_WORDS = 3
"""The same of a sentence of the closing instructions, which tell only a model what to do."""
QUOTE_MARKS = frozenset('"“”„«»「」『』')
ECHOED_WORDS = 6
"""A reply with so many words in a row of its question repeats it."""
ECHOED_SHARE = 0.75
"""A reply repeats its question if so many of its words beside the commonest are the question's."""
MIN_ECHOED_WORDS = 2
CLAUSE_END = re.compile(r"[,;:.!?…]")
OWN_CLAUSE = re.compile(r"\b(?:I|my|we|our)\b", re.IGNORECASE)
TAKEN_OVER_SHARE = 0.6
"""To "i'm scared to open the letter", "I am afraid to open the letter" speaks as the member."""
MIN_SENSE = 0.4
"""Least estimated mark. Of the replies that readers marked, it lets pass 41 % of the generated ones, with
a mean mark of 0.30 in place of 0.24, and 83 % of the real ones.
"""
KNOWN_SHARE = 0.5
"""A draft says what the lore says if it has so many of its words beside the commonest."""
YOU = re.compile(r"\b(?:you|your|yours|u|ur|ya)\b", re.IGNORECASE)
TOO_LONG_WORDS = 120
MIN_CIRCLING_WORDS = 16
MIN_DISTINCT_PAIR_SHARE = 0.8
"""Share of a longer reply's pairs of words that are different ones."""


class SenseMeter:
    """Estimates the mark that a reader would give a reply, from 0 to 1. It agrees with readers a
    little (docs/quality.md): enough to drop what is beside the point, and not to choose among the
    rest. It reads English alone: beyond it, nothing is known, and every reply makes sense.
    """

    def __init__(self, persona_id: str, language: str) -> None:
        self._estimator = fit_without(persona_id, read_marks()) if language == "en" else None

    def sense(self, question: str, replies: Sequence[str]) -> list[float]:
        """Return the estimates of replies to a question."""
        # Who has English lore may speak another language all the same.
        if self._estimator is None or not all(map(is_mostly_ascii, (question, *replies))):
            return [1.0] * len(replies)
        pairs = [(question, reply) for reply in replies]
        return [float(mark) for mark in self._estimator.estimate(sense_features(pairs))]


class ReplyJudge:
    """Finds the faults of a persona's drafts, and remembers the replies that are kept. `notes` are a
    part of the teacher's prompt.
    """

    def __init__(self, persona: Persona, passages: Sequence[Passage], notes: str = "") -> None:
        self._filter = ReplyFilter(persona, passages, compares_card=True)
        self._breaks = CharacterBreakDetector(persona)
        self._sense = SenseMeter(persona.id, self._filter.language)
        self._likeness = VoiceLikeness(persona)
        self._is_human = claims_to_be_human(system_text(persona, ""))
        self._spoken = spoken_lines(persona)
        closing = closing_text(persona, EXAMPLE_USER) or ""
        self._said_of_it = (system_text(persona, ""), closing, notes)
        self._whole_sentences = _card_sentences(persona, closing, notes)

    def keep(self, reply: str) -> None:
        """Remember a reply that is kept, so that similar ones count as repetitions. Drafts have the
        example user's name where it has `{{user}}`.
        """
        self._filter.keep([reply.replace("{{user}}", EXAMPLE_USER)])

    def choose(
        self, question: str, drafts: Sequence[str], known: str = "", *, asks_facts: bool = False
    ) -> tuple[str, list[str]]:
        """Return one draft without a fault, empty if there is none, and the faults of the others.

        It is the one that is most like what the character says in its card. But those go first
        that say what is `known`, the lore's answer to the question; the answer itself goes last of
        these.
        """
        drafts = list(dict.fromkeys([*drafts, known] if known else drafts))
        faults: list[str] = []
        faultless: list[str] = []
        for draft in drafts:
            if draft == known:  # it has the lore's words, and no manner of its own
                fault = "repeats" if self._filter.resembles_kept(draft) else None
            else:
                fault = self.fault(question, draft, asks_facts=asks_facts)
            if fault:
                faults.append(fault)
            else:
                faultless.append(draft)
        if not faultless:
            return "", faults
        to_the_point: list[str] = []
        for draft, mark in zip(faultless, self._sense.sense(question, faultless), strict=True):
            if mark < MIN_SENSE and draft != known:
                faults.append("beside the point")
            else:
                to_the_point.append(draft)
        facts = content_words(known) - content_words(question)

        likeness = dict(zip(to_the_point, self._likeness.of(to_the_point), strict=True))

        def rank(draft: str) -> tuple[bool, bool, float]:
            says = len(facts & content_words(draft)) >= KNOWN_SHARE * len(facts)
            return says, draft != known, likeness[draft]

        return max(to_the_point, key=rank, default=""), faults  # of equals, max takes the first

    def fault(self, question: str, reply: str, *, asks_facts: bool = False) -> str | None:
        """Return the first fault of a reply, or None; whether it is to the point is not a part of
        it. Where the question asks for what card or lore say, claims that both lack are faults, too.
        """
        if any(has_shared_run(reply, text) for text in self._spoken):
            return "copies an example of the card"
        if self._copies_card(reply):
            return "copies the card"
        if self._breaks.is_broken_by(reply, EXAMPLE_USER):
            return "breaks character"
        if not self._is_human and claims_to_be_human(reply):
            return "claims to be human"
        if ASSISTANT.search(reply):
            return "speaks as an assistant"
        if _goes_round(reply):
            return "goes round in circles"
        fault = self._filter.fault(reply, question, None, asks_facts=asks_facts)
        if fault:
            return fault
        if has_shared_run(reply, question, ECHOED_WORDS) or _echoes(reply, question):
            return "repeats the question"
        if _speaks_as_asker(reply, question):
            return "speaks as who asks"
        return "too long" if len(reply.split()) > TOO_LONG_WORDS else None

    def _copies_card(self, reply: str) -> bool:
        if any(has_shared_run(reply, text) for text in self._said_of_it):
            return True
        words = _spaced(reply)
        return any(sentence in words for sentence in self._whole_sentences)


def _card_sentences(persona: Persona, closing: str, notes: str) -> frozenset[str]:
    """Return the sentences of a card that no reply may have whole, each as `_spaced` writes it: not
    what the character says more than once, nor what the prose quotes of it, nor "I am" and its name.
    """
    prose = _unquoted_sentences(f"{system_text(persona, EXAMPLE_USER)}\n{notes}")
    said = split_sentences("\n".join(spoken_lines(persona)))
    heard = [turn.text for turn in example_turns(persona) if not turn.by_persona]
    sentences = _long_enough([*prose, *said, *split_sentences("\n".join(heard))])
    instructions = _unquoted_sentences(closing)
    sentences |= _long_enough(instructions, fewest=COPIED_INSTRUCTION_WORDS)
    times = Counter(map(_spaced, said))
    allowed = {sentence for sentence, count in times.items() if count > 1}
    allowed.add(_spaced(f"I am {persona.name}"))
    return frozenset(sentences - allowed)


def _unquoted_sentences(text: str) -> list[str]:
    return [sentence for sentence in split_sentences(text) if QUOTE_MARKS.isdisjoint(sentence)]


def _long_enough(sentences: Iterable[str], fewest: int = COPIED_SENTENCE_WORDS) -> set[str]:
    """Return the sentences of so many words; in scripts without spaces, of twice as many characters."""
    long_enough: set[str] = set()
    for sentence in sentences:
        needed = fewest * 2 if is_unsegmented([sentence]) else fewest
        if len(split_words(sentence)) >= needed:
            long_enough.add(_spaced(sentence))
    return long_enough


def _spaced(text: str) -> str:
    """Return a text's words with spaces around each, so that no part of a word is found in them."""
    return f" {' '.join(split_words(text))} "


def _echoes(reply: str, question: str) -> bool:
    """Report whether a reply has hardly a word that is not its question's."""
    words = content_words(reply)
    shared = words & content_words(question)
    return len(shared) >= MIN_ECHOED_WORDS and len(shared) >= ECHOED_SHARE * len(words)


def _speaks_as_asker(reply: str, question: str) -> bool:
    """Report whether a reply tells of itself what the member has told, who asked it nothing."""
    if not OWN_CLAUSE.search(question) or YOU.search(question):
        return False
    told = content_words(question)
    for clause in CLAUSE_END.split(reply):
        words = content_words(clause)
        fewest = max(MIN_ECHOED_WORDS, TAKEN_OVER_SHARE * len(words))
        if OWN_CLAUSE.match(clause.strip()) and len(words & told) >= fewest:
            return True
    return False


def _goes_round(reply: str) -> bool:
    """Report whether a reply has the same pairs of words again and again."""
    words = split_words(reply)
    if len(words) < MIN_CIRCLING_WORDS:
        return False
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) < MIN_DISTINCT_PAIR_SHARE * len(pairs)
