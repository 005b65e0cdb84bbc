"""What card authors write in place of names, brought into one form: `{{char}}` and `{{user}}`.

Sources: the macros of character cards V1 and V2, and "Curly Braced Syntaxes" of V3. What draws lots (`{{random:…}}`)
stays as it is written: a prompt has to be the same from one turn to the next.
"""

from __future__ import annotations

import re

from personas.letters import composed

NAMES = (
    (re.compile(r"\{\{\s*char\s*\}\}|<char>|<bot>", re.IGNORECASE), "{{char}}"),
    (re.compile(r"\{\{\s*user\s*\}\}|<user>", re.IGNORECASE), "{{user}}"),
    (re.compile(r"\{\{\s*original\s*\}\}", re.IGNORECASE), "{{original}}"),
)
COMMENT = re.compile(r"\{\{\s*(?://|comment:|hidden_key:)[^{}]*\}\}", re.IGNORECASE)
START = re.compile(r"<start>", re.IGNORECASE)


def canonical(text: str) -> str:
    """A text with one form of each name and letter, and without what its author meant for people only."""
    text = COMMENT.sub("", composed(text))
    for pattern, name in NAMES:
        text = pattern.sub(name, text)
    return text


def canonical_examples(text: str, name: str, nickname: str = "") -> str:
    """Examples whose lines begin with `{{char}}:` and `{{user}}:` where V1 cards write the name and "You"."""
    text = START.sub("<START>", canonical(text))
    own = "|".join(re.escape(composed(one)) for one in (name, nickname) if one)
    text = re.sub(rf"^[ \t]*(?:{own})[ \t]*:", "{{char}}:", text, flags=re.MULTILINE)
    return re.sub(r"^[ \t]*(?:you|user)[ \t]*:", "{{user}}:", text, flags=re.MULTILINE | re.IGNORECASE)
