"""Mirrors consent decisions and tombstones from the database to `consent.json` and
`keys/tombstones.json`.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bot.privacy.pending_jobs import remove_set_aside, set_aside_consented
from bot.store import ConsentDecision, Store
from personas.errors import KeyFileError
from personas.home.atomic_files import write_model
from personas.home.data_subjects import Consent, write_consent
from personas.schemas.base import FrozenModel

TOMBSTONES_FILE = Path("keys") / "tombstones.json"


@dataclass(frozen=True)
class ConsentMirror:
    """The consent decisions of one home. `permission` is the operator's setting
    DISCORD_PERMISSION.
    """

    home: Path
    store: Store
    permission: str = ""

    def mirror(self) -> None:
        """Write the current decisions to `consent.json`. Raises `OSError`."""
        opted_in = frozenset(map(str, self.store.people.opted_in()))
        write_consent(self.home, Consent(permission=self.permission, opted_in=opted_in))

    async def decide(self, decision: ConsentDecision) -> None:
        """Store a member's decision, which applies to every training that starts later; one who
        withdraws is in no folder of a waiting job afterwards. Raises `OSError` and `KeyFileError`,
        with the decision stored.
        """
        failure: OSError | KeyFileError | None = None
        with self.store.atomic():
            self.store.people.decide(decision)
            if not decision.opted_in:
                try:
                    set_aside_consented(self.home, self.store, decision.user_id)
                except (OSError, KeyFileError) as error:
                    failure = error  # the withdrawal counts for what starts later all the same
        self.mirror()
        if failure:
            raise failure
        if not decision.opted_in:
            await asyncio.to_thread(remove_set_aside, self.home)


class TombstoneFile(FrozenModel):
    """`tombstones.json`: the keys of each erased person, and the time of the latest erasure
    (seconds since 1970).
    """

    format: Literal[1] = 1
    tombstones: dict[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], float] = Field(default={})


def read_tombstones(home: Path) -> dict[str, float]:
    """Return the file's tombstones; none where there is no file. Raises `KeyFileError` when it
    cannot be read.
    """
    file = home / TOMBSTONES_FILE
    try:
        return TombstoneFile.model_validate_json(file.read_bytes()).tombstones
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise KeyFileError(
            f"{file} cannot be read.",
            "It lists who must stay erased. Restore it from a backup, or move it away if there is "
            "none: the "
            "database knows them too.",
        ) from error


def record_tombstones(home: Path, store: Store, people: set[str], at: float) -> None:
    """Record these people as erased, in the database and the file. Raises `OSError`."""
    for person in people:
        store.people.record_erased(person, at)
    reconcile_tombstones(home, store)


def reconcile_tombstones(home: Path, store: Store) -> dict[str, float]:
    """Merge the tombstones of database and file, with the latest dates. Raises `OSError`,
    `KeyFileError`.
    """
    listed = read_tombstones(home)
    for person, at in listed.items():
        store.people.record_erased(person, at)
    every = store.people.tombstones()
    if every != listed:
        (home / TOMBSTONES_FILE).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_model(home / TOMBSTONES_FILE, TombstoneFile(tombstones=dict(sorted(every.items()))))
    return every
