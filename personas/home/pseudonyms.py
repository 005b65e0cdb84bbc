"""Pseudonymisation: the home's HMAC key, keys derived for jobs, and the invented names."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from personas.errors import KeyFileError
from personas.schemas.training import TrainingRequest

KEY_FILE = Path("keys") / "people.key"
JOB_KEYS_FILE = "keys.json"
KEY_BYTES = 32

INVENTED_NAMES = tuple(
    """Abrel Adwin Alvo Amrel Ansil Arden Arvel Asten Avel Bairn Belan Bennol Birrel Boden Braya Brisk Calder Carro
    Cavin Cerin Corin Cobry Dacil Dalen Darro Delwin Dorin Draven Edrel Elwy Embrel Enlow Erlan Esrin Everin
    Fallon Farrin Fenno Ferrel Finlo Galen Garro Gavrin Gellan Gorrin Halden Harlo Havin Hollin Idrin Illan
    Imrel Ivrin Jarrel Jassin Jorlan Jovin Kalen Karro Kelvo Kerrin Kirrel Lannis Larkel Lenno Lerrin Lorin
    Lowen Marvo Marrin Melvo Merrin Morrel Navin Nellan Nerrin Nollo Norrel Odrin Ollin Orlan Orrel Ovin Pavo
    Pellin Perrin Quarro Quillan Rallo Rennick Rillan Rowlin Sabin Sallo Savrel Serrin Sorrel Tallin Tarro Tavin
    Tellan Torrin Udrin Ullo Ulvin Vallo Varrin Vellan Vorrel Wallin Warro Welvin Wynno Yarrin Yellan Yorrel
    Zallo Zarrin Zellan""".split()
)


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
        return cls.in_file(file) if file.exists() else cls(_create_secret(file))

    @classmethod
    def in_file(cls, file: Path) -> Self:
        """The key in a file that is there. Raises `KeyFileError` when it is damaged."""
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged_key_error(file) from error
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError as error:
            raise _damaged_key_error(file) from error
        if len(secret) != KEY_BYTES:
            raise _damaged_key_error(file)
        return cls(secret)

    def pseudonyms(self, dataset: str) -> bytes:
        """The key of one data set's pseudonyms: with another name, the same people have others."""
        return hmac.digest(self.secret, f"pseudonyms\0{dataset}".encode(), "sha256")

    def people(self) -> bytes:
        """The key under which folders list who is in them (`keyed_person`), the same for all of this home."""
        return hmac.digest(self.secret, b"people", "sha256")


def keyed_person(people_key: bytes, person: str) -> str:
    """What stands for a person in lists of who is in what: 32 hex digits. `person` is an id, or `name:` and a name."""
    return hmac.digest(people_key, person.encode(), hashlib.sha256).hex()[:32]


def _create_secret(file: Path) -> bytes:
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


def _damaged_key_error(file: Path) -> KeyFileError:
    return KeyFileError(
        f"{file} cannot be read as a key.",
        f"Put it back from a backup. Without it nobody can be found again in what was made with it; move it away, and "
        f"{file.name} is made anew.",
    )


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
        file = folder / JOB_KEYS_FILE
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
        handle = os.open(folder / JOB_KEYS_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            json.dump({"pseudonyms": self.pseudonyms.hex(), "people": self.people.hex()}, out)


def pseudonym_dataset_name(request: TrainingRequest) -> str:
    """What a request's data set is called where its pseudonyms are concerned: the same for every job over it."""
    whose = request.persona or "dialogue"
    return f"{whose}/{request.dataset or request.dataset_path or whose}"
