"""The salt of the servers' prefix caches."""

import secrets
from pathlib import Path

from personas.home.atomic_files import write_private_file

SALT_FILE = "cache/vllm_cache_salt"


class CacheSalt:
    """A salt that a home keeps over restarts, and that is sent with each request.

    With another salt, no request reaches blocks that were stored before. It holds for all servers,
    and needs no development mode of theirs.
    """

    def __init__(self, home: Path) -> None:
        self._file = home / SALT_FILE
        self.value = ""

    def read(self) -> None:
        """Read the salt; a new one takes the place of one that cannot be read."""
        try:
            self.value = self._file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            self.renew()

    def renew(self) -> None:
        """Draw another salt. It is on the disk before a request has it: a restart would bring the
        earlier one back.
        """
        salt = secrets.token_urlsafe(16)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_private_file(self._file, salt.encode())
        self.value = salt
