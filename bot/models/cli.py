"""`python -m bot models`: the table of base models, `models fetch` and `models use`."""

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

from bot.models.table import ModelTable, build_table
from personas.models.model_fit import ModelFit

GIB = 2**30
COLUMNS = (
    ("model", 20), ("name", 18), ("serve", 7), ("train", 7), ("disk", 7), ("fits", 8), ("tokens/s", 9),
    ("engine", 10), ("context", 8), ("licence", 0),
)  # fmt: skip


def run_models(arguments: argparse.Namespace, home: Path) -> int:
    """Print the table. Returns the exit code."""
    table = asyncio.run(build_table(home, arguments.settings.base_model))
    if arguments.json:
        print(json.dumps(table.as_json(), ensure_ascii=False))
    else:
        print("\n".join(table_lines(table)))
    return 0


def table_lines(table: ModelTable) -> Iterator[str]:
    """Format the table for a terminal; GiB, and tokens per second of one chat."""
    yield _machine_line(table)
    yield ""
    yield "".join(f"{title:<{width}}" for title, width in COLUMNS).rstrip()
    for fit in table.fits:
        yield _row(table, fit)
    yield ""
    yield "GiB of memory to serve and to train with the lightest recipe, and of disk, about. Fits:"
    yield "both = it trains while it serves, in turn = either at a time, serves = it cannot be trained."
    yield "Tokens/s of one chat: ~ by this processor's products, else measured here; – comes with use."
    if table.training_error:
        yield f"No sums of trainings: {table.training_error}."
    yield ""
    if table.recommended is None:
        yield f"Recommended: {table.reason}."
        return
    name = table.recommended.model.name
    yield f"Recommended: {table.recommended.model.title}: {table.reason}."
    yield f"  python -m bot models fetch {name}"
    yield f"  python -m bot models use {name}"


def _machine_line(table: ModelTable) -> str:
    machine = table.machine
    parts = [f"{machine.memory_bytes / GIB:.1f} GiB of memory"]
    if machine.card_bytes:
        parts.append(f"{machine.card_name} with {machine.card_bytes / GIB:.1f} GiB")
    if machine.weight_bytes_per_s:
        speed = f"{machine.weight_bytes_per_s / 1e9:.1f} GB/s of weights in {machine.precision}"
        parts.append(speed)
    return f"This machine: {', '.join(parts)}. BASE_MODEL is {table.base_model}."


def _row(table: ModelTable, fit: ModelFit) -> str:
    model = fit.model
    mark = ""
    if fit == table.recommended:
        mark = "→ "
    elif model == table.served:
        mark = "* "
    speed = "–"
    if fit.tokens_per_s is not None:
        about = "" if fit.speed_basis == "measured here" else "~"
        speed = f"{about}{fit.tokens_per_s:.0f}"
    cells = (
        mark + model.title,
        model.name,
        f"{fit.engine.bytes / GIB:.1f}",
        f"{fit.training.bytes / GIB:.1f}" if fit.training else "–",
        f"{fit.disk_bytes / GIB:.1f}",
        fit.fits,
        speed,
        fit.engine.engine,
        f"{model.context_tokens // 1024}K",
        model.licence,
    )
    padded = zip(cells, (width for _, width in COLUMNS), strict=True)
    return "".join(f"{cell:<{width}}" for cell, width in padded).rstrip()
