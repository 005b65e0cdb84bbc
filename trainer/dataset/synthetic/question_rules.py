"""Makes questions from a persona's lore and card by rules, in the languages that have rules: about
sections, names, likes and fears, and the things that a card mentions.
"""

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from personas.lore.passages import Passage, is_lore_set, split_sentences
from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona
from trainer.dataset.synthetic.first_person import LoreSubject, is_whole_name
from trainer.dataset.synthetic.lore_extraction import question_about
from trainer.dataset.synthetic.lore_subjects import find_language, find_subject
from trainer.dataset.synthetic.substituted_subject import SubstitutedSubject
from trainer.languages import detect_main_language

ABOUT_THING = (
    "tell me about {}",
    "what's the story with {}?",
    "i wanted to ask you about {}",
    "ok but what about {}",
    "explain {} to me, i'm new",
)
ABOUT_NAME = (
    "tell me about {}",
    "what do you think of {}?",
    "somebody mentioned {}, go on",
    "what should i know about {}?",
    "i keep hearing about {}...",
)
"""Questions that fit a person, a place and an event: a name alone does not say which it is."""
ABOUT_TASTE = (
    "do you like {}?",
    "how do you feel about {}?",
    "{}, yes or no?",
    "what is it with you and {}?",
)
SECTION_QUESTION = re.compile(r"What can you tell me about (?P<topic>.+?)(?: \([^)]*\))?\?")
WHO_QUESTION = re.compile(r"Who is (?P<topic>.+)\?")
NOT_TOPIC = re.compile(r"^(?:Where|When|Why|Which)\b|, | (?:it|them|him|her|me|us)$")
"""Headings that make no noun phrase, such as "Serving it"."""
FUNCTION_WORDS = (
    "a an and are as at be because been behind beside but by can do for from had has have he her "
    "his how i if in into is it its my nor not of on or our over she since so than that the their "
    "then there they this to under until was we were when where which while who with without you "
    "your"
).split()
NOT_THINGS = frozenset(
    "best bit bottom case chance channel course day door edge end evening eyes face fact few first "
    "front future hand hands head heart hour inside kind last least left life lot many matter "
    "middle mind moment morning most name near night one other others outside own part past people "
    "person place point present question reason rest right same second side sort thing things time "
    "times top truth way weak week while whole word wording words world worst wrong year years".split()
)
"""Nouns that ask about nothing in particular."""
VERB_OR_ADVERB = re.compile(
    r"\w+ly|already|again|alone|always|away|back|before|down|even|"
    r"here|never|now|off|once|only|out|outright|then|there|through|today|together|too|up|"
    r"ate|came|did|fell|felt|gave|go|got|had|held|kept|knew|lay|made|met|put|ran|said|sang|sat|saw|"
    r"slept|spoke|stood|swell|told|took|went|wore|woke"
)
"""Words that end no noun phrase, though they may stand before a function word: "the cat already"."""
INFLECTED = re.compile(r"(?:[^s]s|ed|ing)$")
"""After another word, rather a verb than a noun: "the cat sleeps"."""
OWNED_IN_DESCRIPTION = "your|his|her|its|their"
THING = (
    r"(?P<thing>(?:[A-Z][a-z]+ )?[a-z]{3,}(?: [a-z]{3,})?)"
    rf"(?=[.,;:?!)]|\s+(?:{'|'.join(FUNCTION_WORDS)})\b)"
)
TASTE_VERB = (
    r"(?:(?:really|also|still|always|only|never|secretly|dearly) )?"
    r"(?:(?:like|love|enjoy|adore|prefer|collect|admire|dislike|hate|detest|despise|fear|dread|"
    r"distrust|miss)s?|cannot stand|can't stand|(?:am|are|is) (?:afraid|fond|proud|scared) of) "
)
QUOTATION = '"“*('
TASTE = TASTE_VERB + rf"(?P<things>[^.;:!?…”)\n{QUOTATION}]+)"
NOT_TASTE = re.compile(
    r"(?i).*\b(?:it|him|them|until|who)\b|(?:her|me|you|that|what|how|when|where|why|to|being|it's|most|more|"
    r"best|nothing|nobody|which|everything|everybody|any\w+|but|not|if|than|because)\b"
)
MAX_TASTE_WORDS = 6
MIN_NAME_LETTERS = 4
MAX_NAMES = 300
"""Number of names that are looked for in the whole lore, the most frequent ones."""
LEADING_WORD = re.compile(
    r"(?:The|A|An|And|At|But|By|Dear|Every|For|From|If|In|No|Of|On|Once|Only|Since|Then|To|When|"
    r"While|With) "
)


def lore_questions(persona: Persona, passages: Sequence[Passage]) -> list[str]:
    """Return questions that the persona's own lore answers: about its sections, its names, and what
    the persona likes and fears. Empty for a language without rules.
    """
    own = [passage for passage in passages if not is_lore_set(passage.owner)]
    subject = find_subject(persona, own)
    if not own or not _has_rules(subject):
        return []
    texts = [passage.text for passage in own]
    whole = " ".join(texts)
    questions: list[str] = []
    for heading in dict.fromkeys(passage.heading for passage in own):
        questions += _section_questions(heading, subject, whole, is_own=True)
    questions += _name_questions(_names(texts, subject), subject, wordings=2)
    for text in texts:
        questions += _taste_questions(text, subject, subject.pattern)
    return list(dict.fromkeys(questions))


def world_questions(persona: Persona, passages: Sequence[Passage]) -> list[str]:
    """Return questions about the sections and names of the world's lore in the persona's language.
    Empty for a language without rules.
    """
    own = [passage for passage in passages if not is_lore_set(passage.owner)]
    subject = find_subject(persona, own)
    if not _has_rules(subject):
        return []
    language = find_language(persona, own)
    world = [passage for passage in passages if is_lore_set(passage.owner)]
    readable = [passage for passage in world if detect_main_language([passage.text]) == language]
    texts = [passage.text for passage in readable]
    whole = " ".join(texts)
    questions: list[str] = []
    for heading in dict.fromkeys(passage.heading for passage in readable):
        questions += _section_questions(heading, subject, whole, is_own=False)
    questions += _name_questions(_names(texts, subject), subject, wordings=1)
    return list(dict.fromkeys(questions))


def card_questions(persona: Persona, passages: Sequence[Passage]) -> list[str]:
    """Return questions about what the card mentions: names, likes and fears, and things. Empty for
    a language without rules.
    """
    subject = find_subject(persona, passages)
    if not _has_rules(subject):
        return []
    described = [persona.description, persona.personality, persona.speech, persona.scenario]
    replies = [turn.text for turn in example_turns(persona) if turn.by_persona]
    spoken = [persona.first_mes, *persona.alternate_greetings, *replies]
    questions = _name_questions(_names([*described, *spoken], subject), subject, wordings=1)
    for text in (*described, *spoken):
        questions += _taste_questions(text, subject, rf"{subject.pattern}|You|I|{{{{char}}}}")
    if not isinstance(subject, SubstitutedSubject):
        # Where the persona speaks, "your" is the member's.
        things = [*_things(described, OWNED_IN_DESCRIPTION), *_things(spoken, "my")]
        for thing in things:
            questions += _worded(ABOUT_THING, thing, 1)
    return list(dict.fromkeys(questions))


def _has_rules(subject: LoreSubject) -> bool:
    return not isinstance(subject, SubstitutedSubject) or bool(subject.rules.self)


def _section_questions(heading: str, subject: LoreSubject, text: str, *, is_own: bool) -> list[str]:
    question = question_about(heading, subject)
    if isinstance(subject, SubstitutedSubject):
        return [question]
    wordings = 2 if is_own else 1
    who = WHO_QUESTION.fullmatch(question)
    if who:
        return _worded(ABOUT_NAME, who["topic"], wordings)
    about = SECTION_QUESTION.fullmatch(question)
    if about is None:
        return [question]
    topic = about["topic"]
    if topic[0].isupper() and re.search(rf"(?<=[a-z,]) {re.escape(topic)}\b", text):
        # The text writes the word large within a sentence, too.
        return _worded(ABOUT_NAME, topic, wordings)
    if NOT_TOPIC.search(topic) or topic.split()[-1] in NOT_THINGS:
        return []
    if topic[0].isupper() and not re.search(r" [A-Z]", topic):
        # "Rooms and prices" are the persona's own in its lore, and anybody's in the world's.
        topic = topic[0].lower() + topic[1:]
        topic = f"your {topic}" if is_own else topic
    return _worded(ABOUT_THING, topic, wordings)


def _name_questions(names: Sequence[str], subject: LoreSubject, *, wordings: int) -> list[str]:
    if isinstance(subject, SubstitutedSubject):
        return [subject.who_is(name) for name in names]
    return [question for name in names for question in _worded(ABOUT_NAME, name, wordings)]


def _names(texts: Sequence[str], subject: LoreSubject) -> list[str]:
    """Return the names in texts that can be asked about, with the article that they mostly have."""
    names = Counter[str]()
    for text in texts:
        for sentence in split_sentences(text):
            names.update(LEADING_WORD.sub("", name) for name in subject.names_in(sentence))
    commonest = [name for name, _ in names.most_common(MAX_NAMES)]
    others = [name for name in commonest if not subject.is_named_in(name)]
    if isinstance(subject, SubstitutedSubject):
        return others
    parts: set[str] = set()
    for name in others:
        words = name.split()
        for start, end in itertools.combinations(range(len(words) + 1), 2):
            if end - start < len(words):
                parts.add(" ".join(words[start:end]))
    whole = " ".join(texts)
    askable = [name for name in others if name not in parts and _is_askable(name, whole)]
    return [_with_article(name, whole) for name in askable]


def _is_askable(name: str, text: str) -> bool:
    """Report whether a name is whole, and neither a day nor a word that only begins large."""
    if len(name) < MIN_NAME_LETTERS or not is_whole_name(name):
        return False
    if f"-{name}" in text or f"{name}-" in text or re.search(rf"{name} \d", text):
        return False
    return " " in name or text.count(name) > 1 or f"called {name}" in text


def _with_article(name: str, text: str) -> str:
    with_article = text.count(f"the {name}") + text.count(f"The {name}")
    return f"the {name}" if 2 * with_article > text.count(name) else name


def _taste_questions(text: str, subject: LoreSubject, holder: str) -> Iterator[str]:
    """Ask for each thing that the persona is said to like, to miss or to fear."""
    if isinstance(subject, SubstitutedSubject):
        for match in re.finditer(subject.rules.taste, text):
            yield subject.likes(match["thing"].strip())
        return
    if not subject.pronoun:
        holder += "|It|They"
    for match in re.finditer(rf"\b(?:{holder}) {TASTE}", text):
        things = re.split(r", (?:and |or )?| and | or ", match["things"])
        if text.startswith(tuple(QUOTATION), match.end()):
            things.pop()  # what is quoted belongs to it: the word "soon"
        for thing in things:
            bare = re.sub(f"^{TASTE_VERB}", "", thing.strip())
            asked = re.sub(f"(?i)(?:{OWNED_IN_DESCRIPTION}|my) ", "your ", bare)
            if asked and not NOT_TASTE.match(asked) and len(asked.split()) <= MAX_TASTE_WORDS:
                yield from _worded(ABOUT_TASTE, asked, 1)


def _things(texts: Iterable[str], owners: str) -> Iterator[str]:
    """Yield phrases such as "your ledger", after one of `owners`, and "the Tuesday soup"."""
    # After a comma it may be an address: "good evening, my lamb".
    for match in re.finditer(rf"\b(?i:the|(?<!, )(?P<owner>{owners})) {THING}", "\n".join(texts)):
        words = match["thing"].split()
        if words[-1] in FUNCTION_WORDS or NOT_THINGS.intersection(words):
            continue
        if VERB_OR_ADVERB.fullmatch(words[-1]) or (len(words) > 1 and INFLECTED.search(words[-1])):
            continue
        article = "your" if match["owner"] else "the"
        yield f"{article} {match['thing']}"


def _worded(wordings: Sequence[str], topic: str, count: int) -> list[str]:
    """Ask about a topic in `count` wordings, which its letters choose."""
    first = zlib.crc32(topic.encode())
    return [wordings[(first + step) % len(wordings)].format(topic) for step in range(count)]
