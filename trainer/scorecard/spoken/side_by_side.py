"""Held-out prompts with the real reply and each side's, made with the same seed and stamped with what made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from personas.scorecard import Made, ReplyText, Side, SideBySide
from trainer.exchange import Exchange
from trainer.scorecard.spoken.answers import HELDOUT, Answer, answers_of

SHOWN = 8


def side_by_side(
    said: Sequence[Exchange], answers: Sequence[Answer], made: Mapping[Side, Made | None], seed: int
) -> tuple[SideBySide, ...]:
    """The first prompts that were answered, in the order of their talk; `said` are all held-out exchanges."""
    by_number: dict[int, dict[Side, ReplyText]] = {}
    for side, by in made.items():
        for answer in answers_of(answers, HELDOUT, side=side, seed=seed):
            reply = ReplyText(text=answer.text, made_by=by, seed=seed)
            by_number.setdefault(answer.asked.number, {})[side] = reply
    shown = sorted(by_number)[:SHOWN]
    return tuple(SideBySide(prompt=said[n].message, real=said[n].reply, replies=by_number[n]) for n in shown)
