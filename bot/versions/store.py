"""Adapter versions of the personas, and which one is live in a guild."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from bot.guilds.store.guilds import ALL_GUILDS
from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.localisation import gettext_lazy
from personas.errors import RequestError
from personas.home.persona_ids import guild_suffix
from personas.schemas.chat import CardChoice
from personas.schemas.training_events import ScoreSummary


@dataclass(frozen=True)
class InstalledVersion:
    """A version whose verified adapter folder is installed. `installed_at` in seconds since
    1970. `card` is the one of its prompts.
    """

    persona_id: str
    version: str
    job_id: str
    installed_at: float
    scorecard: ScoreSummary
    card: CardChoice = "full"


PromotionKind = Literal["promotion", "automatic promotion", "rollback", "withdrawal"]


@dataclass(frozen=True)
class Promotion:
    """A change of the live version; a `version` of None is the base model. `at` in seconds since
    1970.

    `guild_id` is the guild in which it was decided, 0 for none in particular; `for_guild` the one
    in which the version went live, 0 for all guilds without a live version of their own. In a
    guild, a `version` of None is theirs again.
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
    for_guild: int


NOT_WITHDRAWN = """not exists (select 1 from withdrawn where withdrawn.persona_id = versions.persona_id
    and withdrawn.version = versions.version)"""
"""SQL condition of versions that may be served."""
UNDECIDED = f"""{NOT_WITHDRAWN} and not exists (select 1 from versions as newer
    where newer.persona_id = versions.persona_id and {NOT_WITHDRAWN.replace("versions.", "newer.")}
    and (newer.installed_at, newer.rowid) > (versions.installed_at, versions.rowid))
    and not exists (select 1 from promotions where promotions.persona_id = versions.persona_id
    and promotions.version = versions.version)
    and json_extract(scorecard, '$.verdict') in ('promote', 'hold')"""
"""The newest version of a persona, which was never promoted and which the gate does not reject."""


def live_version_sql(persona: str, guild: str) -> str:
    """SQL expression of the version that is live in a guild; both arguments are expressions,
    too.
    """
    newest = f"select version from promotions where persona_id = {persona} and for_guild"
    return f"""coalesce(({newest} = {guild} order by seq desc limit 1),
        ({newest} = {ALL_GUILDS} order by seq desc limit 1))"""


class Versions(Table):
    """The versions of every persona. A guild's newest promotion decides which is live there, else
    the operator's.

    A persona that one guild owns has no other: the promotions of that guild are those of all
    guilds.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        super().__init__(connection)
        self.imports: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By guild, held while a version is imported: no two take the same room."""

    def reserve(self, name: str) -> str:
        """Reserve the next version ("v1", "v2", …) of a job's name (`TrainingJob.name`); numbers
        are never reused.
        """
        sql = """insert into version_numbers values (:name, 1)
            on conflict do update set last = last + 1 returning last"""
        return f"v{self._db.value(int, sql, name=name)}"

    def record_installed(self, version: InstalledVersion) -> None:
        """Record an installed version; idempotent."""
        row = {**vars(version), "scorecard": version.scorecard.model_dump_json()}
        self._db.insert("versions", row, ignore=True)

    def replace_scorecard(self, persona_id: str, version: str, scorecard: ScoreSummary) -> None:
        """Replace the score card of an installed version by the completed one."""
        sql = """update versions set scorecard = :scorecard
            where persona_id = :persona and version = :version"""
        self._db.write(
            sql, scorecard=scorecard.model_dump_json(), persona=persona_id, version=version
        )

    def card_of(self, persona_id: str, version: str) -> CardChoice:
        """Return the card of a version's prompts."""
        sql = "select card from versions where persona_id = :persona and version = :version"
        card = self._db.value(str, sql, persona=persona_id, version=version)
        return "short" if card == "short" else "full"

    def set_card(self, persona_id: str, version: str, card: CardChoice) -> bool:
        """Set the card of a version's prompts. Returns False when it has that one already."""
        sql = """update versions set card = :card
            where persona_id = :persona and version = :version and card <> :card"""
        return self._db.write(sql, card=card, persona=persona_id, version=version) > 0

    def installed(self, persona_id: str, guild_id: int | None = None) -> list[InstalledVersion]:
        """List the versions of a persona that may be served, oldest first: all, or those that a
        guild may use.

        That is those of its own and the operator's jobs, and those that were live for all guilds.
        """
        sql = f"""select * from versions where persona_id = :persona and {NOT_WITHDRAWN}
            and (:guild is null or exists (select 1 from jobs
            where jobs.job_id = versions.job_id and jobs.guild_id in (:all_guilds, :guild))
            or exists (select 1 from promotions where promotions.persona_id = versions.persona_id
            and promotions.version = versions.version and for_guild = :all_guilds))
            order by installed_at, rowid"""
        return self._db.all(
            _installed, sql, persona=persona_id, guild=guild_id, all_guilds=ALL_GUILDS
        )

    def ever_installed(self, persona_id: str) -> list[InstalledVersion]:
        """List all versions of a persona, withdrawn ones included, oldest first."""
        sql = "select * from versions where persona_id = :persona order by installed_at, rowid"
        return self._db.all(_installed, sql, persona=persona_id)

    def persona_ids(self) -> frozenset[str]:
        """Return the ids of the personas that have, or had, a version."""
        return frozenset(self._db.column(str, "select distinct persona_id from versions"))

    def require_installed(self, persona_id: str, version: str, guild_id: int | None = None) -> None:
        """Raise `RequestError`, naming the installed versions (of a guild), when this one is not
        among them.
        """
        usable = [installed.version for installed in self.installed(persona_id, guild_id)]
        if version in usable:
            return
        names = gettext_lazy("Train a version first.")
        if usable:
            names = gettext_lazy("Installed: {versions}.", versions=", ".join(usable))
        if version in [installed.version for installed in self.installed(persona_id)]:
            raise RequestError(
                gettext_lazy(
                    "{version} of {persona_id} was trained by another server and is used there "
                    "only.",
                    version=version,
                    persona_id=persona_id,
                ),
                gettext_lazy(
                    "The bot's operator can make it live for all servers. {names}", names=names
                ),
            )
        raise RequestError(
            gettext_lazy(
                "{persona_id} has no version {version}.", persona_id=persona_id, version=version
            ),
            names,
        )

    def live(self, persona_id: str, guild_id: int) -> str | None:
        """Return the version that is live in a guild (0: in all without one of their own); None for
        the base model.
        """
        sql = f"select {live_version_sql(':persona', ':guild')}"
        return self._db.value(str, sql, persona=persona_id, guild=guild_id)

    def live_by_guild(self, persona_id: str) -> dict[int, str]:
        """Return the guilds with a live version of their own, and these versions."""
        sql = """select for_guild, version from promotions where seq in (select max(seq) from promotions
            where persona_id = :persona and for_guild <> :all_guilds group by for_guild) and version is not null
            order by for_guild"""
        rows = self._db.read(sql, persona=persona_id, all_guilds=ALL_GUILDS)
        return {row["for_guild"]: row["version"] for row in rows}

    def all_live(self) -> list[tuple[str, str]]:
        """List persona and version of everything that is live in any guild."""
        sql = """select persona_id, version from promotions where version is not null
            and seq in (select max(seq) from promotions group by persona_id, for_guild)
            group by persona_id, version order by persona_id, max(seq)"""
        return [(row["persona_id"], row["version"]) for row in self._db.read(sql)]

    def live_anywhere(self, persona_id: str) -> set[str]:
        """Return the versions of a persona that are live in any guild."""
        sql = """select version from promotions where version is not null and seq in
            (select max(seq) from promotions where persona_id = :persona group by for_guild)"""
        return set(self._db.column(str, sql, persona=persona_id))

    def personas(self) -> list[str]:
        """List the ids of all personas with versions that may be served."""
        sql = f"select distinct persona_id from versions where {NOT_WITHDRAWN} order by persona_id"
        return self._db.column(str, sql)

    def live_for_all(self) -> dict[str, str]:
        """Return what `live` does for guild 0, of every persona with a live version, in one
        query.
        """
        sql = """select persona_id, version from promotions where version is not null and seq in
            (select max(seq) from promotions where for_guild = :all_guilds group by persona_id)"""
        return {
            row["persona_id"]: row["version"] for row in self._db.read(sql, all_guilds=ALL_GUILDS)
        }

    def installed_by_persona(self) -> dict[str, list[tuple[str, float]]]:
        """Return the versions that may be served, with the time of their installation, oldest
        first, by persona.
        """
        sql = f"""select persona_id, version, installed_at from versions where {NOT_WITHDRAWN}
            order by installed_at, rowid"""
        versions: dict[str, list[tuple[str, float]]] = {}
        for row in self._db.read(sql):
            versions.setdefault(row["persona_id"], []).append((row["version"], row["installed_at"]))
        return versions

    def undecided(self, persona_id: str) -> InstalledVersion | None:
        """Return the newest version of a persona if it was never promoted and the gate does not
        reject it.
        """
        sql = f"select * from versions where persona_id = :persona and {UNDECIDED}"
        return self._db.one(_installed, sql, persona=persona_id)

    def undecided_personas(self) -> list[str]:
        """List the personas that have such a version, that of the oldest first."""
        sql = f"select persona_id from versions where {UNDECIDED} order by installed_at, rowid"
        return [row["persona_id"] for row in self._db.read(sql)]

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
        """Make a version (None: the base model) live in a guild, or for all (0). Returns None when
        it is live there.

        Raises `RequestError` for one that is not installed, or that the guild may not use.
        """
        if version is not None:
            self.require_installed(persona_id, version, guild_id or None)
        with self._db.atomic():
            if version == self.live(persona_id, guild_id):
                return None  # a second row would make the next rollback a no-op
            for_guild = _scope(persona_id, guild_id)
            newest = self._newest(persona_id, for_guild)
            change = {
                "persona_id": persona_id,
                "promoted_by": by,
                "at": at,
                "why": why,
                "guild_id": guild_id,
            }
            return self._add(
                version, newest.seq if newest else None, **change, kind=kind, for_guild=for_guild
            )

    def rollback(
        self,
        persona_id: str,
        by: int,
        at: float,
        why: str = "",
        *,
        guild_id: int = 0,
    ) -> Promotion:
        """Make the version live that the live one replaced; a second rollback goes one version
        further back.

        A guild goes back through its own promotions, then to the live version of all guilds. Only a
        promotion brings a rolled-back version back, so a second rollback never returns to what the
        first one left. Raises `RequestError` when there is no earlier version.
        """
        change = {"promoted_by": by, "at": at, "why": why or "rollback", "guild_id": guild_id}
        with self._db.atomic():
            newest = self._to_leave(persona_id, guild_id)
            return self._go_back(newest, kind="rollback", **change)

    def before(self, persona_id: str) -> str | None:
        """Return the version that a rollback for all guilds would make live, None for the base
        model.

        Raises `RequestError` where there is none.
        """
        earlier = self._earlier(self._to_leave(persona_id, ALL_GUILDS))
        return earlier.version if earlier else None

    def withdraw(self, persona_id: str, version: str, at: float, why: str) -> list[Promotion]:
        """Withdraw a version for good. Wherever it is live, the version before it becomes live,
        else the base model.

        Returns these changes: none where the version was not live. Idempotent.
        """
        with self._db.atomic():
            self._db.insert(
                "withdrawn", {"persona_id": persona_id, "version": version, "at": at}, ignore=True
            )
            scopes = [ALL_GUILDS, *self.live_by_guild(persona_id)]
            change = {"promoted_by": 0, "at": at, "why": why, "kind": "withdrawal"}
            changes = []
            for scope in scopes:
                newest = self._newest(persona_id, scope)
                if newest and newest.version == version:
                    changes.append(self._go_back(newest, guild_id=newest.for_guild, **change))
            return changes

    def all_installed(self) -> list[tuple[str, str, str]]:
        """List persona, version and job of every version that may be served."""
        sql = (
            f"select persona_id, version, job_id from versions where {NOT_WITHDRAWN} order by "
            "installed_at, rowid"
        )
        return [(row["persona_id"], row["version"], row["job_id"]) for row in self._db.read(sql)]

    def withdrawn_at(self, at: float) -> list[tuple[str, str]]:
        """List persona and version of everything withdrawn at exactly this time."""
        sql = (
            "select persona_id, version from withdrawn where at = :at order by persona_id, version"
        )
        return [(row["persona_id"], row["version"]) for row in self._db.read(sql, at=at)]

    def live_until_withdrawn(self, persona_id: str, version: str) -> list[int]:
        """List the guilds (0: all without one of their own) in which a version was live when it was
        withdrawn.
        """
        sql = """select now.for_guild from promotions now join promotions before on before.seq = (select max(seq)
            from promotions where persona_id = now.persona_id and for_guild = now.for_guild and seq < now.seq)
            where now.persona_id = :persona and now.kind = 'withdrawal' and before.version = :version
            order by now.for_guild"""
        return self._db.column(int, sql, persona=persona_id, version=version)

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
        return self._db.all(
            Promotion, "select * from promotions where persona_id = :id order by seq", id=persona_id
        )

    def _newest(self, persona_id: str, for_guild: int) -> Promotion | None:
        sql = (
            "select * from promotions where persona_id = :id and for_guild = :guild order by seq "
            "desc limit 1"
        )
        return self._db.one(Promotion, sql, id=persona_id, guild=for_guild)

    def _to_leave(self, persona_id: str, guild_id: int) -> Promotion:
        """Return the promotion that a rollback undoes. Raises `RequestError` where there is no
        earlier version.
        """
        newest = self._newest(persona_id, _scope(persona_id, guild_id))
        if newest is None or (newest.version is None and newest.previous is None):
            raise RequestError(
                gettext_lazy(
                    "{persona_id} has no earlier version to roll back to.", persona_id=persona_id
                ),
                gettext_lazy("Promote a version instead."),
            )
        return newest

    def _earlier(self, newest: Promotion) -> Promotion | None:
        """Return the promotion before, skipping withdrawn versions; None for the base model before
        any promotion.
        """
        earlier = self._promotion(newest.previous)
        while earlier and self.is_withdrawn(earlier.persona_id, earlier.version):
            earlier = self._promotion(earlier.previous)
        return earlier

    def _go_back(self, newest: Promotion, **change: Any) -> Promotion:
        """Make the version before live, skipping withdrawn ones."""
        earlier = self._earlier(newest)
        target = (earlier.version, earlier.previous) if earlier else (None, None)
        return self._add(
            *target, persona_id=newest.persona_id, for_guild=newest.for_guild, **change
        )

    def _promotion(self, seq: int | None) -> Promotion | None:
        return self._db.one(Promotion, "select * from promotions where seq = :seq", seq=seq)

    def _add(self, version: str | None, previous: int | None, **change: Any) -> Promotion:
        row = {**change, "version": version, "previous": previous}
        return Promotion(seq=self._db.insert("promotions", row), **row)


# A promotion counts in its guild alone. Otherwise the moderator of one guild would decide what the
# members of others hear, and a version trained on a guild's messages could repeat them elsewhere.
def _scope(persona_id: str, guild_id: int) -> int:
    """The guild in which a promotion counts: nobody else has the personas that a guild owns."""
    if persona_id.endswith(guild_suffix(guild_id)):
        return ALL_GUILDS
    return guild_id


def _installed(scorecard: str, **columns: Any) -> InstalledVersion:
    return InstalledVersion(**columns, scorecard=ScoreSummary.model_validate_json(scorecard))
