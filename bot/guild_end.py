"""The end of a server here: everything that is kept of it goes, on the disk and in the store.

What ships belongs to no server and stays, and so do versions of shipped personas that its moderators had trained on
shipped or the operator's material, without saying whose they were. Versions trained on what was said there go.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bot.earlier import EARLIER
from bot.history import HISTORY
from bot.job_folder import dialogue_place
from bot.personas import own_suffix
from bot.store import Job, Store
from personas.adapters import adapter_ref
from personas.errors import RequestError
from personas.heldout import held_out_file

WHY = "its server has removed the bot"


@dataclass(frozen=True)
class GuildEnd:
    """What there is of a server. The files go first: the rows say which there are, so that a kill loses no trace."""

    store: Store
    guild_id: int
    personas: tuple[str, ...]
    files: tuple[Path, ...]

    @classmethod
    def of(cls, home: Path, store: Store, guild_id: int) -> Self:
        """Look for all of a server. Guild 0, direct messages, is none."""
        assert guild_id
        jobs = store.jobs.of_guild(guild_id, limit=-1)
        personas = own_personas(home, jobs, guild_id)
        return cls(store, guild_id, tuple(personas), tuple(_files(home, jobs, personas, guild_id)))

    def withdraw(self, at: float) -> None:
        """Versions of shipped personas that learned from what was said there speak no more."""
        for job in self.store.jobs.of_guild(self.guild_id, limit=-1):
            if job.persona and job.persona not in self.personas and job.state == "done" and _from_history(job):
                self.store.versions.withdraw(job.persona, job.version, at, WHY)

    def delete_files(self) -> None:
        """May run in a thread, and again. Raises `OSError`."""
        for path in self.files:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def delete_rows(self, at: float) -> None:
        """Delete what the store has, and note it. Raises `StoreError`."""
        self.store.guilds.delete(self.guild_id, self.personas)
        self.store.guilds.note_deleted(self.guild_id, at)


def delete_guild(home: Path, store: Store, guild_id: int, at: float) -> None:
    """Delete all of a server; doing so again after a kill in the middle ends it. Raises `OSError`, `StoreError`."""
    end = GuildEnd.of(home, store, guild_id)
    end.withdraw(at)
    end.delete_files()
    end.delete_rows(at)


def own_personas(home: Path, jobs: Iterable[Job], guild_id: int) -> list[str]:
    """The ids of a server's own personas, those included that it has removed again."""
    suffix = own_suffix(guild_id)
    found = {path.name for path in (home / "personas" / str(guild_id)).glob("*")}
    found |= {path.name for path in (home / "models" / "persona_adapters").glob(f"*{suffix}")}
    found |= {job.persona for job in jobs if job.persona}
    return sorted(persona_id for persona_id in found if persona_id.endswith(suffix))


def guilds_on_disk(home: Path) -> set[int]:
    """The servers that have cards or lore here."""
    roots = (root / kind for root in (home, home / EARLIER) for kind in ("personas", "lore"))
    names = {path.name for root in roots for path in root.glob("*/")}
    return {int(name) for name in names if name.isdecimal()} - {0}


def _files(home: Path, jobs: list[Job], personas: list[str], guild_id: int) -> Iterator[Path]:
    for kind in ("personas", "lore"):
        yield home / kind / str(guild_id)
        yield home / EARLIER / kind / str(guild_id)
    for persona_id in personas:
        yield home / "models" / "persona_adapters" / persona_id
        yield held_out_file(home, persona_id)
        yield from (home / "cache").glob(f"lore-of-{persona_id}.sqlite*")
    for job in jobs:
        yield home / "jobs" / job.job_id
        yield from (home / "jobs").glob(f".{job.job_id}.*")  # half copied
        if job.persona and _from_history(job):
            yield adapter_ref(home, job.persona, job.version).folder
        elif not job.persona and (name := job.name.partition("/")[2]):
            yield dialogue_place(home, name)


def _from_history(job: Job) -> bool:
    """Whether a job trained on what was said in its server; a row that cannot be read never ran."""
    try:
        return job.request.dataset == HISTORY
    except RequestError:
        return False
