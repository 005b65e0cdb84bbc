"""The chat logs of a job, in several files and sources: those that are parts of one log are read as
one, so that no message is in two conversations.
"""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence

from personas.errors import MaterialError
from trainer.sources.log_copies import group_copies, may_be_copies
from trainer.sources.sessionise import ChatLog, MessageKey, SessionItem, merge_parts


class LogPool:
    """The logs of all sources that are read together. Add all of them before one is read."""

    def __init__(self) -> None:
        self._logs: list[ChatLog] = []
        self._reopen: dict[ChatLog, Callable[[], ChatLog]] = {}
        self._have_many: set[ChatLog] = set()
        self._groups: dict[ChatLog, tuple[_LogGroup, int]] = {}
        self._read: dict[str, set[MessageKey]] = {}

    def add(
        self, log: ChatLog, reopen: Callable[[], ChatLog], *, has_many_files: bool = False
    ) -> None:
        """Add a log that may be read later; `reopen` opens it once more."""
        self._logs.append(log)
        self._reopen[log] = reopen
        if has_many_files:
            self._have_many.add(log)

    def items(self, log: ChatLog) -> Iterator[SessionItem]:
        """Yield the sessions that begin in a log, with what other parts add to them, and its
        rejected records. Raises `MaterialError` as the log itself does.
        """
        if log not in self._groups:
            self._form_groups(log)
        group, number = self._groups[log]
        return group.items(number)

    def _form_groups(self, log: ChatLog) -> None:
        alike = [other for other in self._logs if _reading(other) == _reading(log)] or [log]
        pairs = []
        for (first, one), (second, other) in itertools.combinations(enumerate(alike), 2):
            if self._are_parts(one, other):
                pairs.append((first, second))
        has_many = len(alike) > 1 or not self._have_many.isdisjoint(alike)
        if has_many and may_be_copies(alike):
            pairs += group_copies(alike, [self._reopen[other] for other in alike])
        for parts in _joined(alike, pairs):
            group = _LogGroup(parts, self._elsewhere(parts))
            self._groups |= {part: (group, number) for number, part in enumerate(parts)}

    def _elsewhere(self, parts: Sequence[ChatLog]) -> set[MessageKey] | None:
        """Return the messages of a platform that are not read again under another right, or as
        another persona's; None if all its logs are read alike.
        """
        platform = next((part.platform for part in parts if part.platform), "")
        options = {_reading(log) for log in self._logs if log.platform == platform}
        if not platform or len(options) < 2:
            return None
        return self._read.setdefault(platform, set())

    def _are_parts(self, log: ChatLog, other: ChatLog) -> bool:
        if not log.platform or log.platform != other.platform:
            return False
        channels = [part.channel for part in self._logs if part.platform == log.platform]
        # A whole export may have any channel.
        return log.channel == other.channel or not all(channels)


def _joined(logs: Sequence[ChatLog], pairs: Sequence[tuple[int, int]]) -> list[list[ChatLog]]:
    """Return logs in groups of those that the pairs join, in order."""
    groups = list(range(len(logs)))
    for first, second in pairs:
        low, high = sorted((groups[first], groups[second]))
        groups = [low if group == high else group for group in groups]
    by_group: dict[int, list[ChatLog]] = {}
    for group, log in zip(groups, logs, strict=True):
        by_group.setdefault(group, []).append(log)
    return list(by_group.values())


def _reading(log: ChatLog) -> Hashable:
    """Return the options that logs which are read as one have in common."""
    options = log.options
    return options.right, options.all_persona_names, options.session_gap_s


class _LogGroup:
    """Logs that are read as one, by whichever of them is asked for first."""

    def __init__(self, parts: list[ChatLog], elsewhere: set[MessageKey] | None) -> None:
        self._merged = merge_parts(parts, elsewhere)
        self._queues: list[deque[SessionItem | MaterialError]] = [deque() for _ in parts]

    def items(self, number: int) -> Iterator[SessionItem]:
        queue = self._queues[number]
        while True:
            while queue:
                item = queue.popleft()
                if isinstance(item, MaterialError):
                    raise item
                yield item
            following = next(self._merged, None)
            if following is None:
                return
            self._queues[following[0]].append(following[1])
