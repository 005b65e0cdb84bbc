"""Finds what somebody asks to bring back from the trash."""

from pathlib import Path

from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from personas.home.trash import TrashEntry, TrashKind, find_entry, is_recent

STAMP = r"(?P<stamp>[0-9]+-[0-9a-f]+)"
"""The stamp of an entry, in a button's custom id."""


def require_entry(home: Path, guild_id: int, kind: TrashKind, id: str, *, stamp: str) -> TrashEntry:
    """Return the entry of a stamp. Raises `RefusedError` where it is too late, and where it was
    brought back already.
    """
    if entry := find_entry(home, guild_id, kind, id, stamp=stamp):
        return entry
    if is_recent(stamp):
        raise RefusedError(
            gettext_lazy("That was brought back already."),
            gettext_lazy("Nothing was changed."),
        )
    raise RefusedError(
        gettext_lazy("That can be brought back no more."),
        gettext_lazy("What was removed or replaced is kept for a day."),
    )
