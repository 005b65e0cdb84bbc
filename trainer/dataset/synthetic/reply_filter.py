"""Rejects generated replies that are out of character, contradict the lore or repeat, each with a
reason.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from personas.lore.index_terms import STOP_WORDS, is_mostly_ascii, query_terms
from personas.lore.minilm import load_minilm
from personas.lore.passages import Passage, count_words
from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona
from trainer.dataset.minhash import split_words
from trainer.dataset.quality_filters import (
    BOILERPLATE,
    UNDECIDED,
    detect_language,
    detect_main_language,
)
from trainer.dataset.synthetic.first_person import NAME, SubstitutedSubject, find_subject
from trainer.dataset.synthetic.lore_extraction import extract_facts

REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:sorry|afraid),? (?:but )?I (?:can(?:no|')t|am (?:not able|unable))|"
    r"\bI(?:'m| am) (?:not able|unable) to (?:help|assist|answer|provide|discuss)|"
    r"\bI can(?:no|')t (?:help|assist|provide|fulfil|comply)",
    re.IGNORECASE,
)
OUT_OF_CHARACTER = re.compile(
    r"\b(?:as an? (?:AI|artificial|language model|assistant|chatbot)|(?:AI|large|language) (?:language )?model|"
    r"AI assistant|I(?:'m| am) an? (?:AI|assistant|chatbot|bot|fictional)|role-?play|OpenAI|"
    r"how (?:can|may) I (?:help|assist) you|the (?:user|prompt|passage|context above))\b|\{\{|<\|",
    re.IGNORECASE,
)
OTHERS_TURN = re.compile(r"^\s*(?:[A-Z]\w+(?: [A-Z]\w+){0,2}|user|assistant):\s", re.MULTILINE)
CONTRACTION = re.compile(
    r"\b(?:\w+n['’]t|(?:I|you|we|they|he|she|it|that|there)['’](?:m|re|ve|ll|d|s))\b", re.IGNORECASE
)
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen "
    "eighteen nineteen"
)
UNITS = dict(zip(SMALL.split(), range(20), strict=True))
TENS = dict(
    zip(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),
        range(20, 100, 10),
        strict=True,
    )
)
VALUE = (
    rf"\b(?:(?P<digits>\d[\d,]*)|(?P<tens>{'|'.join(TENS)})(?:[- ](?P<one>{'|'.join(list(UNITS)[1:10])}))?|"
    rf"(?P<unit>{'|'.join(UNITS)}))\b"
)
ANY_NUMBER = re.compile(VALUE, re.IGNORECASE)
NUMBER = re.compile(VALUE + r"\s+(?P<noun>[a-z]{3,})\b", re.IGNORECASE)
HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "兩": 2,
}
HAN_SCALES = {"十": 10, "百": 100, "千": 1000}
HAN_PATTERN = re.compile("[\u4e00-\u9fff]")
HAN_NUMBER = re.compile(
    r"(?<![零〇一二两兩三四五六七八九十百千万萬\d])(?!千万|万一|十分|万分|百姓|一[些直样起定切般边旦会])(?P<number>[零〇一二两兩三四五六七八九十百千万萬]+|\d+)"
    r"(?P<noun>[个個只隻条條张張把艘座间間棵口件辆匹头颗根盏盞块塊年岁歲天次里斤勺段步名位本封层層]?[\u4e00-\u9fff]?)"
)
"""A number and, if a measure word follows, that word with the next character."""
VI_DIGITS = dict(zip("một hai ba bốn năm sáu bảy tám chín".split(), range(1, 10), strict=True))
VI_DIGITS |= {"mốt": 1, "tư": 4, "lăm": 5, "nhăm": 5, "bẩy": 7}
VI_SCALES = {"mười": 10, "mươi": 10, "trăm": 100, "ngàn": 1000, "nghìn": 1000, "triệu": 1_000_000}
VI_SCALE = "|".join(VI_SCALES)
VI_DIGIT = "|".join(it for it in VI_DIGITS if it != "năm") + rf"|năm(?= (?:{VI_SCALE}))"
"""A digit's word; "năm" is five before a scale, and else mostly "year"."""
VI_NUMBER = re.compile(
    rf"\b(?P<number>(?:(?:{VI_DIGIT}) )?(?:{VI_SCALE})(?: (?:lẻ|linh|(?:{VI_DIGIT})|{VI_SCALE}))*|{VI_DIGIT})\b"
    r"(?: (?P<noun>(?:(?:con|cái|chiếc|người|cây|cuốn|ngọn|câu|bông) )?\w+))?",
    re.IGNORECASE,
)
LARGE = re.compile(r"\b(?:hundreds?|thousands?|[mb]illions?)\b", re.IGNORECASE)
IDENTITY = re.compile(r"\bI(?:['’]m| am| was| used to be) an? ((?:\w+ ?){1,2})", re.IGNORECASE)
COMMON_WORDS = frozenset("little bit very good fool friend man woman person".split())
UNCOUNTED_NOUNS = frozenset(
    "more other less time times and but the who things thing people ones last first little "
    "days".split()
)
COPIED_RUN_WORDS = 14
MAX_REPLY_SIMILARITY = 0.5
MAX_SENTENCE_LENGTH_RATIO = 3.0
MIN_TOPIC_WORDS = 4
MIN_TOPIC_SIMILARITY = 0.35
SMALL_NUMBER = 12  # larger numbers must occur in lore or card
EXCLAMATION = re.compile("[!！]")
MIN_LANGUAGE_LETTERS = 12
STARRED = re.compile(r"\*[^*]+\*")
SENTENCE_END = re.compile(r"[.!?…。！？][*\"”’)」』]*$|\*$")
ALLOWED_NAMES = frozenset("Sir Lord Lady Miss Mr Mrs Ms Dr God Heaven Sunday Monday Tuesday Wednesday Thursday Friday "
                    "Saturday January February March April May June July August September October "
                    "November December "
                    "Christmas English".split())  # fmt: skip
"""Capitalised words that are nobody's name."""


@dataclass(frozen=True)
class SpeakingStyle:
    """Style of a card's examples, as shares of their replies; None if there are too few."""

    contracted: float | None
    exclaimed: float | None
    starred: float | None
    sentence_words: float | None


class ReplyFilter:
    """Finds faults in replies of one persona, and remembers accepted ones to detect repetitions."""

    def __init__(self, persona: Persona, passages: Sequence[Passage]) -> None:
        self._persona, self._style = persona, measure_style(persona)
        self._lore_words = " ".join(split_words(" ".join(passage.text for passage in passages)))
        self._language = detect_main_language(
            [passage.text for passage in passages if passage.owner == persona.id]
        )
        self._known = " ".join(
            [
                persona.name,
                persona.description,
                persona.scenario,
                persona.mes_example,
                persona.first_mes,
            ]
            + [f"{passage.heading} {passage.text}" for passage in passages]
        ).casefold()
        self._numbers = _numbers(" . ".join(passage.text for passage in passages))
        self._cannot = _negated_verbs(persona, passages)
        self._subject = find_subject(persona, list(passages))
        rules = self._subject.rules if isinstance(self._subject, SubstitutedSubject) else None
        self._refusal = re.compile(rules.refusal if rules else "(?!)", re.IGNORECASE)
        self._loose = find_numbers(self._known)
        self._kept: list[set[tuple[str, ...]]] = [
            _shingles(turn.text) for turn in example_turns(persona)
        ]

    def keep(self, replies: Sequence[str]) -> None:
        """Remember accepted replies, so that similar ones count as repetitions."""
        self._kept += [_shingles(reply) for reply in replies]

    def fault(self, reply: str, question: str, about: Passage) -> str | None:
        """Return the first fault of a reply to a question about a passage, or None."""
        checks: tuple[tuple[str, bool], ...] = (
            ("empty", len(split_words(reply)) < 3),
            ("cut off", not SENTENCE_END.search(reply)),
            ("in another language", self._is_foreign(reply)),
            ("refuses", bool(REFUSAL.search(reply) or self._refusal.search(reply))),
            ("breaks character", _breaks_character(reply)),
            ("speaks of itself as of another", self._as_another(reply, about)),
            ("out of voice", self._out_of_voice(reply)),
            ("contradicts lore", self.contradicts(reply, question)),
            ("names somebody who is not in the lore", self._invents(reply, question)),
            ("repeats", self._repeats(reply)),
        )
        fault = next((reason for reason, is_wrong in checks if is_wrong), None)
        return fault or ("speaks of something else" if self._is_off_topic(reply, about) else None)

    def _as_another(self, reply: str, about: Passage) -> bool:
        """Detect a reply in another's person, by name or by an unambiguous pronoun."""
        names = "|".join(map(re.escape, self._subject.names))
        pronoun = self._subject.pronoun
        if isinstance(self._subject, SubstitutedSubject):
            own = self._subject.own_word
            is_named = (
                re.search(rf"(?:^|[.!?…。！？]\s*)(?:{names})(?![!,，！])", reply, re.IGNORECASE)
                is not None
            )
            return is_named or (
                own != pronoun and self._subject.has_pronoun(reply) and own not in reply.casefold()
            )
        third_person = re.compile(
            rf"(?:^|[.!?] )(?:{names}) (?:is|was|has|had|does|can|will|would|says|said|\w+s|\w+ed)\b"
        )
        if third_person.search(reply) or not pronoun:
            return bool(third_person.search(reply))
        if re.match(rf"\W*{pronoun}\b", reply, re.IGNORECASE):
            return True
        alone = about.owner == self._persona.id and not self._subject.people_in(about.text)
        return alone and re.search(rf"\b{pronoun}\b", reply, re.IGNORECASE) is not None

    def _is_foreign(self, reply: str) -> bool:
        """Detect a reply in another language than the lore's, unless that is English or the reply
        is too short.
        """
        if self._language == "en" or sum(map(str.isalpha, reply)) < MIN_LANGUAGE_LETTERS:
            return False
        return (
            detect_language(reply) != UNDECIDED and detect_main_language([reply]) != self._language
        )

    def _is_off_topic(self, reply: str, about: Passage) -> bool:
        """Detect a reply that shares neither words nor meaning with the passage; beyond English, no
        word at all.
        """
        if not is_mostly_ascii(about.text) or not is_mostly_ascii(reply):
            return not set(query_terms(f"{about.heading} {about.text}")) & set(query_terms(reply))
        if len(set(query_terms(about.text)) & set(query_terms(reply))) >= MIN_TOPIC_WORDS:
            return False
        texts = load_minilm().embed([reply, f"{about.heading}. {about.text}"])
        return float(texts[0] @ texts[1]) < MIN_TOPIC_SIMILARITY

    def _out_of_voice(self, reply: str) -> bool:
        style = self._style
        return (
            (style.contracted == 0 and bool(CONTRACTION.search(reply)))
            or (style.exclaimed == 0 and bool(EXCLAMATION.search(reply)))
            or (style.starred == 0 and bool(STARRED.search(reply)))
            or (style.starred == 1 and "*" not in reply)
            or _sentence_words(reply)
            > MAX_SENTENCE_LENGTH_RATIO * (style.sentence_words or math.inf)
        )

    def contradicts(self, reply: str, question: str) -> bool:
        """Detect a number that differs from the lore's, an unsupported "I am a …", or an "I can …"
        that lore denies.
        """
        in_question = _numbers(question)
        for noun, numbers in _numbers(reply).items():
            if noun in self._numbers and not numbers <= self._numbers[noun] | in_question.get(
                noun, set()
            ):
                return True
        known = f"{self._known} {question.casefold()}"
        if any(
            number > SMALL_NUMBER
            for number in find_numbers(reply) - self._loose - find_numbers(question)
        ):
            return True
        if any(word.casefold() not in known for word in LARGE.findall(reply)):
            return True
        if any(not _says_any(known, claim) for claim in IDENTITY.findall(reply)):
            return True
        denied = rf"\bI (?:can|could|do|often|love to|like to) (?:{'|'.join(self._cannot)})\b"
        return bool(self._cannot) and re.search(denied, reply) is not None

    def _invents(self, reply: str, question: str) -> bool:
        known = f"{self._known} {question.casefold()}"
        names = NAME.findall(reply) if self._language == "en" else self._subject.names_in(reply)
        words = (word for name in names for word in name.split() if word not in ALLOWED_NAMES)
        return any(word.casefold() not in known for word in words)

    def _repeats(self, reply: str) -> bool:
        words = split_words(reply)
        shingles = _shingles(reply)
        runs = [
            " ".join(words[at : at + COPIED_RUN_WORDS])
            for at in range(len(words) - COPIED_RUN_WORDS + 1)
        ]
        copied = any(run in self._lore_words for run in runs)
        circling = len(words) > 12 and len(shingles) < 0.7 * (len(words) - 2)
        most = MAX_REPLY_SIMILARITY
        alike = any(
            len(shingles & kept) > most * min(len(shingles), len(kept) or 1) for kept in self._kept
        )
        return copied or circling or (bool(shingles) and alike)


def _breaks_character(reply: str) -> bool:
    patterns = (OUT_OF_CHARACTER, OTHERS_TURN, BOILERPLATE)
    return any(pattern.search(reply) for pattern in patterns)


def measure_style(persona: Persona) -> SpeakingStyle:
    """Measure the common style of the card's example replies and greeting."""
    replies = [turn.text for turn in example_turns(persona) if turn.by_persona]
    replies += [persona.first_mes] if persona.first_mes else []
    if len(replies) < 3:
        return SpeakingStyle(None, None, None, None)
    return SpeakingStyle(
        contracted=_share(bool(CONTRACTION.search(reply)) for reply in replies),
        exclaimed=_share(bool(EXCLAMATION.search(reply)) for reply in replies),
        starred=_share(bool(STARRED.search(reply)) for reply in replies),
        sentence_words=sum(map(_sentence_words, replies)) / len(replies),
    )


def _share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _sentence_words(text: str) -> float:
    pieces = [piece for piece in re.split(r"[.!?…。！？]+", text) if piece.strip()]
    return count_words(text) / max(1, len(pieces))


def _negated_verbs(persona: Persona, passages: Sequence[Passage]) -> list[str]:
    """Return the base forms of verbs that the lore negates for the persona."""
    facts = extract_facts(persona, [passage for passage in passages if passage.owner == persona.id])
    negations = (
        re.match(r"I (?:cannot|can't|do not|don't|never) (\w+)", fact.spoken or "")
        for fact in facts
    )
    return list(dict.fromkeys(re.escape(match[1]) for match in negations if match))


def _numbers(text: str) -> dict[str, set[int]]:
    """Return numbers by the singular of the noun that follows."""
    found: dict[str, set[int]] = defaultdict(set)
    for match in NUMBER.finditer(text):
        if (noun := match["noun"].casefold()) not in UNCOUNTED_NOUNS:
            found[noun.removesuffix("s")].add(_value(match))
    for match, value in _other_numbers(text):
        if match["noun"] and len(match["noun"]) > 1 and value > 1:
            found[match["noun"].casefold()].add(value)
    return dict(found)


def find_numbers(text: str) -> set[int]:
    """Return all numbers of a text."""
    return {_value(match) for match in ANY_NUMBER.finditer(text)} | {
        value for _, value in _other_numbers(text)
    }


def _other_numbers(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Yield Chinese and Vietnamese numbers with their values; Arabic numerals only before Chinese
    characters.
    """
    if HAN_PATTERN.search(text):
        yield from ((match, _han_value(match["number"])) for match in HAN_NUMBER.finditer(text))
    yield from ((match, _vietnamese_value(match["number"])) for match in VI_NUMBER.finditer(text))


def _han_value(numeral: str) -> int:
    if numeral.isdecimal():
        return int(numeral[:12])
    if all(sign in HAN_DIGITS for sign in numeral):  # 二零二四
        return int("".join(str(HAN_DIGITS[sign]) for sign in numeral)[:12])
    total = section = digit = 0
    for sign in numeral:
        if sign in HAN_DIGITS:
            digit = HAN_DIGITS[sign]
        elif sign in HAN_SCALES:
            section = section + (digit or 1) * HAN_SCALES[sign]
            digit = 0
        else:
            total = total + (section + digit or 1) * 10_000
            section = 0
            digit = 0
    return total + section + digit


def _vietnamese_value(numeral: str) -> int:
    total = section = digit = 0
    for word in numeral.casefold().split():
        scale = VI_SCALES.get(word, 0)
        if scale >= 1000:
            total = total + (section + digit or 1) * scale
            section = 0
            digit = 0
        elif scale:
            section = section + (digit or 1) * scale
            digit = 0
        else:
            digit = VI_DIGITS.get(word, 0)
    return total + section + digit


def _value(match: re.Match[str]) -> int:
    if match["digits"]:
        return int(match["digits"].replace(",", "")[:12])
    if match["tens"]:
        return TENS[match["tens"].casefold()] + UNITS.get((match["one"] or "zero").casefold(), 0)
    return UNITS[match["unit"].casefold()]


def _says_any(known: str, claim: str) -> bool:
    words = [word for word in claim.casefold().split() if word not in STOP_WORDS]
    return not words or any(
        word in COMMON_WORDS or re.search(rf"\b{re.escape(word)}\b", known) for word in words
    )


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = split_words(text)
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}
