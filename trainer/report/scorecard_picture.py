"""Draws a score card as a picture: verdict, losses, voice and criteria."""

from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from personas.schemas.formatting import format_value
from personas.schemas.scorecard import ScoreCard, Side

TEXT_COLOUR = "#1c1f24"
MUTED_COLOUR = "#5a6270"
BACKGROUND_COLOUR = "#ffffff"
SIDE_COLOURS: dict[Side, str] = {"base": "#8a93a3", "live": "#b35900", "new": "#1d4f80"}
OUTCOME_COLOURS = {
    "pass": "#1b6e3c",
    "warn": "#8a5a00",
    "fail": "#b3261e",
    "not measured": MUTED_COLOUR,
}
SHORT_OUTCOME_LABELS = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "not measured": "–"}
VERDICT_COLOURS = {"promote": "#1b6e3c", "hold": "#8a5a00", "reject": "#b3261e"}
PICTURE_WIDTH_IN = 9.0
LINE_HEIGHT_IN = 0.24  # of the criteria


def draw_picture(card: ScoreCard, file: Path) -> None:
    """Draw the card and write it as PNG. Raises `OSError`."""
    from matplotlib.figure import Figure  # importing matplotlib takes half a second

    criteria = card.verdict.criteria if card.verdict else ()
    lines = max(8, (len(criteria) + 1) // 2)
    size = (PICTURE_WIDTH_IN, 3.1 + lines * LINE_HEIGHT_IN)
    figure: Any = Figure(figsize=size, facecolor=BACKGROUND_COLOUR, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    parts = figure.subplot_mosaic("tt;lv;cc", height_ratios=[0.75, 1.7, lines * LINE_HEIGHT_IN])
    _title(parts["t"], card)
    _losses(parts["l"], card)
    _voice(parts["v"], card)
    _criteria(parts["c"], card, lines)
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _title(axes: Any, card: ScoreCard) -> None:
    axes.axis("off")
    verdict = card.verdict.verdict if card.verdict else "not judged"
    style = {"fontsize": 17, "weight": "bold", "va": "top"}
    axes.text(0, 1, f"{card.persona or 'dialogue'} {card.version}", color=TEXT_COLOUR, **style)
    axes.text(1, 1, verdict, ha="right", color=VERDICT_COLOURS.get(verdict, MUTED_COLOUR), **style)
    reason = ""
    if card.verdict and card.verdict.reasons:
        reason = _escape_mathtext(card.verdict.reasons[0])
    lines = "\n".join(wrap(shorten(reason, 200), 105))
    axes.text(0, 0.35, lines, fontsize=9.5, va="top", color=MUTED_COLOUR)


def _losses(axes: Any, card: ScoreCard) -> None:
    losses = card.heldout.loss
    colours = [SIDE_COLOURS[side] for side in losses]
    bars = axes.barh(list(losses), list(losses.values()), color=colours)
    axes.bar_label(bars, [f" {loss:.3f}" for loss in losses.values()], color=TEXT_COLOUR)
    _hide_axes(axes, "held-out loss, nats per token")
    axes.margins(x=0.2)


def _voice(axes: Any, card: ScoreCard) -> None:
    voice = card.voice
    if voice is None:
        axes.axis("off")
        return
    means = [share.mean for share in voice.right.values()]
    colours = [SIDE_COLOURS[side] for side in voice.right]
    # A share is between 0 and 1, and so are its error bars.
    below = [min(share.sd, share.mean) for share in voice.right.values()]
    above = [min(share.sd, 1 - share.mean) for share in voice.right.values()]
    axes.barh(list(voice.right), means, xerr=[below, above], color=colours)
    for row, mean in enumerate(means):
        axes.text(1.2, row, f"{mean:.0%}", va="center", ha="right", color=TEXT_COLOUR)
    axes.axvline(voice.ceiling, color=MUTED_COLOUR, linestyle="--", linewidth=1)
    _hide_axes(axes, f"replies in the persona's voice (dashed: real ones, {voice.ceiling:.0%})")
    axes.set_xlim(0, 1.2)


def _criteria(axes: Any, card: ScoreCard, lines: int) -> None:
    axes.axis("off")
    axes.set_xlim(0, 2)
    axes.set_ylim(lines, 0)
    criteria = card.verdict.criteria if card.verdict else ()
    for number, criterion in enumerate(criteria):
        column, line = divmod(number, lines)
        label = SHORT_OUTCOME_LABELS[criterion.outcome]
        colour = OUTCOME_COLOURS[criterion.outcome]
        y = line + 0.5
        axes.text(column, y, label, fontsize=9, weight="bold", va="center", color=colour)
        axes.text(column + 0.14, y, criterion.name, fontsize=9, va="center", color=TEXT_COLOUR)
        value = format_value(criterion.value, criterion.unit)
        axes.text(column + 0.96, y, value, fontsize=8, va="center", ha="right", color=MUTED_COLOUR)


def _hide_axes(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9.5, loc="left", color=MUTED_COLOUR)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=TEXT_COLOUR)
    axes.xaxis.set_visible(False)


def _escape_mathtext(text: str) -> str:
    """Escape dollar signs, which delimit formulas in matplotlib."""
    return text.replace("$", r"\$")
