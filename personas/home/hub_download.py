"""Downloads from a hub: continued where they stopped, checked against the stated size and digest;
and its errors.
"""

import hashlib
import ipaddress
import logging
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Self

from personas.errors import UnderstudyError

HUB_ID_PATTERN = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_TIMEOUT_S = 30.0
MAX_CHUNK_BYTES = 2**16
"""The most that an interrupted download loses. By default, the client loses up to 10 MB, the chunk
it had begun.
"""
MAX_MESSAGE_CHARS = 200
GIT_DIGEST_CHARS = 40
COMMIT_PATTERN = re.compile(r"[0-9a-f]{7,64}")
NAT64_NETWORK = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses that stand for the IPv4 address in their last 32 bits (RFC 6052)."""
ByteReport = Callable[[int], None]
"""Called with the number of bytes that are there."""


class HubFileError(UnderstudyError):
    """A hub that does not send what it states, or leads elsewhere."""


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
            found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        else:
            found = hashlib.sha256()
        with path.open("rb") as content:
            hashlib.file_digest(content, lambda: found)
        return self.digest in ("", found.hexdigest())


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
    for it in info.siblings or ():
        url = hf_hub_url(info.id, it.rfilename, repo_type=repo_type, revision=info.sha)
        digest = it.lfs.sha256 if it.lfs else str(it.blob_id or "")
        files[it.rfilename] = HubFile(url, it.rfilename, it.size or 0, digest)
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
        what = f"{file.name} arrived damaged: its content has another checksum than the hub states."
        raise HubFileError(what, "Try again; if it stays so, tell its author.")


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


# ----------------------------------------------------------------------------------------------
# addresses


@cache
def restrict_hub_client() -> None:
    """Let the hub's client ask the hub alone and, where that redirects it, public addresses over
    HTTPS.

    Otherwise a hub could make the bot send requests to this machine and its network.
    """
    from huggingface_hub import set_client_factory  # as above

    set_client_factory(_new_client)


def _new_client() -> Any:
    import httpx2  # takes 0.15 s

    return httpx2.Client(
        event_hooks={"request": [_require_allowed]}, follow_redirects=True, timeout=None
    )


def _require_allowed(request: Any) -> None:
    """Check a request and each redirect of it. Raises `HubFileError`."""
    import httpx2  # as above
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    url = request.url
    if url.origin == httpx2.URL(constants.ENDPOINT).origin:
        return
    if url.scheme != "https" or url.userinfo or not url.host:
        raise _elsewhere_error(url.host)
    if _is_proxied(url.host):
        if _is_address(url.host) and not is_public_address(url.host):
            raise _elsewhere_error(url.host)
        return
    try:
        found = {
            str(entry[4][0])
            for entry in socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
        }
    except (OSError, UnicodeError):
        found = set()
    if not found or not all(map(is_public_address, found)):
        raise _elsewhere_error(url.host)
    request.extensions["trace"] = (
        _require_public_peer  # the name may have another address when it is connected to
    )


def _require_public_peer(event: str, info: dict[str, Any]) -> None:
    """Check the address that was connected to, before anything is sent. A trace of httpx."""
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        address = str(stream.get_extra_info("server_addr")[0])
        if not is_public_address(address):
            stream.close()
            raise _elsewhere_error(address)


def _elsewhere_error(host: str) -> HubFileError:
    what = (
        f"The hub leads to {host or 'an address without a host'}, which is no public address with "
        "HTTPS."
    )
    return HubFileError(what, "Do not trust this hub.")


def _is_proxied(host: str) -> bool:
    proxies = urllib.request.getproxies()
    return bool(proxies.get("https") or proxies.get("all")) and not urllib.request.proxy_bypass(
        host
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(
            re.fullmatch(r"[\d.]+|0[xX].*", host)
        )  # how some resolvers also write IPv4 addresses
    return True


def is_public_address(text: str) -> bool:
    """Tell whether an IP address, and any address of IPv4 that it stands for, is one of the public
    internet.
    """
    try:
        address: IPv4Address | IPv6Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in NAT64_NETWORK:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_public_address(str(inner))
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


# ----------------------------------------------------------------------------------------------
# errors


@contextmanager
def hub_errors_as(
    error_type: type[UnderstudyError], what: str, repository: str, revision: str = ""
) -> Iterator[None]:
    """Translate errors of the hub's client; other errors of this project pass. `what` begins the
    sentence.
    """
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # it logs its retries, with addresses
    try:
        yield
    except HubFileError as error:
        raise error_type(f"{what} cannot be fetched: {error.message}", error.advice) from error
    except UnderstudyError:
        raise
    except Exception as error:  # network errors have many types
        why, advice = describe_hub_error(error, repository, revision)
        raise error_type(f"{what} cannot be fetched: {why}.", advice) from error


def describe_hub_error(
    error: BaseException, repository: str, revision: str = ""
) -> tuple[str, str]:
    """Describe why a hub did not do what was asked, as the end of a sentence, and what to do.
    Raises other errors.
    """
    from httpx2 import HTTPError  # takes 0.15 s
    from huggingface_hub import errors

    match error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error:
        case errors.GatedRepoError():
            return (
                "the hub offers it only to those who accepted its terms",
                "Accept them there and set HF_TOKEN.",
            )
        case errors.RevisionNotFoundError():
            return (
                f"{repository} has no commit, tag or branch {revision!r}",
                "Check the revision after the @.",
            )
        case errors.RepositoryNotFoundError():
            return (
                f"the hub has no {repository}, or it is private",
                "Check the spelling; a private one needs HF_TOKEN.",
            )
        case errors.HFValidationError():
            return f"{repository!r} is no repository's name", "Write it as owner/name."
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set", "Unset it to use a hub."
        case errors.HfHubHTTPError() as refusal:
            return _describe_status(refusal.response.status_code, refusal.server_message or "")
        case OSError() as failure if failure.errno:
            return f"{failure.strerror}", "Check the disk."
        case ValueError() as failure:
            return f"the hub answered {shorten_message(str(failure))}", "Try again later."
        case (HTTPError() | OSError()) as failure:
            why = (
                "the hub could not be reached, or the connection was cut "
                f"({type(failure).__name__})"
            )
            return why, "Check the network and try again."
        case other:
            raise other


def _describe_status(status: int, message: str) -> tuple[str, str]:
    reason = f" ({shorten_message(message)})" if message else ""
    if status == 401:
        return (
            "the hub does not know the token",
            "Set HF_TOKEN to a valid one; see the hub's settings, Access Tokens.",
        )
    if status in (402, 413, 507) or (
        status == 403 and re.search("quota|storage", message, re.IGNORECASE)
    ):
        return (
            f"the hub has no more room for this account{reason}",
            "Free some storage there, or extend it.",
        )
    if status == 403:
        return (
            f"the token may not do that{reason}",
            "It takes a token with the right to read, or to write, there.",
        )
    if status == 409:
        return f"the name is taken{reason}", "Choose another one."
    if status == 429:
        return (
            "the hub limits how often it is asked, and the limit is reached",
            "Try again in some minutes.",
        )
    if status >= 500:
        return f"the hub failed (status {status})", "Try again later."
    return f"the hub answered with status {status}{reason}", "Check the name."


def shorten_message(text: str) -> str:
    """Return one line of a hub's message, without addresses."""
    return " ".join(re.sub(r"\w+://\S+", "", text).split())[:MAX_MESSAGE_CHARS]
