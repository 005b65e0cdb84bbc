"""Reports the cells: the table with bounds and intervals, the differences from the base model, and
replies side by side without their sources.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from benchmarks.personas.cells import AskedReply, Cell
from benchmarks.personas.subjects import BASE, FOLDS, WAYS
from personas.schemas.formatting import UNKNOWN_VALUE, markdown_table
from personas.schemas.scorecard import (
    IN_CHARACTER,
    LORE_RIGHT,
    LORE_WRONG,
    TALK_TURNS,
    VOICE,
    VOICE_AT_TURN,
    Interval,
)
from trainer.evaluate.bootstrap import bootstrap_ratio
from trainer.evaluate.generation.reply_tasks import ReplyValue, mean_interval, paired_difference
from trainer.report.run_report import format_duration

COLUMNS = {
    VOICE: "voice",
    LORE_RIGHT: "knows the lore",
    LORE_WRONG: "contradicts it",
    IN_CHARACTER: "under pressure",
    VOICE_AT_TURN.format(TALK_TURNS[-1]): f"voice at turn {TALK_TURNS[-1]}",
}
"""Measures that are shown, in percent, with the heads of their columns."""
GENERAL = "general loss"
BLIND_REPLIES = 20
"""Replies of each way that are shown side by side."""
ByWay = Mapping[str, Cell]


def format_report(cells: Sequence[Cell]) -> str:
    """Format the tables of some cells of one base model, persona by persona."""
    by_persona = _by_persona(cells)
    parts = [_main_table(by_persona)]
    differences = _difference_table(by_persona)
    if differences:
        parts.append(differences)
    parts.append(_foot(cells))
    return "\n\n".join(parts) + "\n"


def _by_persona(cells: Sequence[Cell]) -> dict[str, ByWay]:
    """Return the cells by persona and way, in the order of the ways."""
    by_persona: dict[str, dict[str, Cell]] = {}
    for cell in sorted(cells, key=lambda cell: list(WAYS).index(cell.way)):
        by_persona.setdefault(cell.persona, {})[cell.way] = cell
    return dict(sorted(by_persona.items()))


def _main_table(by_persona: Mapping[str, ByWay]) -> str:
    rows = []
    for persona, ways in by_persona.items():
        first = next(iter(ways.values()))
        rows.append([persona, "*floor*", *_shares(first.floor), "", ""])
        for way, cell in ways.items():
            time_taken = format_duration(cell.training_s) if cell.training_s else ""
            rows.append([persona, way, *_shares(cell.values), _general(cell), time_taken])
        rows.append([persona, "*ceiling*", *_shares(first.ceiling), "", ""])
    return markdown_table(["", "", *COLUMNS.values(), GENERAL, "trained in"], rows)


def _shares(values: Mapping[str, Sequence[ReplyValue]]) -> Iterator[str]:
    for measure in COLUMNS:
        of_measure = values.get(measure)
        yield _percent(mean_interval(of_measure)) if of_measure else UNKNOWN_VALUE


def _percent(interval: Interval) -> str:
    low, high = (f"{100 * bound:.0f}" for bound in (interval.low, interval.high))
    return f"{100 * interval.estimate:.0f} % [{low}, {high}]"


def _points(interval: Interval | None, digits: int = 0) -> str:
    if interval is None:
        return UNKNOWN_VALUE
    bounds = (interval.estimate, interval.low, interval.high)
    estimate, low, high = (f"{100 * bound:+.{digits}f}" for bound in bounds)
    return f"{estimate} [{low}, {high}]"


def _general(cell: Cell) -> str:
    if cell.general_change is None:
        return f"{cell.general_loss:.3f}"
    return f"{_points(cell.general_change, digits=1)} %"


def _difference_table(by_persona: Mapping[str, ByWay]) -> str:
    """Compare each way with the base model on the same prompts with the same seeds."""
    rows = []
    for way in WAYS:
        differences: dict[str, list[Interval]] = {}
        compared = 0
        for persona, cells in by_persona.items():
            if way == BASE or way not in cells or BASE not in cells:
                continue
            compared += 1
            row = dict(_differences(cells[way], cells[BASE]))
            for column, interval in row.items():
                if interval:
                    differences.setdefault(column, []).append(interval)
            rows.append([persona, way, *map(_points, row.values())])
        if compared > 1:
            means = [_mean_of_personas(differences.get(column, [])) for column in _columns()]
            rows.append([f"**all {compared}**", way, *map(_points, means)])
    if not rows:
        return ""
    head = ["points more than the base", "", *COLUMNS.values(), GENERAL]
    return markdown_table(head, rows)


def _columns() -> tuple[str, ...]:
    return (*COLUMNS, GENERAL)


def _differences(cell: Cell, base: Cell) -> Iterator[tuple[str, Interval | None]]:
    for measure in COLUMNS:
        values = cell.values.get(measure, ())
        yield measure, paired_difference(values, base.values.get(measure, ()))
    yield GENERAL, cell.general_change


def _mean_of_personas(differences: Sequence[Interval]) -> Interval | None:
    """Return the mean of the personas' differences; each persona is resampled as a whole."""
    if not differences:
        return None
    units = [str(place) for place in range(len(differences))]
    return bootstrap_ratio(
        units, [difference.estimate for difference in differences], [1.0] * len(units)
    )


def _shown_name(model: str) -> str:
    """Return a model's name without the folder that it is in."""
    return Path(model).name if Path(model).is_absolute() else model


def _foot(cells: Sequence[Cell]) -> str:
    ways = [way for way in WAYS if way in {cell.way for cell in cells}]
    lines = [f"- {way}: {WAYS[way]}." for way in ways]
    if teacher := next((cell.teacher for cell in cells if cell.teacher), ""):
        lines.append(f"- The other model: {_shown_name(teacher)}.")
    if any(cell.quick for cell in cells):
        lines.append("- Quick: one seed, fewer replies under pressure, and one long talk.")
    bounds = (
        f"Base model: {_shown_name(cells[0].base_model)}. 95 % intervals by bootstrap over conversations, questions "
        "or prompts; the last rows, over personas. The floor are the real replies of others, and the "
        "right answers to other questions; the ceiling are the "
        "persona's real replies and the right answers. The characters' real replies are judged in "
        f"{FOLDS} parts, each by a voice classifier that knows the others. The general loss has no floor "
        "or ceiling: it is in nats per token for the base model, and for the other ways its change in percent."
    )
    return "\n\n".join([bounds, "\n".join(lines)])


# ------------------------------------------------------------------------------------ blind replies


def blind_sheet(cells: Sequence[Cell]) -> tuple[str, str]:
    """Format at least `BLIND_REPLIES` replies of each way, as far as there are so many, side by
    side without their sources, and the key.
    """
    shown = []
    key = []
    for number, (persona, replies) in enumerate(_draw_blind(_by_persona(cells)), 1):
        order = list(replies.items())
        message = order[0][1].message
        # The same order each time, and no way has the same letter each time.
        random.Random(f"{persona} {message}").shuffle(order)  # nosec B311  # no secret
        lettered = list(zip(ascii_uppercase, order, strict=False))
        lines = [f"{letter}. {_one_line(reply.text)}" for letter, (_, reply) in lettered]
        shown.append("\n\n".join([f"## {number} · {persona}", f"> {_one_line(message)}", *lines]))
        key.append(f"{number}: {', '.join(f'{letter} {way}' for letter, (way, _) in lettered)}")
    sheet = "\n\n".join(["# Replies, without their sources", *shown])
    return f"{sheet}\n", "\n\n".join(["# Key", *key]) + "\n"


def _draw_blind(by_persona: Mapping[str, ByWay]) -> Iterator[tuple[str, dict[str, AskedReply]]]:
    """Yield the replies of all ways to a held-out message, by persona in turn, until each way has
    enough.
    """
    counts = Counter[str]()
    left = {persona: _answered_by_all(ways) for persona, ways in by_persona.items()}
    while any(left.values()):
        for persona, exchanges in left.items():
            if not exchanges:
                continue
            replies = exchanges.pop(0)
            if all(counts[way] >= BLIND_REPLIES for way in replies):
                exchanges.clear()
                continue
            counts.update(list(replies))
            yield persona, replies


def _answered_by_all(ways: ByWay) -> list[dict[str, AskedReply]]:
    """Return the replies to each message by way, for messages that all ways have answered."""
    by_prompt: dict[tuple[int, int], dict[str, AskedReply]] = {}
    for way, cell in ways.items():
        for reply in cell.replies:
            by_prompt.setdefault((reply.seed, reply.number), {})[way] = reply
    return [
        by_prompt[prompt] for prompt in sorted(by_prompt) if len(by_prompt[prompt]) == len(ways)
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())
