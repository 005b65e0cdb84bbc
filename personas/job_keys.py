"""The two keys of a job folder, `keys.json`: the one of its pseudonyms, and the one of its lists of people.

The bot derives them from the home's key and writes them into each job folder, so that a folder can be run on another
machine that must not hold the home's key.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from personas.contracts import TrainingRequest
from personas.errors import KeyFileError
from personas.keys import JOB_KEYS, KEY_BYTES, HomeKey


@dataclass(frozen=True)
class JobKeys:
    """`pseudonyms` is the key of the data set's pseudonyms, `people` that of lists of who is in a folder."""

    pseudonyms: bytes
    people: bytes

    @classmethod
    def of(cls, home: Path, dataset: str) -> Self:
        """The keys of a data set of a home. Raises `KeyFileError` or `OSError`."""
        key = HomeKey.of(home)
        return cls(key.pseudonyms(dataset), key.people())

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """The keys of a job folder; one without has random ones made, kept in it so that it stays as it is.

        Raises `KeyFileError` when they cannot be read, and `OSError` when they cannot be made.
        """
        file = folder / JOB_KEYS
        try:
            held = json.loads(file.read_bytes())
            keys = cls(bytes.fromhex(held["pseudonyms"]), bytes.fromhex(held["people"]))
        except FileNotFoundError:
            keys = cls(secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES))
            keys.write(folder)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise KeyFileError(f"{file} cannot be read as keys.", "Make the job anew.") from error
        return keys

    def write(self, folder: Path) -> None:
        """Put them into a folder that has none, readable by their owner only. Raises `OSError`."""
        handle = os.open(folder / JOB_KEYS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            json.dump({"pseudonyms": self.pseudonyms.hex(), "people": self.people.hex()}, out)


def dataset_name(request: TrainingRequest) -> str:
    """What a request's data set is called where its pseudonyms are concerned: the same for every job over it."""
    whose = request.persona or "dialogue"
    return f"{whose}/{request.dataset or request.dataset_path or whose}"
