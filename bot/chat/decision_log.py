"""The latest decisions about messages, by channel, for moderators who ask why (`/persona why`)."""

from collections import OrderedDict
from dataclasses import dataclass

from bot.chat.addressing import Decision
from bot.chat.places import ChannelCache

MAX_CHANNELS = 1000
MAX_MESSAGES = 50
"""Latest messages of a channel that are remembered."""


@dataclass(frozen=True)
class NotedDecision:
    """A decision as it was made. `remark` says why a message that is said to a persona has no
    reply all the same; empty where it has one.
    """

    decision: Decision
    remark: str = ""


class DecisionLog:
    """The decisions since the start, by message; the texts are not kept."""

    def __init__(self) -> None:
        self._channels: ChannelCache[OrderedDict[int, NotedDecision]] = ChannelCache(MAX_CHANNELS)

    def note(self, channel_id: int, message_id: int, decision: Decision) -> None:
        """Remember the decision about a message."""
        noted = self._channels.get(channel_id)
        if noted is None:
            noted = self._channels[channel_id] = OrderedDict()
        noted[message_id] = NotedDecision(decision)
        while len(noted) > MAX_MESSAGES:
            noted.popitem(last=False)

    def remark(self, channel_id: int, message_id: int, remark: str) -> None:
        """Remember why a message that is said to a persona gets no reply."""
        noted = self._channels.get(channel_id)
        if noted and message_id in noted:
            noted[message_id] = NotedDecision(noted[message_id].decision, remark)

    def find(self, channel_id: int, message_id: int) -> NotedDecision | None:
        """Return the decision about a message; None where none is remembered."""
        noted = self._channels.get(channel_id)
        return noted.get(message_id) if noted else None
