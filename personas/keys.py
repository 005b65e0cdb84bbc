"""The secret of a home, `<home>/keys/people.key`, and what is derived from it (HMAC-SHA-256, RFC 2104).

Whoever holds it can tell which pseudonym stands for whom, so what is under pseudonyms is not anonymous while it exists.
It never leaves the home except in a backup; a job folder gets two keys derived from it, in a file of its own.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from personas.errors import KeyFileError

KEY_FILE = Path("keys") / "people.key"
JOB_KEYS = "keys.json"
KEY_BYTES = 32


@dataclass(frozen=True)
class HomeKey:
    """The secret of one home."""

    secret: bytes

    @classmethod
    def of(cls, home: Path) -> Self:
        """The home's key; made, readable by its owner only, when there is none.

        Raises `KeyFileError` when it is damaged, because a new one would break every promise made with the old, and
        `OSError` when it cannot be made.
        """
        file = home / KEY_FILE
        return cls.in_file(file) if file.exists() else cls(_made(file))

    @classmethod
    def in_file(cls, file: Path) -> Self:
        """The key in a file that is there. Raises `KeyFileError` when it is damaged."""
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(file) from error
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError as error:
            raise _damaged(file) from error
        if len(secret) != KEY_BYTES:
            raise _damaged(file)
        return cls(secret)

    def pseudonyms(self, dataset: str) -> bytes:
        """The key of one data set's pseudonyms: with another name, the same people have others."""
        return hmac.digest(self.secret, f"pseudonyms\0{dataset}".encode(), "sha256")

    def people(self) -> bytes:
        """The key under which folders list who is in them (`keyed`), the same for all of this home."""
        return hmac.digest(self.secret, b"people", "sha256")


def keyed(people_key: bytes, person: str) -> str:
    """What stands for a person in lists of who is in what: 32 hex digits. `person` is an id, or `name:` and a name."""
    return hmac.digest(people_key, person.encode(), hashlib.sha256).hex()[:32]


def _made(file: Path) -> bytes:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise KeyFileError(
            f"The home {file.parent.parent} cannot be used: its keys cannot be put there ({error.strerror}).",
            "Set UNDERSTUDY_HOME to a folder that can be written.",
        ) from error
    secret = secrets.token_bytes(KEY_BYTES)
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write(secret.hex() + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(aside, file)  # fails where another process was quicker: its key is the home's
    except FileExistsError:
        return HomeKey.of(file.parent.parent).secret
    finally:
        aside.unlink(missing_ok=True)
    return secret


def _damaged(file: Path) -> KeyFileError:
    return KeyFileError(
        f"{file} cannot be read as a key.",
        f"Put it back from a backup. Without it nobody can be found again in what was made with it; move it away, and "
        f"{file.name} is made anew.",
    )
