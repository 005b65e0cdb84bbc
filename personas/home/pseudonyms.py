"""Pseudonymisation: the home's HMAC key, keys derived for jobs, and invented names."""

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from personas.cli_entry import DISK_FULL_ERRNOS
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
    """Secret key of a home."""

    secret: bytes

    @classmethod
    def of(cls, home: Path) -> Self:
        """Read the key of a home, or create one, readable by its owner only.

        Raises `KeyFileError` if it is damaged, because a new key would break all pseudonyms derived
        from the old one, and `OSError` if it cannot be created.
        """
        file = home / KEY_FILE
        if file.exists():
            return cls.in_file(file)
        return cls(_create_secret(file))

    def home_id(self) -> str:
        """Return an id of the home that tells nothing about its key."""
        return hmac.new(self.secret, b"home id", hashlib.sha256).hexdigest()[:16]

    @classmethod
    def in_file(cls, file: Path) -> Self:
        """Read the key from an existing file. Raises `KeyFileError` if it is damaged."""
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
        """Derive the key of one data set's pseudonyms; the same people have others in another data
        set.
        """
        return hmac.digest(self.secret, f"pseudonyms\0{dataset}".encode(), "sha256")

    def people(self) -> bytes:
        """Derive the key of lists of people in folders (`keyed_person`), the same for the whole
        home.
        """
        return hmac.digest(self.secret, b"people", "sha256")


def keyed_person(people_key: bytes, person: str) -> str:
    """Pseudonymise a person for lists of people: 32 hex digits. `person` is an id, or `name:` and a
    name.
    """
    return hmac.digest(people_key, person.encode(), hashlib.sha256).hex()[:32]


def _create_secret(file: Path) -> bytes:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise  # a full disk is no reason to choose another home
        raise KeyFileError(
            f"The home {file.parent.parent} cannot be used: its keys cannot be written "
            f"({error.strerror}).",
            "Set UNDERSTUDY_HOME to a folder that is writable.",
        ) from error
    secret = secrets.token_bytes(KEY_BYTES)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as out:
            out.write(secret.hex() + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(temporary, file)  # fails if another process created a key first: that one is used
    except FileExistsError:
        return HomeKey.of(file.parent.parent).secret
    finally:
        temporary.unlink(missing_ok=True)
    return secret


def _damaged_key_error(file: Path) -> KeyFileError:
    return KeyFileError(
        f"{file} is not a valid key.",
        "Restore it from a backup. Without it people cannot be found in data written with it; if "
        "you remove it, a new "
        f"{file.name} is created.",
    )


@dataclass(frozen=True)
class JobKeys:
    """`pseudonyms` is the key of a data set's pseudonyms, `people` that of lists of people in
    folders.
    """

    pseudonyms: bytes
    people: bytes

    @classmethod
    def of(cls, home: Path, dataset: str) -> Self:
        """Derive the keys of a data set from the home's key. Raises `KeyFileError` or `OSError`."""
        key = HomeKey.of(home)
        return cls(key.pseudonyms(dataset), key.people())

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Read a job folder's keys; without any, random ones are stored there. Raises
        `KeyFileError`, `OSError`.
        """
        file = folder / JOB_KEYS_FILE
        try:
            stored = json.loads(file.read_bytes())
            keys = cls(bytes.fromhex(stored["pseudonyms"]), bytes.fromhex(stored["people"]))
        except FileNotFoundError:
            keys = cls(secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES))
            keys.write(folder)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise KeyFileError(f"{file} has no valid keys.", "Create the job again.") from error
        return keys

    def write(self, folder: Path) -> None:
        """Write the keys into a folder that has none, readable by their owner only. Raises
        `OSError`.
        """
        handle = os.open(folder / JOB_KEYS_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            json.dump({"pseudonyms": self.pseudonyms.hex(), "people": self.people.hex()}, out)


def pseudonym_dataset_name(request: TrainingRequest) -> str:
    """Return the data set name from which a request's pseudonyms are derived, the same for every
    job on it.
    """
    owner = request.persona or "dialogue"
    return f"{owner}/{request.dataset or request.dataset_path or owner}"
