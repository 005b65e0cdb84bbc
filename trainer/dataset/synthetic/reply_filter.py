"""Rejects generated replies that are out of character, contradict the lore or repeat, each with a
reason.
"""

import re
from collections.abc import Sequence

from personas.lore.index_terms import STOP_WORDS, is_mostly_ascii, query_terms
from personas.lore.minilm import load_minilm
from personas.lore.passages import Passage
from personas.prompt.renderer import EXAMPLE_USER, example_turns, fill_macros, system_text
from personas.schemas.chat import Persona
from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.dataset.minhash import split_words
from trainer.dataset.quality_filters import BOILERPLATE
from trainer.dataset.synthetic.first_person import NAME
from trainer.dataset.synthetic.lore_extraction import extract_facts
from trainer.dataset.synthetic.lore_subjects import find_language, find_subject
from trainer.dataset.synthetic.number_words import find_numbers, numbers_by_noun
from trainer.dataset.synthetic.speaking_style import measure_style
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject
from trainer.languages import UNDECIDED, detect_language, detect_main_language

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
LABEL = r"[A-Z]\w+(?: [A-Z]\w+){0,2}|user|assistant"
OTHERS_TURN = re.compile(rf"\n\s*(?:{LABEL}):\s")
"""A later line that somebody speaks."""
FIRST_LABEL = re.compile(rf"\s*({LABEL}):\s")
SPEAKERS = (EXAMPLE_USER, "user", "assistant", "you")
LARGE = re.compile(r"\b(?:hundreds?|thousands?|[mb]illions?)\b", re.IGNORECASE)
IDENTITY = re.compile(r"\bI(?:['’]m| am| was| used to be) an? ((?:\w+ ?){1,2})", re.IGNORECASE)
STRONG_LANGUAGE = re.compile(
    r"\b(?:(?:mother)?fuck\w*|(?:bull|horse)?shit\w*|bitch\w*|cunts?|whores?|sluts?|bastards?|"
    r"(?:ass|arse)holes?|dickheads?|wank(?:er|ing|s)?|cocksuck\w*|pussy(?! willow)|porn\w*|raped|"
    r"rapists?|nigg(?:er|a)s?|faggots?|retarded|trann(?:y|ies))\b",
    re.IGNORECASE,
)
"""English words that a persona learns from a model only if its card or lore has such words."""
STAGE_DIRECTION = re.compile(
    r"[(\[*_]+(?:\w+ly )?(?:laughs?|chuckles?|giggles?|smiles?|grins?|smirks?|sighs?|nods?|shrugs?|"
    r"winks?|blushes|pauses?|coughs?|clears? (?:\w+ )?throat)(?: \w+ly)?[.,!]*[)\]*_]",
    re.IGNORECASE,
)
"""A gesture between two marks, as "(laughs)" or "*sighs*"."""
COMMON_WORDS = frozenset("little bit very good fool friend man woman person".split())
MIN_WORDS = 3
COPIED_RUN_WORDS = 14
MIN_CIRCLING_WORDS = 12  # shorter replies may repeat three words by chance
MIN_DISTINCT_SHINGLE_SHARE = 0.7
MAX_REPLY_SIMILARITY = 0.5
MIN_TOPIC_WORDS = 4
MIN_TOPIC_SIMILARITY = 0.35
SMALL_NUMBER = 12  # about card or lore, larger numbers must occur in them
UNCOUNTED = frozenset("hundred thousand million billion minute hour month year".split())
"""Outside questions about card or lore, numbers of these say nothing of them."""
MIN_LANGUAGE_LETTERS = 12
SENTENCE_END = re.compile(r"[.!?…。！？।؟][*\"”’)」』]*$|\*$")
ALLOWED_NAMES = frozenset("Sir Lord Lady Miss Mr Mrs Ms Dr God Heaven Sunday Monday Tuesday Wednesday Thursday Friday "
                    "Saturday January February March April May June July August September October "
                    "November December "
                    "Christmas English".split())  # fmt: skip
"""Capitalised words that are nobody's name."""


# The rules are strict rather than clever: hardly any reply of the bundled model passes, and passing
# does not make a reply good.
class ReplyFilter:
    """Finds faults in replies of one persona, and remembers accepted ones to detect repetitions.

    `language` is that of its lore, or of its card if there is none. With `compares_card`, replies to
    questions about card or lore must not contradict what the card counts, in English.
    """

    def __init__(
        self, persona: Persona, passages: Sequence[Passage], *, compares_card: bool = False
    ) -> None:
        self._persona = persona
        self._style = measure_style(persona)
        texts = [passage.text for passage in passages]
        self._lore_words = " ".join(split_words(" ".join(texts)))
        own = [passage for passage in passages if passage.owner == persona.id]
        self.language = find_language(persona, own)
        known = [
            system_text(persona, ""),
            persona.mes_example,
            persona.first_mes,
            *persona.alternate_greetings,
        ]
        known += [f"{passage.heading} {passage.text}" for passage in passages]
        self._known = " ".join(known).casefold()
        self._may_curse = bool(STRONG_LANGUAGE.search(self._known))
        self._may_gesture = bool(STAGE_DIRECTION.search(self._known))
        self._subject = find_subject(persona, list(passages))
        speakers = {*SPEAKERS, *self._subject.names}
        for text in texts:
            speakers.update(self._subject.people_in(text))
        self._speakers = {speaker.casefold() for speaker in speakers}
        # The full stop keeps a number at the end of a passage from counting the next one's noun.
        self._numbers = numbers_by_noun(" . ".join(texts))
        self._card_numbers: dict[str, set[int]] = {}
        if compares_card and self.language == "en":
            self._card_numbers = numbers_by_noun(" . ".join(_card_prose(persona)))
        examples = [turn.text for turn in example_turns(persona) if turn.by_persona]
        said = [fill_macros(persona.first_mes, persona, EXAMPLE_USER), *examples]
        self._said = [text.strip() for text in said if text.strip()]
        self._ends_sentences = all(map(SENTENCE_END.search, self._said))
        capitals = " ".join(name for text in examples for name in NAME.findall(text)).split()
        self._has_important_words = any(map(_is_english_word, capitals))
        self._cannot = _negated_verbs(persona, passages)
        refusal = "(?!)"  # matches nothing: English has `REFUSAL`
        if isinstance(self._subject, SubstitutedSubject):
            refusal = self._subject.rules.refusal
        self._refusal = re.compile(refusal, re.IGNORECASE)
        self._known_numbers = find_numbers(self._known)
        # The card's examples stand in every prompt, so a reply that repeats them is no new one.
        self._kept = [_shingles(turn.text) for turn in example_turns(persona)]

    def keep(self, replies: Sequence[str]) -> None:
        """Remember accepted replies, so that similar ones count as repetitions."""
        self._kept += [_shingles(reply) for reply in replies]

    def fault(
        self, reply: str, question: str, about: Passage | None, *, asks_facts: bool = True
    ) -> str | None:
        """Return the first fault of a reply to a question about a passage, or about anything; None
        without one. `asks_facts`: see `contradicts`.
        """
        checks: tuple[tuple[str, bool], ...] = (
            ("under three words", len(split_words(reply)) < MIN_WORDS),
            ("cut off", self._ends_sentences and not SENTENCE_END.search(reply)),
            ("in another language", self._is_foreign(reply)),
            ("refuses", bool(REFUSAL.search(reply) or self._refusal.search(reply))),
            ("breaks character", self._breaks_character(reply)),
            ("speaks of itself as of another", self._as_another(reply, about)),
            ("strong language", not self._may_curse and bool(STRONG_LANGUAGE.search(reply))),
            ("a stage direction", not self._may_gesture and bool(STAGE_DIRECTION.search(reply))),
            ("out of voice", not self._style.fits(reply)),
            (
                "contradicts card or lore",
                self.contradicts(reply, question, asks_facts=asks_facts),
            ),
            ("names somebody who is not in the lore", self._invents(reply, question)),
            ("repeats", self._repeats(reply)),
        )
        for reason, is_wrong in checks:
            if is_wrong:
                return reason
        # Last, because it may have to embed both texts.
        is_off_topic = about is not None and self._is_off_topic(reply, about)
        return "speaks of something else" if is_off_topic else None

    def _breaks_character(self, reply: str) -> bool:
        label = FIRST_LABEL.match(reply)
        if label and self._is_speaker(label[1]):
            return True
        return any(
            pattern.search(reply) for pattern in (OUT_OF_CHARACTER, OTHERS_TURN, BOILERPLATE)
        )

    def _is_speaker(self, label: str) -> bool:
        """Report whether a reply's first label is a speaker's, and not a notice's, as in "Correction: …"."""
        if label.casefold() in self._speakers:
            return True
        return not all(map(_is_english_word, label.split()))

    def _as_another(self, reply: str, about: Passage | None) -> bool:
        """Detect a reply in another's person, by name or by an unambiguous pronoun."""
        names = "|".join(map(re.escape, self._subject.names))
        pronoun = self._subject.pronoun
        if isinstance(self._subject, SubstitutedSubject):
            # Before an exclamation mark or a comma, a name is called rather than spoken of.
            opening_name = rf"(?:^|[.!?…。！？]\s*)(?:{names})(?![!,，！])"
            if re.search(opening_name, reply, re.IGNORECASE):
                return True
            own = self._subject.own_word
            has_pronoun = own != pronoun and self._subject.has_pronoun(reply)
            return has_pronoun and own not in reply.casefold()
        third_person = re.compile(
            rf"(?:^|[.!?] )(?:{names}) (?:is|was|has|had|does|can|will|would|says|said|\w+s|\w+ed)\b"
        )
        if not self._style.says_i:
            return False
        if third_person.search(reply):
            return not any(map(third_person.search, self._said))
        if not pronoun:
            return False
        opening_pronoun = re.compile(rf"\W*{pronoun}\b", re.IGNORECASE)
        if opening_pronoun.match(reply):
            return not any(map(opening_pronoun.match, self._said))
        if about is None or about.owner != self._persona.id:
            return False
        is_alone = not self._subject.people_in(about.text)
        return is_alone and re.search(rf"\b{pronoun}\b", reply, re.IGNORECASE) is not None

    def _is_foreign(self, reply: str) -> bool:
        """Detect a reply in another language than the lore's, unless that is English or the reply
        is too short.
        """
        if self.language == "en" or sum(map(str.isalpha, reply)) < MIN_LANGUAGE_LETTERS:
            return False
        found = detect_language(reply)
        if found in (UNDECIDED, self.language):
            return False
        if reply.isascii():  # so short, only English is told from others for sure
            return found == "en"
        return detect_main_language([reply]) != self.language

    def contradicts(self, reply: str, question: str, *, asks_facts: bool = True) -> bool:
        """Detect a number of what the lore counts that differs from it, or an "I can …" that lore
        denies; where the question asks for card or lore, also any other large number and an "I am a
        …" that both lack: elsewhere these are inventions or boasts, and contradict nothing.
        """
        # What a question states may be repeated, whether lore has it or not.
        in_question = numbers_by_noun(question)
        for noun, numbers in numbers_by_noun(reply).items():
            in_lore = self._numbers.get(noun, set())
            in_card = self._card_numbers.get(noun, set())
            unsupported = numbers - in_lore - in_card - in_question.get(noun, set())
            says_nothing = noun in UNCOUNTED
            if in_lore and unsupported and (asks_facts or not says_nothing):
                return True
            # Of three doors, one may be spoken of.
            if asks_facts and in_card and unsupported - {1} and not says_nothing:
                return True
        denied = rf"\bI (?:can|could|do|often|love to|like to) (?:{'|'.join(self._cannot)})\b"
        if self._cannot and re.search(denied, reply):
            return True
        return asks_facts and self._claims_more(reply, question)

    def _claims_more(self, reply: str, question: str) -> bool:
        """Detect a large number or an "I am a …" that neither lore, card nor question contain."""
        unsupported = find_numbers(reply) - self._known_numbers - find_numbers(question)
        if any(number > SMALL_NUMBER for number in unsupported):
            return True
        known = f"{self._known} {question.casefold()}"
        if any(word.casefold() not in known for word in LARGE.findall(reply)):
            return True
        return any(not _says_any(known, claim) for claim in IDENTITY.findall(reply))

    def _invents(self, reply: str, question: str) -> bool:
        """Detect a name that neither lore, card nor question contain. An English word with a capital
        is none, nor, of a character who writes Important Words so, any word that nobody is called.
        """
        known = f"{self._known} {question.casefold()}"
        names = NAME.findall(reply) if self.language == "en" else self._subject.names_in(reply)
        for word in " ".join(names).split():
            if word in ALLOWED_NAMES or word.casefold() in known:
                continue
            may_be_word = self._has_important_words and not _is_given_or_family_name(word)
            if not may_be_word and not _is_english_word(word):
                return True
        return False

    def _repeats(self, reply: str) -> bool:
        """Detect a reply that copies lore, goes round in circles, or resembles an accepted one."""
        words = split_words(reply)
        for start in range(len(words) - COPIED_RUN_WORDS + 1):
            run = " ".join(words[start : start + COPIED_RUN_WORDS])
            if run in self._lore_words:
                return True
        shingles = _shingles(reply)
        fewest = MIN_DISTINCT_SHINGLE_SHARE * (len(words) - 2)
        if len(words) > MIN_CIRCLING_WORDS and len(shingles) < fewest:
            return True
        return self.resembles_kept(reply)

    def resembles_kept(self, reply: str) -> bool:
        """Report whether a reply resembles an accepted one, or an example of the card."""
        shingles = _shingles(reply)
        if not shingles:
            return False
        for kept in self._kept:
            # Measured by the shorter of both, so that a reply contained in a longer one counts.
            shorter = min(len(shingles), len(kept) or 1)
            if len(shingles & kept) > MAX_REPLY_SIMILARITY * shorter:
                return True
        return False

    def _is_off_topic(self, reply: str, about: Passage) -> bool:
        """Detect a reply that shares neither words nor meaning with the passage; beyond English, no
        word at all.
        """
        if not is_mostly_ascii(about.text) or not is_mostly_ascii(reply):
            # The encoder reads English alone.
            return not set(query_terms(f"{about.heading} {about.text}")) & set(query_terms(reply))
        if len(set(query_terms(about.text)) & set(query_terms(reply))) >= MIN_TOPIC_WORDS:
            return False
        texts = load_minilm().embed([reply, f"{about.heading}. {about.text}"])
        return float(texts[0] @ texts[1]) < MIN_TOPIC_SIMILARITY


def _is_english_word(word: str) -> bool:
    """Report whether a word with a capital is a common English one, and nobody's name."""
    return "c" in load_gazetteer().of(word) and not _is_given_or_family_name(word)


def _is_given_or_family_name(word: str) -> bool:
    return not {"g", "f"}.isdisjoint(load_gazetteer().of(word))


def _card_prose(persona: Persona) -> list[str]:
    """Return what a card tells of the character; its `system_prompt` is for a model."""
    fields = (persona.description, persona.personality, persona.scenario, persona.speech)
    return [fill_macros(text, persona, EXAMPLE_USER) for text in fields]


def _negated_verbs(persona: Persona, passages: Sequence[Passage]) -> list[str]:
    """Return the base forms of verbs that the lore negates for the persona, as patterns."""
    own = [passage for passage in passages if passage.owner == persona.id]
    verbs: dict[str, None] = {}
    for fact in extract_facts(persona, own):
        negation = re.match(r"I (?:cannot|can't|do not|don't|never) (\w+)", fact.spoken or "")
        if negation:
            verbs[re.escape(negation[1])] = None
    return list(verbs)


def _says_any(known: str, claim: str) -> bool:
    """Report whether the known texts contain any word of a claim, such as `keeper of the tower`."""
    words = [word for word in claim.casefold().split() if word not in STOP_WORDS]
    if not words:
        return True
    for word in words:
        if word in COMMON_WORDS or re.search(rf"\b{re.escape(word)}\b", known):
            return True
    return False


def _shingles(text: str) -> set[tuple[str, ...]]:
    """Return the runs of three words."""
    words = split_words(text)
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}
