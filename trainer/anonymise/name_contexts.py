"""Finds names by what is said around them: "call me ann", "Ann's daughter", "Park said"."""

import re
from collections.abc import Iterator

from trainer.anonymise.crf_ner.gazetteer import load_gazetteer
from trainer.anonymise.language_data import ARTICLES, LATIN, UPPER, language_of
from trainer.anonymise.spans import RANK_CUE, EntitySpan

NAME_WORD = rf"[{UPPER}][{LATIN}]+(?:['’-][{UPPER}]?[{LATIN}]+)*"
SMALL_WORD = r"[a-zà-öø-ÿ]{2,}(?:['’-][a-zà-öø-ÿ]+)?"
INTRODUCTION = (
    r"call(?:s)? me|my (?:full |real |first )?name(?:['’]?s| is| was)|i am called|i['’]?m called|"
    r"named (?:him|her)|"
    r"name['’]s|i go by|mein name ist|ich hei(?:ß|ss)e|nennt? mich|je m['’]appelle|"
    r"appelle[zr]?-moi|me llamo|ll[aá]mame|"
    r"mi nombre es|mi chiamo|chiamami|ik heet|mijn naam is|noem me|jeg heter|kall meg|nazywam się|"
    r"mam na imię|"
    r"meu nome é|chamo-me|me chamo"
)
SMALL_NAME = re.compile(
    rf"(?<![{LATIN}])(?i:{INTRODUCTION}) (?P<name>{SMALL_WORD}(?: {SMALL_WORD})?)(?![{LATIN}'’-])"
)
SMALL_GREETING = re.compile(
    rf"(?<![{LATIN}'’])(?i:i['’]?m|i am|this is|its|it['’]s) (?P<name>[a-zà-öø-ÿ]{{2,}})(?=,? "
    rf"(?:from|here|btw|by the way|again)(?![a-z])|[,.!])"
)
"""A name in lower case after "i'm", if it is said where from, or nothing follows."""
RELATIVES = (
    "daughter|son|mother|father|mum|mom|dad|sister|brother|wife|husband|aunt|uncle|grandma|"
    "grandmother|grandfather|"
    "grandson|granddaughter|niece|nephew|cousin|girlfriend|boyfriend|fiancée?|stepmother|stepson|"
    "twins|parents|widow|"
    "kids|landlord|flatmate|roommate|maiden name|birthday|funeral|wedding"
)
OWNER = re.compile(
    rf"(?<![{LATIN}'’-])(?P<name>{NAME_WORD}(?: {NAME_WORD})?)['’]s (?:\w+ "
    rf")?(?:{RELATIVES})(?![a-z])"
)
SMALL_OWNER = re.compile(
    rf"(?<![{LATIN}'’@/.-])(?P<name>[a-z]{{3,}})['’]s (?:{RELATIVES})(?![a-z])"
)
PERSON_WORD = (
    "man|woman|boy|girl|guy|lady|kid|child|baby|friend|colleague|neighbour|neighbor|teacher|"
    "doctor|nurse|lawyer|student|"
    "driver|agent|someone|somebody|person|fellow|chap|daughter|son|brother|sister|husband|wife|"
    "cousin|boss|landlord|owner|"
    "he|she|they|uncle|aunt|grandfather|grandmother|mother|father|victim|suspect|author|painter|"
    "singer"
)
CALLED = re.compile(
    rf"(?<![{LATIN}])(?i:{PERSON_WORD}) (?:(?:is|was|got|were|who is|who was) )?(?:called|named|"
    rf"by the name of|known as) "
    rf"(?P<name>{NAME_WORD}(?: {NAME_WORD}){{0,2}})"
)
CALLED_HINT = re.compile("(?:called|named|name of|known as) ")
WORKS = (
    "novels?|poems?|biography|memoirs?|paintings?|portrait|sonatas?|symphony|trial|affair|estate|"
    "scandal|murders?|case|"
    "essays?|interview|diaries|letters|lectures?|translation|sculpture|manuscript|verdict|lawsuit|"
    "divorce|wedding|funeral"
)
BEFORE_WORK = re.compile(
    rf"(?<![{LATIN}])(?:the|that|this|another|a|an|every) (?P<name>{NAME_WORD}) "
    rf"(?:{WORKS})(?![a-z])"
)
SPEECH = (
    "said|says|told|wrote|writes|replied|replies|argued|argues|added|claims|claimed|insists|"
    "insisted|explained|asked|"
    "answered|laughed|nodded|smiled|shrugged|sighed|whispered|agreed|disagreed|admitted|denied|"
    "phoned|texted|emailed|"
    "apologi[sz]ed|resigned|testified|complained|tweeted|promised|declined|married"
)
SPEAKER = re.compile(
    rf"(?:^|(?<=[.!?…\n]\s)|(?<=\n)|(?<=[\"”] ))(?P<name>{NAME_WORD}) (?:(?:also|then|later|never|"
    rf"has|had) )?(?:{SPEECH})(?![a-z])"
)
FAMILY = re.compile(
    rf"(?<![{LATIN}])the (?P<name>{NAME_WORD})(?:s|es) (?=(?:are|were|have|had|from|next|across|"
    rf"moved|live|lived|bought|sold|came|"
    rf"invited|want|said|upstairs|downstairs|and|family)(?![a-z]))|"
    rf"(?<![{LATIN}])the (?P<second>{NAME_WORD}) (?:family|household|sisters|brothers|twins|kids|"
    rf"boys|girls|residence)(?![a-z])"
)
SIGN_OFF = re.compile(
    r"(?:regards|cheers|thanks(?: so much| again| a lot)?|best|all the best|best wishes|love|"
    r"sincerely|yours(?: truly)?|take care|"
    rf"warmly|many thanks|talk soon|see you|hugs|gr(?:u|ü)(?:ß|ss)e?|lg|cordialement|saludos|"
    rf"saluti|groetjes|hilsen),?!?[ ]?\n+[ ]*"
    rf"(?P<name>{NAME_WORD})(?=[ ]*(?:\n|$))",
    re.IGNORECASE,
)
SMALL_TITLE = re.compile(
    rf"(?<![{LATIN}])(?:mr|mrs|ms|miss|dr|prof|sgt|capt)\.? "
    rf"(?P<name>[a-z]{{3,}}(?:-[a-z]+)?)(?![{LATIN}'’])"
)
CAPITAL_INSIDE = re.compile(
    rf"(?<![^\s(\"“'])(?P<before>[{LATIN}'’]+),? (?P<name>{NAME_WORD})(?= [a-z]|[.,!?;:]|$)"
)
"""A capitalised word after another word, and before none that is capitalised."""
TITLED_WORDS = frozenset(
    "president chair minister pepper speaker mayor right wrong universe robot who strange bean men "
    "and the".split()
)
OTHER_CAPITAL_SIGNS = frozenset("mnoyrbt")
"""Signs of words that have a capital without being names of people."""
NO_PERSON_SIGNS = frozenset("cmnoyrbe")


def find_names_in_context(text: str) -> Iterator[EntitySpan]:
    """Find `PERSON` by words around a name which no title or list of names decides."""
    for match in _candidates(text):
        group = match.lastgroup or "name"
        yield EntitySpan.of_match("PERSON", match, RANK_CUE, group=group)
    yield from _small_names(text)


def _candidates(text: str) -> Iterator[re.Match[str]]:
    """Yield matches of all forms whose name is possible in its place; hints save time."""
    if "'s " in text or "’s " in text:
        yield from (match for match in OWNER.finditer(text) if _is_possible(match["name"]))
        yield from (match for match in SMALL_OWNER.finditer(text) if _is_given_only(match["name"]))
    if CALLED_HINT.search(text):
        yield from (match for match in CALLED.finditer(text) if _is_possible(match["name"]))
    listed_forms = [SPEAKER]
    if "\n" in text:
        listed_forms.append(SIGN_OFF)
    for form in listed_forms:
        yield from (match for match in form.finditer(text) if _is_listed(match["name"]))
    yield from (match for match in CAPITAL_INSIDE.finditer(text) if _is_named_inside(match))
    for form in (BEFORE_WORK, FAMILY):
        for match in form.finditer(text):
            name = match[match.lastgroup or "name"]
            if _is_listed(name) and not NO_PERSON_SIGNS & {*load_gazetteer().of(name)}:
                yield match


def _small_names(text: str) -> Iterator[EntitySpan]:
    """Find names in lower case, after "mrs.", "i'm" and "call me"; a family name may follow."""
    for match in SMALL_TITLE.finditer(text):
        if match["name"] not in TITLED_WORDS and _may_be_name(match["name"]):
            yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")
    for match in SMALL_GREETING.finditer(text):
        if _is_given_only(match["name"]):
            yield EntitySpan.of_match("PERSON", match, RANK_CUE, group="name")
    for match in SMALL_NAME.finditer(text):
        first, _, last = match["name"].partition(" ")
        start = match.start("name")
        end = start + len(first)
        if _is_introduced(first, text[end:].lstrip()[:1]):
            if last and _may_be_name(last) and "c" not in load_gazetteer().of(last):
                end = match.end("name")
            yield EntitySpan("PERSON", start, end, RANK_CUE)


def _may_be_name(word: str) -> bool:
    return _is_listed(word) or not load_gazetteer().of(word)


def _is_introduced(word: str, follows: str) -> bool:
    """Return True for an unlisted word or a given name; one that is a word too must end a
    clause.
    """
    signs = load_gazetteer().of(word)
    if "g" not in signs:
        return not signs
    return "c" not in signs or follows in ("", ",", ".", "!")


def _is_possible(name: str) -> bool:
    """Return True if a word of the name is listed as one or is on no list."""
    signs = [load_gazetteer().of(word) for word in name.split()]
    for sign in signs:
        is_name = "g" in sign or "f" in sign
        if not sign or (is_name and "c" not in sign):
            return True
    return len(signs) > 1 and "g" in signs[0]


def _is_named_inside(match: re.Match[str]) -> bool:
    """Return True for a given name that is also an English word, with a capital for no other
    reason.
    """
    signs = {*load_gazetteer().of(match["name"])}
    if not {"c", "g"} <= signs or signs & OTHER_CAPITAL_SIGNS:
        return False
    before = match["before"]
    is_word = before.islower() or "c" in load_gazetteer().of(before)
    return is_word and before.lower() not in ARTICLES and language_of(match.string) == "en"


def _is_listed(name: str) -> bool:
    return bool({"g", "f"} & {*load_gazetteer().of(name)})


def _is_given_only(name: str) -> bool:
    signs = load_gazetteer().of(name)
    return "g" in signs and not NO_PERSON_SIGNS & {*signs}
