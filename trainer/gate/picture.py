"""The score card as one picture, for a chat: verdict, losses, voice, and each criterion's outcome."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from personas.amounts import amount
from personas.scorecard import FullScoreCard, Side

INK, SOFT, GROUND = "#1c1f24", "#5a6270", "#ffffff"
COLOURS: dict[Side, str] = {"base": "#8a93a3", "live": "#b35900", "new": "#1d4f80"}
NAMES: dict[Side, str] = {"base": "base", "live": "live", "new": "new"}
OUTCOMES = {"pass": "#1b6e3c", "warn": "#8a5a00", "fail": "#b3261e", "not measured": SOFT}
SIGNS = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "not measured": "–"}
VERDICTS = {"promote": "#1b6e3c", "hold": "#8a5a00", "reject": "#b3261e"}
WIDTH, LINE = 9.0, 0.24
"""In inches: of the picture, of a line of its list."""


def draw(card: FullScoreCard, file: Path) -> None:
    """Write it as PNG. Raises `OSError`."""
    from matplotlib.figure import Figure  # half a second

    criteria = card.verdict.criteria if card.verdict else ()
    lines = max(8, (len(criteria) + 1) // 2)
    figure: Any = Figure(figsize=(WIDTH, 3.1 + lines * LINE), facecolor=GROUND, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    parts = figure.subplot_mosaic("tt;lv;cc", height_ratios=[0.75, 1.7, lines * LINE])
    _title(parts["t"], card)
    _losses(parts["l"], card)
    _voice(parts["v"], card)
    _criteria(parts["c"], card, lines)
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _title(axes: Any, card: FullScoreCard) -> None:
    axes.axis("off")
    verdict = card.verdict.verdict if card.verdict else "not judged"
    axes.text(0, 1, f"{card.persona or 'dialogue'} {card.version}", fontsize=17, weight="bold", va="top", color=INK)
    axes.text(1, 1, verdict, fontsize=17, weight="bold", va="top", ha="right", color=VERDICTS.get(verdict, SOFT))
    reason = _plain(card.verdict.reasons[0]) if card.verdict and card.verdict.reasons else ""
    axes.text(0, 0.35, "\n".join(wrap(shorten(reason, 200), 105)), fontsize=9.5, va="top", color=SOFT)


def _losses(axes: Any, card: FullScoreCard) -> None:
    losses = card.heldout.loss
    drawn = axes.barh([NAMES[it] for it in losses], list(losses.values()), color=[COLOURS[it] for it in losses])
    axes.bar_label(drawn, [f" {loss:.3f}" for loss in losses.values()], color=INK)
    _bare(axes, "held-out loss, nats per token")
    axes.margins(x=0.2)


def _voice(axes: Any, card: FullScoreCard) -> None:
    found = card.voice
    if found is None:
        axes.axis("off")
        return
    right = found.right
    axes.barh(
        [NAMES[it] for it in right],
        [it.mean for it in right.values()],
        xerr=[[min(it.sd, it.mean) for it in right.values()], [min(it.sd, 1 - it.mean) for it in right.values()]],
        color=[COLOURS[it] for it in right],
    )
    for place, it in enumerate(right.values()):
        axes.text(1.2, place, f"{it.mean:.0%}", va="center", ha="right", color=INK)
    axes.axvline(found.ceiling, color=SOFT, linestyle="--", linewidth=1)
    _bare(axes, f"replies in the persona's voice (dashed: real ones, {found.ceiling:.0%})")
    axes.set_xlim(0, 1.2)


def _criteria(axes: Any, card: FullScoreCard, lines: int) -> None:
    axes.axis("off")
    axes.set_xlim(0, 2)
    axes.set_ylim(lines, 0)
    for place, it in enumerate(card.verdict.criteria if card.verdict else ()):
        column, line = divmod(place, lines)
        colour = OUTCOMES[it.outcome]
        axes.text(column, line + 0.5, SIGNS[it.outcome], fontsize=9, weight="bold", va="center", color=colour)
        axes.text(column + 0.14, line + 0.5, it.name, fontsize=9, va="center", color=INK)
        value = amount(it.value, it.unit)
        axes.text(column + 0.96, line + 0.5, value, fontsize=8, va="center", ha="right", color=SOFT)


def _bare(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9.5, loc="left", color=SOFT)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.xaxis.set_visible(False)


def _plain(text: str) -> str:
    """Between two of these would stand a formula."""
    return text.replace("$", r"\$")
