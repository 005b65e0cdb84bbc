"""What members have allowed, noted in the store and mirrored to `consent.json`, where the trainer reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bot.privacy.waiting import make_anew
from bot.store import Decision, Store
from personas.consent import Consent, write_consent


@dataclass(frozen=True)
class Consents:
    """The decisions of one home. `permission` is the operator's setting DISCORD_PERMISSION."""

    home: Path
    store: Store
    permission: str = ""

    def mirror(self) -> None:
        """Write `consent.json` as things stand. Raises `OSError`."""
        opted_in = frozenset(map(str, self.store.people.opted_in()))
        write_consent(self.home, Consent(permission=self.permission, opted_in=opted_in))

    def decide(self, decision: Decision) -> None:
        """Note what a member decided; it holds for every training that begins from now on. Raises `OSError`."""
        self.store.people.decide(decision)
        self.mirror()
        if not decision.opted_in:
            make_anew(self.home, self.store)
