"""Index of held-out conversations (`heldout.bin`): keyed hashes that keep them out of training."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from personas.errors import MaterialError
from personas.home.atomic_files import write_private_file

HOLDOUT_FILE = "heldout.bin"
NEW_HOLDOUT_FILE = "heldout_new.bin"
"""File names in a job folder: the hold-out before the run, and after it."""
HOLDOUT_FOLDER = "heldout"
LSH_BANDS = 16
SIGNATURE_BYTES = 64
HOLDOUT_MAGIC = b"understudy held out 1\n"
KEY_MARK_BYTES = 16
CHECKSUM_BYTES = 32
SIZES_BYTES = 16
Hashes = NDArray[np.uint64]
ArraySpec = tuple[np.dtype[Any], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class HoldoutIndex:
    """Hashes of n held-out conversations and their m replies.

    `key` is the HMAC key of all hashes. `texts` is (n,) and `replies` (m,), both sorted and unique;
    `bands` is (n, 16) uint32, `signatures` (n, 64) uint8.
    """

    key: bytes
    texts: Hashes
    bands: NDArray[np.uint32]
    signatures: NDArray[np.uint8]
    replies: Hashes

    @classmethod
    def empty(cls, people_key: bytes) -> Self:
        """Create an empty index; its key is derived from the home's key for lists of people."""
        return cls(
            key=hmac.digest(people_key, b"held out", "sha256"),
            texts=np.empty(0, np.uint64),
            bands=np.empty((0, LSH_BANDS), np.uint32),
            signatures=np.empty((0, SIGNATURE_BYTES), np.uint8),
            replies=np.empty(0, np.uint64),
        )

    @classmethod
    def read(cls, file: Path, people_key: bytes) -> Self:
        """Read a file; empty without one. Raises `MaterialError` for a damaged file or another
        home's.
        """
        empty = cls.empty(people_key)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return empty
        except OSError as error:
            raise _unusable_file_error(file, f"cannot be read: {error.strerror}") from error
        body = _verify_checksum(file, data)
        mark = body[:KEY_MARK_BYTES]
        body = body[KEY_MARK_BYTES:]
        if not hmac.compare_digest(mark, _key_mark(empty.key)):
            raise MaterialError(
                f"{file} was made with another home's key, so its held-out conversations cannot be "
                "recognised here.",
                "Work with UNDERSTUDY_HOME set to that home, or into another folder.",
            )
        # Of fixed byte order: homes move between machines.
        count, replies = np.frombuffer(body[:SIZES_BYTES], "<u8").tolist()
        parts: list[ArraySpec] = [
            (np.dtype("<u8"), (count,)),
            (np.dtype("<u4"), (count, LSH_BANDS)),
            (np.dtype("u1"), (count, SIGNATURE_BYTES)),
            (np.dtype("<u8"), (replies,)),
        ]
        return cls(empty.key, *_read_arrays(body[SIZES_BYTES:], parts))

    def __len__(self) -> int:
        return len(self.texts)

    def merge(self, other: "HoldoutIndex") -> "HoldoutIndex":
        """Merge with another index under the same key."""
        assert self.key == other.key
        texts, first = np.unique(np.concatenate([self.texts, other.texts]), return_index=True)
        return HoldoutIndex(
            self.key,
            texts=texts,
            bands=np.concatenate([self.bands, other.bands])[first],
            signatures=np.concatenate([self.signatures, other.signatures])[first],
            replies=np.union1d(self.replies, other.replies),
        )

    def write(self, file: Path) -> None:
        """Write the file atomically. Raises `OSError`."""
        sizes = np.array([len(self.texts), len(self.replies)], "<u8")
        parts = [sizes, self.texts.astype("<u8"), self.bands.astype("<u4"), self.signatures]
        parts.append(self.replies.astype("<u8"))
        body = HOLDOUT_MAGIC + _key_mark(self.key)
        for part in parts:
            body += part.tobytes()
        write_private_file(file, body + hashlib.sha256(body).digest())


def holdout_file(home: Path, persona_id: str | None) -> Path:
    """Return the file of a home with the hold-out of a persona, or of dialogue training."""
    return home / HOLDOUT_FOLDER / f"{persona_id or 'dialogue'}.bin"


def add_to_holdout(
    home: Path, persona_id: str | None, new: HoldoutIndex, people_key: bytes
) -> None:
    """Add to a home's index under a file lock. Raises `MaterialError` or `OSError`."""
    file = holdout_file(home, persona_id)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Locked from the reading on: of two that add at the same time, the later would lose the other's.
    with FileLock(file.with_name(f".{file.name}.lock")):
        HoldoutIndex.read(file, people_key).merge(new).write(file)


def _verify_checksum(file: Path, data: bytes) -> bytes:
    """Verify magic and checksum, and return the content between them."""
    body = data[:-CHECKSUM_BYTES]
    checksum = data[-CHECKSUM_BYTES:]
    header_bytes = len(HOLDOUT_MAGIC) + KEY_MARK_BYTES + SIZES_BYTES
    if not body.startswith(HOLDOUT_MAGIC) or len(body) < header_bytes:
        raise _unusable_file_error(
            file, "is not an index of held-out conversations, or is cut short"
        )
    if hashlib.sha256(body).digest() != checksum:
        raise _unusable_file_error(file, "is damaged: its checksum differs")
    return body[len(HOLDOUT_MAGIC) :]


def _read_arrays(data: bytes, parts: list[ArraySpec]) -> list[NDArray[Any]]:
    """Read consecutive arrays; their sizes are covered by the checksum."""
    arrays = []
    at = 0
    for kind, shape in parts:
        count = int(np.prod(shape))
        array = np.frombuffer(data, kind, count, at).reshape(shape)
        arrays.append(array.astype(kind.newbyteorder("=")))
        at += count * kind.itemsize
    return arrays


def _key_mark(key: bytes) -> bytes:
    """Compute the fingerprint by which a file is recognised as written with this key."""
    return hmac.digest(key, b"mark", "sha256")[:KEY_MARK_BYTES]


def _unusable_file_error(file: Path, problem: str) -> MaterialError:
    return MaterialError(
        f"{file} {problem}. It records the conversations that must not be trained on.",
        "Restore it from a backup. If you remove it, these conversations may be trained on.",
    )
