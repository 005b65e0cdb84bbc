"""Finds logs, and channels of them, that hold the same talk: an export of another program or by
another member has other ids, so a chat that was exported twice is recognised by its messages.
"""

import bisect
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from personas.errors import MaterialError
from trainer.sources.conversation import RejectedRecord
from trainer.sources.sessionise import ChatCopy, ChatLog, keyed_entries

MIN_SHARED = 2
"""Fewer messages with the same text may be alike by chance."""
MAX_ALIKE = 64
"""A message that is in more channels, such as an announcement, says nothing."""
OWN_IDS = frozenset(("", "telegram"))
"""Programs that number the messages or chats of each file or member anew."""


@dataclass
class _ChatChannel:
    """A channel of a log: the keys and minutes of its messages, and the keys of their ids. `root`
    is the first that holds the same talk, `ids_root` the first with the same ids.
    """

    log: ChatLog
    log_number: int
    name: str
    keys: set[int] = field(default_factory=set)
    id_keys: set[int] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    root: int = 0
    ids_root: int = 0

    def count_between(self, start: float, end: float) -> int:
        """Count the messages of a span of time."""
        return bisect.bisect_right(self.times, end) - bisect.bisect_left(self.times, start)


def may_be_copies(logs: Sequence[ChatLog]) -> bool:
    """Report whether the ids of channels do not tell which of these hold the same talk."""
    platforms = {log.platform for log in logs}
    return len(platforms) > 1 or not platforms.isdisjoint(OWN_IDS)


def group_copies(
    logs: Sequence[ChatLog], reopen: Sequence[Callable[[], ChatLog]]
) -> list[tuple[int, int]]:
    """Return the pairs of logs, by number, that hold the same talk; `reopen` opens each once more.
    Where channels do, `copies` of their logs say so.
    """
    channels: list[_ChatChannel] = []
    for number, opened in enumerate(reopen):
        channels += _read(logs[number], number, opened)
    # The names and ids of a platform are those by which other logs of it are found.
    channels.sort(key=lambda channel: (channel.log.platform in OWN_IDS, channel.log_number))
    for number, channel in enumerate(channels):
        channel.root = channel.ids_root = number
    for first, second, have_ids in _pairs(channels):
        _join(channels, first, second, have_ids=have_ids)
    joined = [channel for channel in channels if channels[channel.root] is not channel]
    copied = {id(log) for channel in joined for log in (channel.log, channels[channel.root].log)}
    ids_of: dict[int, dict[int, str]] = defaultdict(dict)
    for channel in channels:
        if id(channel.log) in copied:
            root = channels[channel.root]
            name = root.name
            if root.log.platform in OWN_IDS:
                name = f"{root.name} {root.log_number + 1}".strip()
            ids = "" if channel.ids_root == channel.root else str(channel.ids_root)
            channel.log.copies[channel.name] = ChatCopy(name, ids, ids_of[channel.root])
    return [(channel.log_number, channels[channel.root].log_number) for channel in joined]


def _read(log: ChatLog, number: int, opened: Callable[[], ChatLog]) -> list[_ChatChannel]:
    channels: dict[str, _ChatChannel] = {}
    try:
        for entry, key in keyed_entries(opened().entries):
            if not key or isinstance(entry, RejectedRecord):
                continue
            channel = channels.setdefault(entry.channel, _ChatChannel(log, number, entry.channel))
            channel.keys.add(hash(key))
            channel.times.append(key[0])
            if entry.id:
                channel.id_keys.add(hash((entry.id, entry.at, entry.author.id)))
    except MaterialError:
        return []  # the error is raised when the log is read
    for channel in channels.values():
        channel.times.sort()
    return list(channels.values())


def _pairs(channels: Sequence[_ChatChannel]) -> list[tuple[int, int, bool]]:
    """Return the pairs of channels that share most of their messages of the same time, and whether
    these have the same ids.
    """
    by_text = _count_shared([channel.keys for channel in channels])
    by_id = _count_shared([channel.id_keys for channel in channels])
    pairs = []
    for pair in sorted(by_text.keys() | by_id.keys()):
        first, second = (channels[number] for number in pair)
        platform = first.log.platform
        is_same_space = platform == second.log.platform and platform not in OWN_IDS
        if is_same_space and first.name != second.name:
            continue  # two channels of one program, whatever is said in them
        alike = by_text[pair] if by_text[pair] >= MIN_SHARED else 0
        if _are_copies(first, second, max(alike, by_id[pair])):
            pairs.append((*pair, is_same_space or by_id[pair] > 0))
    return pairs


def _count_shared(keys: Sequence[set[int]]) -> Counter[tuple[int, int]]:
    having: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(keys):
        for key in own:
            having[key].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in having.values():
        if 1 < len(numbers) <= MAX_ALIKE:
            shared.update(itertools.combinations(numbers, 2))
    return shared


def _are_copies(first: _ChatChannel, second: _ChatChannel, shared: int) -> bool:
    start = max(first.times[0], second.times[0])
    end = min(first.times[-1], second.times[-1])
    fewer = min(first.count_between(start, end), second.count_between(start, end))
    return shared > 0 and 2 * shared >= fewer


def _join(channels: Sequence[_ChatChannel], first: int, second: int, *, have_ids: bool) -> None:
    low, high = sorted((channels[first].root, channels[second].root))
    ids_low, ids_high = sorted((channels[first].ids_root, channels[second].ids_root))
    for channel in channels:
        if channel.root == high:
            channel.root = low
        if have_ids and channel.ids_root == ids_high:
            channel.ids_root = ids_low
