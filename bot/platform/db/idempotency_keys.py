"""Responses of the HTTP API by idempotency key: a repeated request is handled once."""

from dataclasses import dataclass

from bot.platform.db.database import Table

IDEMPOTENCY_KEY_LIFETIME_S = 24 * 3600.0


@dataclass(frozen=True)
class IdempotentResponse:
    """The record of a key: a hash of the request, and the response; no status while its end is
    unknown.
    """

    request: bytes
    status: int | None
    body: str


class IdempotencyKeys(Table):
    """Hashed keys and their responses, stored for a day."""

    def get(self, key: bytes, now: float) -> IdempotentResponse | None:
        """Return the record of a key; None for a new key."""
        sql = "select request, status, body from answered where key = :key and at > :since"
        return self._db.one(
            IdempotentResponse, sql, key=key, since=now - IDEMPOTENCY_KEY_LIFETIME_S
        )

    def begin(self, key: bytes, request: bytes, now: float) -> None:
        """Record that a request with a new key has begun."""
        row = {"key": key, "request": request, "status": None, "body": "", "at": now}
        self._db.insert("answered", row, replace=True)

    def delete_expired(self, now: float) -> None:
        """Delete records older than a day."""
        self._db.write(
            "delete from answered where at <= :since", since=now - IDEMPOTENCY_KEY_LIFETIME_S
        )

    def end(self, key: bytes, status: int, body: str) -> None:
        """Store the response."""
        sql = "update answered set status = :status, body = :body where key = :key"
        self._db.write(sql, key=key, status=status, body=body)

    def drop(self, key: bytes) -> None:
        """Delete the record of a request that was refused without effect, so that the key may be
        used again.
        """
        self._db.write("delete from answered where key = :key", key=key)
