"""Shows progress and a run's events: one moving line on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any, Self, TextIO

from tqdm import tqdm

from personas.cli_common import PROGRESS_INTERVAL_S, LogProgress
from personas.schemas.formatting import format_time_left
from personas.schemas.training_events import (
    TRAINER_EVENT,
    Epoch,
    Evaluation,
    Phase,
    Progress,
    ScoreCardEvent,
    ScoreSummary,
    TrainerEvent,
)
from trainer.report.run_report import format_duration

EVENT_INTERVAL_S = 10.0
CLEAR_LINE = "\r\x1b[K"


class ProgressCounter:
    """A counter on standard error, with one line per activity."""

    def __init__(self, every_s: float = PROGRESS_INTERVAL_S) -> None:
        self._bar: Any = None
        self._activity = ""
        self._count = 0
        self._log = LogProgress(every_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def count(self, activity: str, more: int) -> None:
        """Count `more` records or samples of an activity."""
        if self._activity != activity:
            self.__exit__()
            self._bar = tqdm(desc=activity, unit=" rows", file=sys.stderr, disable=None)
            self._activity = activity
            self._count = 0
        self._bar.update(more)
        self._count += more
        self._log.update(f"{activity}: {self._count:,} rows")


def print_line(text: str) -> None:
    """Print a line of progress on standard error."""
    print(f"… {text}", file=sys.stderr, flush=True)


class EventPrinter:
    """A stream that accepts JSON events, one per line, and prints them for people."""

    def __init__(self, out: TextIO, every_s: float = EVENT_INTERVAL_S) -> None:
        """`every_s` is the interval of step lines without a terminal."""
        self._out = out
        self._every_s = every_s
        self._is_terminal = out.isatty()
        self._printed_at = float("-inf")

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self._out.name)

    def write(self, line: str) -> None:
        """Print an event. Raises `OSError` if nobody reads any more."""
        self.show(TRAINER_EVENT.validate_json(line))

    def show(self, event: TrainerEvent) -> None:
        """Print an event; steps, and how far a phase is, on one moving line of a terminal."""
        if isinstance(event, Progress):
            self._show_on_line(format_step(event), is_last=event.step == event.of)
            return
        if isinstance(event, Phase) and event.share:
            self._show_on_line(format_phase(event))
            return
        text = _format_event(event)
        if text:
            # On a terminal, over the line of the last step.
            clear = CLEAR_LINE if self._is_terminal else ""
            self._out.write(f"{clear}{text}\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._out.flush()

    def _show_on_line(self, text: str, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if self._is_terminal:
            self._out.write(CLEAR_LINE + text)
        elif now - self._printed_at >= self._every_s or is_last:
            self._printed_at = now
            self._out.write(text + "\n")


def format_step(event: Progress) -> str:
    """Format a step: ` 42%  training  about 3 min left  step 12/46  epoch 0.52  loss 2.1034
    1,034 tokens/s  1.92 GB`.
    """
    parts = [
        *_run_parts(event),
        f"step {event.step:,}/{event.of:,}",
        f"stage {event.stage}" if event.stage else "",
        f"epoch {event.epoch:.2f}",
        f"loss {event.loss:.4f}",
        f"{event.tokens_per_s:,.0f} tokens/s",
        f"{event.memory_bytes / 1e9:.2f} GB",
        event.trouble,
    ]
    return "  ".join(part for part in parts if part)


def format_phase(event: Phase) -> str:
    """Format a phase: ` 42%  measuring the base model  about 3 min left  88 held-out replies`."""
    return "  ".join(filter(None, [*_run_parts(event), event.detail]))


def _run_parts(event: Progress | Phase) -> list[str]:
    """Say how far the whole run is, in which phase, and when the version will be ready."""
    parts = [event.label]
    if event.done is not None:
        parts.insert(0, f"{event.done:4.0%}")
    if event.left_s is not None:
        parts.append(f"about {format_time_left(event.left_s, event.most_left_s)} left")
    return parts


def _format_event(event: TrainerEvent) -> str:
    """Describe an event between steps; empty for events shown elsewhere."""
    match event:
        case Phase():
            return format_phase(event)
        case Epoch():
            stage = f"stage {event.stage}, " if event.stage else ""
            losses = []
            if event.train_loss is not None:
                losses.append(f"training loss {event.train_loss:.4f}")
            if event.eval_loss is not None:
                losses.append(f"held-out loss {event.eval_loss:.4f}")
            shown = " → ".join(losses)
            done = (
                f"{stage}epoch {event.passes} done in {format_duration(event.seconds)}, "
                f"{event.pace} samples/s"
            )
            return ": ".join(filter(None, [done, shown]))
        case Evaluation():
            return f"held out loss {event.eval_loss:.4f} after step {event.step:,}"
        case ScoreCardEvent():
            return _format_scores(event.scorecard)
    return ""


def _format_scores(card: ScoreSummary) -> str:
    losses = (
        f"held-out replies: {card.loss_base:.4f} nats a token before, {card.loss_tuned:.4f} now "
        f"({1 - card.loss_tuned / card.loss_base:.1%} lower); general dialogue: "
        f"{card.general_loss_base:.4f} before, "
        f"{card.general_loss_tuned:.4f} now"
    )
    if not card.verdict:
        return losses
    verdict = f"the gate says: {card.verdict}"
    if card.pending:
        verdict += " (the rest of the score card is still to be measured)"
    if card.first_verdict:
        verdict += f" (before the rest of the score card was measured: {card.first_verdict})"
    lines = [losses, verdict]
    for reason_or_advice in (*card.reasons, *card.advice):
        lines.append(f"  {reason_or_advice}")
    return "\n".join(lines)
