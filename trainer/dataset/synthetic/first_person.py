"""Finds who a sentence of lore is about, and rewrites it in the first person, by the rules of its
language.

English is inflected, so its rules are code. For languages whose verbs do not change with the
person, names and pronouns are replaced (data/languages).
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from personas.lore.index_terms import UNSEGMENTED_SCRIPTS
from personas.lore.passages import Passage
from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona
from trainer.dataset.quality_filters import detect_main_language

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
FIRST_PERSON_VERBS = {
    "is": "am",
    "has": "have",
    "does": "do",
    "goes": "go",
    "isn't": "am not",
    "doesn't": "don't",
}
UNINFLECTED_WORDS = frozenset("was this his its always sometimes perhaps as thus yes us".split())
FOLLOW_UPS = ("Go on.", "And then?", "What else?", "Tell me more.")
OPENERS = r"(?:On|In|At|Every|Each|When|Since|Before|After|For|By|From|Once|Then)\b[^.;]{0,70}?,? "

QUOTATION = re.compile('["“”«»„「『]')
LANGUAGES_FOLDER = Path(__file__).parents[3] / "data" / "languages"
UPPER = "".join(
    chr(code)
    for code in (*range(0x250), *range(0x370, 0x590), *range(0x1E00, 0x2000))
    if chr(code).isupper()
)
"""Capital letters of the Latin, Greek, Cyrillic and Armenian scripts, for a character class."""


@dataclass(frozen=True)
class LoreSubject:
    """References to a persona in English lore: its names, longest first, and "he" or "she" ("" if
    unclear).
    """

    names: tuple[str, ...]
    pronoun: str

    @property
    def pattern(self) -> str:
        """A regular expression for the persona as the subject of a sentence."""
        return "|".join(
            [*map(re.escape, self.names), *([self.pronoun.capitalize()] if self.pronoun else [])]
        )

    def is_named_in(self, text: str) -> bool:
        """Report whether a text contains one of the names."""
        return any(re.search(rf"\b{re.escape(name)}\b", text) for name in self.names)

    def opens(self, sentence: str) -> bool:
        """Report whether a sentence begins with a name."""
        return re.match(rf"(?:{'|'.join(map(re.escape, self.names))})\b", sentence) is not None

    def has_pronoun(self, sentence: str) -> bool:
        """Report whether a sentence contains the pronoun as a subject."""
        return bool(self.pronoun and re.search(rf"\b{self.pronoun}\b", sentence, re.IGNORECASE))

    def is_referred_to(self, text: str) -> bool:
        """Report whether a text may refer to the persona in any form."""
        reference = rf"\b(?:{self.pattern}|his|her|him|{self.pronoun or '(?!)'})\b"
        return re.search(reference, text, re.IGNORECASE) is not None

    def names_in(self, text: str) -> list[str]:
        """Find capitalised names, of the persona too."""
        first = FIRST_NAME.match(text)
        return ([first[0]] if first else []) + NAME.findall(text)

    def people_in(self, text: str) -> list[str]:
        """Find names that are neither the persona's nor likely places, things or days."""
        first = FIRST_NAME.match(text)
        found = [first] if first else []
        found += [
            match
            for match in NAME.finditer(text)
            if not PLACE_PREPOSITION.search(text[: match.start()])
        ]
        return [m[0] for m in found if m[0] not in self.names and not CALENDAR.match(m[0])]

    def is_beside_others(self, sentence: str) -> bool:
        """Report whether a sentence names somebody else whom the next pronoun may mean."""
        return bool(self.people_in(sentence) or ANIMATE.search(sentence))

    def fact_kind(self, sentence: str, names: Iterable[str], about: bool) -> FactKind:
        """Classify a sentence; `about`: it is about the persona."""
        if about and STYLE.search(sentence):
            return "style"
        if names and KINSHIP.search(sentence):
            return "relation"
        return "trait" if about and TRAIT.search(sentence) else "fact"

    def stays_clear(self, sentence: str, clear: bool) -> bool:
        """Report whether the pronoun of the next sentence means the persona: the safe guess after
        its name.
        """
        return self.opens(sentence) or (clear and not self.is_beside_others(sentence))

    @property
    def follow_ups(self) -> tuple[str, ...]:
        """Questions that ask for more."""
        return FOLLOW_UPS

    def who_is(self, name: str) -> str:
        """Phrase the question who somebody is to the persona."""
        return f"Who is {name} to you?"

    def to_first_person(self, sentence: str, *, clear: bool = True) -> str | None:
        """Convert a sentence about the persona to the first person, or return None; `clear`: its
        pronoun means it.

        Only converts sentences whose subject is the persona, whose verb form is certain, and which
        mention no other person with the same pronoun.
        """
        match = re.match(
            rf"^(?P<open>{OPENERS})?(?P<who>{self.pattern}|{self.pronoun or '(?!)'}) ", sentence
        )
        if not clear or not match or '"' in sentence:
            return None
        opening = match["open"] or ""
        rest = sentence[match.end() :]
        verb = re.match(rf"(?P<before>{ADVERBS})(?P<verb>[\w']+)(?P<after>.*)$", rest, re.DOTALL)
        if verb is None or _ambiguous(opening + rest, self):
            return None
        turned = _first_person(verb["verb"])
        if turned != verb["verb"] and re.search(
            r"(?:,|\band\b|\bbut\b|\bor\b) [a-z]+s\b", verb["after"]
        ):
            # "lights the boiler and writes down": is a second word with -s a verb or a thing?
            return None
        after = _replace_pronouns(verb["after"], self)
        spoken = _replace_pronouns(opening, self) + f"I {verb['before']}{turned}{after}"
        return None if self.is_named_in(spoken) or re.search(r"\bI \w+ me\b", spoken) else spoken


@dataclass(frozen=True)
class LanguageRules:
    """Rules of a language other than English. A language without a file has empty ones: nothing is
    rewritten.
    """

    code: str
    name: str
    self: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    you: str = ""
    person: str = "(?P<name>(?!))"
    animate: str = "(?!)"
    style: str = "(?!)"
    relation: str = "(?!)"
    trait: str = "(?!)"
    refusal: str = "(?!)"
    about: str = "{topic}?"
    who: str = "{name}?"
    who_to_you: str = "{name}?"
    follow_ups: tuple[str, ...] = ("…?",)
    openers: tuple[str, ...] = ("{}",)
    feelings: tuple[str, ...] = ()
    object_marker: str = "(?!)"
    pronouns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SubstitutedSubject(LoreSubject):
    """References to a persona in lore of another language. `own_word` is its word for itself in the
    card.
    """

    rules: LanguageRules
    own_word: str

    @cached_property
    def _name(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_word_pattern, self.names)), re.IGNORECASE)

    @cached_property
    def _pronoun(self) -> re.Pattern[str]:
        pattern = self.rules.pronouns.get(self.pronoun, "(?!)")
        return re.compile(
            rf"(?i:{pattern})(?! [{UPPER}])"
        )  # before a name, it is that person's title

    @property
    def _you(self) -> str:
        return self.own_word if self.own_word == self.pronoun else self.rules.you or r"\g<0>"

    def is_named_in(self, text: str) -> bool:
        return self._name.search(text) is not None

    def opens(self, sentence: str) -> bool:
        return self._name.match(sentence) is not None

    def has_pronoun(self, sentence: str) -> bool:
        return self._pronoun.search(sentence) is not None

    def is_referred_to(self, text: str) -> bool:
        return not self.rules.self or self.is_named_in(text) or self.has_pronoun(text)

    def names_in(self, text: str) -> list[str]:
        """Find names of other people."""
        person = self.rules.person.replace("{upper}", f"[{UPPER}]")
        return [match["name"] for match in re.finditer(person, self._name.sub("", text))]

    def people_in(self, text: str) -> list[str]:
        return self.names_in(text)

    def is_beside_others(self, sentence: str) -> bool:
        if self.pronoun in self.rules.titles:  # nobody with another title is meant
            return any(
                name.casefold().startswith(f"{self.pronoun} ") for name in self.people_in(sentence)
            )
        return bool(
            self.people_in(sentence) or re.search(self.rules.animate, sentence, re.IGNORECASE)
        )

    def fact_kind(self, sentence: str, names: Iterable[str], about: bool) -> FactKind:
        if about and re.search(self.rules.style, sentence, re.IGNORECASE):
            return "style"
        if names and re.search(self.rules.relation, sentence, re.IGNORECASE):
            return "relation"
        return "trait" if about and re.search(self.rules.trait, sentence, re.IGNORECASE) else "fact"

    def stays_clear(self, sentence: str, clear: bool) -> bool:
        return (clear or self.opens(sentence)) and not self.is_beside_others(sentence)

    @property
    def follow_ups(self) -> tuple[str, ...]:
        return self.rules.follow_ups

    def who_is(self, name: str) -> str:
        return self.rules.who_to_you.format(name=name, you=self._you)

    def to_first_person(self, sentence: str, *, clear: bool = True) -> str | None:
        """Replace names and pronouns, unless a pronoun may mean somebody else or the sentence
        quotes somebody.
        """
        if not self.rules.self or QUOTATION.search(sentence):
            return None
        is_named = self.is_named_in(sentence)
        has_pronoun = self.has_pronoun(sentence)
        if not (is_named or has_pronoun) or (
            has_pronoun and (not clear or self.is_beside_others(sentence))
        ):
            return None

        def replace(pronoun: re.Match[str]) -> str:
            clause = re.split("[，。；,;]", sentence[: pronoun.start()])[-1]
            is_object = self.is_named_in(clause) and re.search(
                f"(?:{self.rules.object_marker})$", clause
            )
            return (
                pronoun.group() if is_object else self.own_word
            )  # the object of the persona's clause is another

        spoken = self._name.sub(self.own_word, self._pronoun.sub(replace, sentence))
        return spoken[0].upper() + spoken[1:]

    def question_about(self, topic: str) -> str:
        """Phrase a question about a section's heading."""
        if topic in self.people_in(topic):
            return self.rules.who.format(name=topic)
        asked = self._pronoun.sub(self._you, self._name.sub(self._you, topic))
        is_phrase = self.rules.self and not asked.istitle()
        return self.rules.about.format(topic=asked[:1].lower() + asked[1:] if is_phrase else asked)


def find_subject(persona: Persona, passages: Iterable[Passage]) -> LoreSubject:
    """Derive the references from the persona's name, its id, its card and its lore, in the lore's
    language.
    """
    own = [passage for passage in passages if passage.owner == persona.id]
    rules = read_language_rules(find_language(persona, own))
    if rules is not None:
        return _find_substituted(persona, " ".join(passage.text for passage in own), rules)
    words = [
        word
        for word in persona.name.split()
        if word[:1].isupper() and word not in ("Sir", "Lady", "Miss", "Mr")
    ]
    names = {persona.name, persona.name.removeprefix("Sir "), *words, persona.id.capitalize()}
    text = " ".join(passage.text for passage in own)
    he, she = (len(re.findall(rf"\b{pronoun}\b", text, re.IGNORECASE)) for pronoun in ("he", "she"))
    pronoun = "he" if he >= 1.5 * she and he else "she" if she >= 1.5 * he and she else ""
    return LoreSubject(tuple(sorted(names, key=lambda name: (-len(name), name))), pronoun)


def find_language(persona: Persona, passages: Iterable[Passage]) -> str:
    """Return the language code of the persona's lore, or of its card if there is none."""
    return detect_main_language(
        [passage.text for passage in passages] or [persona.description, persona.mes_example]
    )


@lru_cache
def read_language_rules(code: str) -> LanguageRules | None:
    """Read the rules of a language: None for English, empty ones for a language without a file."""
    if code == "en":
        return None
    file = LANGUAGES_FOLDER / f"{code}.toml"
    if not file.is_file():
        return LanguageRules(code, language_name(code))
    stated: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    rules: dict[str, Any] = {
        name: tuple(it) if isinstance(it, list) else it for name, it in stated.items()
    }
    return LanguageRules(code, **rules)


def language_name(code: str) -> str:
    """Return the English name of a language, or its code if it is not listed."""
    return str(
        tomllib.loads((LANGUAGES_FOLDER / "names.toml").read_text(encoding="utf-8")).get(code, code)
    )


def _find_substituted(persona: Persona, text: str, rules: LanguageRules) -> SubstitutedSubject:
    words = persona.name.split()
    has_title = words[0].casefold() in rules.pronouns
    runs = {
        " ".join(words[start:end])
        for start in range(len(words))
        for end in range(start + 2, len(words) + 1)
    }
    names = {persona.name, persona.nickname, *runs, "" if has_title else words[-1]}
    names |= {
        name[-2:]
        for name in (persona.name, persona.nickname)
        if re.fullmatch(f"[{UNSEGMENTED_SCRIPTS}]{{3,4}}", name)
    }
    counts = {
        it: len(re.findall(rf"(?i:{rule})(?! [{UPPER}])", text))
        for it, rule in rules.pronouns.items()
    }
    pronoun = (
        words[0].casefold() if has_title else max(counts, key=lambda it: counts[it], default="")
    )
    replies = " ".join(
        [persona.first_mes, *(turn.text for turn in example_turns(persona) if turn.by_persona)]
    )
    own_words = (*rules.self, *(title for title in rules.titles if title == pronoun))
    said = Counter(
        {it: len(re.findall(_word_pattern(it), replies, re.IGNORECASE)) for it in own_words}
    )
    own = max(said, key=lambda it: said[it], default="")
    names_by_length = tuple(sorted(filter(None, names), key=lambda name: (-len(name), name)))
    return SubstitutedSubject(names_by_length, pronoun, rules, own)


def _word_pattern(word: str) -> str:
    """Return a pattern of a whole word; words of scripts without spaces may stand anywhere."""
    escaped = re.escape(word)
    return escaped if re.search(f"[{UNSEGMENTED_SCRIPTS}]", word) else rf"\b{escaped}\b"


def _ambiguous(text: str, subject: LoreSubject) -> bool:
    """Report another name followed by a pronoun that might refer to it."""
    named = NAME.search(text)
    pronouns = {"he": r"\b(he|him|his)\b", "she": r"\b(she|her|hers)\b"}.get(
        subject.pronoun, "(?!)"
    )
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
