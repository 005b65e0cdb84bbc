"""Fetches base models from a hub into the cache of its client, where `personas.models` finds them.

The client of this version begins a file anew after a cut, so files are written here, in the cache's own layout
(huggingface_hub, "Understand caching"): `blobs/DIGEST`, `snapshots/COMMIT/NAME` as links to them, `refs/REVISION`.
"""

import fnmatch
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.home.atomic_files import fsync_path, lock_folder, replace_durably, write_file
from personas.home.hub_addresses import restrict_hub_client
from personas.home.hub_download import (
    HUB_ID_PATTERN,
    HUB_TIMEOUT_S,
    HubFile,
    download,
    list_hub_files,
)
from personas.home.hub_errors import hub_errors_as
from personas.models.gguf_names import HUB_FILE, hub_file_patterns
from personas.models.hub_snapshot import IGNORED_PATTERNS, SNAPSHOT_PATTERNS
from personas.outside_names import UnsafeNameError, last_part, path_inside, require_safe_name

DIGEST_PATTERN = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ROOM_TO_SPARE_BYTES = 2**29
"""Disk space that a fetch leaves free."""
FetchReport = Callable[[int], None]
"""Called with the bytes of all files that are there."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a base model at a commit of a hub. `name` is what BASE_MODEL takes, with the
    commit; `licence` is what the repository states, empty if nothing.
    """

    name: str
    repository: str
    commit: str
    revision: str
    files: tuple[HubFile, ...]
    licence: str

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def folder(self) -> Path:
        """The repository's folder in the hub's cache."""
        from huggingface_hub import constants  # reads the environment when it is loaded

        owner, _, name = self.repository.partition("/")
        return Path(constants.HF_HUB_CACHE) / f"models--{owner}--{name}"

    @property
    def missing_bytes(self) -> int:
        """Bytes that are not here yet."""
        return self.bytes - sum(_bytes_here(self.folder, file) for file in self.files)


def list_model_files(name: str) -> ModelFiles:
    """Ask the hub for the files of a base model: `owner/name`, `owner/name:Q4_K_M` or
    `owner/name:FILE.gguf`, each also with `@revision`. Raises `BaseModelError`.
    """
    from huggingface_hub import HfApi  # takes 0.15 s; local models do not need it

    repository, revision, file = _parse_name(name)
    restrict_hub_client()
    with hub_errors_as(BaseModelError, f"The base model {name!r}", repository, revision):
        info = HfApi().model_info(
            repository, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT_S
        )
        listed = list_hub_files(info)
    wanted = _choose_gguf(listed, file, name) if file else _choose_snapshot(listed, name)
    commit = str(info.sha)
    return ModelFiles(
        name=f"{repository}@{commit}:{wanted[0].name}" if file else f"{repository}@{commit}",
        repository=repository,
        commit=commit,
        revision=revision or "main",
        files=tuple(wanted),
        licence=_stated_licence(info),
    )


def require_disk_space(files: ModelFiles, further_bytes: int = 0) -> None:
    """Raise `BaseModelError` if the disk has no room for what is missing and `further_bytes`."""
    files.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(files.folder).free
    needed = files.missing_bytes + further_bytes + ROOM_TO_SPARE_BYTES
    if needed > free:
        raise BaseModelError(
            f"{files.repository} takes {needed / 2**30:.1f} GiB of disk, and {free / 2**30:.1f} GiB "
            f"are free in {files.folder.parent}.",
            "Free disk space, or set HF_HOME to a folder on a larger disk.",
        )


def fetch_model(files: ModelFiles, report: FetchReport) -> None:
    """Fetch what is missing, each file checked against the hub's digest; after a cut, the next call
    continues. Raises `BaseModelError`.
    """
    what = f"The base model {files.name!r}"
    files.folder.mkdir(parents=True, exist_ok=True)
    with (
        hub_errors_as(BaseModelError, what, files.repository, files.revision),
        lock_folder(files.folder) as is_locked,
    ):
        if not is_locked:
            raise BaseModelError(
                f"Another process is fetching {files.repository}.", "Wait for its end."
            )
        done = 0
        for file in files.files:
            _fetch_file(files, file, report, before=done)
            done += file.bytes
        _write_reference(files)


def _fetch_file(files: ModelFiles, file: HubFile, report: FetchReport, before: int) -> None:
    blob = _blob(files.folder, file)
    blob.parent.mkdir(exist_ok=True)
    if not blob.exists():
        part = blob.with_suffix(".part")
        download(file, part, lambda done: report(before + done))
        fsync_path(part)
        replace_durably(part, blob)
    elif not file.has_digest_of(blob):
        blob.unlink()
        raise BaseModelError(
            f"{file.name} of {files.repository} is damaged on this disk; it was deleted.",
            "Fetch the model again.",
        )
    link = _link(files, file)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.unlink(missing_ok=True)  # one that leads nowhere
        link.symlink_to(os.path.relpath(blob, link.parent))
    report(before + file.bytes)


def _write_reference(files: ModelFiles) -> None:
    """Name the commit of a branch or tag, so that the model is found by it without a network."""
    if files.revision == files.commit:
        return
    reference = path_inside(files.folder, f"refs/{files.revision}")
    reference.parent.mkdir(parents=True, exist_ok=True)
    write_file(reference, files.commit.encode())


def _blob(folder: Path, file: HubFile) -> Path:
    return path_inside(folder, f"blobs/{file.digest}")


def _link(files: ModelFiles, file: HubFile) -> Path:
    folder = path_inside(files.folder, f"snapshots/{files.commit}")
    parent = require_safe_name(file.name).parent
    if parent.name:
        folder = path_inside(folder, str(parent))
    # The file itself may be a link already, to its blob.
    return folder / last_part(file.name, "file")


def _bytes_here(folder: Path, file: HubFile) -> int:
    blob = _blob(folder, file)
    for path in (blob, blob.with_suffix(".part")):
        if path.exists():
            return min(path.stat().st_size, file.bytes)
    return 0


def _parse_name(name: str) -> tuple[str, str, str]:
    """Split a name into repository, revision and GGUF file. Raises `BaseModelError`."""
    plain = name.partition("#")[0]
    if hub_file := HUB_FILE.fullmatch(plain):
        return hub_file["repository"], hub_file["revision"] or "", hub_file["file"]
    repository, _, revision = plain.partition("@")
    if not HUB_ID_PATTERN.fullmatch(repository):
        raise BaseModelError(
            f"{name!r} is no base model of a hub.",
            "`python -m bot models` lists some; others are owner/name, or owner/name:Q4_K_M.",
        )
    if revision:
        try:
            require_safe_name(revision)
        except UnsafeNameError as error:
            raise BaseModelError(f"The revision is refused: {error}.", "Correct it.") from error
    return repository, revision, ""


def _choose_gguf(listed: dict[str, HubFile], wanted: str, name: str) -> list[HubFile]:
    for pattern in hub_file_patterns(wanted):
        names = sorted(fnmatch.filter(listed, pattern))
        if names:
            return _checked([listed[names[0]]], name)
    raise BaseModelError(
        f"{name.partition(':')[0]} has no GGUF file {wanted}.",
        f"It has {', '.join(sorted(fnmatch.filter(listed, '*.gguf'))[:8]) or 'none'}.",
    )


def _choose_snapshot(listed: dict[str, HubFile], name: str) -> list[HubFile]:
    chosen = []
    for file_name in sorted(listed):
        is_wanted = _matches(file_name, SNAPSHOT_PATTERNS)
        if is_wanted and not _matches(file_name, IGNORED_PATTERNS):
            chosen.append(listed[file_name])
    names = {file.name for file in chosen}
    if "config.json" not in names or not fnmatch.filter(names, "*.safetensors"):
        raise BaseModelError(
            f"The repository {name} has no transformers model with safetensors weights.",
            "Name another one, or a GGUF file of it: owner/name:Q4_K_M.",
        )
    return _checked(chosen, name)


def _matches(file_name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(file_name, pattern) for pattern in patterns)


def _checked(files: list[HubFile], name: str) -> list[HubFile]:
    """Return the files. Raises `BaseModelError` for names that lead elsewhere, and without digests."""
    for file in files:
        try:
            require_safe_name(file.name)
        except UnsafeNameError as error:
            raise BaseModelError(
                f"A file of {name} is refused: {error}.", "Do not trust this hub."
            ) from error
        if not DIGEST_PATTERN.fullmatch(file.digest):
            raise BaseModelError(
                f"The hub states no checksum of {file.name} in {name}.",
                "Fetch it from another hub.",
            )
    return files


def _stated_licence(info: Any) -> str:
    """Return the licence that the repository states: `license_name` for one without a short name."""
    card = info.card_data
    stated = str(getattr(card, "license", "") or "")
    if stated == "other":
        stated = str(getattr(card, "license_name", "") or stated)
    return stated[:60]
