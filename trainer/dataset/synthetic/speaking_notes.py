"""Notes in the first person on how a character talks, made from its card by rules: a part of the teacher's
prompt that no served prompt has. They speak to a character who never says "I".
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from personas.lore.index_terms import STOP_WORDS
from personas.lore.passages import Passage, split_sentences
from personas.prompt.macros import settle_macros
from personas.prompt.renderer import EXAMPLE_USER, closing_text, example_turns, fill_macros
from personas.schemas.chat import Persona
from trainer.dataset.minhash import split_words
from trainer.dataset.synthetic.lore_extraction import extract_facts
from trainer.dataset.synthetic.lore_subjects import find_language, find_subject
from trainer.dataset.synthetic.speaking_style import SpeakingStyle, measure_style

MAX_HABITS = 6
"""Sentences on habits of the card's, and of the lore's."""
MAX_CATCHWORDS = 6
MIN_REPLIES_WITH_CATCHWORD = 2
CATCHWORD_SHARE = 0.5
MIN_CATCHWORD_LETTERS = 3
LONG_SENTENCE_WORDS = 16
SHORT_SENTENCE_WORDS = 8
SECOND_PERSON = (
    (r"\b[Yy]ou['’]re\b", "I'm"),
    (r"\b[Yy]ou are\b", "I am"),
    (r"\b[Yy]ou were\b", "I was"),
    (r"\b[Yy]ou['’]ve\b", "I've"),
    (r"\byourself\b", "myself"),
    (r"\bYour\b", "My"),
    (r"\byour\b", "my"),
    (r"\byours\b", "mine"),
    (
        r"\b(to|for|with|at|about|of|from|by|on|tells?|asks?|gives?|makes?|lets?|calls?) you\b",
        r"\1 me",
    ),
    (r"\byou(?=[,.;:!?]|$)", "me"),
    (r"\b[Yy]ou\b", "I"),
)
"""What cards say to a model, in the words of the character."""
QUOTED = re.compile(r"([\"“][^\"”]*[\"”])")


def speaking_notes(persona: Persona, passages: Sequence[Passage]) -> str:
    """Return the notes, one to a line: what is asked is answered, habits, words of the character's own,
    and what it never says. In English; beyond it, only the card's own words are used.
    """
    own = [passage for passage in passages if passage.owner == persona.id]
    if find_language(persona, own) != "en":
        return ""
    style = measure_style(persona)
    lines = [
        f"You are {persona.name}. You answer what was just said to you, in one to three sentences, in "
        "your own words and never with an old answer of yours.",
    ]
    catchwords = find_catchwords(persona)
    if catchwords:
        lines.append(f"Words you like: {', '.join(catchwords)}.")
    lines += _style_notes(style)
    if style.says_i:
        lines = [to_first_person(line) or line for line in lines]
    lines[1:1] = _habits(persona, own, style)
    return "\n".join(lines)


def with_closing_instructions(persona: Persona, user: str, notes: str) -> tuple[Persona, str]:
    """Return a card without its closing instructions, and the notes with them: a small model repeats
    what it reads last, so they do not close a teacher's prompt.
    """
    closing = closing_text(persona, user)
    instructions = "\n".join(filter(None, (notes, closing)))
    return replace(persona, post_history_instructions=""), instructions


def find_catchwords(persona: Persona) -> list[str]:
    """Return the words and pairs of words that half of the card's example replies have, commonest
    first.
    """
    counts: Counter[str] = Counter()
    replies = spoken_lines(persona)
    for reply in replies:
        words = split_words(reply)
        pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
        counts.update({word for word in words if _can_be_catchword(word, persona)})
        counts.update({pair for pair in pairs if _can_be_catchword(pair, persona)})
    fewest = max(MIN_REPLIES_WITH_CATCHWORD, math.ceil(CATCHWORD_SHARE * len(replies)))
    recurring = [word for word, count in counts.most_common() if count >= fewest]
    longest = [word for word in recurring if not _is_part_of_another(word, recurring, counts)]
    return longest[:MAX_CATCHWORDS]


def to_first_person(sentence: str) -> str | None:
    """Return a sentence of a card that speaks to the model in the character's own words; None where
    it speaks to nobody.
    """
    if not re.search(r"\b[Yy]ou(?:r|rs|rself)?\b|\b[Yy]ou['’]", sentence):
        return None
    parts = QUOTED.split(sentence)  # every second one is quoted, and stays
    for place in range(0, len(parts), 2):
        for pattern, word in SECOND_PERSON:
            parts[place] = re.sub(pattern, word, parts[place])
    spoken = "".join(parts)
    return spoken[:1].upper() + spoken[1:]


def _habits(persona: Persona, own: list[Passage], style: SpeakingStyle) -> list[str]:
    """Return what card and lore say about the character's nature and way to talk."""
    subject = find_subject(persona, own)
    habits: list[str] = []
    for text in (persona.speech, persona.personality):
        for sentence in _whole_sentences(fill_macros(text, persona, EXAMPLE_USER)):
            spoken = to_first_person(sentence) or subject.to_first_person(sentence, clear=True)
            if spoken and not style.says_i:
                habits.append(sentence)
            elif spoken:
                habits.append(spoken)
    for fact in extract_facts(persona, own):
        if fact.kind == "style" and fact.about_owner and fact.spoken:
            habits.append(fact.spoken)
    return list(dict.fromkeys(habits))[:MAX_HABITS]


def _whole_sentences(text: str) -> list[str]:
    """Split a text into sentences that begin with no small letter: 'in pieces with "..." between
    them' is one.
    """
    whole: list[str] = []
    for sentence in split_sentences(text):
        if whole and sentence[0].islower():
            whole[-1] += f" {sentence}"
        else:
            whole.append(sentence)
    return whole


def _style_notes(style: SpeakingStyle) -> list[str]:
    notes = []
    if style.sentence_words is not None:
        if style.sentence_words >= LONG_SENTENCE_WORDS:
            notes.append("Your sentences are long.")
        elif style.sentence_words <= SHORT_SENTENCE_WORDS:
            notes.append("Your sentences are short.")
    if style.contracted == 0 and style.says_i:
        notes.append('You do not shorten your words: you say "I am", never "I\'m".')
    elif style.contracted == 0:
        notes.append("You do not shorten your words.")
    if not style.says_i:
        notes.append('You never say "I", "me" or "my".')
    if style.exclaimed == 0:
        notes.append("You never exclaim.")
    if style.starred == 1:
        notes.append("You put what you do between *stars*.")
    notes.append("You never speak as an assistant, and you never offer to help with tasks.")
    return notes


def spoken_lines(persona: Persona) -> list[str]:
    """Return what the character says in its card: its examples and greetings."""
    lines = [turn.text for turn in example_turns(persona) if turn.by_persona]
    for greeting in (persona.first_mes, *persona.alternate_greetings):
        lines.append(spoken_greeting(greeting, persona))
    return [line for line in lines if line]


def spoken_greeting(text: str, persona: Persona, guest: str = EXAMPLE_USER) -> str:
    """Return a greeting of a card as it is said to a guest; empty if nothing is."""
    settled = settle_macros(text, persona.name).text
    return fill_macros(settled, persona, guest).strip()


def _can_be_catchword(text: str, persona: Persona) -> bool:
    words = text.split()
    own_name = set(split_words(persona.name))
    if any(word in own_name or len(word) < MIN_CATCHWORD_LETTERS for word in words):
        return False
    return any(word not in STOP_WORDS for word in words)


def _is_part_of_another(word: str, others: Iterable[str], counts: Counter[str]) -> bool:
    for other in others:
        if word != other and word in other.split() and counts[other] >= counts[word]:
            return True
    return False
