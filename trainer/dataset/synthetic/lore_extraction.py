"""Extracts facts, a card addition and question-answer pairs from lore by rules, without a model."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from personas.errors import MaterialError
from personas.lore.passages import Passage, is_lore_set, split_sentences
from personas.prompt.time_macros import fill_time_macros, time_phrase
from personas.schemas.chat import Persona
from trainer.dataset.synthetic.first_person import FactKind, LoreSubject, is_whole_name
from trainer.dataset.synthetic.lore_subjects import find_subject
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject

MAX_ANSWER_SENTENCES = 2  # sentences per answer of a dialogue
SECTION_QUESTIONS = (
    (r"^(?:his|her|their) (?P<rest>.+)$", "Tell me about your {rest}."),
    (r"^how (?P<rest>.+)$", "Tell me how {rest}."),
    (r"^who (?P<rest>.+)$", "Who {rest}?"),
    (r"^what (?P<rest>(?:is|are|was|were|do|does|did|has|had|happen\w*) .+)$", "What {rest}?"),
    (r"^what (?P<rest>.+)$", "Tell me what {rest}."),
    (r"^likes and (?P<rest>dislikes|fears)$", "What do you like, and what not?"),
    (r"^fears and (?P<rest>.+)$", "What are you afraid of, and what do you love?"),
)


@dataclass(frozen=True)
class LoreFact:
    """A sentence of lore. `spoken` is its first-person form, None if the rules cannot derive it."""

    kind: FactKind
    text: str
    spoken: str | None
    about_owner: bool
    names: tuple[str, ...]
    passage: Passage


def extract_facts(persona: Persona, passages: list[Passage]) -> list[LoreFact]:
    """Return a fact per sentence, in order."""
    subject = find_subject(persona, passages)
    facts = []
    section = None
    for passage in passages:
        if (passage.source, passage.heading) != section:
            section = (passage.source, passage.heading)
            clear = subject.starts_clear(passage.heading)
        text = fill_time_macros(passage.text, time_phrase)
        for sentence in split_sentences(text):
            facts.append(_fact(sentence, passage, subject, subject.opens(sentence) or clear))
            clear = subject.stays_clear(sentence, clear)
    return facts


def _fact(sentence: str, passage: Passage, subject: LoreSubject, clear: bool) -> LoreFact:
    others = [name for name in subject.names_in(sentence) if name not in subject.names]
    names = tuple(dict.fromkeys(others))
    about = subject.is_named_in(sentence) or (clear and subject.has_pronoun(sentence))
    return LoreFact(
        kind=subject.fact_kind(sentence, names, about),
        text=sentence,
        spoken=subject.to_first_person(sentence, clear=clear),
        about_owner=about,
        names=names,
        passage=passage,
    )


@dataclass(frozen=True)
class LorePair:
    """A training conversation. `kind` is `question` for one answer, `dialogue` for several."""

    kind: str
    messages: tuple[dict[str, str], ...]
    passages: tuple[Passage, ...]

    @property
    def question(self) -> str:
        """The first question."""
        return self.messages[0]["content"]

    @property
    def answer(self) -> str:
        """The answer to the first question."""
        return self.messages[1]["content"]

    def row(self, persona: Persona) -> dict[str, Any]:
        """Return the JSON object of an output line."""
        return {
            "messages": list(self.messages),
            "persona": persona.id,
            "kind": self.kind,
            "provenance": [passage_origin(passage) for passage in self.passages],
        }


def passage_origin(passage: Passage) -> dict[str, str]:
    """Return the JSON object that names a passage as the origin of a fact or pair."""
    return {"source": passage.source, "heading": passage.heading, "text": passage.text}


@dataclass(frozen=True)
class LoreExtraction:
    """The results of an extraction. `left_out` counts sentences that no answer uses, by reason."""

    facts: tuple[LoreFact, ...]
    pairs: tuple[LorePair, ...]
    left_out: dict[str, int]


def extract_lore(persona: Persona, passages: Sequence[Passage]) -> LoreExtraction:
    """Extract facts, traits, relations, style and pairs from the persona's lore; without it raise
    `MaterialError`.
    """
    own = [passage for passage in passages if not is_lore_set(passage.owner)]
    if not own:
        raise MaterialError(
            f"There is no lore of {persona.name}.", "Write some, or name a folder with --lore."
        )
    facts = extract_facts(persona, own)
    subject = find_subject(persona, own)
    left_out = Counter[str]()
    pairs: list[LorePair] = []
    for _, section in itertools.groupby(facts, key=_section_key):
        pairs += _section_pairs(list(section), subject, left_out)
    pairs += _relation_pairs(facts, subject)
    world = [passage for passage in passages if is_lore_set(passage.owner)]
    world_sentences = sum(len(split_sentences(passage.text)) for passage in world)
    if world_sentences:
        left_out["about the world: chat retrieves it by itself"] = world_sentences
    return LoreExtraction(tuple(facts), tuple(pairs), dict(left_out))


def _section_key(fact: LoreFact) -> tuple[str, str]:
    return fact.passage.source, fact.passage.heading


def _section_pairs(
    section: list[LoreFact], subject: LoreSubject, left_out: Counter[str]
) -> Iterator[LorePair]:
    """Turn a section into one answer and, if it is long enough, a conversation that asks for the
    rest.
    """
    sentences: list[str] = []
    sources: dict[Passage, None] = {}
    for fact in section:
        text = _first_person_text(fact, subject)
        if text is not None:
            sentences.append(text)
            sources[fact.passage] = None
    if len(sentences) < len(section):
        left_out[_unspoken_reason(subject)] += len(section) - len(sentences)
    if not sentences:
        return
    passages = tuple(sources)
    question = question_about(section[0].passage.heading, subject)
    size = MAX_ANSWER_SENTENCES
    yield LorePair("question", _make_messages([(question, _join(sentences[: 2 * size]))]), passages)
    if len(sentences) > size:
        starts = range(0, len(sentences), size)
        answers = [_join(sentences[start : start + size]) for start in starts]
        prompts = itertools.chain([question], itertools.cycle(subject.follow_ups))
        yield LorePair("dialogue", _make_messages(zip(prompts, answers, strict=False)), passages)


def _unspoken_reason(subject: LoreSubject) -> str:
    if isinstance(subject, SubstitutedSubject) and not subject.rules.self:
        return (
            f"in {subject.rules.name}, for which there are no rules (data/languages): listed as "
            "facts only"
        )
    return "about the persona, without a certain form in its own words"


def _join(sentences: Iterable[str]) -> str:
    """Join sentences, with spaces but after the full stops of scripts without spaces."""
    return re.sub(r"(?<=[。！？」』]) ", "", " ".join(sentences))


def _relation_pairs(facts: Iterable[LoreFact], subject: LoreSubject) -> Iterator[LorePair]:
    """Ask about each person in the persona's life; the answer is every sentence of one section that
    names them.
    """
    by_name: dict[str, list[tuple[LoreFact, str]]] = {}
    for fact in facts:
        text = _first_person_text(fact, subject) if fact.kind == "relation" else None
        if text:
            for name in filter(is_whole_name, fact.names):
                by_name.setdefault(name, []).append((fact, text))
    for name, relevant in by_name.items():
        answer = _join(dict.fromkeys(text for _, text in relevant))
        passages = tuple(dict.fromkeys(fact.passage for fact, _ in relevant))
        yield LorePair("question", _make_messages([(subject.who_is(name), answer)]), passages)


def question_about(heading: str, subject: LoreSubject) -> str:
    """Phrase a question that a section answers."""
    title, _, section = heading.rpartition(": ")
    name = section or title
    if isinstance(subject, SubstitutedSubject):
        return subject.question_about(name)
    if title and re.match(r"(?:On|In|By|At|Across|From|To|With)\b", name):
        name = title  # "On foot" is no thing to ask about
    for pattern, question in SECTION_QUESTIONS:
        match = re.match(pattern, name, re.IGNORECASE)
        if match:
            return question.format(rest=match["rest"])
    if re.fullmatch(r"(?:[A-Z][a-z]+ ?){2,4}", name) and not name.startswith(("The ", "A ", "An ")):
        return f"Who is {name}?"
    own = "|".join(map(re.escape, subject.names))
    shown = re.sub(r"^(?:The|A|An)\b", lambda article: article[0].lower(), name)
    shown = re.sub(rf"\b(?:(?:Mrs?|Ms|Dr)\.? )?(?:{own})['’]s\b", "your", shown)
    within = ""
    is_single_word = len(name.split()) == 1
    if name == section and title and is_single_word and not re.search(own, title):
        # A single word, such as "Ned", says too little without its title.
        within = f" ({title})"
    return f"What can you tell me about {shown}{within}?"


def _first_person_text(fact: LoreFact, subject: LoreSubject) -> str | None:
    """Return a sentence as the persona says it; None if it is about the persona in a form that the
    rules cannot turn.
    """
    if fact.spoken:
        return fact.spoken
    if not subject.says_i:
        return fact.text
    return None if subject.is_referred_to(fact.text) else fact.text


def _make_messages(turns: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    messages = []
    for prompt, reply in turns:
        messages.append({"role": "user", "content": prompt})
        messages.append({"role": "assistant", "content": reply})
    return tuple(messages)
