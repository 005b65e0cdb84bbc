"""Downloads from a hub: continued where they stopped, checked against the stated size and digest."""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from personas.home.hub_addresses import restrict_hub_client
from personas.home.hub_errors import HubFileError

HUB_ID_PATTERN = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_TIMEOUT_S = 30.0
# The most that an interrupted download loses. By default, the client loses up to 10 MB, the chunk
# it had begun.
MAX_CHUNK_BYTES = 2**16
MEASURED_BYTES = 4 * 2**20
MEASURE_TIMEOUT_S = 3.0
GIT_DIGEST_CHARS = 40
COMMIT_PATTERN = re.compile(r"[0-9a-f]{7,64}")
ByteReport = Callable[[int], None]
"""Called with the number of bytes that are there."""


@dataclass(frozen=True)
class HubFile:
    """A file in a commit of a hub repository.

    `bytes` is 0 and `digest` empty where the hub states none. The digest of a large file is its
    SHA-256, that of any other the SHA-1 of its git blob.
    """

    url: str
    name: str
    bytes: int
    digest: str

    def has_digest_of(self, path: Path) -> bool:
        """Check a file's content. Raises `OSError`."""
        if len(self.digest) == GIT_DIGEST_CHARS:
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        else:
            digest = hashlib.sha256()
        with path.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)
        return self.digest in ("", digest.hexdigest())


def list_hub_files(info: Any, repo_type: str = "model") -> dict[str, HubFile]:
    """Return the files of a commit by name, from `ModelInfo` or `DatasetInfo` with the files'
    metadata.

    Raises `HubFileError` for a commit that is none: it becomes the name of a folder.
    """
    from huggingface_hub import hf_hub_url  # takes 0.15 s; most commands ask no hub

    if not COMMIT_PATTERN.fullmatch(str(info.sha)):
        raise HubFileError(
            f"The hub names a commit {str(info.sha)[:40]!r}, which is none.",
            "Do not trust this hub.",
        )
    files: dict[str, HubFile] = {}
    for sibling in info.siblings or ():
        name = sibling.rfilename
        files[name] = HubFile(
            url=hf_hub_url(info.id, name, repo_type=repo_type, revision=info.sha),
            name=name,
            bytes=sibling.size or 0,
            digest=sibling.lfs.sha256 if sibling.lfs else str(sibling.blob_id or ""),
        )
    return files


def download(file: HubFile, target: Path, report: ByteReport) -> None:
    """Download what `target` lacks of a file. Raises `HubFileError` if it has another content, and
    the client's errors.

    After an error, what has arrived stays in `target`, and the next call continues there.
    """
    from huggingface_hub import constants  # as above
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, MAX_CHUNK_BYTES)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as out:
        if out.tell() > file.bytes:
            out.truncate(0)
        report(out.tell())
        http_get(
            file.url,
            out,
            resume_size=out.tell(),
            headers=build_hf_headers() | {"Accept-Encoding": "identity"},
            expected_size=file.bytes or None,
            displayed_filename=file.name,
            tqdm_class=lambda **options: _ByteCounter(file, report, options["initial"]),  # type: ignore[arg-type]
        )
    if not file.has_digest_of(target):
        target.unlink()
        raise HubFileError(
            f"{file.name} arrived damaged: its content has another checksum than the hub states.",
            "Try again; if it stays so, tell its author.",
        )


def measure_rate(file: HubFile) -> float | None:
    """Return how many bytes per second the hub sends of a file's first 4 MiB, in 3 s at most; None
    where it cannot be measured. Nothing is kept.
    """
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # as above
        build_hf_headers,
        get_session,
    )

    headers = build_hf_headers() | {
        "Accept-Encoding": "identity",
        "Range": f"bytes=0-{MEASURED_BYTES - 1}",
    }
    restrict_hub_client()
    received_bytes = 0
    took_s = 0.0
    try:
        with get_session().stream(
            "GET", file.url, headers=headers, timeout=MEASURE_TIMEOUT_S
        ) as answer:
            answer.raise_for_status()
            started = time.monotonic()
            for piece in answer.iter_raw(MAX_CHUNK_BYTES):
                received_bytes += len(piece)
                took_s = time.monotonic() - started
                if received_bytes >= MEASURED_BYTES or took_s >= MEASURE_TIMEOUT_S:
                    break
    except Exception:  # network errors have many types
        return None
    return received_bytes / took_s if received_bytes and took_s else None


class _ByteCounter:
    """Stands in for the client's progress bar: reports bytes, and ends a download that exceeds the
    stated size.
    """

    def __init__(self, file: HubFile, report: ByteReport, initial: int) -> None:
        self._file = file
        self._report = report
        self._bytes = initial

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int) -> None:
        self._bytes += n
        if self._file.bytes and self._bytes > self._file.bytes:
            raise HubFileError(
                f"The hub sends more of {self._file.name} than it states.", "Do not trust this hub."
            )
        self._report(self._bytes)
