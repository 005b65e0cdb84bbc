"""Finds logs, and channels of them, that hold the same talk: most exports have no ids of chats or
messages, so a chat that was exported twice is recognised by its messages.
"""

import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from personas.errors import MaterialError
from trainer.sources.conversation import RejectedRecord
from trainer.sources.sessionise import ChatLog, keyed_entries

MIN_SHARED = 2
"""Fewer messages without ids may be alike by chance."""
MAX_ALIKE = 64
"""A message that is in more channels, such as an announcement, says nothing."""


@dataclass
class _ChatChannel:
    """A channel of a log: the keys and times of its messages. `root` is the first that holds the
    same talk.
    """

    log: int
    name: str
    keys: set[int] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    has_ids: bool = True
    root: int = 0

    def count_between(self, start: float, end: float) -> int:
        """Count the messages of a span of time."""
        return bisect.bisect_right(self.times, end) - bisect.bisect_left(self.times, start)


def group_copies(
    logs: Sequence[ChatLog], reopen: Sequence[Callable[[], ChatLog]]
) -> list[list[ChatLog]]:
    """Return the logs in groups of those that hold the same talk, in order; `reopen` opens each
    once more. Where channels hold the same talk, `channel_names` of their logs say so.
    """
    channels: list[_ChatChannel] = []
    for number, opened in enumerate(reopen):
        channels += _read(number, opened)
    for number, channel in enumerate(channels):
        channel.root = number
    for first, second in _pairs(channels):
        _join(channels, first, second)
    groups = list(range(len(logs)))
    copied = set()
    for channel in channels:
        root = channels[channel.root]
        if root is not channel:
            copied |= {channel.log, root.log}
            low, high = sorted((groups[channel.log], groups[root.log]))
            groups = [low if group == high else group for group in groups]
    for channel in channels:
        if channel.log in copied:
            root = channels[channel.root]
            logs[channel.log].channel_names[channel.name] = f"{root.name} {root.log + 1}".strip()
    by_group: dict[int, list[ChatLog]] = defaultdict(list)
    for number, log in enumerate(logs):
        by_group[groups[number]].append(log)
    return list(by_group.values())


def _read(number: int, opened: Callable[[], ChatLog]) -> list[_ChatChannel]:
    channels: dict[str, _ChatChannel] = {}
    try:
        for entry, key in keyed_entries(opened().entries):
            if not key or isinstance(entry, RejectedRecord):
                continue
            channel = channels.setdefault(entry.channel, _ChatChannel(number, entry.channel))
            channel.keys.add(hash(key))
            channel.times.append(entry.at)
            channel.has_ids = channel.has_ids and bool(entry.id)
    except MaterialError:
        return []  # the error is raised when the log is read
    for channel in channels.values():
        channel.times.sort()
    return list(channels.values())


def _pairs(channels: Sequence[_ChatChannel]) -> list[tuple[int, int]]:
    """Return the pairs of channels that share most of their messages of the same time."""
    having: dict[int, list[int]] = defaultdict(list)
    for number, channel in enumerate(channels):
        for key in channel.keys:
            having[key].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in having.values():
        if 1 < len(numbers) <= MAX_ALIKE:
            shared.update(itertools.combinations(numbers, 2))
    return [pair for pair, count in shared.items() if _are_copies(channels, pair, count)]


def _are_copies(channels: Sequence[_ChatChannel], pair: tuple[int, int], shared: int) -> bool:
    first = channels[pair[0]]
    second = channels[pair[1]]
    if shared < MIN_SHARED and not (first.has_ids and second.has_ids):
        return False
    start = max(first.times[0], second.times[0])
    end = min(first.times[-1], second.times[-1])
    return 2 * shared >= min(first.count_between(start, end), second.count_between(start, end))


def _join(channels: Sequence[_ChatChannel], first: int, second: int) -> None:
    roots = sorted((channels[first].root, channels[second].root))
    for channel in channels:
        if channel.root == roots[1]:
            channel.root = roots[0]
