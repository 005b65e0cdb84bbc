"""Written exchanges: what somebody may ask a persona, in several phrasings, and what it says to that."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from personas.errors import MaterialError
from personas.home.atomic_files import write_private_file
from personas.prompt.renderer import example_conversations
from personas.schemas.base import FrozenModel
from personas.schemas.chat import Persona

HELP_TOPIC = "help"
Phrase = Annotated[str, Field(min_length=1, max_length=1500)]


@dataclass(frozen=True)
class Exchange:
    """A reply in an author's words. Each of `asked` is a phrasing of what it answers, said right
    after the persona's line `after`, if there is one.
    """

    asked: tuple[str, ...]
    reply: str
    after: str = ""
    is_for_help: bool = False
    """Said to what is grave, where nothing else fits."""


class ExchangeLine(FrozenModel):
    """A line of a file of exchanges (JSON lines)."""

    asked: Annotated[tuple[Phrase, ...], Field(min_length=1)]
    reply: Phrase
    after: str = ""
    topic: str = ""
    """For people who read the file, but for `HELP_TOPIC`."""


def compared_texts(exchanges: Sequence[Exchange]) -> list[str]:
    """Return the texts with which messages are compared: all phrasings in their order, then the
    lines of the persona that some of them follow, each once.
    """
    phrasings = [phrasing for exchange in exchanges for phrasing in exchange.asked]
    lines = dict.fromkeys(exchange.after for exchange in exchanges if exchange.after)
    return [*phrasings, *lines]


def read_exchanges(path: Path) -> list[Exchange]:
    """Read a file of exchanges. Raises `MaterialError`, which names the line that cannot be read."""
    return list(_read_lines(path))


def _read_lines(path: Path) -> Iterator[Exchange]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MaterialError(
            f"{path.name} cannot be read: {error}.", "It is a text file in UTF-8."
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = ExchangeLine.model_validate(json.loads(line))
        except (ValidationError, ValueError) as error:
            raise MaterialError(
                f"Line {number} of {path.name} is no exchange: {_first_problem(error)}.",
                'A line is {"asked": ["…", "…"], "reply": "…"}, with "after" where the persona '
                "has said something before.",
            ) from error
        yield Exchange(row.asked, row.reply, row.after, is_for_help=row.topic == HELP_TOPIC)


def write_exchanges(path: Path, exchanges: Sequence[Exchange]) -> None:
    """Write a file of exchanges, readable by the bot's user alone. Raises `OSError`."""
    rows = []
    for each in exchanges:
        row = ExchangeLine(asked=each.asked, reply=each.reply, after=each.after)
        rows.append(row.model_dump_json(exclude_defaults=True) + "\n")
    write_private_file(path, "".join(rows).encode())


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}"
    return str(error)


def card_exchanges(persona: Persona) -> list[Exchange]:
    """Return the exchanges of a card's examples, each after the one before it."""
    exchanges = []
    for conversation in example_conversations(persona):
        before = ""
        for asked, reply in zip(conversation[::2], conversation[1::2], strict=False):
            exchanges.append(Exchange((asked.text,), reply.text, before))
            before = reply.text
    return exchanges
