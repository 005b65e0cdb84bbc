"""Data sources: uploads, the operator's catalogue, the chat history, and what ships."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bot.data.errors import UnknownDataError
from bot.data.folders import DataFolders, catalogue_names, is_supported_file
from bot.data.inspections import FileInspection, read_inspection
from bot.platform.errors import redact_paths
from bot.training.source_rights import refusal_texts
from bot.training.stored_datasets import HISTORY_DATASET
from personas.errors import MaterialError, UnderstudyError
from personas.home.built_dataset import dataset_statement, is_built_dataset
from personas.home.column_maps import read_mapping
from personas.home.data_subjects import Consent, read_consent
from personas.home.dataset_catalogue import CATALOGUE_FILE, CatalogueEntry, read_catalogue
from personas.home.job_material import ShippedData
from personas.home.rights import (
    PERMISSION_SETTING,
    RightsStatement,
    decide_right,
    read_statement,
)
from personas.schemas.base import DISCORD_API

UPLOADS_PREFIX = "uploads/"
SHIPPED_ORIGIN = "ships with the bot"
UPLOAD_ORIGIN = "uploaded"
HISTORY_ORIGIN = "said to the bot"
PUBLISHED_ORIGIN = "published on a hub"
GENERAL_PREFIX = "general-"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Something to learn from. `origin` says how it came here; `bytes` and `changed_at`
    (seconds since 1970) are a file's.

    `refused` says why nothing may be trained on it, empty where it may, and `advice` what to do
    then. `is_set` marks a data set that was built; what is no file cannot be built into one: it is
    gathered for each training. Moderators take it by its `catalogue_name`; `entry` is that of a
    data set on a hub. `mapping` are the pairs that say which column of a table is what.
    """

    id: str
    name: str
    origin: str
    bytes: int | None = None
    changed_at: float | None = None
    statement: RightsStatement | None = None
    refused: str = ""
    advice: str = ""
    about: FileInspection | None = None
    is_set: bool = False
    is_file: bool = True
    catalogue_name: str = ""
    entry: CatalogueEntry | None = None
    mapping: tuple[str, ...] = ()

    @property
    def request_field(self) -> dict[str, str]:
        """The field and value by which a training request names it."""
        field = "dataset_path" if self.id.startswith(UPLOADS_PREFIX) else "dataset"
        return {field: self.id}

    @property
    def is_upload(self) -> bool:
        return self.origin == UPLOAD_ORIGIN


def list_sources(home: Path, shipped: ShippedData) -> list[DataSource]:
    """All sources, shipped ones last. Reads folders and small files; to be called in a thread."""
    consent = read_consent(home)
    uploads = DataFolders(home).uploads
    sources = list_uploads(home)
    for entry in read_catalogue(home).entries.values():
        if not entry.path or entry.path.parent != uploads:
            sources.append(_catalog_source(entry, consent))
    sources.append(_history_source(consent))
    for name, path in sorted(shipped.datasets().items()):
        sources.append(_shipped_source(name, path, consent))
    return sources


def catalog_errors(home: Path) -> list[str]:
    """List the errors of `catalogue.toml`."""
    return [redact_paths(fault, home) for fault in read_catalogue(home).faults.values()]


def list_uploads(home: Path) -> list[DataSource]:
    """The uploaded files, newest first."""
    consent = read_consent(home)
    names = catalogue_names(home)
    uploads = []
    for path in DataFolders(home).uploads.glob("[!.]*"):
        if path.is_file() and is_supported_file(path):
            uploads.append(_upload_source(path, consent, names.get(path, "")))
    return sorted(uploads, key=lambda source: source.changed_at or 0, reverse=True)


def require_upload(home: Path, name: str) -> DataSource:
    """An upload by its name. Raises `InvalidNameError` and `UnknownDataError`."""
    path = DataFolders(home).upload(name)
    if not path.is_file():
        raise UnknownDataError(
            f"There is no upload {name!r}.",
            "The page Data lists the uploads, and brings files in.",
        )
    return _upload_source(path, read_consent(home), catalogue_names(home).get(path, ""))


def _upload_source(path: Path, consent: Consent, catalogue_name: str) -> DataSource:
    decision = _decide_right(path, consent)
    if not decision.refused and decision.statement is None:
        decision = _RightDecision(
            refused=f"Nobody has stated a right to {path.name}.",
            advice="State it below.",
        )
    status = path.stat()
    return DataSource(
        id=f"{UPLOADS_PREFIX}{path.name}",
        name=path.name,
        origin=UPLOAD_ORIGIN,
        bytes=status.st_size,
        changed_at=status.st_mtime,
        statement=decision.statement,
        refused=decision.refused,
        advice=decision.advice,
        about=read_inspection(path),
        catalogue_name=catalogue_name,
        mapping=_stored_mapping(path),
    )


def _stored_mapping(path: Path) -> tuple[str, ...]:
    """The mapping of an upload's columns; empty if `columns.toml` cannot be read, which an
    inspection reports.
    """
    with suppress(MaterialError):
        return read_mapping(path)
    return ()


@dataclass(frozen=True)
class _RightDecision:
    """A file's rights statement, why training on it is refused, and advice."""

    statement: RightsStatement | None = None
    refused: str = ""
    advice: str = ""


def _decide_right(path: Path, consent: Consent, format_right: str = "") -> _RightDecision:
    try:
        statement = read_statement(path)
        stated = statement.right if statement else ""
        verdict = decide_right(path.name, format_right=format_right, stated=stated, consent=consent)
    except MaterialError as error:
        return _RightDecision(refused=error.message, advice=error.advice)
    return _RightDecision(statement, *refusal_texts(path.name, verdict, consent))


def _shipped_source(name: str, path: Path, consent: Consent) -> DataSource:
    format_right = "" if name.startswith(GENERAL_PREFIX) else DISCORD_API
    decision = _decide_right(path, consent, format_right)
    status = path.stat()
    return DataSource(
        id=name,
        name=name,
        origin=SHIPPED_ORIGIN,
        bytes=status.st_size,
        changed_at=status.st_mtime,
        statement=decision.statement,
        refused=decision.refused,
        advice=decision.advice,
    )


def _history_source(consent: Consent) -> DataSource:
    """The chat history, which is subject to Discord's rules."""
    verdict = decide_right(HISTORY_DATASET, stated=DISCORD_API, consent=consent)
    refused, advice = refusal_texts(HISTORY_DATASET, verdict, consent)
    statement = None
    if consent.permission:
        stated_by = f"the operator, in {PERMISSION_SETTING}"
        statement = RightsStatement(DISCORD_API, stated_by, "", consent.permission)
    return DataSource(
        id=HISTORY_DATASET,
        name=HISTORY_DATASET,
        origin=HISTORY_ORIGIN,
        statement=statement,
        refused=refused,
        advice=advice,
        is_file=False,
    )


def _catalog_source(entry: CatalogueEntry, consent: Consent) -> DataSource:
    """A catalogue entry; one that is not on this machine cannot be trained on."""
    origin = PUBLISHED_ORIGIN if entry.about else CATALOGUE_FILE
    statement = entry.statement if entry.statement.right else None
    source = DataSource(
        id=entry.name,
        name=entry.name,
        origin=origin,
        statement=statement,
        mapping=entry.mapping,
        catalogue_name="" if entry.ships else entry.name,
        entry=entry if entry.hub else None,
    )
    try:
        path = entry.locate()
        statement = source.statement
        is_set = is_built_dataset(path)
        if is_set:
            statement = dataset_statement(path)
            verdict = decide_right(entry.name, stated=statement.right, consent=consent)
        else:
            verdict = entry.decide_right(consent)
    except UnderstudyError as error:
        return replace(source, refused=error.message, advice=error.advice)
    refused, advice = refusal_texts(entry.name, verdict, consent)
    if refused and entry.ships and not entry.statement.right:
        refused = f"{entry.name} ({entry.hub}) may not be trained on: its page states no licence."
        advice = (
            "Whoever has a right to it states so on its page of the dashboard, or in "
            f"{CATALOGUE_FILE}."
        )
    status = path.stat()
    size_bytes = None
    if path.is_file():
        size_bytes = status.st_size
    elif entry.record:
        size_bytes = sum(entry.record.files.values())
    return replace(
        source,
        bytes=size_bytes,
        changed_at=status.st_mtime,
        statement=statement,
        refused=refused,
        advice=advice,
        is_set=is_set,
    )
