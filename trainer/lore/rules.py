"""Sentences of lore, sorted by rules: whom they tell of, what kind of thing they say, and how the persona would say it.

The rules know English. A sentence that they cannot turn without doubt is left as it stands; none is turned by guessing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from personas.contracts import Persona
from personas.lore import Passage
from personas.lore.passages import sentences

Kind = Literal["style", "relation", "trait", "fact"]
KINDS: tuple[Kind, ...] = ("style", "relation", "trait", "fact")

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
PLACED = re.compile(r"\b(?:the|at|in|on|from|upon|under|to) $", re.IGNORECASE)
"""What comes before the name of a place or a thing. People stand there too, seldom enough."""
NAME = re.compile(r"(?<![.!?:] )(?<!^)\b[A-Z][a-z]+(?: (?:of |the |van |de )?[A-Z][a-z]+){0,3}")
ANIMATE = re.compile(
    r"\b(goose|gull|cat|eel|captain|baker|diver|drummer|driver|inspector|clerk|postman|man|woman|boy|girl|child|mother|"
    r"father|husband|wife|brother|sister|uncle|aunt|son|daughter|cousin|niece|nephew|who)\b",
    re.IGNORECASE,
)
"""Of whom a sentence can be telling besides people with names."""
FIRST_NAME = re.compile(r"^[A-Z][a-z]+(?: [A-Z][a-z]+){1,3}\b")
ADVERBS = r"(?:(?:never|always|still|also|often|now|once|only|just|then|usually|sometimes|\w+ly) )?"
NOT_THING = r"(?:a|an|the|to|in|on|at|and|but|for|by|from|of|with|up|out)"
OWN: dict[str, tuple[tuple[str, str], ...]] = {
    "he": ((r"\bhimself\b", "myself"), (r"\bhis\b", "my"), (r"\bhim\b", "me"), (r"\bhe\b", "I")),
    "she": (
        (r"\bherself\b", "myself"),
        (rf"\bher(?= (?!{NOT_THING}\b)[a-z])", "my"),
        (r"\bher\b", "me"),
        (r"\bshe\b", "I"),
    ),
}
PRESENT = {"is": "am", "has": "have", "does": "do", "goes": "go", "isn't": "am not", "doesn't": "don't"}
UNCHANGED = frozenset("was this his its always sometimes perhaps as thus yes us".split())
OPENERS = r"(?:On|In|At|Every|Each|When|Since|Before|After|For|By|From|Once|Then)\b[^.;]{0,70}?,? "


@dataclass(frozen=True)
class Fact:
    """One sentence of lore. `spoken` is what the persona would say of itself, None where the rules cannot tell."""

    kind: Kind
    text: str
    spoken: str | None
    about_owner: bool
    names: tuple[str, ...]
    passage: Passage


@dataclass(frozen=True)
class Subject:
    """How lore refers to a persona: its names, longest first, and "he" or "she" ("" where that is not clear)."""

    names: tuple[str, ...]
    pronoun: str

    @property
    def pattern(self) -> str:
        """A regular expression for the persona as the subject of a sentence."""
        return "|".join([*map(re.escape, self.names), *([self.pronoun.capitalize()] if self.pronoun else [])])


def subject_of(persona: Persona, passages: list[Passage]) -> Subject:
    """Found in the persona's name, its id and its lore."""
    words = [word for word in persona.name.split() if word[:1].isupper() and word not in ("Sir", "Lady", "Miss", "Mr")]
    names = {persona.name, persona.name.removeprefix("Sir "), *words, persona.id.capitalize()}
    text = " ".join(passage.text for passage in passages if passage.owner == persona.id)
    he, she = (len(re.findall(rf"\b{pronoun}\b", text, re.IGNORECASE)) for pronoun in ("he", "she"))
    pronoun = "he" if he >= 1.5 * she and he else "she" if she >= 1.5 * he and she else ""
    return Subject(tuple(sorted(names, key=lambda name: (-len(name), name))), pronoun)


def facts_of(persona: Persona, passages: list[Passage]) -> list[Fact]:
    """A fact per sentence, in order."""
    subject, facts, before = subject_of(persona, passages), [], None
    for passage in passages:
        if before is None or (before.source, before.heading) != (passage.source, passage.heading):
            clear = not _names(passage.heading.rpartition(": ")[2]) or _tells_of(passage.heading, subject)
        before = passage
        for sentence in sentences(passage.text):
            named = re.match(rf"(?:{'|'.join(map(re.escape, subject.names))})\b", sentence) is not None
            facts.append(_fact(sentence, passage, subject, named or clear))
            # Whom the next "he" means: whoever was named last. Nobody but the persona is a safe guess.
            clear = named or (clear and not (people_in(sentence, subject) or ANIMATE.search(sentence)))
    return facts


def spoken_by(sentence: str, subject: Subject) -> str | None:
    """A sentence about the persona in the first person, or None.

    Only those are turned in which the persona is the subject, the verb's form is certain, and no second person of the
    same pronoun is in sight.
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
    after = _own_pronouns(verb["after"], subject)
    spoken = _own_pronouns(opening, subject) + f"I {verb['before']}{turned}{after}"
    return None if _tells_of(spoken, subject) or re.search(r"\bI \w+ me\b", spoken) else spoken


def _fact(sentence: str, passage: Passage, subject: Subject, clear: bool) -> Fact:
    names = _others(sentence, subject)
    about = _tells_of(sentence, subject) or (clear and _has_pronoun(sentence, subject))
    spoken = spoken_by(sentence, subject) if clear else None
    return Fact(_kind(sentence, names, about), sentence, spoken, about, names, passage)


def _others(sentence: str, subject: Subject) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in _names(sentence) if name not in subject.names))


def people_in(sentence: str, subject: Subject) -> list[str]:
    """Names that are not the persona's, and do not look like those of places, things or days."""
    first = FIRST_NAME.match(sentence)
    found = [first] if first else []
    found += [match for match in NAME.finditer(sentence) if not PLACED.search(sentence[: match.start()])]
    return [m[0] for m in found if m[0] not in subject.names and not CALENDAR.match(m[0])]


def _tells_of(text: str, subject: Subject) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", text) for name in subject.names)


def _has_pronoun(sentence: str, subject: Subject) -> bool:
    return bool(subject.pronoun) and re.search(rf"\b{subject.pronoun}\b", sentence, re.IGNORECASE) is not None


def _kind(sentence: str, names: tuple[str, ...], about: bool) -> Kind:
    if about and STYLE.search(sentence):
        return "style"
    if names and KINSHIP.search(sentence):
        return "relation"
    return "trait" if about and TRAIT.search(sentence) else "fact"


def _names(sentence: str) -> list[str]:
    first = FIRST_NAME.match(sentence)
    return ([first[0]] if first else []) + NAME.findall(sentence)


def _ambiguous(text: str, subject: Subject) -> bool:
    """Another name, and then a pronoun that might be that one's."""
    named = NAME.search(text)
    pronouns = {"he": r"\b(he|him|his)\b", "she": r"\b(she|her|hers)\b"}.get(subject.pronoun, "(?!)")
    return named is not None and re.search(pronouns, text[named.end() :], re.IGNORECASE) is not None


def _first_person(verb: str) -> str:
    if verb in PRESENT:
        return PRESENT[verb]
    if verb in UNCHANGED or not verb.endswith("s") or verb.endswith("ss"):
        return verb
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if re.search(r"(?:ss|sh|ch|x|zz|o)es$", verb):
        return verb[:-2]
    return verb[:-1]


def _own_pronouns(text: str, subject: Subject) -> str:
    for pattern, mine in OWN.get(subject.pronoun, ()):
        text = re.sub(pattern, mine, text)
    return re.sub(r"\bI (\w+)", lambda match: f"I {_first_person(match[1])}", text)
