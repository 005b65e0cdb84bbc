"""Renders the blind rating sheet of a score card's replies, and its key."""

import csv
import io
import json
import random
from collections.abc import Iterator

from personas.schemas.scorecard import ScoreCard, SideBySide

REAL_REPLY = "real"
REPLY_LETTERS = "ABCDEF"
RATING_QUESTIONS = ("in character", "true to the lore", "reads well", "answers", "harmless")
RATING_SCALE = "1 (not at all) to 5 (entirely)"
RATING_COLUMNS = ("prompt", "reply", "asked", "text", *RATING_QUESTIONS, "remarks")


def shuffled_replies(card: ScoreCard, index: int) -> list[tuple[str, str]]:
    """Return the replies to a prompt in shuffled order as pairs of side and text; the real reply is
    among them.
    """
    shown: SideBySide = card.side_by_side[index]
    texts: list[tuple[str, str]] = [(REAL_REPLY, shown.real)]
    texts += [(side, reply.text) for side, reply in shown.replies.items()]
    # The same order each time: sheet, spreadsheet and key are rendered one after the other.
    random.Random(f"{card.persona} {card.version} {index}").shuffle(texts)  # nosec B311
    return texts


def rating_sheet_csv(card: ScoreCard) -> str:
    """Render the rating sheet as CSV with empty columns to fill in."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(RATING_COLUMNS)
    writer.writerows(_rows(card))
    return out.getvalue()


def rating_sheet(card: ScoreCard) -> str:
    """Render the rating sheet as Markdown: instructions, then each prompt with its replies."""
    questions = ", ".join(RATING_QUESTIONS)
    parts = [
        f"# Replies to rate: {card.persona or 'dialogue'}",
        f"Rate each reply from {RATING_SCALE} on each of: {questions}. Read all replies to a "
        "prompt first. The key is in a separate file: do not open it before all are rated. "
        "`rubric.csv` is the same sheet for a spreadsheet.",
    ]
    for index, pair in enumerate(card.side_by_side):
        parts += [f"## {index + 1}", f"> {_one_line(pair.prompt)}"]
        table = [
            f"| reply | {' | '.join(RATING_QUESTIONS)} | remarks |",
            f"|{'---|' * (len(RATING_QUESTIONS) + 2)}",
        ]
        for letter, (_, text) in zip(REPLY_LETTERS, shuffled_replies(card, index), strict=False):
            parts.append(f"**{letter}.** {_one_line(text)}")
            table.append(f"| {letter} |{' |' * (len(RATING_QUESTIONS) + 1)}")
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def rating_key(card: ScoreCard) -> str:
    """Render the key as JSON: prompt, then letter, to base, live, new or real."""
    replies: dict[str, dict[str, str]] = {}
    for index in range(len(card.side_by_side)):
        sides = [side for side, _ in shuffled_replies(card, index)]
        replies[str(index + 1)] = dict(zip(REPLY_LETTERS, sides, strict=False))
    key = {"persona": card.persona, "version": card.version, "replies": replies}
    return json.dumps(key, indent=2) + "\n"


def _rows(card: ScoreCard) -> Iterator[tuple[str, ...]]:
    blank = [""] * (len(RATING_QUESTIONS) + 1)
    for index, pair in enumerate(card.side_by_side):
        prompt = _escape_formula(pair.prompt)
        for letter, (_, text) in zip(REPLY_LETTERS, shuffled_replies(card, index), strict=False):
            yield str(index + 1), letter, prompt, _escape_formula(text), *blank


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape_formula(text: str) -> str:
    """Prefix text that a spreadsheet would evaluate as a formula."""
    # Members wrote the prompts, and somebody else opens the sheet.
    if text.lstrip()[:1] in ("=", "+", "-", "@"):
        return f"'{text}"
    return text
