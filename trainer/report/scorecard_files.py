"""Writes a score card's files: JSON, Markdown, picture, and the blind rating sheet with its key."""

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

from personas.schemas.scorecard import ScoreCard, SideBySide
from trainer.report.scorecard_markdown import render_markdown
from trainer.report.scorecard_picture import draw_picture

SCORECARD_FILE, SCORECARD_MARKDOWN_FILE, PICTURE_FILE = "scorecard.json", "scorecard.md", "scorecard.png"
RUBRIC_FILE, RUBRIC_CSV_FILE, RUBRIC_KEY_FILE = "rubric.md", "rubric.csv", "rubric-key.json"

REAL_REPLY = "real"
REPLY_LETTERS = "ABCDEF"
RATING_QUESTIONS = ("in character", "true to the lore", "reads well", "answers", "harmless")
RATING_SCALE = "1 (not at all) to 5 (entirely)"
RATING_COLUMNS = ("prompt", "reply", "asked", "text", *RATING_QUESTIONS, "remarks")


def shuffled_replies(card: ScoreCard, index: int) -> list[tuple[str, str]]:
    """Return the replies to a prompt in shuffled order as pairs of side and text; the real reply is among them."""
    shown: SideBySide = card.side_by_side[index]
    texts = [(REAL_REPLY, shown.real), *((side, reply.text) for side, reply in shown.replies.items())]
    random.Random(f"{card.persona} {card.version} {index}").shuffle(texts)
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
        f"Rate each reply from {RATING_SCALE} on each of: {questions}. Read all replies to a prompt first. The key is "
        "in a separate file: do not open it before all are rated. `rubric.csv` is the same sheet for a spreadsheet.",
    ]
    for index, it in enumerate(card.side_by_side):
        head = f"| reply | {' | '.join(RATING_QUESTIONS)} | remarks |\n|{'---|' * (len(RATING_QUESTIONS) + 2)}"
        texts = shuffled_replies(card, index)
        empty = "\n".join(f"| {letter} |{' |' * (len(RATING_QUESTIONS) + 1)}" for letter in REPLY_LETTERS[: len(texts)])
        replies = [f"**{letter}.** {_one_line(text)}" for letter, (_, text) in zip(REPLY_LETTERS, texts, strict=False)]
        parts += [f"## {index + 1}", f"> {_one_line(it.prompt)}", *replies, f"{head}\n{empty}"]
    return "\n\n".join(parts) + "\n"


def rating_key(card: ScoreCard) -> str:
    """Render the key as JSON: prompt, then letter, to base, live, new or real."""
    key = {
        str(index + 1): {
            letter: side for letter, (side, _) in zip(REPLY_LETTERS, shuffled_replies(card, index), strict=False)
        }
        for index in range(len(card.side_by_side))
    }
    return json.dumps({"persona": card.persona, "version": card.version, "replies": key}, indent=2) + "\n"


def _rows(card: ScoreCard) -> Iterator[tuple[str, ...]]:
    for index, it in enumerate(card.side_by_side):
        for letter, (_, text) in zip(REPLY_LETTERS, shuffled_replies(card, index), strict=False):
            blank = ("",) * (len(RATING_QUESTIONS) + 1)
            yield (str(index + 1), letter, _escape_formula(it.prompt), _escape_formula(text), *blank)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape_formula(text: str) -> str:
    """Prefix text that a spreadsheet would evaluate as a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def write_renderings(report: Path, card: ScoreCard) -> None:
    """Write the picture, the rating sheet, its CSV and its key into `report` if the card has replies side by side.

    A card of losses alone has none of them. Creates `report` if needed. Raises `OSError`.
    """
    if not card.side_by_side:
        return
    report.mkdir(exist_ok=True)
    draw_picture(card, report / PICTURE_FILE)
    (report / RUBRIC_FILE).write_text(rating_sheet(card), encoding="utf-8")
    (report / RUBRIC_CSV_FILE).write_text(rating_sheet_csv(card), encoding="utf-8", newline="")
    (report / RUBRIC_KEY_FILE).write_text(rating_key(card), encoding="utf-8")


def write_scorecard(folder: Path, card: ScoreCard) -> None:
    """Write `scorecard.json`, `scorecard.md`, and the files for people in `report/`. Raises `OSError`."""
    (folder / SCORECARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / SCORECARD_MARKDOWN_FILE).write_text(render_markdown(card), encoding="utf-8")
    write_renderings(folder / "report", card)
