"""Writes a score card's files: JSON, Markdown, picture, and the blind rating sheet with its key."""

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from personas.schemas.formatting import format_value
from personas.schemas.scorecard import ScoreCard, Side, SideBySide
from trainer.report.scorecard_markdown import render_markdown

SCORECARD_FILE = "scorecard.json"
SCORECARD_MARKDOWN_FILE = "scorecard.md"
PICTURE_FILE = "scorecard.png"
RUBRIC_FILE = "rubric.md"
RUBRIC_CSV_FILE = "rubric.csv"
RUBRIC_KEY_FILE = "rubric-key.json"

REAL_REPLY = "real"
REPLY_LETTERS = "ABCDEF"
RATING_QUESTIONS = ("in character", "true to the lore", "reads well", "answers", "harmless")
RATING_SCALE = "1 (not at all) to 5 (entirely)"
RATING_COLUMNS = ("prompt", "reply", "asked", "text", *RATING_QUESTIONS, "remarks")


def shuffled_replies(card: ScoreCard, index: int) -> list[tuple[str, str]]:
    """Return the replies to a prompt in shuffled order as pairs of side and text; the real reply is
    among them.
    """
    shown: SideBySide = card.side_by_side[index]
    texts: list[tuple[str, str]] = [(REAL_REPLY, shown.real)]
    texts += [(side, reply.text) for side, reply in shown.replies.items()]
    random.Random(f"{card.persona} {card.version} {index}").shuffle(texts)  # nosec B311  # repeatable
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
        f"Rate each reply from {RATING_SCALE} on each of: {questions}. Read all replies to a "
        "prompt first. The key is "
        "in a separate file: do not open it before all are rated. `rubric.csv` is the same sheet "
        "for a spreadsheet.",
    ]
    for index, pair in enumerate(card.side_by_side):
        parts += [f"## {index + 1}", f"> {_one_line(pair.prompt)}"]
        table = [
            f"| reply | {' | '.join(RATING_QUESTIONS)} | remarks |",
            f"|{'---|' * (len(RATING_QUESTIONS) + 2)}",
        ]
        for letter, (_, text) in zip(REPLY_LETTERS, shuffled_replies(card, index), strict=False):
            parts.append(f"**{letter}.** {_one_line(text)}")
            table.append(f"| {letter} |{' |' * (len(RATING_QUESTIONS) + 1)}")
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def rating_key(card: ScoreCard) -> str:
    """Render the key as JSON: prompt, then letter, to base, live, new or real."""
    replies: dict[str, dict[str, str]] = {}
    for index in range(len(card.side_by_side)):
        sides = [side for side, _ in shuffled_replies(card, index)]
        replies[str(index + 1)] = dict(zip(REPLY_LETTERS, sides, strict=False))
    key = {"persona": card.persona, "version": card.version, "replies": replies}
    return json.dumps(key, indent=2) + "\n"


def _rows(card: ScoreCard) -> Iterator[tuple[str, ...]]:
    blank = [""] * (len(RATING_QUESTIONS) + 1)
    for index, pair in enumerate(card.side_by_side):
        for letter, (_, text) in zip(REPLY_LETTERS, shuffled_replies(card, index), strict=False):
            yield (
                str(index + 1),
                letter,
                _escape_formula(pair.prompt),
                _escape_formula(text),
                *blank,
            )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape_formula(text: str) -> str:
    """Prefix text that a spreadsheet would evaluate as a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


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
    (report / RUBRIC_CSV_FILE).write_text(rating_sheet_csv(card), encoding="utf-8", newline="")
    (report / RUBRIC_KEY_FILE).write_text(rating_key(card), encoding="utf-8")


def write_scorecard(folder: Path, card: ScoreCard) -> None:
    """Write `scorecard.json`, `scorecard.md`, and the files for people in `report/`. Raises
    `OSError`.
    """
    (folder / SCORECARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / SCORECARD_MARKDOWN_FILE).write_text(render_markdown(card), encoding="utf-8")
    write_renderings(folder / "report", card)


TEXT_COLOUR, MUTED_COLOUR, BACKGROUND_COLOUR = "#1c1f24", "#5a6270", "#ffffff"
SIDE_COLOURS: dict[Side, str] = {"base": "#8a93a3", "live": "#b35900", "new": "#1d4f80"}
OUTCOME_COLOURS = {
    "pass": "#1b6e3c",
    "warn": "#8a5a00",
    "fail": "#b3261e",
    "not measured": MUTED_COLOUR,
}
SHORT_OUTCOME_LABELS = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "not measured": "–"}
VERDICT_COLOURS = {"promote": "#1b6e3c", "hold": "#8a5a00", "reject": "#b3261e"}
# width of the picture, and height of a line of the criteria, in inches
PICTURE_WIDTH_IN = 9.0
LINE_HEIGHT_IN = 0.24


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
    reason = (
        _escape_mathtext(card.verdict.reasons[0]) if card.verdict and card.verdict.reasons else ""
    )
    axes.text(
        0,
        0.35,
        "\n".join(wrap(shorten(reason, 200), 105)),
        fontsize=9.5,
        va="top",
        color=MUTED_COLOUR,
    )


def _losses(axes: Any, card: ScoreCard) -> None:
    losses = card.heldout.loss
    bars = axes.barh(list(losses), list(losses.values()), color=[SIDE_COLOURS[it] for it in losses])
    axes.bar_label(bars, [f" {loss:.3f}" for loss in losses.values()], color=TEXT_COLOUR)
    _hide_axes(axes, "held-out loss, nats per token")
    axes.margins(x=0.2)


def _voice(axes: Any, card: ScoreCard) -> None:
    voice = card.voice
    if voice is None:
        axes.axis("off")
        return
    right = voice.right
    axes.barh(
        list(right),
        [it.mean for it in right.values()],
        xerr=[
            [min(it.sd, it.mean) for it in right.values()],
            [min(it.sd, 1 - it.mean) for it in right.values()],
        ],
        color=[SIDE_COLOURS[it] for it in right],
    )
    for row, it in enumerate(right.values()):
        axes.text(1.2, row, f"{it.mean:.0%}", va="center", ha="right", color=TEXT_COLOUR)
    axes.axvline(voice.ceiling, color=MUTED_COLOUR, linestyle="--", linewidth=1)
    _hide_axes(axes, f"replies in the persona's voice (dashed: real ones, {voice.ceiling:.0%})")
    axes.set_xlim(0, 1.2)


def _criteria(axes: Any, card: ScoreCard, lines: int) -> None:
    axes.axis("off")
    axes.set_xlim(0, 2)
    axes.set_ylim(lines, 0)
    for number, it in enumerate(card.verdict.criteria if card.verdict else ()):
        column, line = divmod(number, lines)
        label = SHORT_OUTCOME_LABELS[it.outcome]
        colour = OUTCOME_COLOURS[it.outcome]
        y = line + 0.5
        axes.text(column, y, label, fontsize=9, weight="bold", va="center", color=colour)
        axes.text(column + 0.14, y, it.name, fontsize=9, va="center", color=TEXT_COLOUR)
        value = format_value(it.value, it.unit)
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
