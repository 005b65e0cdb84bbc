"""Draws a score card as a picture, which Discord shows about 500 pixels wide, and a phone 350:
verdict, losses, voice, and the criteria that it does not pass.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from personas.schemas.formatting import format_value
from personas.schemas.scorecard import SIDE_LABELS, Criterion, ScoreCard, Side, VoiceScores
from trainer.gate.measurement import UNIT_NATS
from trainer.report.picture_text import drawable

TEXT_COLOUR = "#1c1f24"
MUTED_COLOUR = "#5a6270"
BACKGROUND_COLOUR = "#ffffff"
SIDE_COLOURS: dict[Side, str] = {"base": "#8a93a3", "live": "#b35900", "new": "#1d4f80"}
OUTCOME_COLOURS = {"fail": "#b3261e", "warn": "#8a5a00"}
OUTCOME_LABELS = {"fail": "FAIL", "warn": "WARN"}
VERDICT_COLOURS = {"promote": "#1b6e3c", "hold": "#8a5a00", "reject": "#b3261e"}
PICTURE_WIDTH_IN = 7.0
HEAD_HEIGHT_IN = 1.2
BAR_HEIGHT_IN = 0.36
CRITERION_HEIGHT_IN = 0.34
CHART_TITLE_IN = 0.45
FONT_SIZE = 12.5
MAX_NAME_CHARS = 22
MAX_REASON_CHARS = 130
REASON_LINE_CHARS = 66


def draw_picture(card: ScoreCard, file: Path) -> None:
    """Draw the card and write it as PNG. Raises `OSError`."""
    make_figure(card).savefig(file, dpi=130, metadata={"Software": None})


def make_figure(card: ScoreCard) -> Any:
    """Draw the card as a figure of matplotlib's."""
    from matplotlib.figure import Figure  # importing matplotlib takes half a second

    missed = _missed_criteria(card)
    heights = {
        "head": HEAD_HEIGHT_IN,
        "losses": CHART_TITLE_IN + len(card.heldout.loss) * BAR_HEIGHT_IN,
    }
    if card.voice:
        heights["voice"] = CHART_TITLE_IN + len(card.voice.right) * BAR_HEIGHT_IN
    heights["criteria"] = (len(missed) + 1) * CRITERION_HEIGHT_IN
    size = (PICTURE_WIDTH_IN, sum(heights.values()) + 0.2 * len(heights))
    figure: Any = Figure(figsize=size, facecolor=BACKGROUND_COLOUR, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)
    parts = figure.subplot_mosaic(
        [[name] for name in heights], height_ratios=list(heights.values())
    )
    _head(parts["head"], card)
    _losses(parts["losses"], card)
    if card.voice:
        _voice(parts["voice"], card.voice)
    _criteria(parts["criteria"], card, missed)
    return figure


def _head(axes: Any, card: ScoreCard) -> None:
    axes.axis("off")
    verdict = card.verdict.verdict if card.verdict else "not judged"
    style = {"fontsize": 18, "weight": "bold", "va": "top"}
    name, families = drawable(shorten(card.persona_name, MAX_NAME_CHARS, placeholder=" …"))
    name = _escape_mathtext(name or card.persona or "dialogue")
    titled = f"{name} {card.version}"
    axes.text(0, 1, titled, color=TEXT_COLOUR, family=families, **style)
    axes.text(1, 1, verdict, ha="right", color=VERDICT_COLOURS.get(verdict, MUTED_COLOUR), **style)
    reason = ""
    if card.verdict and card.verdict.reasons:
        reason = card.verdict.reasons[0]
    reason, families = drawable(reason)
    lines = "\n".join(wrap(shorten(reason, MAX_REASON_CHARS), REASON_LINE_CHARS))
    style = {"fontsize": FONT_SIZE, "va": "top", "family": families}
    axes.text(0, 0.5, _escape_mathtext(lines), color=MUTED_COLOUR, **style)


def _losses(axes: Any, card: ScoreCard) -> None:
    losses = card.heldout.loss
    texts = [f"{loss:.2f}" for loss in losses.values()]
    _bars(axes, losses, texts)
    _hide_axes(axes, "Loss on held-out replies: lower is better")
    axes.set_xlim(0, 1.2 * max(losses.values()))


def _voice(axes: Any, voice: VoiceScores) -> None:
    shares = {side: share.mean for side, share in voice.right.items()}
    _bars(axes, shares, [f"{share:.0%}" for share in shares.values()])
    axes.axvline(voice.ceiling, color=MUTED_COLOUR, linestyle="--", linewidth=1)
    _hide_axes(axes, f"Replies in its voice (dashed: held-out replies, {voice.ceiling:.0%})")
    axes.set_xlim(0, 1.2)


def _bars(axes: Any, values: Mapping[Side, float], texts: Sequence[str]) -> None:
    labels = [SIDE_LABELS[side] for side in values]
    colours = [SIDE_COLOURS[side] for side in values]
    bars = axes.barh(labels, list(values.values()), color=colours)
    # On white, since the dashed line may pass behind it.
    style = {"facecolor": BACKGROUND_COLOUR, "edgecolor": "none", "pad": 0}
    axes.bar_label(bars, texts, padding=5, fontsize=FONT_SIZE, color=TEXT_COLOUR, bbox=style)


def _missed_criteria(card: ScoreCard) -> list[Criterion]:
    """Return the criteria that fail, then those that warn."""
    criteria = card.verdict.criteria if card.verdict else ()
    missed = [criterion for criterion in criteria if criterion.outcome in OUTCOME_LABELS]
    return sorted(missed, key=lambda criterion: list(OUTCOME_LABELS).index(criterion.outcome))


def _criteria(axes: Any, card: ScoreCard, missed: Sequence[Criterion]) -> None:
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(missed) + 1, 0)
    style = {"fontsize": FONT_SIZE, "va": "center"}
    outcomes = card.verdict.outcomes if card.verdict else ""
    axes.text(0, 0.5, outcomes, color=MUTED_COLOUR, **style)
    for line, criterion in enumerate(missed, start=1):
        y = line + 0.5
        label = OUTCOME_LABELS[criterion.outcome]
        axes.text(0, y, label, weight="bold", color=OUTCOME_COLOURS[criterion.outcome], **style)
        axes.text(0.11, y, criterion.name, color=TEXT_COLOUR, **style)
        axes.text(1, y, _value_text(criterion), ha="right", color=MUTED_COLOUR, **style)


def _value_text(criterion: Criterion) -> str:
    """Format a value, with its unit where that is short and says something."""
    if criterion.value is not None and criterion.unit.startswith("of "):
        part = f"{criterion.value:.0%}"
        return part if criterion.unit == "of the ceiling" else f"not in {part}"
    return format_value(criterion.value, criterion.unit).removesuffix(f" {UNIT_NATS}")


def _hide_axes(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=FONT_SIZE, loc="left", color=MUTED_COLOUR)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=TEXT_COLOUR, labelsize=FONT_SIZE)
    axes.xaxis.set_visible(False)


def _escape_mathtext(text: str) -> str:
    """Escape dollar signs, which delimit formulas in matplotlib."""
    return text.replace("$", r"\$")
