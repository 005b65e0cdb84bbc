"""The tokens by which replies are sent where the bot is not, for as long as Discord takes them."""

from dataclasses import dataclass, replace

from bot.platform.db.database import Table

TOKEN_LIFETIME_S = 15 * 60.0
"""Discord's."""


@dataclass(frozen=True)
class InteractionToken:
    """The token of an interaction, at a time in seconds since 1970; `is_private`: its member alone
    sees the replies.
    """

    token: str
    is_private: bool
    at: float


class InteractionTokens(Table):
    """The tokens of the latest replies, by event."""

    def add(self, event_id: int, token: InteractionToken) -> None:
        """Store the token of an event's reply, and delete those that Discord takes no more."""
        self._db.write(
            "delete from interaction_tokens where at < :at", at=token.at - TOKEN_LIFETIME_S
        )
        self._db.insert("interaction_tokens", {"event_id": event_id, **vars(token)})

    def get(self, event_id: int, now: float) -> InteractionToken | None:
        """Return the token of an event's reply; None where Discord takes it no more."""
        sql = """select token, is_private, at from interaction_tokens
            where event_id = :event and at >= :at"""
        token = self._db.one(InteractionToken, sql, event=event_id, at=now - TOKEN_LIFETIME_S)
        return replace(token, is_private=bool(token.is_private)) if token else None
