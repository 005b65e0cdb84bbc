"""Data sets that are named by their id on a model hub, such as `OpenAssistant/oasst2`."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from personas.errors import MaterialError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ("*.json*", "*.csv*", "*.tsv*", "*.parquet", "*.arrow", "*.txt*", "*.yml", "*.yaml", "*.zip")


@functools.cache
def located(path: Path) -> Path:
    """The path, or where the data set of that id was fetched to. Raises `MaterialError` when there is neither."""
    if path.exists() or not HUB_ID.fullmatch(path.as_posix()):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path.as_posix(), repo_type="dataset", allow_patterns=list(WANTED)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MaterialError(
            f"There is no file {path}, and no data set of that id can be fetched: {said}.",
            "Check the path, or the id and the connection to the hub.",
        ) from None
