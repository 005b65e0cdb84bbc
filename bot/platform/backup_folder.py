"""The folder of a home's automatic backups: where it is, whether it can be written, what is in it."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

NAME_FORMAT = "understudy-%Y%m%d-%H%M%S.zip"
FOLDER_ADVICE = (
    "Give this user the right to write there, or name another folder in BACKUP_FOLDER "
    "(docs/backup.md)."
)


def automatic_folder(home: Path, chosen: Path | None = None) -> Path:
    """Return the folder of a home's automatic backups: the `chosen` one, else one beside the home,
    because a home cannot contain its own backup.
    """
    return chosen or home.with_name(f"{home.name}.backups")


def find_write_problem(folder: Path) -> str:
    """Return why backups can neither be written into a folder nor the folder be created; empty if
    they can.
    """
    place = folder if folder.exists() else folder.parent
    try:
        with tempfile.TemporaryFile(dir=place):  # it has no name, and leaves nothing behind
            return ""
    except OSError as error:
        why = error.strerror or error
        return f"No automatic backup can be made in {folder}: {place}: {why}."


def automatic_backups(folder: Path, now: float) -> dict[Path, float]:
    """Return the automatic backups in a folder and when they were made (seconds since 1970), oldest
    first.

    One that is dated after `now` was made while the clock was ahead, nobody knows when. It counts
    as the oldest: 0.
    """
    backups = {}
    for file in sorted(folder.glob("understudy-*.zip")):
        try:
            made_at = datetime.strptime(file.name, NAME_FORMAT).replace(tzinfo=UTC).timestamp()
        except ValueError:  # a file of somebody else
            continue
        backups[file] = made_at if made_at <= now else 0.0
    return dict(sorted(backups.items(), key=lambda entry: entry[1]))
