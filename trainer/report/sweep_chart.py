"""The chart of a sweep: held-out loss against the value of the setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.report.charts import SERIES, figure_of, save

LOGARITHMIC = "learning_rate"


def draw_sweep(folder: Path, points: Sequence[tuple[Mapping[str, str], float | None]]) -> None:
    """`sweep.svg` and `.png`: loss by the first setting, a line for each combination of the others.

    Runs without an adapter are left out. Rates lie on a logarithmic axis, words one beside the other.
    """
    name = next(iter(points[0][0]))
    lines: dict[str, list[tuple[str, float]]] = {}
    for settings, loss in points:
        others = ", ".join(f"{key}={value}" for key, value in settings.items() if key != name)
        if loss is not None:
            lines.setdefault(others, []).append((settings[name], loss))
    are_numbers = all(_is_number(settings[name]) for settings, _ in points)
    figure, axes = figure_of(height=3.6)
    for place, (others, found) in enumerate(lines.items()):
        if are_numbers:
            found.sort(key=lambda pair: float(pair[0]))
        xs = [float(value) if are_numbers else value for value, _ in found]
        style = {"color": SERIES[place % len(SERIES)], "label": others or "held-out replies"}
        axes.plot(xs, [loss for _, loss in found], marker="o", linewidth=1.4, **style)
    if are_numbers and name.endswith(LOGARITHMIC):
        axes.set_xscale("log")
    axes.set(title="Sweep", xlabel=name, ylabel="nats per held-out reply token")
    if len(lines) > 1:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    save(figure, folder / "sweep", f"Held-out loss by {name}; sweep.json has the figures")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
