"""What there is to learn from: what ships, what the operator's catalogue names, what was uploaded; and whose right.

A source is called `ballast` (a name of the catalogue) or `uploads/talk.jsonl`, which is both its id here and what a
training request takes, as `dataset` or as `dataset_path`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bot.history import HISTORY
from bot.house import House
from bot.web.data.places import KINDS, PACKED, Places
from bot.web.problems import Problem
from bot.web.words import moment
from personas.catalogue import CATALOGUE_FILE, Entry, read_catalogue
from personas.consent import Consent, read_consent
from personas.data_set import is_data_set, statement_of_set
from personas.durable import put_private
from personas.errors import MaterialError, UnderstudyError
from personas.rights import DISCORD_API, SETTING, Statement, decide, statement_beside

UPLOADED = "uploads/"
SHIPPED, NAMED, BROUGHT, SAID = "ships with the bot", CATALOGUE_FILE, "uploaded", "said to the bot"
GENERAL = "general-"


class About(BaseModel):
    """What `dataset inspect` has found in a file: figures only, nobody's words. Of a file of this size and time."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    bytes: int
    changed_ns: int
    format: str
    rows: int
    conversations: int
    turns: int
    languages: dict[str, int] = {}
    rejected_count: int = 0
    reasons: dict[str, int] = {}


@dataclass(frozen=True)
class Source:
    """Something to learn from. `origin` says how it came here; `bytes` and `at` (seconds since 1970) are a file's.

    `refused` says why nothing may be trained on it, empty where it may, and `advice` what to do then. `is_set` marks a
    data set that was built; what is no file cannot be built into one: it is gathered for each training.
    """

    id: str
    name: str
    origin: str
    bytes: int | None = None
    at: float | None = None
    statement: Statement | None = None
    refused: str = ""
    advice: str = ""
    about: About | None = None
    is_set: bool = False
    is_file: bool = True

    @property
    def asked_by(self) -> dict[str, str]:
        """How a training request names it."""
        return {"dataset_path": self.id} if self.id.startswith(UPLOADED) else {"dataset": self.id}

    @property
    def is_upload(self) -> bool:
        """Whether it came over the web."""
        return self.origin == BROUGHT

    def as_json(self) -> dict[str, Any]:
        """As programs are told."""
        about = self.about.model_dump(exclude={"bytes", "changed_ns"}) if self.about else None
        return {
            "id": self.id,
            "kind": "set" if self.is_set else "source",
            "origin": self.origin,
            "bytes": self.bytes,
            "changed_at": moment(self.at),
            "right": vars(self.statement) if self.statement else None,
            "may_train": not self.refused,
            "refused": self.refused or None,
            "advice": self.advice or None,
            "about": about,
            "train_with": self.asked_by,
        }


def sources_of(house: House) -> list[Source]:
    """All of them, those that ship last. Reads folders and small files, so best in a thread."""
    home, consent = house.home, read_consent(house.home)
    named = [_named(entry, consent) for entry in read_catalogue(home).entries.values()]
    shipped = [_shipped(name, path, consent) for name, path in sorted(shipped_files(house).items())]
    return [*uploads_in(home), *named, _history(consent), *shipped]


def faults_of(house: House) -> list[str]:
    """What is wrong with the operator's catalogue."""
    return list(read_catalogue(house.home).faults.values())


def uploads_in(home: Path) -> list[Source]:
    """The files that were uploaded, the newest first."""
    consent = read_consent(home)
    files = [path for path in Places(home).uploads.glob("[!.]*") if path.is_file() and _is_read(path)]
    return sorted((_upload(path, consent) for path in files), key=lambda source: source.at or 0, reverse=True)


def upload_in(home: Path, name: str) -> Source:
    """One of them. Raises `Problem`."""
    path = Places(home).upload(name)
    if not path.is_file():
        raise Problem("not-found", f"There is no upload {name!r}.", "PUT /uploads/NAME brings one in.")
    return _upload(path, read_consent(home))


def note_about(file: Path, told: dict[str, Any]) -> None:
    """Keep what an inspection has found, without anybody's words."""
    about = file.stat()
    kept = About.model_validate({**told, "bytes": about.st_size, "changed_ns": about.st_mtime_ns})
    put_private(_about_file(file), kept.model_dump_json().encode())


def forget_about(file: Path) -> None:
    """What was found in a file that is no more."""
    _about_file(file).unlink(missing_ok=True)


def _about_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.about.json")


def _about(file: Path) -> About | None:
    with suppress(OSError, ValidationError, ValueError):
        found, now = About.model_validate(json.loads(_about_file(file).read_bytes())), file.stat()
        if (found.bytes, found.changed_ns) == (now.st_size, now.st_mtime_ns):
            return found
    return None


def _is_read(path: Path) -> bool:
    return path.with_suffix("").suffix.lower() in KINDS if path.suffix == PACKED else path.suffix.lower() in KINDS


def _upload(path: Path, consent: Consent) -> Source:
    of = path.stat()
    statement, refused, advice = _judged(path.name, path, consent)
    if not refused and statement is None:
        refused, advice = f"Nobody has stated a right to {path.name}.", "State it below."
    figures = (of.st_size, of.st_mtime, statement, refused, advice, _about(path))
    return Source(f"{UPLOADED}{path.name}", path.name, BROUGHT, *figures)


def _judged(name: str, path: Path, consent: Consent, by_form: str = "") -> tuple[Statement | None, str, str]:
    """What is stated of a file, why nothing may be trained on it, and what to do then."""
    try:
        statement = statement_beside(path)
        verdict = decide(name, by_form=by_form, signed=statement.right if statement else "", consent=consent)
    except MaterialError as error:
        return None, error.message, error.advice
    return statement, verdict.refused, verdict.advice


def _shipped(name: str, path: Path, consent: Consent) -> Source:
    by_form = "" if name.startswith(GENERAL) else DISCORD_API
    of, judged = path.stat(), _judged(path.name, path, consent, by_form)
    return Source(name, name, SHIPPED, of.st_size, of.st_mtime, *judged)


def _history(consent: Consent) -> Source:
    """What was said to the bot, which Discord's rules are for."""
    verdict = decide(HISTORY, signed=DISCORD_API, consent=consent)
    stated = Statement(DISCORD_API, f"the operator, in {SETTING}", "", consent.permission)
    statement = stated if consent.permission else None
    return Source(HISTORY, HISTORY, SAID, statement=statement, refused=verdict.refused, advice=verdict.advice,
                  is_file=False)  # fmt: skip


def _named(entry: Entry, consent: Consent) -> Source:
    """What the catalogue names; one that is not on this machine cannot be trained on."""
    try:
        path = entry.located()
        is_set = is_data_set(path)
        statement = statement_of_set(path) if is_set else entry.statement
        verdict = decide(entry.name, signed=statement.right, consent=consent)
    except UnderstudyError as error:
        return Source(entry.name, entry.name, NAMED, statement=entry.statement, refused=error.message,
                      advice=error.advice)  # fmt: skip
    of = path.stat()
    figures = (of.st_size if path.is_file() else None, of.st_mtime, statement, verdict.refused, verdict.advice)
    return Source(entry.name, entry.name, NAMED, *figures, is_set=is_set)


def shipped_files(house: House) -> dict[str, Path]:
    """The logs and the general dialogue that ship, by the names under which the catalogue has them."""
    shipped = house.catalogue.shipped
    logs = {path.stem: path for path in shipped.logs.glob("*.json")}
    return logs | {f"{GENERAL}{path.stem}": path for path in shipped.general.glob("*.jsonl")}
