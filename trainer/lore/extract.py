"""A persona's lore made into a proposed addition to its card and into pairs to learn from, by rules, without a model.

Every line keeps the passage it comes from. Nothing is invented: an answer is the lore's own sentences, those about the
persona in its own voice where the rules of `trainer.lore.rules` are sure of it, and left out where they are not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from personas.contracts import Persona
from personas.errors import MaterialError
from personas.lore import WORLD, Passage
from personas.lore.passages import sentences
from trainer.lore.rules import KINDS, Fact, Subject, facts_of, subject_of

FEW_SENTENCES = 2
"""How many sentences an answer opens with, where a talk goes on to ask for the rest."""
MORE = ("Go on.", "And then?", "What else?", "Tell me more.")
FIELDS = {"style": "speech", "trait": "personality", "relation": "relations", "fact": "description"}
"""Where in a card each kind of sentence would go."""
SECTION_QUESTIONS = (
    (r"^(?:his|her|their) (?P<rest>.+)$", "Tell me about your {rest}."),
    (r"^how (?P<rest>.+)$", "Tell me how {rest}."),
    (r"^who (?P<rest>.+)$", "Who {rest}?"),
    (r"^what (?P<rest>.+)$", "What {rest}?"),
    (r"^likes and (?P<rest>dislikes|fears)$", "What do you like, and what not?"),
    (r"^fears and (?P<rest>.+)$", "What are you afraid of, and what do you love?"),
)


@dataclass(frozen=True)
class Pair:
    """A talk to learn from. `kind` is `question` for one answer, `dialogue` for several."""

    kind: str
    messages: tuple[dict[str, str], ...]
    passages: tuple[Passage, ...]

    def row(self, persona: Persona) -> dict[str, Any]:
        """As it is written, one JSON object a line."""
        sources = [{"source": p.source, "heading": p.heading, "text": p.text} for p in self.passages]
        return {"messages": list(self.messages), "persona": persona.id, "kind": self.kind, "provenance": sources}


@dataclass(frozen=True)
class Extracted:
    """What lore gives. `left_out` counts sentences that no answer uses, by reason."""

    facts: tuple[Fact, ...]
    pairs: tuple[Pair, ...]
    left_out: dict[str, int]


def extract(persona: Persona, passages: Sequence[Passage]) -> Extracted:
    """Facts, traits, relations and style of the persona's own lore, and pairs. Raises `MaterialError` for no lore."""
    own = [passage for passage in passages if passage.owner != WORLD]
    if not own:
        raise MaterialError(f"There is no lore of {persona.name}.", "Write some, or name a folder with --lore.")
    facts, subject, left_out = facts_of(persona, own), subject_of(persona, own), Counter[str]()
    pairs = [pair for section in _sections(facts) for pair in _pairs(section, subject, left_out)]
    pairs += _relation_pairs(facts, subject)
    if shared := sum(len(sentences(passage.text)) for passage in passages if passage.owner == WORLD):
        left_out["of the world, which is nobody's own: chat finds it by itself"] = shared
    return Extracted(tuple(facts), tuple(pairs), dict(left_out))


def write_extracted(persona: Persona, found: Extracted, out: Path) -> dict[str, int]:
    """Writes `card_addition.toml`, `facts.jsonl` and `<persona>_lore.jsonl`; returns how many of what there are."""
    files = {
        "card_addition.toml": _card_addition(persona, found.facts),
        "facts.jsonl": _lines(_fact_row(fact) for fact in found.facts),
        f"{persona.id}_lore.jsonl": _lines(pair.row(persona) for pair in found.pairs),
    }
    write_all_aside(out, files)
    kinds = Counter(fact.kind for fact in found.facts)
    pairs = Counter(pair.kind for pair in found.pairs)
    return {**{f"{kind}s" if kind != "style" else kind: kinds[kind] for kind in KINDS},
            "questions": pairs["question"], "dialogues": pairs["dialogue"]}  # fmt: skip


def write_aside(path: Path, text: str) -> None:
    """Write a file so that it is complete or as it was before. Raises `OSError`."""
    write_all_aside(path.parent, {path.name: text})


def write_all_aside(folder: Path, files: Mapping[str, str]) -> None:
    """Write files so that all are complete, or the folder as it was before. Raises `OSError`."""
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    asides = {name: folder / f"{name}.part" for name in files}
    try:
        for name, aside in asides.items():
            with aside.open("w", encoding="utf-8") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
        for name, aside in asides.items():
            aside.replace(folder / name)
    except BaseException:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _sections(facts: Iterable[Fact]) -> Iterator[list[Fact]]:
    """The facts of each section, however many passages it was split into."""
    for _, section in groupby(facts, key=lambda fact: (fact.passage.source, fact.passage.heading)):
        yield list(section)


def _pairs(section: list[Fact], subject: Subject, left_out: Counter[str]) -> Iterator[Pair]:
    """The section as one answer and, where it is long enough, as a talk that asks for the rest."""
    said = []
    for fact in section:
        words = _said(fact, subject)
        if words is None:
            left_out["about the persona, and not to be turned into its own words with certainty"] += 1
        else:
            said.append((words, fact.passage))
    if not said:
        return
    question = question_about(section[0].passage.heading, subject)
    passages = tuple(dict.fromkeys(passage for _, passage in said))
    whole = " ".join(words for words, _ in said[: 2 * FEW_SENTENCES])
    yield Pair("question", _talk([(question, whole)]), passages)
    if len(said) > FEW_SENTENCES:
        groups = [said[start : start + FEW_SENTENCES] for start in range(0, len(said), FEW_SENTENCES)]
        asked = [question, *(MORE[place % len(MORE)] for place in range(len(groups) - 1))]
        answers = [" ".join(words for words, _ in group) for group in groups]
        yield Pair("dialogue", _talk(zip(asked, answers, strict=True)), passages)


def _relation_pairs(facts: Iterable[Fact], subject: Subject) -> Iterator[Pair]:
    """Who somebody is to the persona: all sentences of one section that name them."""
    relations = [(fact, words) for fact in facts if fact.kind == "relation" if (words := _said(fact, subject))]
    for name in dict.fromkeys(name for fact, _ in relations for name in fact.names):
        telling = [(fact, words) for fact, words in relations if name in fact.names]
        answer = " ".join(dict.fromkeys(words for _, words in telling))
        passages = tuple(dict.fromkeys(fact.passage for fact, _ in telling))
        yield Pair("question", _talk([(f"Who is {name} to you?", answer)]), passages)


def question_about(heading: str, subject: Subject) -> str:
    """What somebody would ask who wants to hear a section."""
    title, _, section = heading.rpartition(": ")
    name = section or title
    if title and re.match(r"(?:On|In|By|At|Across|From|To|With)\b", name):
        name = title  # "On foot" is no thing to ask about
    for pattern, question in SECTION_QUESTIONS:
        if match := re.match(pattern, name, re.IGNORECASE):
            return question.format(rest=match["rest"])
    if re.fullmatch(r"(?:[A-Z][a-z]+ ?){2,4}", name) and not name.startswith(("The ", "A ", "An ")):
        return f"Who is {name}?"
    own = "|".join(map(re.escape, subject.names))
    shown = re.sub(rf"\b(?:{own})['’]s\b", "your", re.sub(r"^(?:The|A|An)\b", lambda m: m[0].lower(), name))
    within = f" ({title})" if name == section and title and len(name.split()) == 1 and not re.search(own, title) else ""
    return f"What can you tell me about {shown}{within}?"


def _said(fact: Fact, subject: Subject) -> str | None:
    if fact.spoken:
        return fact.spoken
    told = re.search(rf"\b(?:{subject.pattern}|his|her|him|{subject.pronoun or '(?!)'})\b", fact.text, re.IGNORECASE)
    return None if told else fact.text


def _talk(turns: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    return tuple(
        message
        for asked, answered in turns
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answered})
    )


def _fact_row(fact: Fact) -> dict[str, Any]:
    where = {"source": fact.passage.source, "heading": fact.passage.heading, "text": fact.passage.text}
    return {"kind": fact.kind, "text": fact.text, "spoken": fact.spoken, "names": list(fact.names), "provenance": where}


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _card_addition(persona: Persona, facts: Sequence[Fact]) -> str:
    """TOML to copy from: per field of the card, sentences about the persona, each with its source in a comment."""
    lines = [f"# Proposed for the card of {persona.name}, from its lore. Copy what belongs into every prompt.",
             f"id = {_toml(persona.id)}"]  # fmt: skip
    for kind in KINDS:
        chosen = [fact for fact in facts if fact.kind == kind and (fact.about_owner or kind == "relation")]
        lines += ["", f"{FIELDS[kind]} = ["]
        lines += [f"    {_toml(fact.text)},  # {fact.passage.source}, {fact.passage.heading}" for fact in chosen]
        lines.append("]")
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """A basic string; TOML's escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
