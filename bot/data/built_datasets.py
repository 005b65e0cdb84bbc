"""Built data sets of the home and of the operator's catalogue, with their statistics and data
sheets.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bot.data.errors import UnknownDataError
from bot.data.folders import DATASET_NAME_PATTERN, DataFolders, catalogue_names
from bot.training.training_plan import TokenHistogram
from personas.errors import MaterialError
from personas.home.built_dataset import (
    EVAL_FILE,
    REBUILD_ADVICE,
    STATS_FILE,
    TRAIN_FILE,
    is_built_dataset,
)

DATASHEET_FILE = "README.md"
SPLIT_FILES = (("train", TRAIN_FILE), ("eval", EVAL_FILE))


class SourceStats(BaseModel):
    """Counts of one source: samples by split, their tokens, records read and records used."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    train: int = 0
    eval: int = 0
    tokens: int = 0
    rows: int = 0
    rows_used: int = 0

    @property
    def samples(self) -> int:
        return self.train + self.eval


class DatasetStats(BaseModel):
    """`stats.json` of a data set, as far as it is shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    samples: dict[str, int]
    tokens: int
    rows: int
    rows_used: int
    dropped: dict[str, int]
    hash: str
    persona: str | None
    base_model: str
    reply_tokens: int = 0
    dropped_replies: dict[str, int] = {}
    by_source: dict[str, SourceStats] = {}
    by_kind: dict[str, int] = {}
    by_right: dict[str, int] = {}
    with_lore: int = 0
    with_trimmed_history: int = 0
    tokens_per_sample: TokenHistogram = TokenHistogram()
    tokens_per_reply: TokenHistogram = TokenHistogram()
    mix: dict[str, float] = {}
    statements: dict[str, dict[str, str]] = {}
    permission: str = ""
    replaced: dict[str, int] = {}
    recipe: dict[str, float | str] = {}

    @property
    def count(self) -> int:
        return sum(self.samples.values())


@dataclass(frozen=True)
class BuiltDataset:
    """A data set. `is_own`: it was built here, in the home; `built_at` in seconds since 1970.

    `gone` names the files of samples that it was built with and has no longer. Moderators take it
    by its `catalogue_name`.
    """

    id: str
    folder: Path
    stats: DatasetStats
    built_at: float
    is_own: bool
    gone: tuple[str, ...] = ()
    catalogue_name: str = ""

    @property
    def request_field(self) -> dict[str, str]:
        """The field and value by which a training request names it."""
        if self.is_own:
            return {"dataset_path": f"datasets/{self.id}"}
        return {"dataset": self.id}


def read_dataset(id: str, folder: Path, *, is_own: bool, catalogue_name: str = "") -> BuiltDataset:
    """A data set's figures. Raises `MaterialError` for one that is damaged."""
    file = folder / STATS_FILE
    try:
        stats = DatasetStats.model_validate(json.loads(file.read_bytes()))
        gone = []
        for side, name in SPLIT_FILES:
            if stats.samples.get(side) and not (folder / name).is_file():
                gone.append(name)
        return BuiltDataset(
            id,
            folder,
            stats=stats,
            built_at=file.stat().st_mtime,
            is_own=is_own,
            gone=tuple(gone),
            catalogue_name=catalogue_name,
        )
    except (OSError, ValueError, ValidationError) as error:
        raise MaterialError(
            f"The data set {id} is damaged: its {STATS_FILE} cannot be read.",
            REBUILD_ADVICE,
        ) from error


def list_datasets(home: Path) -> tuple[list[BuiltDataset], list[str]]:
    """All data sets, newest first, and the errors of unreadable ones. To be called in a thread."""
    datasets: list[BuiltDataset] = []
    faults: list[str] = []
    for id, folder, is_own, name in _dataset_folders(home):
        try:
            datasets.append(read_dataset(id, folder, is_own=is_own, catalogue_name=name))
        except MaterialError as error:
            faults.append(f"{error.message} {error.advice}")
    return sorted(datasets, key=lambda built: built.built_at, reverse=True), faults


def require_dataset(home: Path, id: str) -> BuiltDataset:
    """A data set by its id. Raises `UnknownDataError`, and `MaterialError` for one that is damaged."""
    for known, folder, is_own, name in _dataset_folders(home, id):
        if known == id:
            return read_dataset(id, folder, is_own=is_own, catalogue_name=name)
    raise UnknownDataError(
        f"There is no built data set {id!r}.",
        "The page Data lists them. Build a data set from a source first.",
    )


def _dataset_folders(home: Path, id: str = "") -> list[tuple[str, Path, bool, str]]:
    """Id, folder, whether it was built here, and the name in the catalogue, of all data sets or of
    one.
    """
    sets = DataFolders(home).sets
    if id:
        # An id of an address may lead out of the folder, so its form is checked before it is used.
        own = [sets / id] if DATASET_NAME_PATTERN.fullmatch(id) else []
    else:
        paths = sorted(sets.glob("[!.]*"))
        own = [path for path in paths if DATASET_NAME_PATTERN.fullmatch(path.name)]
    names = catalogue_names(home)
    folders = []
    for path in own:
        if is_built_dataset(path):
            folders.append((path.name, path, True, names.get(path, "")))
    own_ids = {id for id, *_ in folders}
    for path, name in names.items():
        if name not in own_ids and path.parent != sets and is_built_dataset(path):
            folders.append((name, path, False, name))
    return folders


def read_datasheet(built: BuiltDataset) -> str:
    """A data set's sheet in markdown without its pictures; empty if there is none."""
    try:
        text = (built.folder / DATASHEET_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("!["))
