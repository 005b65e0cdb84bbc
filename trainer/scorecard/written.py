"""A score card's files."""

from __future__ import annotations

from pathlib import Path

from personas.scorecard import FullScoreCard
from trainer.gate.outputs import write_outputs
from trainer.scorecard.markdown import markdown

CARD, CARD_FOR_PEOPLE = "scorecard.json", "scorecard.md"


def write_card(folder: Path, card: FullScoreCard) -> None:
    """`scorecard.json`, `scorecard.md` for people, and in `report/` what is to be looked at. Raises `OSError`."""
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FOR_PEOPLE).write_text(markdown(card), encoding="utf-8")
    write_outputs(folder / "report", card)
