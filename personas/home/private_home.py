"""File permissions of a home: conversations, cards and lore are readable by the bot's own user
only.
"""

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)
PRIVATE_UMASK = 0o077
OTHERS = 0o077
"""Permission bits of the group and of all others."""


def protect_home(home: Path) -> None:
    """Create files readable by this user only from now on, and take the rights of others from those
    in a home.

    The folder itself is left as it is, because it may be one that is shared with other programs:
    that it is open is logged. Files of other users, and what links lead to, are left alone too.
    """
    os.umask(PRIVATE_UMASK)
    if not home.is_dir() or os.statvfs(home).f_flag & os.ST_RDONLY:
        return  # on a read-only file system no rights can be changed
    if home.stat().st_mode & OTHERS:
        log.warning(
            "%s can be listed by other users of this machine. Close it: chmod 700 %s", home, home
        )
    for path in home.iterdir():
        mode = path.lstat().st_mode
        is_own = path.lstat().st_uid == os.geteuid()
        if mode & OTHERS and is_own and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            path.chmod(stat.S_IMODE(mode) & ~OTHERS)
