"""Adapter versions of the personas, and which one is live."""

from dataclasses import dataclass
from typing import Any, Literal

from bot.store.database import Table
from personas.errors import RequestError
from personas.schemas.training_events import ScoreSummary


@dataclass(frozen=True)
class InstalledVersion:
    """A version whose verified adapter folder is installed. `installed_at` in seconds since 1970."""

    persona_id: str
    version: str
    job_id: str
    installed_at: float
    scorecard: ScoreSummary


PromotionKind = Literal["promotion", "automatic promotion", "rollback", "automatic rollback", "withdrawal"]


@dataclass(frozen=True)
class Promotion:
    """A change of the live version; a `version` of None is the base model. `at` in seconds since 1970.

    `guild_id` is the guild in which it was decided, 0 for none in particular.
    """

    seq: int
    persona_id: str
    version: str | None
    promoted_by: int
    at: float
    why: str
    previous: int | None
    guild_id: int
    kind: PromotionKind


class Versions(Table):
    """The versions of every persona. The newest promotion alone decides which is live."""

    def reserve(self, name: str) -> str:
        """Reserve the next version ("v1", "v2", …) of a job's name (`TrainingJob.name`); numbers are never reused."""
        sql = """insert into version_numbers values (:name, 1)
            on conflict do update set last = last + 1 returning last"""
        return f"v{self._db.value(int, sql, name=name)}"

    def record_installed(self, version: InstalledVersion) -> None:
        """Record an installed version; idempotent."""
        row = {**vars(version), "scorecard": version.scorecard.model_dump_json()}
        self._db.insert("versions", row, ignore=True)

    def installed(self, persona_id: str) -> list[InstalledVersion]:
        """List the versions of a persona that may be served, oldest first."""
        sql = """select * from versions where persona_id = :persona and not exists (select 1 from withdrawn
            where withdrawn.persona_id = versions.persona_id and withdrawn.version = versions.version)
            order by installed_at, rowid"""
        return self._db.all(_installed, sql, persona=persona_id)

    def ever_installed(self, persona_id: str) -> list[InstalledVersion]:
        """List all versions of a persona, withdrawn ones included, oldest first."""
        sql = "select * from versions where persona_id = :persona order by installed_at, rowid"
        return self._db.all(_installed, sql, persona=persona_id)

    def require_installed(self, persona_id: str, version: str) -> None:
        """Raise `RequestError`, naming the installed versions, when this one is not among them."""
        known = [installed.version for installed in self.installed(persona_id)]
        if version not in known:
            raise RequestError(
                f"{persona_id} has no version {version}.",
                f"Installed: {', '.join(known)}." if known else "Train a version first.",
            )

    def live(self, persona_id: str) -> str | None:
        """Return the live version; None for the base model."""
        newest = self._newest(persona_id)
        return newest.version if newest else None

    def promote(
        self,
        persona_id: str,
        version: str | None,
        by: int,
        at: float,
        why: str = "",
        *,
        guild_id: int = 0,
        kind: PromotionKind = "promotion",
    ) -> Promotion | None:
        """Make a version (None: the base model) live. Returns None when it is live. Raises `RequestError`."""
        if version is not None:
            self.require_installed(persona_id, version)
        newest = self._newest(persona_id)
        if version == (newest.version if newest else None):
            return None  # a second row would make the next rollback a no-op
        target = (version, newest.seq if newest else None)
        return self._add(*target, persona_id=persona_id, promoted_by=by, at=at, why=why, guild_id=guild_id, kind=kind)

    def rollback(
        self, persona_id: str, by: int, at: float, why: str = "", *, guild_id: int = 0, kind: PromotionKind = "rollback"
    ) -> Promotion:
        """Make the version live that the live one replaced; a second rollback goes one version further back.

        Only a promotion brings a rolled-back version back, so a second rollback never returns to what the first one
        left. Raises `RequestError` when there is no earlier version.
        """
        newest = self._to_leave(persona_id)
        return self._go_back(newest, promoted_by=by, at=at, why=why or "rollback", guild_id=guild_id, kind=kind)

    def before(self, persona_id: str) -> str | None:
        """Return the version that a rollback would make live, None for the base model. Raises `RequestError`."""
        earlier = self._earlier(self._to_leave(persona_id))
        return earlier.version if earlier else None

    def withdraw(self, persona_id: str, version: str, at: float, why: str) -> Promotion | None:
        """Withdraw a version for good. Where it is live, the version before it becomes live, else the base model.

        Returns that change, None where the version was not live. Idempotent.
        """
        with self._db.atomic(shared=True):
            self._db.insert("withdrawn", {"persona_id": persona_id, "version": version, "at": at}, ignore=True)
            newest = self._newest(persona_id)
            if newest is None or newest.version != version:
                return None
            return self._go_back(newest, promoted_by=0, at=at, why=why, guild_id=0, kind="withdrawal")

    def all_installed(self) -> list[tuple[str, str, str]]:
        """List persona, version and job of every version that may be served."""
        sql = """select persona_id, version, job_id from versions where not exists (select 1 from withdrawn
            where withdrawn.persona_id = versions.persona_id and withdrawn.version = versions.version)
            order by installed_at, rowid"""
        return [(row["persona_id"], row["version"], row["job_id"]) for row in self._db.read(sql)]

    def withdrawn_at(self, at: float) -> list[tuple[str, str, bool]]:
        """List persona and version of everything withdrawn at exactly this time, and whether it was live until then."""
        sql = """select persona_id, version, exists (select 1 from promotions now join promotions before
            on before.persona_id = now.persona_id and before.seq = (select max(seq) from promotions
            where persona_id = now.persona_id and seq < now.seq) where now.persona_id = withdrawn.persona_id
            and now.at = withdrawn.at and before.version = withdrawn.version) as was_live
            from withdrawn where at = :at order by persona_id, version"""
        return [(row["persona_id"], row["version"], bool(row["was_live"])) for row in self._db.read(sql, at=at)]

    def job_of(self, persona_id: str, version: str) -> str | None:
        """Return the id of the job that trained a version."""
        sql = "select job_id from versions where persona_id = :persona and version = :version"
        return self._db.value(str, sql, persona=persona_id, version=version)

    def is_withdrawn(self, persona_id: str, version: str | None) -> bool:
        """Return whether a version was withdrawn."""
        sql = "select 1 from withdrawn where persona_id = :persona and version = :version"
        return self._db.first(sql, persona=persona_id, version=version) is not None

    def history(self, persona_id: str) -> list[Promotion]:
        """List all promotions and rollbacks of a persona, oldest first."""
        return self._db.all(Promotion, "select * from promotions where persona_id = :id order by seq", id=persona_id)

    def _newest(self, persona_id: str) -> Promotion | None:
        sql = "select * from promotions where persona_id = :id order by seq desc limit 1"
        return self._db.one(Promotion, sql, id=persona_id)

    def _to_leave(self, persona_id: str) -> Promotion:
        """Return the promotion that a rollback undoes. Raises `RequestError` where there is no earlier version."""
        newest = self._newest(persona_id)
        if newest is None or (newest.version is None and newest.previous is None):
            raise RequestError(f"{persona_id} has no earlier version to roll back to.", "Promote a version instead.")
        return newest

    def _earlier(self, newest: Promotion) -> Promotion | None:
        """Return the promotion before, skipping withdrawn versions; None for the base model before any promotion."""
        earlier = self._promotion(newest.previous)
        while earlier and self.is_withdrawn(earlier.persona_id, earlier.version):
            earlier = self._promotion(earlier.previous)
        return earlier

    def _go_back(self, newest: Promotion, **change: Any) -> Promotion:
        """Make the version before live, skipping withdrawn ones."""
        earlier = self._earlier(newest)
        target = (earlier.version, earlier.previous) if earlier else (None, None)
        return self._add(*target, persona_id=newest.persona_id, **change)

    def _promotion(self, seq: int | None) -> Promotion | None:
        return self._db.one(Promotion, "select * from promotions where seq = :seq", seq=seq)

    def _add(self, version: str | None, previous: int | None, **change: Any) -> Promotion:
        row = {**change, "version": version, "previous": previous}
        return Promotion(seq=self._db.insert("promotions", row), **row)


def _installed(scorecard: str, **columns: Any) -> InstalledVersion:
    return InstalledVersion(**columns, scorecard=ScoreSummary.model_validate_json(scorecard))
