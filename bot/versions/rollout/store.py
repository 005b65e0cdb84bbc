"""Rollouts: versions that answer a share of a guild's replies, and promoted versions under
observation.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Literal

from bot.platform.db.database import DatabaseConnection
from bot.platform.localisation import gettext_lazy
from bot.versions.store import Promotion, PromotionKind, Versions, live_version_sql
from personas.errors import RequestError

RolloutEnding = Literal["promoted", "stopped", "worse", "superseded", "withdrawn"]

OBSERVATION_PERIOD_S = 3 * 86_400.0
"""Time for which a promoted version is compared with the one before it, in seconds."""

MIN_TIMESTAMP_S = -1e18
"""Earlier than every other time, in seconds since 1970."""

ACTIVE_ROLLOUT_SQL = f"""(watched_until is null or watched_until > :at)
    and iif(watched_until is null, before, version) is {live_version_sql("rollouts.persona_id", "rollouts.guild_id")}
    and not exists (select 1 from withdrawn
    where withdrawn.persona_id = rollouts.persona_id and withdrawn.version = rollouts.version)"""
"""Condition that the version compared with is still live."""


@dataclass(frozen=True)
class NewRollout:
    """The version to try, the guild and channel of the request, and its author.

    `share` is in percent of the replies; `only_channel` None is the whole guild, threads included.
    """

    persona_id: str
    version: str
    guild_id: int
    channel_id: int
    started_by: int
    share: int
    only_channel: int | None = None


@dataclass(frozen=True)
class Rollout(NewRollout):
    """A version on trial. `before` is the version that it is compared with, None for the base
    model.

    `watched_until` is set for a promoted version, which answers everything in its guild, or (0) in
    all without a live version of their own. Times are in seconds since 1970. `told`: its end was
    announced in its channel.
    """

    seq: int = 0
    before: str | None = None
    started_at: float = 0.0
    watched_until: float | None = None
    ended_at: float | None = None
    ended_by: int = 0
    ending: RolloutEnding | None = None
    why: str = ""
    told: int = 1

    @property
    def is_promoted(self) -> bool:
        """The version is live and under observation."""
        return self.watched_until is not None

    @property
    def is_randomised(self) -> bool:
        """Chance decides which version answers."""
        return self.share < 100

    def draws(self, event_id: int) -> bool:
        """Return whether the new version answers this event: deterministic, and true for `share` %
        of the events.

        Compares the first 64 bits of a SHA-256 of the rollout and the event with the share.
        """
        # Drawn by event, so that members' habits and the time of day affect both versions alike.
        # A restart in the middle of a reply draws the same version again.
        digest = hashlib.sha256(f"{self.seq}:{event_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64 // 100


class Rollouts:
    """The rollouts, and the changes of the live version that start or end them."""

    def __init__(self, connection: DatabaseConnection, versions: Versions) -> None:
        self._db = connection
        self._versions = versions

    # -------------------------------------------------------------------------------------- looking

    def get(self, seq: int) -> Rollout | None:
        """Return the rollout with this number."""
        return self._db.one(Rollout, "select * from rollouts where seq = :seq", seq=seq)

    def running(self, persona_id: str, at: float) -> list[Rollout]:
        """List the active rollouts of a persona, and its promoted version under observation; oldest
        first.
        """
        sql = f"""select * from rollouts where persona_id = :persona and ended_at is null and {ACTIVE_ROLLOUT_SQL}
            order by seq"""
        return self._db.all(Rollout, sql, persona=persona_id, at=at)

    def find_active(self, persona_id: str, guild_id: int, at: float) -> Rollout | None:
        """Return the active rollout of a persona in a guild, except promoted ones."""
        for rollout in self.running(persona_id, at):
            if rollout.guild_id == guild_id and not rollout.is_promoted:
                return rollout
        return None

    def counted_rollout(
        self, persona_id: str, at: float, guild_id: int, channel_id: int, parent_id: int | None
    ) -> int | None:
        """Return the number of the rollout in which a reply in this channel counts, whichever
        version generates it.
        """
        rollout = self.find_active(persona_id, guild_id, at)
        if rollout and rollout.only_channel in (None, channel_id, parent_id):
            return rollout.seq
        return None

    def is_last(self, rollout: Rollout) -> bool:
        """Return whether nothing followed its end: no other rollout, and the version before is
        still live.
        """
        sql = """select seq from rollouts where persona_id = :persona and seq > :seq
            and (guild_id = :guild or guild_id = 0)"""
        later = self._db.first(
            sql, persona=rollout.persona_id, seq=rollout.seq, guild=rollout.guild_id
        )
        return (
            later is None
            and self._versions.live(rollout.persona_id, rollout.guild_id) == rollout.before
        )

    def of_reply(self, event_id: int, at: float) -> Rollout | None:
        """Return the active rollout in which a reply counts."""
        sql = f"""select rollouts.* from rollouts join replies on replies.rollout = rollouts.seq
            where event_id = :event and ended_at is null and {ACTIVE_ROLLOUT_SQL}"""
        return self._db.one(Rollout, sql, event=event_id, at=at)

    def personas(self) -> list[str]:
        """List the personas with an unfinished rollout."""
        sql = "select distinct persona_id from rollouts where ended_at is null order by persona_id"
        return self._db.column(str, sql)

    def of_persona(self, persona_id: str, guild_id: int | None = None) -> list[Rollout]:
        """List the rollouts of a persona in a guild, or (None) in all, oldest first."""
        sql = """select * from rollouts where persona_id = :persona and (:guild is null or guild_id = :guild)
            order by seq"""
        return self._db.all(Rollout, sql, persona=persona_id, guild=guild_id)

    def unannounced(self) -> list[Rollout]:
        """List the rollouts whose end is not announced yet, oldest first."""
        return self._db.all(Rollout, "select * from rollouts where told = 0 order by seq")

    def mark_announced(self, seq: int) -> None:
        """Record that the end was announced, or cannot be announced any more."""
        self._db.write("update rollouts set told = 1 where seq = :seq", seq=seq)

    # ------------------------------------------------------------------------- beginning and ending

    def start(self, new: NewRollout, at: float) -> Rollout:
        """Start a rollout: the version answers a share of a guild's replies.

        Raises `RequestError` when it is not installed, the guild may not use it, it is live there,
        or another rollout of this persona is active there.
        """
        self._versions.require_installed(new.persona_id, new.version, new.guild_id or None)
        live = self._versions.live(new.persona_id, new.guild_id)
        if new.version == live:
            raise RequestError(
                gettext_lazy("{version} answers everything already.", version=new.version),
                gettext_lazy("Name a version that is not live."),
            )
        if running := self.find_active(new.persona_id, new.guild_id, at):
            raise RequestError(
                gettext_lazy("{version} is being rolled out already.", version=running.version),
                gettext_lazy("Stop that with `/finetune rollout stop`, or wait."),
            )
        with self._db.atomic():
            self.end_superseded(new.persona_id, at)
            return self._add(new, live, at, None)

    def end(self, seq: int, ending: RolloutEnding, at: float, by: int = 0, why: str = "") -> bool:
        """End a rollout; the version before answers everything again. False when it had ended
        before.
        """
        # Who stops or promotes a version sees that. Other ends are announced, those of a promoted
        # version only where it was worse.
        sql = """update rollouts set ended_at = :at, ended_by = :by, ending = :ending, why = :why,
            told = not (:ending = 'worse' or :ending in ('superseded', 'withdrawn') and watched_until is null)
            where seq = :seq and ended_at is null"""
        return self._db.write(sql, seq=seq, at=at, by=by, ending=ending, why=why) > 0

    # --------------------------------------------------------------------------------- what is live

    def promote(
        self, new: NewRollout, at: float, *, why: str = "", kind: PromotionKind = "promotion"
    ) -> Promotion | None:
        """Make a version live in a guild, or for all (0), and observe it there. None when it is
        live there already.

        Raises `RequestError` for one that is not installed, or that the guild may not use.
        """
        with self._db.atomic():
            live = self._versions.live(new.persona_id, new.guild_id)
            promotion = self._versions.promote(
                new.persona_id,
                new.version,
                by=new.started_by,
                at=at,
                why=why,
                guild_id=new.guild_id,
                kind=kind,
            )
            if promotion:
                self.end_superseded(new.persona_id, at, new.started_by)
                self._add(
                    replace(new, share=100, only_channel=None), live, at, at + OBSERVATION_PERIOD_S
                )
        return promotion

    def roll_back(self, persona_id: str, by: int, at: float, guild_id: int) -> Promotion:
        """Make the version before live in a guild, or for all (0). Raises `RequestError` when there
        is none.
        """
        with self._db.atomic():
            promotion = self._versions.rollback(persona_id, by, at, guild_id=guild_id)
            self.end_superseded(persona_id, at, by)
        return promotion

    def revert(self, rollout: Rollout, at: float, why: str) -> bool:
        """End a rollout whose version is worse, and roll a promoted version back. False when it had
        ended before.
        """
        with self._db.atomic():
            if not self.end(rollout.seq, "worse", at, why=why):
                return False
            if rollout.is_promoted and self._versions.revert(
                rollout.persona_id,
                rollout.version,
                rollout.guild_id,
                promoted_at=rollout.started_at,
                at=at,
                why=why,
            ):
                self.end_superseded(rollout.persona_id, at)
        return True

    def end_superseded(self, persona_id: str, at: float, by: int = 0) -> None:
        """End the rollouts whose versions are no longer compared: another one went live, or one was
        withdrawn.
        """
        sql = "select * from rollouts where persona_id = :persona and ended_at is null"
        active = {rollout.seq for rollout in self.running(persona_id, MIN_TIMESTAMP_S)}
        for rollout in self._db.all(Rollout, sql, persona=persona_id):
            if rollout.seq not in active:
                self.end(rollout.seq, self._derive_ending(rollout), at, by)

    def _derive_ending(self, rollout: Rollout) -> RolloutEnding:
        if self._versions.is_withdrawn(rollout.persona_id, rollout.version):
            return "withdrawn"
        live = self._versions.live(rollout.persona_id, rollout.guild_id)
        return "promoted" if live == rollout.version else "superseded"

    def _add(self, new: NewRollout, before: str | None, at: float, until: float | None) -> Rollout:
        row = {**asdict(new), "before": before, "started_at": at, "watched_until": until}
        return Rollout(seq=self._db.insert("rollouts", row), **row)
