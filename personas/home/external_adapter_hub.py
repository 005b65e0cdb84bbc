"""Adapters on a hub: fetches them into a cache, and copies them from there."""

import shutil
from collections.abc import Callable
from pathlib import Path

from personas.errors import AdapterError
from personas.home.adapters import WEIGHTS_FILE
from personas.home.atomic_files import lock_folder
from personas.home.external_adapter_files import (
    IMPORTED_FILES,
    MAX_SHOWN_CHARS,
    require_adapter_files,
    require_size,
)
from personas.home.hub_addresses import restrict_hub_client
from personas.home.hub_download import (
    HUB_ID_PATTERN,
    HUB_TIMEOUT_S,
    HubFile,
    download,
    list_hub_files,
)
from personas.home.hub_errors import hub_errors_as
from personas.schemas.training import AdapterSource

MAX_CACHED_COMMITS = 5
"""Commits in the cache: moderators may make the bot fetch any, up to the size limits each."""
ProgressCallback = Callable[[str], None]


def fetch_adapter(name: str, folder: Path, say: ProgressCallback) -> AdapterSource:
    """Fetch the adapter in a hub repository, `owner/name` or `owner/name@revision`, into a folder.

    Files of the latest commits are kept in the hub's cache; a download that was cut continues
    there. Raises `AdapterError`.
    """
    from huggingface_hub import HfApi, constants  # takes 0.15 s; local adapters do not need it

    repository, _, revision = name.partition("@")
    if not HUB_ID_PATTERN.fullmatch(repository):
        raise AdapterError(
            f"{repository[:MAX_SHOWN_CHARS]!r} is no repository's name.", "Write it as owner/name."
        )
    restrict_hub_client()
    with hub_errors_as(AdapterError, f"The adapter {name!r}", repository, revision):
        say(f"asking the hub for {name}")
        info = HfApi().model_info(
            repository, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT_S
        )
        listed = list_hub_files(info)
        require_adapter_files(listed, f"The repository {repository}")
        cached = Path(constants.HF_HUB_CACHE) / "understudy-adapters"
        cache = cached / repository.replace("/", "--") / str(info.sha)
        cache.mkdir(parents=True, exist_ok=True)
        cache.touch()  # the commits that were asked for last are kept
        _delete_old_commits(cached)
        with lock_folder(cache) as is_locked:
            if not is_locked:
                raise AdapterError(f"Another process is fetching {name}.", "Wait for it.")
            for file_name in IMPORTED_FILES:
                if file_name not in listed:
                    continue
                file = listed[file_name]
                require_size(file.name, file.bytes, repository)
                download(file, cache / file.name, _TenthsReport(say, file))
                shutil.copyfile(cache / file.name, folder / file.name)
    licence = str(getattr(info.card_data, "license", "") or "")[:MAX_SHOWN_CHARS]
    return AdapterSource(name=repository, commit=str(info.sha), licence=licence)


def _delete_old_commits(cached: Path) -> None:
    """Delete the folders of all but the latest commits, except of one that another process is
    fetching.
    """
    commits = sorted(cached.glob("*/*/"), key=lambda path: path.stat().st_mtime)
    for commit in commits[:-MAX_CACHED_COMMITS]:
        with lock_folder(commit) as is_locked:
            if is_locked:
                shutil.rmtree(commit, ignore_errors=True)


class _TenthsReport:
    """Reports each tenth of the weights that has arrived."""

    def __init__(self, say: ProgressCallback, file: HubFile) -> None:
        self._say = say
        self._file = file
        self._tenths = 0

    def __call__(self, done: int) -> None:
        size = self._file.bytes
        if self._file.name != WEIGHTS_FILE or not size:
            return
        tenths = 10 * done // size
        if tenths > self._tenths:
            self._tenths = tenths
            self._say(f"{self._file.name}: {done / 1e6:.1f} of {size / 1e6:.1f} MB")
