"""Which events were answered, so that one sent again by the gateway or after a crash is not answered twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.store.database import Connection

ReplyState = Literal["waiting", "streaming", "done", "stopped", "failed"]


@dataclass(frozen=True)
class StoredReply:
    """The answer to one event: the interaction or message whose id it bears."""

    event_id: int
    channel_id: int
    persona_id: str
    trigger_seq: int | None
    webhook_message_id: int | None
    state: ReplyState
    adapter_version: str | None
    seed: int | None
    created_at: float


class Replies:
    """The replies and how far they are."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def begin(self, event_id: int, channel_id: int, persona_id: str, at: float, trigger_seq: int | None = None) -> bool:
        """Take an event. False when it was taken before: it must not be answered again."""
        taken = self._db.write(
            """insert or ignore into replies (event_id, channel_id, persona_id, trigger_seq, state, created_at)
            values (:event, :channel, :persona, :trigger, 'waiting', :at)""",
            {"event": event_id, "channel": channel_id, "persona": persona_id, "trigger": trigger_seq, "at": at},
        )
        return taken > 0

    def streaming(self, event_id: int, webhook_message_id: int) -> None:
        """The first words are visible in this message."""
        self._db.write(
            """update replies set state = 'streaming', webhook_message_id = :message
            where event_id = :event and state = 'waiting'""",
            {"event": event_id, "message": webhook_message_id},
        )

    def finish(
        self,
        event_id: int,
        state: Literal["done", "stopped", "failed"],
        adapter_version: str | None = None,
        seed: int | None = None,
    ) -> bool:
        """The reply has ended and was made so. False when it had ended before; nothing changes then."""
        changed = self._db.write(
            """update replies set state = :state, adapter_version = :version, seed = :seed
            where event_id = :event and state in ('waiting', 'streaming')""",
            {"event": event_id, "state": state, "version": adapter_version, "seed": seed},
        )
        return changed > 0

    def get(self, event_id: int) -> StoredReply | None:
        """The reply to an event."""
        row = self._db.first("select * from replies where event_id = :event", {"event": event_id})
        return StoredReply(**row) if row else None

    def unfinished(self) -> list[StoredReply]:
        """The replies that a crash cut off, oldest first."""
        rows = self._db.read("select * from replies where state in ('waiting', 'streaming') order by created_at")
        return [StoredReply(**row) for row in rows]
