"""The home in one file and back: `python -m bot backup [--out FILE]` and `python -m bot restore FILE [--home DIR]`.

Wired by `bot/__main__.py`: `add_commands(subparsers)`, then `arguments.run(arguments, settings.home)`; and by whatever
opens the home's store: `finish_restore(settings.home)` before `Store.open`, so that a restore which was cut off is
taken to its end first.

`archive` is the file's form, `making` writes one, `restoring` puts one in a home's place, `since` keeps what was
decided after it was made.
"""

from bot.backup.archive import BackupError
from bot.backup.commands import add_commands
from bot.backup.making import Made, back_up
from bot.backup.restoring import Restored, finish_restore, restore

__all__ = ["BackupError", "Made", "Restored", "add_commands", "back_up", "finish_restore", "restore"]
