"""The data sheet of an adapter: from which material its samples come, under which rights, what was replaced in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personas.contracts import JobSpec
from trainer.building.data_sheet import permission_note, table
from trainer.dataset import Dataset

SHEET_FILE, SHEET_TEXT = "datasheet.json", "datasheet.md"


def write_adapter_sheet(folder: Path, spec: JobSpec, data: Dataset) -> None:
    """`datasheet.json` and the same for people, `datasheet.md`. Raises `OSError`."""
    sheet = {
        "format": 1,
        "samples": {"train": len(data.trained), "heldout": len(data.heldout)},
        "by_right": data.rights,
        "by_source": data.sources,
        "arrived": dict(sorted(data.days.items())),
        "replaced": dict(data.replaced),
        "dropped": dict(data.ledger.dropped.most_common()),
        "permission": data.permission,
        "materials": [
            it.model_dump(include={"kind", "origin", "right", "stated_by", "stated_on", "why", "arrived"})
            for it in spec.materials
        ],
        "stated": {name: dict(stated) for name, stated in data.stated.items()},
        "hash": data.hash,
    }
    (folder / SHEET_FILE).write_text(json.dumps(sheet, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / SHEET_TEXT).write_text(_text(spec, sheet), encoding="utf-8")


def _text(spec: JobSpec, sheet: Mapping[str, Any]) -> str:
    samples, days = sheet["samples"], [day for day in sheet["arrived"] if day]
    stated = ("kind", "origin", "right", "stated_by", "stated_on", "why")
    parts = [
        f"# The data of {spec.request.persona or 'dialogue'} {spec.version}",
        f"{samples['train']:,} samples were trained on, {samples['heldout']:,} held out. "
        + (f"They came from {days[0]} to {days[-1]}." if days else ""),
        "## Rights",
        _counted("right", sheet["by_right"]),
        permission_note(sheet["permission"]) if sheet["permission"] else "",
        table(
            ("material", "origin", "right", "stated by", "on", "why"),
            ([it[key] for key in stated] for it in sheet["materials"]),
            numbers=False,
        ),
        _brought_along(sheet["stated"]),
        "## Sources",
        _counted("source", sheet["by_source"]),
        "## Replaced",
        _counted("kind", sheet["replaced"], "places") if sheet["replaced"] else "Members appear under pseudonyms.",
        "Pseudonymised is not anonymous: whoever has the key in the bot's home can tell who is meant.",
        "## Left out",
        _counted("reason", sheet["dropped"], "records") if sheet["dropped"] else "Nothing.",
        f"Hash of the samples: `{sheet['hash']}`. `people.json` lists who is in them, under a key.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _brought_along(stated: Mapping[str, Mapping[str, str]]) -> str:
    """What the built data set says of its own sources."""
    if not stated:
        return ""
    rows = [
        (name, *(of.get(key, "") for key in ("right", "stated_by", "stated_on", "why"))) for name, of in stated.items()
    ]
    head = ("source in the data set", "right", "stated by", "on", "why")
    return table(head, rows, numbers=False)


def _counted(what: str, counts: Mapping[str, int], of: str = "samples") -> str:
    return table((what, of), ((name, f"{count:,}") for name, count in counts.items()))
