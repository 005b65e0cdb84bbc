"""From who-said-what to a `Conversation`, alike for all dialogue and instruction sets."""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from personas.letters import composed, folded
from trainer.conversation import Conversation, Message, Rejected, Speaker
from trainer.sources.formats import ReadOptions

USER = Speaker("user", ("user",))
ASSISTANT = Speaker("assistant", ("assistant",), is_persona=True)
ROLES: dict[str, Speaker | None] = {
    **dict.fromkeys(
        "user human prompter instruction input question prompt customer patient 用户 人类 问".split(), USER
    ),
    **dict.fromkeys(
        "assistant gpt chatgpt gpt4 gpt-4 bing bard claude llama model bot ai chatbot response".split(), ASSISTANT
    ),
    **dict.fromkeys("answer output machine agent doctor expert 助手 机器人 答".split(), ASSISTANT),
    **dict.fromkeys(("system", "developer", "系统"), None),
}
"""What data sets call the two who talk, in lower case; None is the system text."""
TALKING = {role: speaker for role, speaker in ROLES.items() if speaker is not None}
TOOL_ROLES = frozenset(
    "tool function function_call function_response tool_call tool_response observation ipython".split()
)
SECOND_NAMES = ("2", "b")
"""How the second of two speakers is called (User 2, Person B): the one whose answers are learned."""

Turns = Sequence[tuple[str, str]]
"""Who (a role or a name) and what, in order."""


class Unusable(Exception):
    """A record that cannot be used; says why."""


@dataclass(slots=True)
class Talk:
    """What a record holds, before it is a conversation: who (`labels`) says what (`texts`), the rest as there."""

    labels: list[str]
    texts: list[str]
    system: str = ""
    rejected: str = ""
    lang: str = ""

    @classmethod
    def of(cls, turns: Turns, system: str = "", rejected: str = "", lang: str = "") -> Talk:
        """The talk of pairs of label and text."""
        return cls([label for label, _ in turns], [text for _, text in turns], system, rejected, lang)


def conversation(talk: Talk, row: str, options: ReadOptions, rows: int = 1) -> Conversation | Rejected:
    """The talk with its speakers told apart, or why it is of no use. Texts are trimmed, empty messages left out."""
    if options.languages and talk.lang and talk.lang not in options.languages:
        return Rejected(row, f"language {talk.lang} is not asked for", rows)
    system: list[str] = []
    labels, texts = talk.labels, [composed(text).strip() for text in talk.texts]
    if len(texts) > 1 and all(texts) and _alternates(labels):
        messages = list(map(Message, map(TALKING.__getitem__, labels), texts, itertools.repeat(row)))
    else:
        try:
            messages, texts, system = _messages(labels, texts, row, options)
        except Unusable as error:
            return Rejected(row, str(error), rows)
    # Messages of one speaker in a row are one, so that a persona's which is not the first answers somebody.
    for message in messages[1:]:
        if message.speaker.is_persona:
            break
    else:
        return Rejected(row, _of_no_use(messages), rows)
    if told := composed(talk.system).strip():
        system.insert(0, told)
    return Conversation(
        tuple(messages),
        options.source,
        options.right,
        "\n".join(texts),
        "\n".join(system),
        rows,
        talk.rejected.strip(),
        talk.lang,
        options.arrived,
    )


def _alternates(labels: list[str]) -> bool:
    """Whether two roles take turns, as they do in most records: then there is nothing to join or to leave out."""
    first, second = TALKING.get(labels[0]), TALKING.get(labels[1])
    return first is not None and second is not None and first is not second and labels[2:] == labels[:-2]


def _of_no_use(messages: list[Message]) -> str:
    if not messages:
        return "no text"
    return "nobody is answered" if messages[0].speaker.is_persona else "no answer"


def _messages(
    labels: list[str], texts: list[str], row: str, options: ReadOptions
) -> tuple[list[Message], list[str], list[str]]:
    """The messages, those of one speaker in a row joined; their texts, not joined; the system texts among them."""
    messages: list[Message] = []
    said: list[str] = []
    system: list[str] = []
    speakers = ROLES
    last: Speaker | None = None
    for label, text in zip(labels, texts, strict=True):
        if label not in speakers:  # then this is still the table of roles, and names or other spellings are in use
            speakers = _speakers(labels, options)
        speaker = speakers[label]
        if not text:
            continue
        if speaker is None:
            system.append(text)
            continue
        said.append(text)
        if speaker is last:
            messages[-1] = Message(speaker, f"{messages[-1].text}\n{text}", row)
        else:
            messages.append(Message(speaker, text, row))
            last = speaker
    return messages, said, system


def _speakers(labels: list[str], options: ReadOptions) -> dict[str, Speaker | None]:
    """Who is who where labels are not plain roles: other spellings of roles, or names."""
    labels = list(dict.fromkeys(labels))
    keys = {label: folded(label) for label in labels}
    if any(key in TOOL_ROLES for key in keys.values()):
        raise Unusable("holds calls of tools")
    if all(key in ROLES for key in keys.values()):
        return {label: ROLES[key] for label, key in keys.items()}
    named = [label for label in labels if keys[label] not in ROLES]
    persona = _persona_label(labels, keys, options)
    speakers: dict[str, Speaker | None] = {label: ROLES[keys[label]] for label in labels if keys[label] in ROLES}
    for label in named:
        name = composed(label.strip())
        speakers[label] = Speaker(name or "someone", (name or "someone",))
    if persona is not None:
        speakers[persona] = _persona(composed(persona.strip()), options)
    return speakers


def _persona_label(labels: list[str], keys: dict[str, str], options: ReadOptions) -> str | None:
    """Which of the names is the persona's: the one that was given, else the second of those who talk."""
    own = {folded(name) for name in options.persona_names}
    if options.persona:
        own |= {folded(options.persona.name), folded(options.persona.id)}
    talking = [label for label in labels if ROLES.get(keys[label], USER) is not None]
    given = next((label for label in talking if keys[label] in own), None)
    if given is not None or any(ROLES.get(keys[label]) is ASSISTANT for label in talking):
        return given
    second = next(
        (label for label in talking if keys[label].split()[-1:] in ([SECOND_NAMES[0]], [SECOND_NAMES[1]])), None
    )
    return second or (talking[1] if len(talking) > 1 else None)


def _persona(name: str, options: ReadOptions) -> Speaker:
    persona = options.persona
    if persona and folded(name) in (folded(persona.name), folded(persona.id)):
        return Speaker(persona.id, (persona.name,), is_persona=True)
    return Speaker(name, (name,), is_persona=True)


def text_of(value: Any) -> str:
    """A cell as text: numbers as written, the parts of a list of text parts joined. Raises `Unusable` for others."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise Unusable(f"{'NaN' if value != value else 'infinity'} where a text was expected")
        return str(value)
    if isinstance(value, list):
        return "\n".join(_part(part) for part in value)
    raise Unusable("an object where a text was expected")


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
        return text_of(part.get("text"))
    if isinstance(part, dict):
        raise Unusable("holds pictures or sound")
    return text_of(part)


def list_of(value: Any) -> list[Any] | None:
    """A cell as list: also one that a table holds as JSON or as Python writes it; a dict of equally long lists, as
    Arrow keeps lists of objects, becomes a list of dicts. None when it is no list."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return _transposed(value)
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        try:
            found = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    return found if isinstance(found, list) else None


def _transposed(columns: dict[str, Any]) -> list[Any] | None:
    lists = list(columns.values())
    if not lists or not all(isinstance(cells, list) and len(cells) == len(lists[0]) for cells in lists):
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True)]
