"""The latest decisions about messages, by channel, for moderators who ask why (`/persona why`)."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from bot.chat.addressing import Decision
from bot.chat.places import ChannelCache
from bot.platform.localisation import localise

FULL_STOPS = ".。"
MAX_CHANNELS = 1000
MAX_MESSAGES = 50
"""Latest messages of a channel that are remembered."""


@dataclass(frozen=True)
class NotedDecision:
    """A decision as it was made. `remarks` say why a message that is said to a persona has no reply
    of it all the same; none where each has replied. `is_missed`: it waited until the bot was back.
    """

    decision: Decision
    remarks: tuple[str, ...] = ()
    is_missed: bool = False

    def remark_text(self) -> str:
        """Return the remarks in the present language, without a full stop."""
        return "; ".join(localise(each).rstrip(FULL_STOPS) for each in self.remarks)


class DecisionLog:
    """The decisions since the start, by message; the texts are not kept."""

    def __init__(self) -> None:
        self._channels: ChannelCache[OrderedDict[int, NotedDecision]] = ChannelCache(MAX_CHANNELS)
        self.looked_back_to = 0.0
        """Time, in seconds since 1970, since which messages were looked for when the bot came back
        last.
        """

    def note_missed(
        self, channel_id: int, message_id: int, decision: Decision, remark: str = ""
    ) -> None:
        """Remember the decision about a message that waited until the bot was back."""
        self.note(channel_id, message_id, decision)
        missed = NotedDecision(decision, (remark,) if remark else (), is_missed=True)
        self._channels[channel_id][message_id] = missed

    def note(self, channel_id: int, message_id: int, decision: Decision) -> None:
        """Remember the decision about a message."""
        noted = self._channels.get(channel_id)
        if noted is None:
            noted = self._channels[channel_id] = OrderedDict()
        before = noted.get(message_id)
        noted[message_id] = NotedDecision(decision, is_missed=bool(before and before.is_missed))
        while len(noted) > MAX_MESSAGES:
            noted.popitem(last=False)

    def remark(self, channel_id: int, message_id: int, remark: str) -> None:
        """Remember why a message that is said to a persona gets no reply, beside what was remarked of
        other personas that it is said to.
        """
        noted = self._channels.get(channel_id)
        before = noted.get(message_id) if noted else None
        # A held event is decided on again.
        if noted and before and remark not in before.remarks:
            noted[message_id] = replace(before, remarks=(*before.remarks, remark))

    def find(self, channel_id: int, message_id: int) -> NotedDecision | None:
        """Return the decision about a message; None where none is remembered."""
        noted = self._channels.get(channel_id)
        return noted.get(message_id) if noted else None
