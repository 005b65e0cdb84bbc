"""The number of candidates among which a reply's beginning is chosen, by guild."""

from dataclasses import dataclass

from bot.guild_settings.definitions import CANDIDATES
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.store import Store


@dataclass(frozen=True)
class ReplyCandidates:
    """A guild has `default` candidates unless its moderators have chosen, at most `maximum`."""

    store: Store
    default: int = 1
    maximum: int = 1

    def in_guild(self, guild_id: int) -> int:
        """Return the number in a guild; guild 0 stands for direct messages."""
        return min(CANDIDATES.read(self.store, guild_id) or self.default, self.maximum)

    def choose(self, guild_id: int, candidates: int) -> None:
        """Store a guild's choice. Raises `RefusedError` for more than `maximum`."""
        if candidates > self.maximum == 1:
            raise RefusedError(
                gettext_lazy("Every reply of this bot begins with one candidate."),
                gettext_lazy(
                    "The operator can allow more with MAX_REPLY_CANDIDATES, with ENGINE=local or "
                    "llamacpp."
                ),
            )
        if candidates > self.maximum:
            raise RefusedError(
                gettext_lazy(
                    "A server may choose at most {maximum} candidates.", maximum=self.maximum
                ),
                gettext_lazy("The operator can allow more with MAX_REPLY_CANDIDATES."),
            )
        CANDIDATES.write(self.store, candidates, guild_id)
