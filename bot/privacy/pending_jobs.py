"""Takes members' words out of the folders of jobs that wait, once they may no longer be used.

What has to go gets another name within the transaction of the change, so that after a kill no job uses
it, and is deleted after it, off the event loop (or by a later check of the retention).
The job then writes its folder again, with the data allowed by then. Replies that a model has written
from the card stay: no message reaches it.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from bot.privacy.home_files import PENDING_DELETION_PREFIX, name_for_deletion, remove_path
from bot.store import Store, TrainingJob
from bot.training.stored_datasets import HISTORY_DATASET
from personas.errors import MaterialError
from personas.home.atomic_files import fsync_path
from personas.home.data_subjects import contains_any_person, read_consent
from personas.home.job_folder import REQUEST_FILE
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.written_replies import WRITTEN_FOLDER
from personas.schemas.base import DISCORD_API


def set_aside_history(home: Path, store: Store, guild_id: int) -> bool:
    """Set aside what pending jobs have of a guild's chat history, after an edit or a deletion. True
    where there was any. Raises `OSError`.
    """
    with_history = []
    for job in _pending_jobs(store):
        is_history = f'"dataset":"{HISTORY_DATASET}"' in job.request_json.replace(" ", "")
        if is_history and job.guild_id == guild_id:
            with_history.append(home / "jobs" / job.job_id)
    return _set_aside(with_history)


def set_aside_consented(home: Path, store: Store, user_id: int) -> None:
    """Set aside the pending jobs that may have words of a member who does not consent any more. Raises
    `OSError`, and `KeyFileError` for a damaged key.
    """
    person = keyed_person(HomeKey.of(home).people(), str(user_id))
    folders = [home / "jobs" / job.job_id for job in _pending_jobs(store)]
    concerned = [folder for folder in folders if _may_contain(folder, str(user_id), person)]
    _set_aside(concerned)


def remove_set_aside(home: Path) -> None:
    """Delete what was set aside, also before a kill. Raises `OSError`."""
    for path in (home / "jobs").glob(f"{PENDING_DELETION_PREFIX}*"):
        remove_path(path)


def has_discord_data(job_folder: Path) -> bool:
    """Return whether a job's data came through Discord's API; assumed of a folder that cannot be
    read.
    """
    try:
        materials = json.loads((job_folder / REQUEST_FILE).read_bytes())["materials"]
        return any(material["right"] == DISCORD_API for material in materials)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _pending_jobs(store: Store) -> list[TrainingJob]:
    return [*store.jobs.in_state("queued"), *store.jobs.resumable()]


def _may_contain(folder: Path, user_id: str, person: str) -> bool:
    """Return whether a job's folder lists a person, or has data from Discord of all who had opted in
    when it was written, them among these.
    """
    if contains_any_person(folder, {person}):
        return True
    try:
        return has_discord_data(folder) and user_id in read_consent(folder).opted_in
    except MaterialError:
        return True


def _set_aside(folders: Iterable[Path]) -> bool:
    has_any = False
    for folder in folders:
        parts = [part for part in folder.glob("*") if part.name != WRITTEN_FOLDER]
        if not parts:
            continue
        has_any = True
        # Without its request, a folder is no complete one: it is written again.
        parts.sort(key=lambda part: part.name != REQUEST_FILE)
        aside = name_for_deletion(folder)
        # Within the folder at first: another thread may be deleting all that has such a name.
        gathered = folder / aside.name
        gathered.mkdir(mode=0o700)
        for part in parts:
            part.rename(gathered / part.name)
        gathered.rename(aside)
        if not any(folder.iterdir()):
            folder.rmdir()
        fsync_path(folder.parent)
    return has_any
