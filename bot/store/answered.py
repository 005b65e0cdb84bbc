"""Answers to requests that came with a key, so that the same request is done once."""

from __future__ import annotations

from dataclasses import dataclass

from bot.store.database import Connection

KEPT_S = 24 * 3600.0


@dataclass(frozen=True)
class Answered:
    """What a key stands for: a hash of the request, and its answer (no status: it was begun, and nothing is known)."""

    request: bytes
    status: int | None
    body: str


class AnsweredRequests:
    """Keys (as hashes), and what they were answered; for a day."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def get(self, key: bytes, now: float) -> Answered | None:
        """What a key stands for; None when it is new."""
        row = self._db.first(
            "select request, status, body from answered where key = :key and at > :since",
            {"key": key, "since": now - KEPT_S},
        )
        return Answered(**row) if row else None

    def begin(self, key: bytes, request: bytes, now: float) -> None:
        """A request with a new key is being done from now on."""
        self._db.write(
            "insert or replace into answered values (:key, :request, null, '', :at)",
            {"key": key, "request": request, "at": now},
        )

    def forget_old(self, now: float) -> None:
        """Forget what is older than a day."""
        self._db.write("delete from answered where at <= :since", {"since": now - KEPT_S})

    def end(self, key: bytes, status: int, body: str) -> None:
        """It was done, and answered so."""
        self._db.write(
            "update answered set status = :status, body = :body where key = :key",
            {"key": key, "status": status, "body": body},
        )

    def drop(self, key: bytes) -> None:
        """It was refused: nothing was done, and the key may come again."""
        self._db.write("delete from answered where key = :key", {"key": key})
