"""What is too grave to be taken for something like it: a vector is near to what sounds alike.

English, as the bundled encoder is. The words decide nothing about what is said to them; they keep a
message of one kind from the replies to another.
"""

import re
from functools import lru_cache

KINDS = {
    "sexual harm": r"""rap(?:e|ed|es|ist)|molest\w*|grop\w+|touch(?:es|ed|ing)? me|abus\w+|assault\w*|nudes?
        |blackmail\w*|stalk\w*|dick pics?""",
    "sex": r"sex|horny|spank\w*|dick|virgin\w*|naked|sleep with (?:you|me)|kiss(?:ed|es)? me",
    "violence": r"""kill(?:s|ed|ing)?|murder\w*|shot|shoot\w*|guns?|bomb\w*|stab\w*|beats?|beating|chok\w+
        |hits?|hitting|poison\w*|hurts? (?:my|your|him|her|some\w+|people)|kick\w*|war|scream\w*|body
        |bullied|bully\w*|bullies|police|corpse""",
    "emergency": r"""breath(?:e|ing|es)|unconscious|bleed\w*|swallow\w*|(?:a|my|having) stroke|heart attack
        |overdos\w*|coma|on fire|(?:won['’]?t|doesn['’]?t|will not) wake|chest pains?|bleach
        |smells? (?:of )?gas|gas smell|blood""",
    "death": r"""died|dies|dead|dying|die|death|passed away|funeral|miscarr\w*|stillb\w+|late (?:wife|husband)
        |lost (?:my|a|our) (?:\w+ )?(?:dad|father|mum|mom|mother|gran\w*|brother|sister|son|daughter|baby|husband
        |wife|partner|friend|dog|cat|pet)""",
    "abortion": r"abortion",
    "pregnancy": r"pregnan\w*|expecting|having a baby|ivf",
    "illness": r"""ill|sick|cancer|dementia|alzheimer\w*|hospital|tumou?r|chemo|biopsy|diagnos\w*|depress\w*
        |surgery|operation|relapsed?""",
    "minor": r"""(?:i['’]?m|im|i am) (?:[5-9]|1[0-7])|(?:[5-9]|1[0-7])(?:[ -]?years?[ -]old| ?yo)
        |little (?:girls?|boys?)
        |my teacher|my school""",
    "people": r"""blacks?|jews?|muslims?|immigrants?|trans|nazis?|hitler|racist|hijab|gay|lesbian|women|white people""",
    "prison": r"prison|jail|arrest\w*|deport\w*",
    "drugs": r"meds|medication|antidepress\w*|drugs?|weed|\d+ ?mg|pills?|ibuprofen|paracetamol",
    "turn": r"""better|well again|recover\w*|surviv\w*|beat|came back|came home|back together|fine now|is gone|used to
        |woke up|got out|benign|went well|sober|in remission|turned \d+|anymore|any more""",
}  # fmt: skip
NEEDS_HELP = frozenset(("sexual harm", "emergency"))
"""Kinds to which a persona says what its author wrote for such a moment, where nothing else fits."""
FIGURE_PATTERN = re.compile(
    r"\b(?:killing it|killing me|kill for|sick of|dead tired|to death|to die for|dying (?:to|for)|shoot me a)\b",
    re.IGNORECASE,
)
PATTERNS = {
    kind: re.compile(r"\b(?:" + re.sub(r"\s*\n\s*", "", words) + r")\b", re.IGNORECASE)
    for kind, words in KINDS.items()
}


@lru_cache(maxsize=4096)
def grave_kinds(text: str) -> frozenset[str]:
    """Return the kinds of grave matters that a message speaks of; none for most."""
    plain = FIGURE_PATTERN.sub("", text)
    return frozenset(kind for kind, pattern in PATTERNS.items() if pattern.search(plain))
