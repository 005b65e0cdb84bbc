"""Writes what was extracted from lore: a proposed card addition, facts and pairs."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personas.home.atomic_files import fsync_path, replace_durably
from personas.home.toml_text import toml_value
from personas.schemas.chat import Persona
from trainer.dataset.synthetic.first_person import FACT_KINDS
from trainer.dataset.synthetic.lore_extraction import LoreExtraction, LoreFact, passage_origin

CARD_FIELDS = {
    "style": "speech",
    "trait": "personality",
    "relation": "relations",
    "fact": "description",
}
"""Card field for each kind of sentence."""


def write_extraction(persona: Persona, extraction: LoreExtraction, out: Path) -> dict[str, int]:
    """Write `card_addition.toml`, `facts.jsonl` and `<persona>_lore.jsonl`; return the counts."""
    files = {
        "card_addition.toml": _card_addition(persona, extraction.facts),
        "facts.jsonl": _lines(_fact_row(fact) for fact in extraction.facts),
        f"{persona.id}_lore.jsonl": _lines(pair.row(persona) for pair in extraction.pairs),
    }
    write_files_atomically(out, files)
    kinds = Counter(fact.kind for fact in extraction.facts)
    counts: dict[str, int] = {}
    for kind in FACT_KINDS:
        plural = kind if kind == "style" else f"{kind}s"
        counts[plural] = kinds[kind]
    pairs = Counter(pair.kind for pair in extraction.pairs)
    return {**counts, "questions": pairs["question"], "dialogues": pairs["dialogue"]}


def write_file_atomically(path: Path, text: str) -> None:
    """Write a file completely or not at all. Raises `OSError`."""
    write_files_atomically(path.parent, {path.name: text})


def write_files_atomically(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files completely or none. Raises `OSError`."""
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f"{name}.part" for name in files}
    try:
        # All contents are on disk before the first file gets its name, so that a full disk leaves
        # no mixture of old and new files.
        for name, path in partial.items():
            path.write_text(files[name], encoding="utf-8")
            fsync_path(path)
        for name, path in partial.items():
            replace_durably(path, folder / name)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _card_addition(persona: Persona, facts: Sequence[LoreFact]) -> str:
    """Render TOML to copy from: sentences about the persona by card field, with sources in
    comments.
    """
    lines = [
        f"# Proposed for the card of {persona.name}, from its lore. Copy what belongs into every "
        "prompt.",
        f"id = {toml_value(persona.id)}",
    ]
    for kind in FACT_KINDS:
        lines += ["", f"{CARD_FIELDS[kind]} = ["]
        for fact in facts:
            # A relation need not be about the persona itself: "Bram Weir is her cousin."
            if fact.kind == kind and (fact.about_owner or kind == "relation"):
                origin = f"{fact.passage.source}, {fact.passage.heading}"
                lines.append(f"    {toml_value(fact.text)},  # {origin}")
        lines.append("]")
    return "\n".join(lines) + "\n"


def _fact_row(fact: LoreFact) -> dict[str, Any]:
    return {
        "kind": fact.kind,
        "text": fact.text,
        "spoken": fact.spoken,
        "names": list(fact.names),
        "provenance": passage_origin(fact.passage),
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
