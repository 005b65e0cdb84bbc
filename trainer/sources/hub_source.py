"""Finds a data set by its id on the model hub, and downloads its data files."""

import functools
from pathlib import Path

from personas.errors import MaterialError
from personas.home.hub_download import HUB_ID_PATTERN
from trainer.sources.table_reader import first_line

HUB_FILE_PATTERNS = (
    "*.json*",
    "*.csv*",
    "*.tsv*",
    "*.parquet",
    "*.arrow",
    "*.txt*",
    "*.yml",
    "*.yaml",
    "*.zip",
)


@functools.cache
def resolve_path(path: Path) -> Path:
    """Return the path, or the folder of a downloaded hub data set. Raises `MaterialError` if there
    is neither.
    """
    if path.exists() or not HUB_ID_PATTERN.fullmatch(path.as_posix()):
        return path
    from huggingface_hub import snapshot_download  # takes 0.1 s
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    errors = (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError)
    patterns = list(HUB_FILE_PATTERNS)
    try:
        folder = snapshot_download(path.as_posix(), repo_type="dataset", allow_patterns=patterns)
    except errors as error:
        raise MaterialError(
            f"There is no file {path}, and no data set of that id can be fetched: "
            f"{first_line(error)}.",
            "Check the path, or the id and the connection to the hub.",
        ) from None
    return Path(folder)
