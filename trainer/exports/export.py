"""One export from start to end: verify, write aside, load back, compare, rename into place."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personas.durable import sync
from trainer.exports.errors import ExportError
from trainer.exports.gguf_files import Quantise
from trainer.exports.logits import POSITIONS
from trainer.exports.source import Source, opened
from trainer.exports.targets import QUANTISED, TARGETS, Order, Outcome, Say

BESIDE = ".export.json"


@dataclass(frozen=True)
class Report:
    """What `export.json` says; `made_for_it` is the outermost folder that had to be made, if any."""

    out: Path
    held: dict[str, Any]
    outcome: Outcome
    made_for_it: Path | None = None


def export(adapter: Path, to: str, out: Path, quantise: Quantise | None, card: Path | None, say: Say) -> Report:
    """Make the export `to` of an adapter at `out`, with `<out>.export.json` beside it.

    Nothing is left behind when it fails. Raises `UnderstudyError`, or `OSError` for what the disk says.
    """
    started = time.perf_counter()
    beside = out.with_name(out.name + BESIDE)
    _require_free(out)
    missing = _missing_for(out)
    if quantise and to not in QUANTISED:
        raise ExportError(f"--quantise is for {' and '.join(QUANTISED)}; {to} is never rounded so.", "Leave it out.")
    stored: Quantise = quantise or "f16"
    with opened(adapter, card) as source, _aside(out) as path:
        say(f"{source.name}: verified; what it says is computed over {source.base.name}")
        outcome = TARGETS[to](Order(source, path, stored, say))
        outcome = replace(outcome, notes=(*outcome.notes, *filter(None, [source.doubt])))
        held = _described(source, to, stored if to in QUANTISED else None, path, outcome)
        held["seconds"] = round(time.perf_counter() - started, 2)
        _keep(path, out, beside, held)
    return Report(out, held, outcome, missing[-1] if missing else None)


def _described(source: Source, to: str, quantise: Quantise | None, path: Path, outcome: Outcome) -> dict[str, Any]:
    manifest = source.manifest
    return {
        "format": 1,
        "to": to,
        "quantise": quantise,
        "bytes": _size(path),
        "adapter": {"persona": manifest.persona, "version": manifest.version, "job": manifest.job_id},
        "base_model": {"name": manifest.base_model, "hash": manifest.base_model_hash},
        "compared": {"prompts": len(source.samples), "positions": len(source.samples) * POSITIONS},
        "difference": outcome.difference.as_json(),
        "rounding": outcome.rounding.as_json() if outcome.rounding else None,
        "beyond_rounding": outcome.beyond.as_json() if outcome.beyond else None,
        "llama_cpp": outcome.llama_cpp.as_json() if outcome.llama_cpp else None,
        "notes": list(outcome.notes),
    }


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A path with the final name in a folder that vanishes, as do those made for it where nothing comes of it."""
    missing = _missing_for(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield scratch / out.name
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # the export is in it
            for folder in missing:
                folder.rmdir()


def _keep(path: Path, out: Path, beside: Path, held: dict[str, Any]) -> None:
    """Give the export its final name, and its description a moment before."""
    note = path.with_name(beside.name)
    note.write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for written in (note, path, *path.rglob("*")):
        sync(written)
    _require_free(out)
    note.replace(beside)
    try:
        path.rename(out)
    except OSError:
        beside.unlink()
        raise
    sync(out.parent)


def _missing_for(out: Path) -> list[Path]:
    """The folders that have to be made, the innermost first."""
    return [folder for folder in out.parents if not folder.exists()]


def _require_free(out: Path) -> None:
    if out.exists():
        raise ExportError(f"{out} is there already.", "Name another --out, or remove it first.")


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
