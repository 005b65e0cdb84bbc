"""A run's events for people: a line that moves at a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from personas.contracts import (
    TRAINER_EVENT,
    Epoch,
    Evaluation,
    Phase,
    Progress,
    ScoreCard,
    ScoreCardEvent,
    TrainerEvent,
)
from trainer.report.training import duration

PLAIN_EVERY_S = 10.0
CLEARED = "\r\x1b[K"


class Shown:
    """Takes the place of the stream to which events go as JSON, a line each."""

    def __init__(self, out: TextIO, every_s: float = PLAIN_EVERY_S) -> None:
        """`every_s`: how often a step is told where nobody sees a line move."""
        self._out, self._every_s = out, every_s
        self._moves = out.isatty()
        self._told_at = float("-inf")

    @property
    def name(self) -> str:
        """Of the stream."""
        return str(self._out.name)

    def write(self, line: str) -> None:
        """Show one event. Raises `OSError` when nobody reads any more."""
        event = TRAINER_EVENT.validate_json(line)
        if isinstance(event, Progress):
            self._step(event)
        elif text := _told(event):
            self._out.write(f"{CLEARED if self._moves else ''}{text}\n")

    def flush(self) -> None:
        """Have it seen."""
        self._out.flush()

    def _step(self, event: Progress) -> None:
        now = time.monotonic()
        if self._moves:
            self._out.write(CLEARED + step_line(event))
        elif now - self._told_at >= self._every_s or event.step == event.of:
            self._told_at = now
            self._out.write(step_line(event) + "\n")


def step_line(event: Progress) -> str:
    """`step 12/46  epoch 0.52  loss 2.1034  1,034 tokens/s  1.92 GB  3:10 left`."""
    parts = [
        f"step {event.step:,}/{event.of:,}",
        f"stage {event.stage}" if event.stage else "",
        f"epoch {event.epoch:.2f}",
        f"loss {event.loss:.4f}",
        f"{event.tokens_per_s:,.0f} tokens/s",
        f"{event.memory_bytes / 1e9:.2f} GB",
        f"{duration(event.eta_s)} left",
        event.trouble,
    ]
    return "  ".join(part for part in parts if part)


def _told(event: TrainerEvent) -> str:
    """What happened between steps; empty for what is told elsewhere."""
    match event:
        case Phase():
            return event.name + (f": {event.detail}" if event.detail else "")
        case Epoch():
            stage = f"stage {event.stage}, " if event.stage else ""
            losses = (("training", event.train_loss), ("held out", event.eval_loss))
            told = ", ".join(f"{name} loss {loss:.4f}" for name, loss in losses if loss is not None)
            return f"{stage}epoch {event.passes} done in {duration(event.seconds)}" + (f": {told}" if told else "")
        case Evaluation():
            return f"held out loss {event.eval_loss:.4f} after step {event.step:,}"
        case ScoreCardEvent():
            return _scores(event.scorecard)
    return ""


def _scores(card: ScoreCard) -> str:
    losses = (
        f"held-out replies: {card.loss_base:.4f} nats a token before, {card.loss_tuned:.4f} now "
        f"({1 - card.loss_tuned / card.loss_base:.1%} lower); general dialogue: {card.general_loss_base:.4f} before, "
        f"{card.general_loss_tuned:.4f} now"
    )
    if not card.verdict:
        return losses
    return "\n".join([losses, f"the gate says: {card.verdict}", *(f"  {it}" for it in (*card.reasons, *card.advice))])
