"""Names of people by the words around them, for when there is no tagger: less is found, and less is wrong.

Addresses need no rules of their own here: `trainer.anonymise.places` knows those that have a form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.anonymise.bounds import LATIN
from trainer.anonymise.entity import BY_CUE, Span
from trainer.anonymise.tagger.vocabulary import vocabulary
from trainer.anonymise.words import ENGLISH

UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0102\u0110\u01a0\u01af\u1e00-\u1eff"
NAME_WORD = rf"[{UPPER}](?:[{LATIN}]|['’-](?=[{LATIN}]))+"
NAME = rf"(?P<name>{NAME_WORD}(?: (?:[A-Z]\. )?(?:(?:de|van|von|der|da|di|del|la|le|bin|al) )?{NAME_WORD}){{0,3}})"
TITLE = r"(?i:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|mister)"
NAME_AFTER = rf"(?:{TITLE}(?:\.\s?|\s))?(?!{TITLE}(?![{LATIN}])){NAME}"
"""A title is no part of a name."""
SURE_CUES = (
    r"(?i:my name is|my name's|everyone calls me|call me|i am called|ask for|dear|(?:named|called) (?:him|her|it|them)|"
    r"his name is|her name is|their name is|tên (?:tôi|mình|em|anh|chị) là|kính gửi|thân gửi|attn:?)\s+"
)
CUES = (
    r"(?i:name is|named|this is|i'm|i am|regards,|cheers,|sincerely,|love,|thanks,|yours,|signed,|speak (?:to|with)|"
    r"talk to|married to|account of|follow up with|said|says|asked|tên là|tôi là|mình là|em là|gặp|gửi|name:|customer:|"
    r"contact:|patient:)\s+"
)
CALLED = (
    r"(?:^|(?<=[.!?\n]\s)|(?<=\n))(?P<name>[A-Z][a-z]{2,})(?=, (?:can|could|would|will|please|I|you|are|do|did|what|"
    r"where|how|why|when|who|thank|let|come|have|is)(?![a-z]))"
)
TITLES = (
    r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Madam|Captain|Sergeant|Officer|Judge|Senator|Aunt|Uncle|Anh|Chị|Cô|Chú|"
    r"Bác|Ông|Bà|Thầy|anh|chị|cô|chú|bác|ông|bà|thầy)\.?\s"
)
SURE = (re.compile(rf"(?<![{LATIN}0-9_@#/.]){SURE_CUES}{NAME_AFTER}"), re.compile(CALLED))
PATTERNS = tuple(re.compile(rf"(?<![{LATIN}0-9_@#/.]){before}{NAME_AFTER}") for before in (CUES, TITLES))
TITLED = re.compile(rf"(?<![{LATIN}0-9_@#/.])(?i:mr|mrs|ms|mx|dr|prof|miss)(?:\.\s?|\s){NAME}")
CJK_CUES = (
    re.compile(
        "(?:我叫|我的名字是|我名叫|他叫|她叫|姓名[:：]|联系人[:：])"
        "(?P<name>[\u4e00-\u9fff]{2,4}?)(?=[，。,.!！？?\\s、的]|$)"
    ),
    re.compile(
        "(?:私は|僕は|俺は|名前は|氏名[:：])\\s?"
        "(?P<name>[\u3041-\u30fc\u4e00-\u9fff]{2,6}?)(?=です|と申し|といい|と言い|だ。)"
    ),
)
RANKS = frozenset("president speaker chairman minister mayor right wrong universe robot".split())
NO_NAMES = frozenset(
    """I'm I Sure Not Well However Also Again First Second Finally Honestly Anyway Sorry Please Thanks Hello Yeah Okay
    Actually The A An In At On Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February
    March April May June July August September October November December
    English French German Spanish Chinese Japanese Vietnamese American British God Jesus Christmas""".split()
)


def names_by_rules(text: str, *, sure: bool) -> Iterator[Span]:
    """`PERSON` after a cue word or a title, in the four languages; `sure`: only where hardly anything else stands."""
    for pattern in SURE if sure else (*SURE, *PATTERNS):
        for match in pattern.finditer(text):
            first = match["name"].split()[0]
            if (
                first not in NO_NAMES
                and first.lower() not in RANKS
                and (first.lower() not in ENGLISH or " " in match["name"])
            ):
                yield Span("PERSON", *match.span("name"), BY_CUE)
    for match in TITLED.finditer(text):
        if end := _end_of_name(match["name"]):
            yield Span("PERSON", match.start("name"), match.start("name") + end, BY_CUE)
    for pattern in CJK_CUES:
        for match in pattern.finditer(text):
            yield Span("PERSON", *match.span("name"), BY_CUE)


def _end_of_name(written: str) -> int:
    """Where the name ends that stands behind a title: before the first word that is none. 0: there is no name."""
    end = 0
    for match in re.finditer(rf"[{LATIN}'’-]+", written):
        signs = vocabulary().of(match[0])
        is_word = "c" in signs and (not {"g", "f"} & {*signs} or (end > 0 and match[0].isupper()))
        if match[0][0].isupper() and (is_word or match[0] in NO_NAMES or match[0].lower() in RANKS):
            break
        end = match.end()
    return end
