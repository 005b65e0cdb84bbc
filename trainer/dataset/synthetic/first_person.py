"""Finds who a sentence of English lore is about, and rewrites it in the first person.

English verbs change with the person, so its rules are code; `substituted_subject` has those of
languages whose verbs do not.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

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
CUT_NAME = re.compile(r"\b(?:No|Mr|Mrs|Ms|Miss|Dr|St)$|^(?:Day|Eve|Night)\b")
"""Names of which a full stop or an apostrophe has cut off a part: "Crane No. 2"."""
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
PRONOUN_FORMS = {"he": r"\b(he|him|his)\b", "she": r"\b(she|her|hers)\b"}
FIRST_PERSON_PRONOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "it": ((r"\bits\b", "my"), (r"\bit\b", "I")),
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
THING = re.compile(r"\b(?:a|an|one|the|this|that|another) (?:[\w-]+ )?[a-z]", re.IGNORECASE)
"""After a sentence about a persona that is a thing, "it" may mean any other thing in it."""
OWN_THING = re.compile(r"\b(?:it|its|itself)\b", re.IGNORECASE)
EXPLETIVE = re.compile(
    r"(?:(?:did|does|do|has|had|have|will|would|may|is|was) (?:not )?)?(?:been )?(?:rain|snow|freez|thaw|"
    r"seem|appear|happen|follow|matter|take|took|turns? out|turned out|said|known|true|likely|time|late|"
    r"early|possible|impossible|easy|hard|best|better)(?:s|ed|ing|e|es)?\b"
)
"""What follows an "it" that means nothing."""
NEW_CLAUSE = (
    r"[,;:]|\b(?:that|who|whom|which|what|how|when|while|where|because|if|as|until|before|after|since|"
    r"than|for whom)\b"
)
OBJECT_OF_ANOTHER = re.compile(rf"^[^,;:]*?\bI (?:(?!{NEW_CLAUSE}).)*?\bme\b")
"""In one clause, the object of "he" is another "him": the same one would be "himself"."""
COORDINATED_S_WORD = re.compile(r"(?:,|\band\b|\bbut\b|\bor\b) [a-z]+s\b")
UNINFLECTED_WORDS = frozenset("was this his its always sometimes perhaps as thus yes us".split())
FOLLOW_UPS = ("Go on.", "And then?", "What else?", "Tell me more.")
OPENERS = r"(?:On|In|At|Every|Each|When|Since|Before|After|For|By|From|Once|Then)\b[^.;]{0,70}?,? "


@dataclass(frozen=True)
class LoreSubject:
    """References to a persona in English lore: its names, longest first, and "he", "she", or "it" ("" if
    unclear). `says_i` is False for one that never speaks of itself as "I".
    """

    names: tuple[str, ...]
    pronoun: str
    says_i: bool = field(default=True, kw_only=True)

    def starts_clear(self, heading: str) -> bool:
        """Report whether the pronoun means the persona at the start of a section: not below another's
        name, and that of a thing only below its own.
        """
        if self.is_named_in(heading):
            return True
        title = heading.rpartition(": ")[2]
        return self.pronoun != "it" and not self.names_in(title)

    @property
    def pattern(self) -> str:
        """A regular expression for the persona as the subject of a sentence."""
        subjects = list(map(re.escape, self.names))
        if self.pronoun:
            subjects.append(self.pronoun.capitalize())
        return "|".join(subjects)

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
        names = NAME.findall(text)
        first = FIRST_NAME.match(text)
        return [first[0], *names] if first else names

    def people_in(self, text: str) -> list[str]:
        """Find names that are neither the persona's nor likely places, things or days."""
        names: list[str] = []
        first = FIRST_NAME.match(text)
        if first:
            names.append(first[0])
        for match in NAME.finditer(text):
            if not PLACE_PREPOSITION.search(text[: match.start()]):
                names.append(match[0])
        return [name for name in names if name not in self.names and not CALENDAR.match(name)]

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
        if self.pronoun == "it":
            return self._leaves_it_clear(sentence, clear)
        return self.opens(sentence) or (clear and not self.is_beside_others(sentence))

    def _leaves_it_clear(self, sentence: str, clear: bool) -> bool:
        if re.match(r"Its?\b", sentence):
            return clear
        return self.opens(sentence) and not THING.search(sentence)

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
        if not self.says_i:
            # It speaks of itself as others do.
            return sentence if self.opens(sentence) and '"' not in sentence else None
        if not clear or '"' in sentence:
            return None
        subject = rf"^(?P<open>{OPENERS})?(?P<who>{self.pattern}|{self.pronoun or '(?!)'}) "
        match = re.match(subject, sentence)
        if match is None:
            return None
        opening = match["open"] or ""
        rest = sentence[match.end() :]
        verb = re.match(rf"(?P<before>{ADVERBS})(?P<verb>[\w']+)(?P<after>.*)$", rest, re.DOTALL)
        if verb is None or _ambiguous(opening + rest, self):
            return None
        if self.pronoun == "it" and (OWN_THING.search(rest) or EXPLETIVE.match(rest)):
            return None  # "It keeps it rolled up.", "It did not rain."
        turned = _first_person(verb["verb"])
        if turned != verb["verb"] and COORDINATED_S_WORD.search(verb["after"]):
            # "lights the boiler and writes down": is a second word with -s a verb or a thing?
            return None
        after = _replace_pronouns(verb["after"], self)
        spoken = _replace_pronouns(opening, self) + f"I {verb['before']}{turned}{after}"
        # "I … me" is what is left of a sentence with two people of the same pronoun.
        if self.is_named_in(spoken) or OBJECT_OF_ANOTHER.search(spoken):
            return None
        return spoken


def is_whole_name(name: str) -> bool:
    """Report whether a capitalised word can be somebody: no day or month, and no title without its
    name.
    """
    return not CALENDAR.match(name) and not CUT_NAME.search(name)


def _ambiguous(text: str, subject: LoreSubject) -> bool:
    """Report another name followed by a pronoun that might refer to it."""
    name = NAME.search(text)
    if name is None or subject.pronoun not in PRONOUN_FORMS:
        return False
    pattern = PRONOUN_FORMS[subject.pronoun]
    return re.search(pattern, text[name.end() :], re.IGNORECASE) is not None


def _first_person(verb: str) -> str:
    """Return the first person of a verb in the third; other words stay as they are."""
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
    # A pronoun that became "I" leaves its verb in the third person.
    return re.sub(r"\bI (\w+)", lambda match: f"I {_first_person(match[1])}", text)
