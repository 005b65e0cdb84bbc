"""The other personas of the house that a version is compared with: their adapters and what they said."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.adapters import verify
from personas.base_model import fingerprint
from personas.compare import Neighbour as Named
from personas.contracts import AdapterRef
from personas.errors import AdapterError, UnderstudyError
from trainer.dataset import Dataset
from trainer.job import Job, prepare
from trainer.material import read_spec

MOST = 5
"""Neighbours that are compared at once; each takes its adapter's memory, and its replies some time."""


@dataclass(frozen=True)
class Neighbour:
    """Another persona, its live adapter and the data behind it."""

    persona: str
    ref: AdapterRef
    data: Dataset


def neighbours_of(job: Job, named: Sequence[Named]) -> tuple[tuple[Neighbour, ...], tuple[str, ...]]:
    """Those of the named that can be compared, and why the others cannot."""
    found: list[Neighbour] = []
    missing: list[str] = []
    for it in named:
        try:
            if it.persona != job.spec.request.persona and len(found) < MOST:
                found.append(_neighbour(job, it))
        except UnderstudyError as error:
            missing.append(f"{it.persona}: {error.message}")
    return tuple(found), tuple(missing)


def _neighbour(job: Job, named: Named) -> Neighbour:
    folder, adapter = Path(named.job), Path(named.adapter)
    manifest = verify(adapter)
    if manifest.base_model_hash != fingerprint(job.base):
        raise AdapterError(f"Its adapter was made for another base model ({manifest.base_model}).", "Train it again.")
    ref = AdapterRef(f"neighbour-{named.persona}", manifest.version, adapter)
    return Neighbour(named.persona, ref, _data(folder))


@functools.lru_cache(maxsize=MOST)
def _data(folder: Path) -> Dataset:
    return prepare(folder, read_spec(folder)).data
