"""The chat logs of a job, in several files and sources: those that are parts of one log are read as
one, so that no message is in two conversations.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator

from personas.errors import MaterialError
from trainer.sources.log_copies import group_copies
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
        if log.platform:
            parts = [other for other in self._logs if self._are_parts(log, other)] or [log]
            groups = [parts]
        else:
            groups = self._copies(log)
        options = {_reading(other) for other in self._logs if other.platform == log.platform}
        elsewhere = None
        if log.platform and len(options) > 1:
            # Under another right, or as another persona's, the same message is not read again.
            elsewhere = self._read.setdefault(log.platform, set())
        for parts in groups:
            group = _LogGroup(parts, elsewhere)
            self._groups |= {part: (group, number) for number, part in enumerate(parts)}

    def _copies(self, log: ChatLog) -> list[list[ChatLog]]:
        """Return the groups of logs without ids of chats that are read like this one."""
        alike = []
        for other in self._logs:
            if not other.platform and _reading(other) == _reading(log):
                alike.append(other)
        if len(alike) < 2 and self._have_many.isdisjoint(alike):
            return [[log]]
        return group_copies(alike, [self._reopen[other] for other in alike])

    def _are_parts(self, log: ChatLog, other: ChatLog) -> bool:
        if log is other:
            return True
        if not log.platform or log.platform != other.platform or _reading(log) != _reading(other):
            return False
        channels = [part.channel for part in self._logs if part.platform == log.platform]
        # A whole export may have any channel.
        return log.channel == other.channel or not all(channels)


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
