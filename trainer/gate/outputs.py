"""What of a score card is for people: a page, a picture, and a sheet to score replies on."""

from __future__ import annotations

from pathlib import Path

from personas.scorecard import FullScoreCard
from trainer.gate.page import page
from trainer.gate.picture import draw
from trainer.gate.rubric import key, sheet, sheet_as_csv

PAGE, PICTURE = "scorecard.html", "scorecard.png"
RUBRIC, RUBRIC_TABLE, RUBRIC_KEY = "rubric.md", "rubric.csv", "rubric-key.json"


def write_outputs(report: Path, card: FullScoreCard) -> None:
    """`scorecard.html`; with replies side by side `scorecard.png`, `rubric.md`, `rubric.csv` and `rubric-key.json` too.

    Of losses alone nobody has to see a picture. `report` is made where it is missing. Raises `OSError`.
    """
    report.mkdir(exist_ok=True)
    (report / PAGE).write_text(page(card), encoding="utf-8")
    if card.side_by_side:
        draw(card, report / PICTURE)
        (report / RUBRIC).write_text(sheet(card), encoding="utf-8")
        (report / RUBRIC_TABLE).write_text(sheet_as_csv(card), encoding="utf-8", newline="")
        (report / RUBRIC_KEY).write_text(key(card), encoding="utf-8")
