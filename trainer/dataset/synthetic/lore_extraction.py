"""Extracts facts, a card addition and question-answer pairs from lore by rules, without a model."""

import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import MaterialError
from personas.home.atomic_files import fsync_path, replace_durably
from personas.home.toml_text import toml_value
from personas.lore.passages import WORLD, Passage, split_sentences
from personas.schemas.chat import Persona
from trainer.dataset.synthetic.first_person import (
    FACT_KINDS,
    FactKind,
    LoreSubject,
    SubstitutedSubject,
    find_subject,
)

MAX_ANSWER_SENTENCES = 2  # sentences per answer of a dialogue
CARD_FIELDS = {
    "style": "speech",
    "trait": "personality",
    "relation": "relations",
    "fact": "description",
}
"""Card field for each kind of sentence."""
SECTION_QUESTIONS = (
    (r"^(?:his|her|their) (?P<rest>.+)$", "Tell me about your {rest}."),
    (r"^how (?P<rest>.+)$", "Tell me how {rest}."),
    (r"^who (?P<rest>.+)$", "Who {rest}?"),
    (r"^what (?P<rest>.+)$", "What {rest}?"),
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
    before = None
    for passage in passages:
        if before is None or (before.source, before.heading) != (passage.source, passage.heading):
            clear = not subject.names_in(
                passage.heading.rpartition(": ")[2]
            ) or subject.is_named_in(passage.heading)
        before = passage
        for sentence in split_sentences(passage.text):
            facts.append(_fact(sentence, passage, subject, subject.opens(sentence) or clear))
            clear = subject.stays_clear(sentence, clear)
    return facts


def _fact(sentence: str, passage: Passage, subject: LoreSubject, clear: bool) -> LoreFact:
    names = tuple(
        dict.fromkeys(name for name in subject.names_in(sentence) if name not in subject.names)
    )
    about = subject.is_named_in(sentence) or (clear and subject.has_pronoun(sentence))
    spoken = subject.to_first_person(sentence, clear=clear)
    return LoreFact(
        subject.fact_kind(sentence, names, about),
        sentence,
        spoken,
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

    def row(self, persona: Persona) -> dict[str, Any]:
        """Return the JSON object of an output line."""
        sources = [
            {"source": p.source, "heading": p.heading, "text": p.text} for p in self.passages
        ]
        return {
            "messages": list(self.messages),
            "persona": persona.id,
            "kind": self.kind,
            "provenance": sources,
        }


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
    own = [passage for passage in passages if passage.owner != WORLD]
    if not own:
        raise MaterialError(
            f"There is no lore of {persona.name}.", "Write some, or name a folder with --lore."
        )
    facts = extract_facts(persona, own)
    subject = find_subject(persona, own)
    left_out = Counter[str]()
    sections = itertools.groupby(
        facts, key=lambda fact: (fact.passage.source, fact.passage.heading)
    )
    pairs = [
        pair for _, section in sections for pair in _section_pairs(list(section), subject, left_out)
    ]
    pairs += _relation_pairs(facts, subject)
    if shared := sum(
        len(split_sentences(passage.text)) for passage in passages if passage.owner == WORLD
    ):
        left_out["about the world: chat retrieves it by itself"] = shared
    return LoreExtraction(tuple(facts), tuple(pairs), dict(left_out))


def write_extraction(persona: Persona, found: LoreExtraction, out: Path) -> dict[str, int]:
    """Write `card_addition.toml`, `facts.jsonl` and `<persona>_lore.jsonl`; return the counts."""
    files = {
        "card_addition.toml": _card_addition(persona, found.facts),
        "facts.jsonl": _lines(_fact_row(fact) for fact in found.facts),
        f"{persona.id}_lore.jsonl": _lines(pair.row(persona) for pair in found.pairs),
    }
    write_files_atomically(out, files)
    kinds = Counter(fact.kind for fact in found.facts)
    pairs = Counter(pair.kind for pair in found.pairs)
    return {**{f"{kind}s" if kind != "style" else kind: kinds[kind] for kind in FACT_KINDS},
            "questions": pairs["question"], "dialogues": pairs["dialogue"]}  # fmt: skip


def write_file_atomically(path: Path, text: str) -> None:
    """Write a file completely or not at all. Raises `OSError`."""
    write_files_atomically(path.parent, {path.name: text})


def write_files_atomically(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files completely or none. Raises `OSError`."""
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f"{name}.part" for name in files}
    try:
        for name, path in partial.items():
            path.write_text(files[name], encoding="utf-8")
            fsync_path(path)
        for name, path in partial.items():
            replace_durably(path, folder / name)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _section_pairs(
    section: list[LoreFact], subject: LoreSubject, left_out: Counter[str]
) -> Iterator[LorePair]:
    """Turn a section into one answer and, if it is long enough, a conversation that asks for the
    rest.
    """
    spoken = [
        (text, fact.passage)
        for fact in section
        if (text := _first_person_text(fact, subject)) is not None
    ]
    if len(spoken) < len(section):
        left_out[_unspoken_reason(subject)] += len(section) - len(spoken)
    if not spoken:
        return
    question = question_about(section[0].passage.heading, subject)
    passages = tuple(dict.fromkeys(passage for _, passage in spoken))
    sentences = [text for text, _ in spoken]
    size = MAX_ANSWER_SENTENCES
    yield LorePair("question", _make_messages([(question, _join(sentences[: 2 * size]))]), passages)
    if len(sentences) > size:
        answers = [
            _join(sentences[start : start + size]) for start in range(0, len(sentences), size)
        ]
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
    spoken = [
        (fact, _first_person_text(fact, subject)) for fact in facts if fact.kind == "relation"
    ]
    relations = [(fact, text) for fact, text in spoken if text]
    for name in dict.fromkeys(name for fact, _ in relations for name in fact.names):
        relevant = [(fact, text) for fact, text in relations if name in fact.names]
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
        if match := re.match(pattern, name, re.IGNORECASE):
            return question.format(rest=match["rest"])
    if re.fullmatch(r"(?:[A-Z][a-z]+ ?){2,4}", name) and not name.startswith(("The ", "A ", "An ")):
        return f"Who is {name}?"
    own = "|".join(map(re.escape, subject.names))
    shown = re.sub(
        rf"\b(?:{own})['’]s\b", "your", re.sub(r"^(?:The|A|An)\b", lambda m: m[0].lower(), name)
    )
    within = (
        f" ({title})"
        if name == section and title and len(name.split()) == 1 and not re.search(own, title)
        else ""
    )
    return f"What can you tell me about {shown}{within}?"


def _first_person_text(fact: LoreFact, subject: LoreSubject) -> str | None:
    return fact.spoken or (None if subject.is_referred_to(fact.text) else fact.text)


def _make_messages(turns: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    return tuple(
        message
        for prompt, reply in turns
        for message in (
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": reply},
        )
    )


def _fact_row(fact: LoreFact) -> dict[str, Any]:
    where = {
        "source": fact.passage.source,
        "heading": fact.passage.heading,
        "text": fact.passage.text,
    }
    return {
        "kind": fact.kind,
        "text": fact.text,
        "spoken": fact.spoken,
        "names": list(fact.names),
        "provenance": where,
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _card_addition(persona: Persona, facts: Sequence[LoreFact]) -> str:
    """Render TOML to copy from: sentences about the persona by card field, with sources in
    comments.
    """
    lines = [(
        f"# Proposed for the card of {persona.name}, from its lore. Copy what belongs into every "
        "prompt."
    ),
             f"id = {toml_value(persona.id)}"]  # fmt: skip
    for kind in FACT_KINDS:
        chosen = [
            fact for fact in facts if fact.kind == kind and (fact.about_owner or kind == "relation")
        ]
        lines += ["", f"{CARD_FIELDS[kind]} = ["]
        lines += [
            f"    {toml_value(fact.text)},  # {fact.passage.source}, {fact.passage.heading}"
            for fact in chosen
        ]
        lines.append("]")
    return "\n".join(lines) + "\n"
