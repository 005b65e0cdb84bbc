"""Reads example talk as people type it into a form, and writes it as a card's `mes_example`."""

import re
from typing import NamedTuple

from personas.card.toml_card import START_PATTERN, normalise_examples
from personas.gettext_marker import gettext_noop

LABEL_PATTERN = re.compile(r"\{\{(user|char)\}\}:\s*", re.IGNORECASE)
OTHER_LABEL_PATTERN = re.compile(r"[^\W\d_][^:：]{0,39}[:：]\s*")
"""A name before an answer that is not the persona's, such as one that it had before."""
MAX_QUOTED_CHARS = 80
MULTILINE_ANY_CASE = re.MULTILINE | re.IGNORECASE
Exchange = tuple[str, str]
"""What somebody says to the persona, and its answer."""


class Turn(NamedTuple):
    """What one side, `user` or `char`, says; without a label, its side follows from its place."""

    side: str
    said: str
    has_label: bool


class InvalidExampleError(ValueError):
    """A line of an example has no answer, or answers nothing; its text quotes it and says the
    form. `source` is the text with gaps for `values`, for its translation.
    """

    def __init__(self, source: str, **values: str) -> None:
        super().__init__(source.format(**values))
        self.source = source
        self.values = values


def parse_example_lines(text: str, name: str) -> list[Exchange]:
    """Read exchanges from lines of `You: …` and `NAME: …`.

    A line without a label right below another one answers it, or goes on with the answer. Raises
    `InvalidExampleError` for what has no answer, and for an answer to nothing.
    """
    label = name or "NAME"
    exchanges: list[Exchange] = []
    for conversation in START_PATTERN.split(text):
        asked = ""
        for side, said, _ in _parse_turns(conversation, name):
            if side == "user" and asked:
                break
            if side == "user":
                asked = said
                continue
            if not asked:
                raise InvalidExampleError(
                    gettext_noop(
                        "“{said}” has no “You: …” before it. Write what somebody says, “You: …”, and "
                        "on the next line the answer, “{name}: …”."
                    ),
                    said=_shorten(said),
                    name=label,
                )
            exchanges.append((asked, said))
            asked = ""
        if asked:
            raise InvalidExampleError(
                gettext_noop("“{said}” has no answer. Write one on the next line: “{name}: …”."),
                said=_shorten(asked),
                name=label,
            )
    return exchanges


def first_unlabelled_answer(text: str, name: str) -> str:
    """Return the first line that is read as an answer only because it follows a line of `You: …`,
    shortened; empty where each answer has a label.
    """
    for conversation in START_PATTERN.split(text):
        for turn in _parse_turns(conversation, name):
            if not turn.has_label:
                return _shorten(turn.said)
    return ""


def _shorten(said: str) -> str:
    return said if len(said) <= MAX_QUOTED_CHARS else f"{said[:MAX_QUOTED_CHARS]}…"


def _parse_turns(text: str, name: str) -> list[Turn]:
    # People write the first name alone, in small letters, or with their script's colon.
    names = "|".join(re.escape(label) for label in {name, *name.split()[:1]} if label)
    if names:
        text = re.sub(
            rf"^[ \t]*(?:{names})[ \t]*[:：]", "{{char}}:", text, flags=MULTILINE_ANY_CASE
        )
    text = re.sub(r"^[ \t]*you[ \t]*：", "{{user}}:", text, flags=MULTILINE_ANY_CASE)
    turns: list[Turn] = []
    is_open = False
    for line in normalise_examples(text, name).splitlines():
        line = line.strip()
        label = LABEL_PATTERN.match(line)
        if label:
            turns.append(Turn(label[1].lower(), line[label.end() :], has_label=True))
        elif line and is_open and turns[-1].side == "user":
            said = OTHER_LABEL_PATTERN.sub("", line, count=1)
            turns.append(Turn("char", said, has_label=said != line))
        elif line and is_open:
            turns[-1] = turns[-1]._replace(said=f"{turns[-1].said} {line}".strip())
        elif line:
            turns.append(Turn("char", line, has_label=False))
        is_open = bool(line) and (is_open or label is not None)
    return [turn for turn in turns if turn.said]


def format_examples(exchanges: list[Exchange]) -> str:
    """Write exchanges as a card's `mes_example`, each as a conversation of its own."""
    lines = []
    for asked, answer in exchanges:
        lines += ["<START>", f"{{{{user}}}}: {asked}", f"{{{{char}}}}: {answer}"]
    return "\n".join(lines)


def count_examples(mes_example: str, name: str) -> int:
    """Count the answers of the persona in the `mes_example` of a card of this name."""
    count = 0
    for conversation in START_PATTERN.split(mes_example):
        for turn in _parse_turns(conversation, name):
            count += turn.side == "char" and turn.has_label
    return count


def example_lines(mes_example: str, name: str, label: str = "") -> str:
    """Write the `mes_example` of a card of this name as lines for a form, with the label (if left
    out, the name) before what the persona says; `parse_example_lines` reads them.
    """
    text = normalise_examples(mes_example, name)
    text = re.sub(r"\s*<START>\s*", "\n\n", text)
    text = re.sub(r"\{\{user\}\}:", "You:", text, flags=re.IGNORECASE)
    speaker = f"{label or name}:"
    return re.sub(r"\{\{char\}\}:", lambda _: speaker, text, flags=re.IGNORECASE).strip()
