"""Data sources: what ships, the operator's catalogue and uploads; and the rights stated for them in
`rights.toml`.
"""

import json
import threading
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bot.data.web.folders import FILE_SUFFIXES, GZIP_SUFFIX, DataFolders
from bot.platform.errors import redact_paths
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.request_body import parse_body
from bot.services import Services
from bot.training.dataset_catalog import CatalogueListing
from bot.training.stored_datasets import HISTORY_DATASET
from personas.errors import MaterialError, UnderstudyError
from personas.home.atomic_files import write_private_file
from personas.home.built_dataset import dataset_statement, is_built_dataset
from personas.home.column_maps import MAX_PAIR_CHARACTERS, MAX_PAIRS, pairs_error, read_mapping
from personas.home.data_subjects import Consent, read_consent
from personas.home.dataset_catalogue import (
    CATALOGUE_FILE,
    ENTRY_NAME_PATTERN,
    CatalogueEntry,
    read_catalogue,
)
from personas.home.rights import (
    PERMISSION_SETTING,
    REQUIRED_FIELDS,
    RIGHTS_FILE,
    RightsStatement,
    decide_right,
    parse_statement,
    read_statement,
    statement_date_error,
)
from personas.home.toml_text import toml_table
from personas.schemas.base import DISCORD_API, FrozenModel, Right, right_error

LICENSED_RIGHT = "licensed"
RIGHT_CHOICES = (
    ("own-writing", "Own writing: I wrote all of it"),
    (
        "data-package",
        "Data package: what one person asked of a service about themselves, and gives",
    ),
    ("form", "Form: given on purpose, through a form, for this"),
    (LICENSED_RIGHT, "Licensed: under a licence or agreement that allows it"),
    (
        DISCORD_API,
        "Taken from Discord's API (a server's export): not trained on without Discord's permission",
    ),
)
MAX_STATEMENT_CHARS = 500
RIGHTS_FILE_HEADER = (
    "# Rights stated to the files of this folder. The dashboard writes it; comments are lost.\n"
)
_rights_lock = threading.Lock()
UPLOADS_PREFIX = "uploads/"
SHIPPED_ORIGIN = "ships with the bot"
UPLOAD_ORIGIN = "uploaded"
HISTORY_ORIGIN = "said to the bot"
PUBLISHED_ORIGIN = "published on a hub"
GENERAL_PREFIX = "general-"


def parse_rights_form(fields: Mapping[str, str]) -> RightsStatement:
    """The statement of a form or body: `right`, `licence`, `stated_by`, `stated_on`, `why`. Raises
    `Problem`.
    """
    table = {name: fields.get(name, "").strip() for name in ("right", *REQUIRED_FIELDS)}
    if table["right"] == LICENSED_RIGHT:
        table["right"] = f"{LICENSED_RIGHT}:{fields.get('licence', '').strip()}"
    wrong = {name: why for name, value in table.items() if (why := statement_error(name, value))}
    if "licence" in wrong.get("right", ""):  # it has a field of its own
        wrong = {"licence": wrong.pop("right"), **wrong}
    if wrong:
        errors = [field_error(name, f"the statement {why}") for name, why in wrong.items()]
        message = f"The right cannot be stored: the statement {', and '.join(wrong.values())}."
        raise Problem("invalid-request", message, "Correct it.", errors=errors)
    return parse_statement(table)


def statement_error(name: str, value: str) -> str:
    """Describe the error in one field of a statement as the end of a sentence; empty if it is
    valid.
    """
    if len(value) > MAX_STATEMENT_CHARS or not value.replace("\n", " ").isprintable():
        return f"has a {name} that is too long, or holds unprintable characters"
    if name == "right":
        return right_error(value)
    if not value.strip():
        return f"leaves out {name}"
    return statement_date_error(value) if name == "stated_on" else ""


def _require_pairs(pairs: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := pairs_error(pairs):
        raise ValueError(wrong)
    return pairs


MapPair = Annotated[str, Field(min_length=3, max_length=MAX_PAIR_CHARACTERS)]
ColumnPairs = Annotated[
    tuple[MapPair, ...], Field(max_length=MAX_PAIRS), AfterValidator(_require_pairs)
]


class ColumnMapBody(FrozenModel):
    """Which column of a table is what, as pairs such as `speaker=Absender`.

    A chat takes `speaker`, `text` and, if there are times, `time` (or `date` and `time`); questions
    and answers take `user` and `assistant`; lists of messages take `messages`, `from` and `value`.
    """

    map: ColumnPairs


def parse_map_form(form: Mapping[str, str]) -> tuple[str, ...]:
    """Parse the pairs of a form, one a line. Raises `Problem` naming the field."""
    pairs = [line.strip() for line in form.get("map", "").splitlines() if line.strip()]
    return parse_body(ColumnMapBody, {"map": pairs}, is_form=True).map


class OfferBody(FrozenModel):
    """A name by which moderators take a data set on Discord, and the right to it.

    `right` may be left out where one is stated already: of an upload, and of a data set that was
    built from sources. `format`, `map`, `persona_names` and `language` say how it is read, who the
    persona is in it, and its language. An upload's own `map` need not be repeated.
    """

    name: Annotated[
        str,
        Field(
            pattern=f"^{ENTRY_NAME_PATTERN.pattern}$",
            description="letters, digits, spaces, . - _; at most 64",
        ),
    ]
    right: Annotated[str, Field(max_length=80)] = ""
    stated_by: Annotated[str, Field(max_length=MAX_STATEMENT_CHARS)] = ""
    stated_on: Annotated[str, Field(max_length=40)] = ""
    why: Annotated[str, Field(max_length=MAX_STATEMENT_CHARS)] = ""
    language: Annotated[str, Field(max_length=60)] = ""
    format: Annotated[
        str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,39})?$", description="a format's name")
    ] = ""
    persona_names: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=20)
    ] = ()
    map: ColumnPairs = ()

    @model_validator(mode="after")
    def _printable(self) -> Self:
        if not all(text.isprintable() for text in (self.name, self.language, *self.persona_names)):
            raise ValueError("a name or the language holds unprintable characters")
        return self

    @property
    def listing(self) -> CatalogueListing:
        return CatalogueListing(
            self.name.strip(), self.language, self.format, self.persona_names, self.map
        )

    def statement(self, right: Right = "") -> RightsStatement:
        """The stated right; `right` is the one of a data set's samples. Raises `Problem` naming the
        wrong fields.
        """
        fields = self.model_dump(include={"stated_by", "stated_on", "why"})
        return parse_rights_form({**fields, "right": right or self.right})


def parse_offer_form(form: Mapping[str, str]) -> OfferBody:
    """Parse the form by which a data set is offered to moderators. Raises `Problem` naming the
    wrong fields.
    """
    texts = {name: form.get(name, "").strip() for name in OfferBody.model_fields}
    if texts["right"] == LICENSED_RIGHT:
        texts["right"] = f"{LICENSED_RIGHT}:{form.get('licence', '').strip()}"
    names = [part.strip() for part in texts["persona_names"].split(",") if part.strip()]
    pairs = [line.strip() for line in texts["map"].splitlines() if line.strip()]
    return parse_body(OfferBody, {**texts, "persona_names": names, "map": pairs}, is_form=True)


def write_statement(file: Path, statement: RightsStatement | None) -> None:
    """Store the right stated to a file; None removes it. Raises `Problem` if `rights.toml` is
    unreadable.
    """
    rights = file.parent / RIGHTS_FILE
    with _rights_lock:
        tables = _read_rights(rights)
        tables.pop(file.name, None)
        if statement:
            tables[file.name] = vars(statement)
        if tables:
            text = RIGHTS_FILE_HEADER + "".join(
                f"\n{toml_table(name, it)}" for name, it in sorted(tables.items())
            )
            write_private_file(rights, text.encode())
        else:
            rights.unlink(missing_ok=True)


def _read_rights(rights: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(rights.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        message = f"{RIGHTS_FILE} beside the uploads cannot be read: {error}."
        raise Problem("conflict", message, "Correct it by hand, or delete it.") from error


class ColumnLook(BaseModel):
    """A column of a table and what it looks like, such as `2 names that recur`; no content."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    looks_like: str


class ColumnsAsked(BaseModel):
    """The question which column is what: the columns, and proposed roles. `has_header`: the file
    names them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    columns: tuple[ColumnLook, ...]
    proposal: dict[str, str] = {}
    has_header: bool = True

    @property
    def pairs(self) -> tuple[str, ...]:
        return tuple(f"{role}={column}" for role, column in self.proposal.items())


class FileInspection(BaseModel):
    """Figures that `dataset inspect` found in a file of this size and modification time; no message
    texts.

    `question` stands for a table whose columns nobody has mapped; then nothing was read. `report`
    lists what was taken `as_is`, with `other_meaning`, and `not_taken`, each with `what` and `why`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    bytes: int
    changed_ns: int
    format: str
    rows: int = 0
    conversations: int = 0
    turns: int = 0
    languages: dict[str, int] = {}
    rejected_count: int = 0
    reasons: dict[str, int] = {}
    question: ColumnsAsked | None = None
    report: dict[str, list[dict[str, str]]] = {}


@dataclass(frozen=True)
class DataSource:
    """Something to learn from. `origin` says how it came here; `bytes` and `at` (seconds since
    1970) are a file's.

    `refused` says why nothing may be trained on it, empty where it may, and `advice` what to do
    then. `is_set` marks a data set that was built; what is no file cannot be built into one: it is
    gathered for each training. Moderators take it by its `catalogue_name`; `entry` is that of a
    data set on a hub. `mapping` are the pairs that say which column of a table is what.
    """

    id: str
    name: str
    origin: str
    bytes: int | None = None
    at: float | None = None
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
        return (
            {"dataset_path": self.id}
            if self.id.startswith(UPLOADS_PREFIX)
            else {"dataset": self.id}
        )

    @property
    def is_upload(self) -> bool:
        return self.origin == UPLOAD_ORIGIN


def list_sources(services: Services) -> list[DataSource]:
    """All sources, shipped ones last. Reads folders and small files; to be called in a thread."""
    home = services.home
    consent = read_consent(services.home)
    entries = read_catalogue(home).entries.values()
    uploads = DataFolders(home).uploads
    named = [
        _catalog_source(it, consent) for it in entries if not it.path or it.path.parent != uploads
    ]
    shipped = [
        _shipped_source(name, path, consent)
        for name, path in sorted(services.catalogue.shipped.datasets().items())
    ]
    return [*list_uploads(home), *named, _history_source(consent), *shipped]


def catalog_errors(services: Services) -> list[str]:
    return [
        redact_paths(fault, services.home)
        for fault in read_catalogue(services.home).faults.values()
    ]


def list_uploads(home: Path) -> list[DataSource]:
    """The uploaded files, newest first."""
    consent = read_consent(home)
    names = _catalogue_names(home)
    files = [
        path
        for path in DataFolders(home).uploads.glob("[!.]*")
        if path.is_file() and _is_supported(path)
    ]
    found = (_upload_source(path, consent, names.get(path, "")) for path in files)
    return sorted(found, key=lambda source: source.at or 0, reverse=True)


def _catalogue_names(home: Path) -> dict[Path, str]:
    """Map paths to the names by which moderators take what is there."""
    return {entry.path: entry.name for entry in read_catalogue(home).entries.values() if entry.path}


def require_upload(home: Path, name: str) -> DataSource:
    """An upload by its name. Raises `Problem`."""
    path = DataFolders(home).upload(name)
    if not path.is_file():
        raise Problem(
            "not-found", f"There is no upload {name!r}.", "PUT /uploads/NAME uploads a file."
        )
    return _upload_source(path, read_consent(home), _catalogue_names(home).get(path, ""))


def save_inspection(file: Path, figures: dict[str, Any]) -> None:
    """Store an inspection's figures, without message texts."""
    about = file.stat()
    inspection = FileInspection.model_validate(
        {**figures, "bytes": about.st_size, "changed_ns": about.st_mtime_ns}
    )
    write_private_file(_inspection_file(file), inspection.model_dump_json().encode())


def delete_inspection(file: Path) -> None:
    _inspection_file(file).unlink(missing_ok=True)


def _inspection_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.about.json")


def _read_inspection(file: Path) -> FileInspection | None:
    with suppress(OSError, ValidationError, ValueError):
        found = FileInspection.model_validate(json.loads(_inspection_file(file).read_bytes()))
        now = file.stat()
        if (found.bytes, found.changed_ns) == (now.st_size, now.st_mtime_ns):
            return found
    return None


def _is_supported(path: Path) -> bool:
    inner = path.with_suffix("") if path.suffix == GZIP_SUFFIX else path
    return inner.suffix.lower() in FILE_SUFFIXES


def _upload_source(path: Path, consent: Consent, catalogue_name: str) -> DataSource:
    of = path.stat()
    statement, refused, advice = _decide_right(path, consent)
    if not refused and statement is None:
        refused = f"Nobody has stated a right to {path.name}."
        advice = "State it below."
    figures = (of.st_size, of.st_mtime, statement, refused, advice, _read_inspection(path))
    id = f"{UPLOADS_PREFIX}{path.name}"
    mapping = _stored_mapping(path)
    return DataSource(
        id, path.name, UPLOAD_ORIGIN, *figures, catalogue_name=catalogue_name, mapping=mapping
    )


def _stored_mapping(path: Path) -> tuple[str, ...]:
    """The mapping of an upload's columns; empty if `columns.toml` cannot be read, which an
    inspection reports.
    """
    with suppress(MaterialError):
        return read_mapping(path)
    return ()


def _decide_right(
    path: Path, consent: Consent, format_right: str = ""
) -> tuple[RightsStatement | None, str, str]:
    """A file's rights statement, why training on it is refused, and advice."""
    try:
        statement = read_statement(path)
        stated = statement.right if statement else ""
        verdict = decide_right(path.name, format_right=format_right, stated=stated, consent=consent)
    except MaterialError as error:
        return None, error.message, error.advice
    return statement, verdict.refused, verdict.advice


def _shipped_source(name: str, path: Path, consent: Consent) -> DataSource:
    format_right = "" if name.startswith(GENERAL_PREFIX) else DISCORD_API
    of = path.stat()
    right = _decide_right(path, consent, format_right)
    return DataSource(name, name, SHIPPED_ORIGIN, of.st_size, of.st_mtime, *right)


def _history_source(consent: Consent) -> DataSource:
    """The chat history, which is subject to Discord's rules."""
    verdict = decide_right(HISTORY_DATASET, stated=DISCORD_API, consent=consent)
    stated = RightsStatement(
        DISCORD_API, f"the operator, in {PERMISSION_SETTING}", "", consent.permission
    )
    statement = stated if consent.permission else None
    figures = (None, None, statement, verdict.refused, verdict.advice)
    return DataSource(HISTORY_DATASET, HISTORY_DATASET, HISTORY_ORIGIN, *figures, is_file=False)


def _catalog_source(entry: CatalogueEntry, consent: Consent) -> DataSource:
    """A catalogue entry; one that is not on this machine cannot be trained on."""
    origin = PUBLISHED_ORIGIN if entry.about else CATALOGUE_FILE
    source = DataSource(entry.name, entry.name, origin, entry=entry if entry.hub else None)
    source = replace(
        source, statement=entry.statement if entry.statement.right else None, mapping=entry.mapping
    )
    if not entry.ships:
        source = replace(source, catalogue_name=entry.name)
    try:
        path = entry.locate()
        is_set = is_built_dataset(path)
        statement = dataset_statement(path) if is_set else source.statement
        verdict = (
            decide_right(entry.name, stated=statement.right, consent=consent)
            if is_set and statement
            else None
        )
        verdict = verdict or entry.decide_right(consent)
    except UnderstudyError as error:
        return replace(source, refused=error.message, advice=error.advice)
    of = path.stat()
    size = (
        of.st_size if path.is_file() else sum(entry.record.files.values()) if entry.record else None
    )
    source = replace(source, statement=statement, refused=verdict.refused, advice=verdict.advice)
    return replace(source, bytes=size, at=of.st_mtime, is_set=is_set)
