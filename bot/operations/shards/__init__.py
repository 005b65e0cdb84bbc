"""A bot in many guilds: shards in several processes that share Discord's limits and one state."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

AUTO_SHARDS = "auto"
MAX_SHARDS = 10_000
SHARDS_PATTERN = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/([0-9]{1,5})")
SHARD_FILE_PATTERN = re.compile(r"shards-([0-9]+)-([0-9]+)-of-([0-9]+)\.sqlite")
DATABASE_URL_PATTERN = re.compile(r"postgres(ql)?://([^\s@:/]*(:[^\s@:/]*)?@)?[^\s@/]*(/[^\s@]*)?")


@dataclass(frozen=True)
class ShardRange:
    """The shards of one process: `first` to `last` of `count`; without a count all, as many as
    Discord recommends.
    """

    first: int = 0
    last: int = 0
    count: int | None = None

    @classmethod
    def parse(cls, text: object) -> object:
        """Parse `auto`, `0/1` or `0-4/10`. Raises `ValueError`."""
        if not isinstance(text, str):
            return text
        match = SHARDS_PATTERN.fullmatch(text.replace(" ", ""))
        if text.casefold() != AUTO_SHARDS and not match:
            raise ValueError("not a range of shards")
        if not match:
            return cls()
        first = int(match[1])
        last = int(match[2] or match[1])
        count = int(match[3])
        if not first <= last < count <= MAX_SHARDS:
            raise ValueError("not a range of shards")
        return cls(first, last, count)

    @property
    def ids(self) -> list[int] | None:
        """The ids for discord.py; None for all."""
        if self.count is None:
            return None
        return list(range(self.first, self.last + 1))

    @property
    def has_first(self) -> bool:
        """This process has shard 0: direct messages, the commands' registration, and work that is
        done once.
        """
        return self.first == 0

    @property
    def is_whole(self) -> bool:
        """There is no other process."""
        return self.count is None or self.last - self.first + 1 == self.count

    def has(self, guild_id: int) -> bool:
        """Report whether a guild is on one of these shards; guild 0, direct messages, is on shard
        0.
        """
        return self.count is None or self.first <= (guild_id >> 22) % self.count <= self.last

    def clashes(self, other: Self) -> bool:
        """Report whether no bot can have both ranges: the numbers of shards differ, or a shard is
        in both.
        """
        if self == other:
            return False
        overlaps = other.first <= self.last and self.first <= other.last
        return self.count != other.count or overlaps

    def file(self, home: Path) -> Path:
        """Return the file with the data of these shards' guilds, where they are a part of all
        shards.
        """
        return home / f"shards-{self.first}-{self.last}-of-{self.count}.sqlite"

    @classmethod
    def in_home(cls, home: Path) -> list[Self]:
        """Return the ranges whose guilds have their data in a home."""
        names = (
            SHARD_FILE_PATTERN.fullmatch(path.name) for path in sorted(home.glob("shards-*.sqlite"))
        )
        return [cls(*map(int, name.groups())) for name in names if name]

    def __str__(self) -> str:
        first = "" if self.first == self.last else f"{self.first}-"
        if self.count is None:
            return AUTO_SHARDS
        return f"{first}{self.last}/{self.count}"


def parse_database_url(text: str) -> str:
    """Parse SHARED_DB. Raises `ValueError`."""
    # An @, : or / in a password ends it early, and errors would show its rest as the name of a
    # host.
    if text and not DATABASE_URL_PATTERN.fullmatch(text):
        raise ValueError("not a PostgreSQL URL")
    return text
