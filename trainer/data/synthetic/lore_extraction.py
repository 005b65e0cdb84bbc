"""Extracts facts, a card addition and question-answer pairs from lore by rules, without a model."""

import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from personas.errors import MaterialError
from personas.home.atomic_files import fsync_path
from personas.lore.passages import WORLD, Passage, split_sentences
from personas.schemas.chat import Persona

FactKind = Literal["style", "relation", "trait", "fact"]
FACT_KINDS: tuple[FactKind, ...] = ("style", "relation", "trait", "fact")
STYLE = re.compile(
    r"\b(speaks?|says?|said|voice|talks?|calls (?:people|everyone|him|her|them)|accent|whispers?|shouts?|hums?|sings?|"
    r"swears?|quotes?|words? (?:is|are)|sentences?|exclaims?|mutters?)\b",
    re.IGNORECASE,
)
TRAIT = re.compile(
    r"\b(likes?|loves?|enjoys?|prefers?|dislikes?|hates?|detests?|fears?|afraid|scared|cannot|can't|never|always|proud|"
    r"shy|patient|gentle|stubborn|wears?|believes?|refuses?|admires?|longs for|favou?rite|habit|sleeps?|eats?)\b",
    re.IGNORECASE,
)
KINSHIP = re.compile(
    r"\b(sisters?|brothers?|mother|father|husband|wife|widow|aunt|uncle|nieces?|nephews?|cousins?|daughters?|sons?|"
    r"grandmother|grandfather|parents?|twins?|family|friends?|neighbours?|neighbors?|rival|feud|enemy|understudy|"
    r"colleagues?|driver|prompter|caretaker|apprentice|employer|landlady|taught|married|visits?|sends?|brings?|"
    r"borrowed|quarrelled|quarreled)\b",
    re.IGNORECASE,
)
CALENDAR = re.compile(
    "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|January|February|March|April|May|June|July|August|"
    "September|October|November|December"
)
PLACE_PREPOSITION = re.compile(r"\b(?:the|at|in|on|from|upon|under|to) $", re.IGNORECASE)
"""Words before the name of a place or a thing, and rarely of a person."""
NAME = re.compile(r"(?<![.!?:] )(?<!^)\b[A-Z][a-z]+(?: (?:of |the |van |de )?[A-Z][a-z]+){0,3}")
ANIMATE = re.compile(
    r"\b(goose|gull|cat|eel|captain|baker|diver|drummer|driver|inspector|clerk|postman|man|woman|boy|girl|child|mother|"
    r"father|husband|wife|brother|sister|uncle|aunt|son|daughter|cousin|niece|nephew|who)\b",
    re.IGNORECASE,
)
"""Subjects that a sentence can describe besides named people."""
FIRST_NAME = re.compile(r"^[A-Z][a-z]+(?: [A-Z][a-z]+){1,3}\b")
ADVERBS = r"(?:(?:never|always|still|also|often|now|once|only|just|then|usually|sometimes|\w+ly) )?"
NOT_THING = r"(?:a|an|the|to|in|on|at|and|but|for|by|from|of|with|up|out)"
FIRST_PERSON_PRONOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "he": ((r"\bhimself\b", "myself"), (r"\bhis\b", "my"), (r"\bhim\b", "me"), (r"\bhe\b", "I")),
    "she": (
        (r"\bherself\b", "myself"),
        (rf"\bher(?= (?!{NOT_THING}\b)[a-z])", "my"),
        (r"\bher\b", "me"),
        (r"\bshe\b", "I"),
    ),
}
FIRST_PERSON_VERBS = {"is": "am", "has": "have", "does": "do", "goes": "go", "isn't": "am not", "doesn't": "don't"}
UNINFLECTED_WORDS = frozenset("was this his its always sometimes perhaps as thus yes us".split())
OPENERS = r"(?:On|In|At|Every|Each|When|Since|Before|After|For|By|From|Once|Then)\b[^.;]{0,70}?,? "
MAX_ANSWER_SENTENCES = 2  # sentences per answer of a dialogue
FOLLOW_UP_PROMPTS = ("Go on.", "And then?", "What else?", "Tell me more.")
CARD_FIELDS = {"style": "speech", "trait": "personality", "relation": "relations", "fact": "description"}
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


@dataclass(frozen=True)
class LoreSubject:
    """References to a persona in lore: its names, longest first, and "he" or "she" ("" if unclear)."""

    names: tuple[str, ...]
    pronoun: str

    @property
    def pattern(self) -> str:
        """A regular expression for the persona as the subject of a sentence."""
        return "|".join([*map(re.escape, self.names), *([self.pronoun.capitalize()] if self.pronoun else [])])


def find_subject(persona: Persona, passages: list[Passage]) -> LoreSubject:
    """Derive the references from the persona's name, its id and its lore."""
    words = [word for word in persona.name.split() if word[:1].isupper() and word not in ("Sir", "Lady", "Miss", "Mr")]
    names = {persona.name, persona.name.removeprefix("Sir "), *words, persona.id.capitalize()}
    text = " ".join(passage.text for passage in passages if passage.owner == persona.id)
    he, she = (len(re.findall(rf"\b{pronoun}\b", text, re.IGNORECASE)) for pronoun in ("he", "she"))
    pronoun = "he" if he >= 1.5 * she and he else "she" if she >= 1.5 * he and she else ""
    return LoreSubject(tuple(sorted(names, key=lambda name: (-len(name), name))), pronoun)


def extract_facts(persona: Persona, passages: list[Passage]) -> list[LoreFact]:
    """Return a fact per sentence, in order."""
    subject, facts, before = find_subject(persona, passages), [], None
    for passage in passages:
        if before is None or (before.source, before.heading) != (passage.source, passage.heading):
            clear = not _names(passage.heading.rpartition(": ")[2]) or _mentions_subject(passage.heading, subject)
        before = passage
        for sentence in split_sentences(passage.text):
            named = re.match(rf"(?:{'|'.join(map(re.escape, subject.names))})\b", sentence) is not None
            facts.append(_fact(sentence, passage, subject, named or clear))
            # The next "he" means whoever was named last; only the persona is a safe guess.
            clear = named or (clear and not (find_people(sentence, subject) or ANIMATE.search(sentence)))
    return facts


def to_first_person(sentence: str, subject: LoreSubject) -> str | None:
    """Convert a sentence about the persona to the first person, or return None.

    Only converts sentences whose subject is the persona, whose verb form is certain, and which mention no other person
    with the same pronoun.
    """
    match = re.match(rf"^(?P<open>{OPENERS})?(?P<who>{subject.pattern}|{subject.pronoun or '(?!)'}) ", sentence)
    if not match or '"' in sentence:
        return None
    opening, rest = match["open"] or "", sentence[match.end() :]
    verb = re.match(rf"(?P<before>{ADVERBS})(?P<verb>[\w']+)(?P<after>.*)$", rest, re.DOTALL)
    if verb is None or _ambiguous(opening + rest, subject):
        return None
    turned = _first_person(verb["verb"])
    if turned != verb["verb"] and re.search(r"(?:,|\band\b|\bbut\b|\bor\b) [a-z]+s\b", verb["after"]):
        return None  # "lights the boiler and writes down": is a second word with -s a verb or a thing?
    after = _replace_pronouns(verb["after"], subject)
    spoken = _replace_pronouns(opening, subject) + f"I {verb['before']}{turned}{after}"
    return None if _mentions_subject(spoken, subject) or re.search(r"\bI \w+ me\b", spoken) else spoken


def _fact(sentence: str, passage: Passage, subject: LoreSubject, clear: bool) -> LoreFact:
    names = tuple(dict.fromkeys(name for name in _names(sentence) if name not in subject.names))
    has_pronoun = bool(subject.pronoun and re.search(rf"\b{subject.pronoun}\b", sentence, re.IGNORECASE))
    about = _mentions_subject(sentence, subject) or (clear and has_pronoun)
    spoken = to_first_person(sentence, subject) if clear else None
    return LoreFact(_kind(sentence, names, about), sentence, spoken, about, names, passage)


def find_people(sentence: str, subject: LoreSubject) -> list[str]:
    """Find names that are neither the persona's nor likely places, things or days."""
    first = FIRST_NAME.match(sentence)
    found = [first] if first else []
    found += [match for match in NAME.finditer(sentence) if not PLACE_PREPOSITION.search(sentence[: match.start()])]
    return [m[0] for m in found if m[0] not in subject.names and not CALENDAR.match(m[0])]


def _mentions_subject(text: str, subject: LoreSubject) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", text) for name in subject.names)


def _kind(sentence: str, names: tuple[str, ...], about: bool) -> FactKind:
    if about and STYLE.search(sentence):
        return "style"
    if names and KINSHIP.search(sentence):
        return "relation"
    return "trait" if about and TRAIT.search(sentence) else "fact"


def _names(sentence: str) -> list[str]:
    first = FIRST_NAME.match(sentence)
    return ([first[0]] if first else []) + NAME.findall(sentence)


def _ambiguous(text: str, subject: LoreSubject) -> bool:
    """Report another name followed by a pronoun that might refer to it."""
    named = NAME.search(text)
    pronouns = {"he": r"\b(he|him|his)\b", "she": r"\b(she|her|hers)\b"}.get(subject.pronoun, "(?!)")
    return named is not None and re.search(pronouns, text[named.end() :], re.IGNORECASE) is not None


def _first_person(verb: str) -> str:
    if verb in FIRST_PERSON_VERBS:
        return FIRST_PERSON_VERBS[verb]
    if verb in UNINFLECTED_WORDS or not verb.endswith("s") or verb.endswith("ss"):
        return verb
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if re.search(r"(?:ss|sh|ch|x|zz|o)es$", verb):
        return verb[:-2]
    return verb[:-1]


def _replace_pronouns(text: str, subject: LoreSubject) -> str:
    for pattern, mine in FIRST_PERSON_PRONOUNS.get(subject.pronoun, ()):
        text = re.sub(pattern, mine, text)
    return re.sub(r"\bI (\w+)", lambda match: f"I {_first_person(match[1])}", text)


@dataclass(frozen=True)
class LorePair:
    """A training conversation. `kind` is `question` for one answer, `dialogue` for several."""

    kind: str
    messages: tuple[dict[str, str], ...]
    passages: tuple[Passage, ...]

    def row(self, persona: Persona) -> dict[str, Any]:
        """Return the JSON object of an output line."""
        sources = [{"source": p.source, "heading": p.heading, "text": p.text} for p in self.passages]
        return {"messages": list(self.messages), "persona": persona.id, "kind": self.kind, "provenance": sources}


@dataclass(frozen=True)
class LoreExtraction:
    """The results of an extraction. `left_out` counts sentences that no answer uses, by reason."""

    facts: tuple[LoreFact, ...]
    pairs: tuple[LorePair, ...]
    left_out: dict[str, int]


def extract_lore(persona: Persona, passages: Sequence[Passage]) -> LoreExtraction:
    """Extract facts, traits, relations, style and pairs from the persona's lore; without it raise `MaterialError`."""
    own = [passage for passage in passages if passage.owner != WORLD]
    if not own:
        raise MaterialError(f"There is no lore of {persona.name}.", "Write some, or name a folder with --lore.")
    facts, subject, left_out = extract_facts(persona, own), find_subject(persona, own), Counter[str]()
    sections = itertools.groupby(facts, key=lambda fact: (fact.passage.source, fact.passage.heading))
    pairs = [pair for _, section in sections for pair in _section_pairs(list(section), subject, left_out)]
    pairs += _relation_pairs(facts, subject)
    if shared := sum(len(split_sentences(passage.text)) for passage in passages if passage.owner == WORLD):
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
            path.replace(folder / name)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _section_pairs(section: list[LoreFact], subject: LoreSubject, left_out: Counter[str]) -> Iterator[LorePair]:
    """Turn a section into one answer and, if it is long enough, a conversation that asks for the rest."""
    spoken = [(text, fact.passage) for fact in section if (text := _first_person_text(fact, subject)) is not None]
    if len(spoken) < len(section):
        left_out["about the persona, without a certain form in its own words"] += len(section) - len(spoken)
    if not spoken:
        return
    question = question_about(section[0].passage.heading, subject)
    passages = tuple(dict.fromkeys(passage for _, passage in spoken))
    sentences, size = [text for text, _ in spoken], MAX_ANSWER_SENTENCES
    yield LorePair("question", _make_messages([(question, " ".join(sentences[: 2 * size]))]), passages)
    if len(sentences) > size:
        answers = [" ".join(sentences[start : start + size]) for start in range(0, len(sentences), size)]
        prompts = itertools.chain([question], itertools.cycle(FOLLOW_UP_PROMPTS))
        yield LorePair("dialogue", _make_messages(zip(prompts, answers, strict=False)), passages)


def _relation_pairs(facts: Iterable[LoreFact], subject: LoreSubject) -> Iterator[LorePair]:
    """Ask about each person in the persona's life; the answer is every sentence of one section that names them."""
    spoken = [(fact, _first_person_text(fact, subject)) for fact in facts if fact.kind == "relation"]
    relations = [(fact, text) for fact, text in spoken if text]
    for name in dict.fromkeys(name for fact, _ in relations for name in fact.names):
        relevant = [(fact, text) for fact, text in relations if name in fact.names]
        answer = " ".join(dict.fromkeys(text for _, text in relevant))
        passages = tuple(dict.fromkeys(fact.passage for fact, _ in relevant))
        yield LorePair("question", _make_messages([(f"Who is {name} to you?", answer)]), passages)


def question_about(heading: str, subject: LoreSubject) -> str:
    """Phrase a question that a section answers."""
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


def _first_person_text(fact: LoreFact, subject: LoreSubject) -> str | None:
    if fact.spoken:
        return fact.spoken
    reference = rf"\b(?:{subject.pattern}|his|her|him|{subject.pronoun or '(?!)'})\b"
    return None if re.search(reference, fact.text, re.IGNORECASE) else fact.text


def _make_messages(turns: Iterable[tuple[str, str]]) -> tuple[dict[str, str], ...]:
    return tuple(
        message
        for prompt, reply in turns
        for message in ({"role": "user", "content": prompt}, {"role": "assistant", "content": reply})
    )


def _fact_row(fact: LoreFact) -> dict[str, Any]:
    where = {"source": fact.passage.source, "heading": fact.passage.heading, "text": fact.passage.text}
    return {"kind": fact.kind, "text": fact.text, "spoken": fact.spoken, "names": list(fact.names), "provenance": where}


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _card_addition(persona: Persona, facts: Sequence[LoreFact]) -> str:
    """Render TOML to copy from: sentences about the persona by card field, with sources in comments."""
    lines = [f"# Proposed for the card of {persona.name}, from its lore. Copy what belongs into every prompt.",
             f"id = {_toml(persona.id)}"]  # fmt: skip
    for kind in FACT_KINDS:
        chosen = [fact for fact in facts if fact.kind == kind and (fact.about_owner or kind == "relation")]
        lines += ["", f"{CARD_FIELDS[kind]} = ["]
        lines += [f"    {_toml(fact.text)},  # {fact.passage.source}, {fact.passage.heading}" for fact in chosen]
        lines.append("]")
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """Encode a basic string; TOML's escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
