"""Deletes all data of a guild that has removed the bot."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bot.personas.revisions import REVISIONS_FOLDER
from bot.privacy.home_files import remove_path
from bot.store import ALL_GUILDS, Store, TrainingJob, guild_suffix
from bot.training.stored_datasets import HISTORY_DATASET
from personas.errors import RequestError
from personas.home.adapters import adapter_ref, dialogue_adapter_folder
from personas.home.gguf_cache import gguf_adapter_files
from personas.home.holdout_index import holdout_file
from personas.home.trash import TRASH_FOLDER

DELETION_REASON = "its server has removed the bot"


@dataclass(frozen=True)
class GuildDeletion:
    """All data of a guild. Files are deleted first: the rows name them, so that a crash leaves none
    behind.
    """

    store: Store
    guild_id: int
    personas: tuple[str, ...]
    files: tuple[Path, ...]

    @classmethod
    def of(cls, home: Path, store: Store, guild_id: int) -> Self:
        """Collect everything of a guild. Guild 0, direct messages, is none."""
        assert guild_id
        jobs = store.jobs.of_guild(guild_id, limit=-1)
        personas = guild_persona_ids(home, jobs, guild_id)
        files = _guild_files(home, store, jobs, personas=personas, guild_id=guild_id)
        return cls(store, guild_id, tuple(personas), tuple(files))

    def withdraw(self, at: float) -> None:
        """Withdraw the guild's versions of shared personas, but for those that others may use, and
        copies of its jobs.

        Those trained on its messages are withdrawn from others, too.
        """
        jobs = self.store.jobs.of_guild(self.guild_id, limit=-1)
        own = [job for job in jobs if job.state == "done" and _goes_with_guild(self.store, job)]
        for job in (*own, *_dialogue_copies(self.store, jobs)):
            if job.persona and job.persona not in self.personas:
                self.store.versions.withdraw(job.persona, job.version, at, DELETION_REASON)

    def delete_files(self) -> None:
        """Delete the files; may run in a thread, and be repeated. Raises `OSError`."""
        # What an interruption leaves is deleted with the next check, as the rows are still there.
        for path in self.files:
            remove_path(path)

    def delete_rows(self, at: float) -> None:
        """Delete the rows, and record the deletion. Raises `StoreError`."""
        self.store.guilds.delete(self.guild_id, self.personas)
        self.store.guilds.record_deletion(self.guild_id, at)


def delete_guild(home: Path, store: Store, guild_id: int, at: float) -> None:
    """Delete all data of a guild; repeating it after a crash completes it. Raises `OSError`,
    `StoreError`.
    """
    deletion = GuildDeletion.of(home, store, guild_id)
    deletion.withdraw(at)
    deletion.delete_files()
    deletion.delete_rows(at)


def guild_persona_ids(home: Path, jobs: Iterable[TrainingJob], guild_id: int) -> list[str]:
    """Return the ids of a guild's own personas, those it has removed included."""
    suffix = guild_suffix(guild_id)
    ids = {path.name for path in (home / "personas" / str(guild_id)).glob("*")}
    ids |= {path.name for path in (home / TRASH_FOLDER / str(guild_id) / "persona").glob("*")}
    ids |= {path.name for path in (home / "models" / "persona_adapters").glob(f"*{suffix}")}
    ids |= {job.persona for job in jobs if job.persona}
    return sorted(persona_id for persona_id in ids if persona_id.endswith(suffix))


def find_guilds_on_disk(home: Path) -> set[int]:
    """Return the guilds that have cards or lore in the home."""
    guild_ids = set()
    for root in (home, home / REVISIONS_FOLDER):
        for path in (*root.glob("personas/*/"), *root.glob("lore/*/")):
            if path.name.isdecimal():
                guild_ids.add(int(path.name))
    guild_ids |= {
        int(path.name) for path in home.glob(f"{TRASH_FOLDER}/*/") if path.name.isdecimal()
    }
    return guild_ids - {0}


def _guild_files(
    home: Path, store: Store, jobs: list[TrainingJob], *, personas: list[str], guild_id: int
) -> Iterator[Path]:
    for kind in ("personas", "lore"):
        yield home / kind / str(guild_id)
        yield home / REVISIONS_FOLDER / kind / str(guild_id)
    yield home / TRASH_FOLDER / str(guild_id)
    for persona_id in personas:
        yield home / "models" / "persona_adapters" / persona_id
        yield holdout_file(home, persona_id)
        yield from (home / "cache").glob(f"lore-of-{persona_id}.sqlite*")
        for folder in (home / "models" / "persona_adapters" / persona_id).glob("*/"):
            yield from gguf_adapter_files(home, f"{persona_id}-{folder.name}")
    for job in jobs:
        yield home / "jobs" / job.job_id
        yield from (home / "jobs").glob(f".{job.job_id}.*")  # incomplete copies
        if job.persona and _goes_with_guild(store, job):
            yield adapter_ref(home, job.persona, job.version).folder
            yield from gguf_adapter_files(home, f"{job.persona}-{job.version}")
        elif not job.persona and (name := job.name.partition("/")[2]):
            yield dialogue_adapter_folder(home, name)
    for job in _dialogue_copies(store, jobs):
        yield adapter_ref(home, job.persona or "", job.version).folder


def _dialogue_copies(store: Store, jobs: Iterable[TrainingJob]) -> list[TrainingJob]:
    """The installations of these jobs' dialogue adapters as versions of personas, by any server."""
    names = {job.name.partition("/")[2] for job in jobs if not job.persona and job.state == "done"}
    return [job for job in store.jobs.in_state("done") if job.dialogue in names]


def _goes_with_guild(store: Store, job: TrainingJob) -> bool:
    """Return whether a job's version was its guild's own, or was trained on its messages."""
    if _is_from_history(job):
        return True
    shared = store.versions.installed(job.persona or "", ALL_GUILDS)
    return job.version not in [version.version for version in shared]


def _is_from_history(job: TrainingJob) -> bool:
    """Return whether a job was trained on its guild's messages; a job with an invalid row never
    ran.
    """
    try:
        return job.request.dataset == HISTORY_DATASET
    except RequestError:
        return False
