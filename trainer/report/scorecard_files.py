"""Writes a score card's files: JSON, Markdown, picture, and the blind rating sheet with its key."""

from pathlib import Path

from pydantic import ValidationError

from personas.home.adapters import score_card_file
from personas.schemas.scorecard import ScoreCard
from trainer.report.rating_sheet import rating_key, rating_sheet, rating_sheet_csv
from trainer.report.scorecard_markdown import render_markdown
from trainer.report.scorecard_picture import draw_picture

SCORECARD_FILE = "scorecard.json"
SCORECARD_MARKDOWN_FILE = "scorecard.md"
PICTURE_FILE = "scorecard.png"
RUBRIC_FILE = "rubric.md"
RUBRIC_CSV_FILE = "rubric.csv"
RUBRIC_KEY_FILE = "rubric-key.json"


def read_score_card(adapter: Path) -> ScoreCard | None:
    """Read the newest score card of an adapter folder; None if there is none that can be read."""
    try:
        return ScoreCard.model_validate_json(score_card_file(adapter, SCORECARD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def write_renderings(report: Path, card: ScoreCard) -> None:
    """Write the picture, the rating sheet, its CSV and its key into `report` if the card has
    replies side by side.

    A card of losses alone has none of them. Creates `report` if needed. Raises `OSError`.
    """
    if not card.side_by_side:
        return
    report.mkdir(exist_ok=True)
    draw_picture(card, report / PICTURE_FILE)
    (report / RUBRIC_FILE).write_text(rating_sheet(card), encoding="utf-8")
    # `newline`: the table has the line ends of CSV already.
    (report / RUBRIC_CSV_FILE).write_text(rating_sheet_csv(card), encoding="utf-8", newline="")
    (report / RUBRIC_KEY_FILE).write_text(rating_key(card), encoding="utf-8")


def write_scorecard(folder: Path, card: ScoreCard) -> None:
    """Write `scorecard.json`, `scorecard.md`, and the files for people in `report/`. Raises
    `OSError`.
    """
    (folder / SCORECARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / SCORECARD_MARKDOWN_FILE).write_text(render_markdown(card), encoding="utf-8")
    write_renderings(folder / "report", card)
