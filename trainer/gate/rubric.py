"""A sheet for people to score replies on, who do not know which is whose; and its key, apart.

The same card gives the same sheet: the order of each prompt's replies is drawn by version and prompt.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator

from personas.scorecard import FullScoreCard, SideBySide

REAL = "real"
LETTERS = "ABCDEF"
ASKED = ("in character", "true to the lore", "reads well", "answers", "harmless")
SCALE = "1 (not at all) to 5 (entirely)"
COLUMNS = ("prompt", "reply", "asked", "text", *ASKED, "remarks")


def order(card: FullScoreCard, place: int) -> list[tuple[str, str]]:
    """Whose reply stands where, and its text; the persona's real one is among them."""
    shown: SideBySide = card.side_by_side[place]
    texts = [(REAL, shown.real), *((side, reply.text) for side, reply in shown.replies.items())]
    random.Random(f"{card.persona} {card.version} {place}").shuffle(texts)
    return texts


def sheet_as_csv(card: FullScoreCard) -> str:
    """The sheet with empty columns to fill, for a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(card))
    return out.getvalue()


def sheet(card: FullScoreCard) -> str:
    """The sheet for people, as markdown: how to score, then each prompt with its replies."""
    asked = ", ".join(ASKED)
    parts = [
        f"# Replies to score: {card.persona or 'dialogue'}",
        f"Each reply gets a number from {SCALE} for each of: {asked}. Read all replies to a prompt first. Nobody knows "
        "whose reply is whose before all are scored: the key lies apart. `rubric.csv` is the same for a spreadsheet.",
    ]
    for place, it in enumerate(card.side_by_side):
        head = f"| reply | {' | '.join(ASKED)} | remarks |\n|{'---|' * (len(ASKED) + 2)}"
        texts = order(card, place)
        empty = "\n".join(f"| {letter} |{' |' * (len(ASKED) + 1)}" for letter in LETTERS[: len(texts)])
        replies = [f"**{letter}.** {_flat(text)}" for letter, (_, text) in zip(LETTERS, texts, strict=False)]
        parts += [f"## {place + 1}", f"> {_flat(it.prompt)}", *replies, f"{head}\n{empty}"]
    return "\n\n".join(parts) + "\n"


def key(card: FullScoreCard) -> str:
    """Whose replies they are, as JSON: prompt, then letter, to base, live, new or real."""
    whose = {
        str(place + 1): {letter: side for letter, (side, _) in zip(LETTERS, order(card, place), strict=False)}
        for place in range(len(card.side_by_side))
    }
    return json.dumps({"persona": card.persona, "version": card.version, "replies": whose}, indent=2) + "\n"


def _rows(card: FullScoreCard) -> Iterator[tuple[str, ...]]:
    for place, it in enumerate(card.side_by_side):
        for letter, (_, text) in zip(LETTERS, order(card, place), strict=False):
            blank = ("",) * (len(ASKED) + 1)
            yield (str(place + 1), letter, _harmless(it.prompt), _harmless(text), *blank)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _harmless(text: str) -> str:
    """As a spreadsheet shows it: what looks like a formula is none."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text
