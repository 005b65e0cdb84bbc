"""Data sets that the operator names by path, or by a hub's id."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from personas.errors import MaterialError
from personas.home.built_dataset import dataset_statement, is_built_dataset
from personas.home.column_maps import read_mapping
from personas.home.data_subjects import read_consent
from personas.home.dataset_catalogue import (
    CATALOGUE_FILE,
    CatalogueEntry,
    DatasetCatalogue,
    read_catalogue,
)
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.rights import (
    REQUEST_STATEMENT,
    RightsStatement,
    decide_right,
    read_statement,
)

PATH_ADVICE = (
    "Give a path from UNDERSTUDY_HOME, from where the bot was started, or an absolute one; or the "
    "id of a data set "
    "that was fetched from a hub before."
)


@dataclass(frozen=True)
class ResolvedDataset:
    """A data set named by path: its files, its display name, the stated right to it, and the
    mapping of its columns.
    """

    path: Path
    origin: str
    statement: RightsStatement
    format: str | None = None
    mapping: tuple[str, ...] = ()


def resolve_dataset_path(home: Path, text: str, right: str | None = None) -> ResolvedDataset:
    """Resolve a `dataset_path`; `right` is claimed for one without a stated right. Raises
    `MaterialError` when it does not exist or may not be trained on.
    """
    catalogue = read_catalogue(home)
    path = _find_on_disk(home, text)
    advice = ""
    statement: RightsStatement | None
    if path:
        origin = path.name or text
        entry = _entry_at(catalogue, path)
        statement = _statement_at(path, entry)
    elif entry := _entry_of_hub(catalogue, text):
        entry.decide_right(read_consent(home)).require()
        path = entry.locate()
        origin = entry.origin
        statement = entry.statement
    else:
        path = _find_fetched(text)
        origin = text
        advice = _hub_statement_advice(text)
        statement = None
    if path is None:
        raise MaterialError(f"There is no {text!r} on this machine.", PATH_ADVICE)
    if home.is_relative_to(path):
        raise MaterialError(f"{text!r} holds the bot's own home.", "Name the data set alone.")
    if statement is None and right:
        statement = RightsStatement(right, REQUEST_STATEMENT, _today(), "")
    stated = statement.right if statement else ""
    verdict = decide_right(origin, stated=stated, consent=read_consent(home))
    if statement is None:
        raise MaterialError(verdict.refused, advice or verdict.advice)
    verdict.require()
    if entry is None:
        return ResolvedDataset(path, origin, statement, mapping=read_mapping(path))
    return ResolvedDataset(
        path,
        origin,
        statement,
        format=entry.format,
        mapping=entry.mapping or read_mapping(path),
    )


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _entry_at(catalogue: DatasetCatalogue, path: Path) -> CatalogueEntry | None:
    for entry in catalogue.entries.values():
        if entry.path and _is_same_path(entry.path, path):
            return entry
    return None


def _entry_of_hub(catalogue: DatasetCatalogue, hub: str) -> CatalogueEntry | None:
    for entry in catalogue.entries.values():
        if entry.hub == hub:
            return entry
    return None


def _statement_at(path: Path, entry: CatalogueEntry | None) -> RightsStatement | None:
    """Read the stated right to a path; data sets of `dataset build` contain it."""
    if is_built_dataset(path):
        return dataset_statement(path)
    return entry.statement if entry else read_statement(path)


def _find_on_disk(home: Path, text: str) -> Path | None:
    if not text.isprintable():
        raise MaterialError("The path holds unprintable characters.", PATH_ADVICE)
    try:
        given = Path(text).expanduser()
        for folder in (home, Path.cwd()):
            # Not resolved: the right is stated beside the given name.
            path = Path(os.path.normpath(folder / given))
            if path.is_file() or path.is_dir():
                return path
    except (OSError, RuntimeError):  # too long, not readable, or the home of an unknown user
        pass
    return None


def _find_fetched(text: str) -> Path | None:
    if not HUB_ID_PATTERN.fullmatch(text):
        return None
    unstated = RightsStatement("", "", "", "")
    try:
        return CatalogueEntry(text, path=None, hub=text, format=None, statement=unstated).locate()
    except MaterialError:
        return None


def _is_same_path(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _hub_statement_advice(hub: str) -> str:
    return (
        f"Whoever holds the rights, or knows its licence, states so in {CATALOGUE_FILE} in "
        "UNDERSTUDY_HOME: a table "
        f'with hub = "{hub}", right (licensed:<name>, own-writing, data-package or form), stated_by, stated_on and why.'
    )
