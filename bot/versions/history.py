"""Version history of a persona for the moderators of one server: training, promotions, rollbacks."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import shorten

from bot.chat.model_names import version_label
from bot.personas.served_versions import SHIPPED_ORIGIN
from bot.platform.localisation import gettext_lazy, localise
from bot.platform.messages import markdown_name
from bot.store import (
    ALL_GUILDS,
    InstalledVersion,
    Promotion,
    ReplySelection,
    ReplyTally,
    Store,
    TrainingJob,
)
from bot.training.status_text import verdict_name
from personas.schemas.chat import Persona
from personas.schemas.training_events import ScoreSummary

VERSIONS_PER_PAGE = 3
MAX_ENTRY_CHARACTERS = 600
"""Characters about one version: three versions and a title fit into a message."""
MAX_VERDICT_CHARACTERS = 240
"""Share of these for the gate's verdict with its reasons."""


@dataclass(frozen=True)
class VersionHistory:
    """The history that one server may see: the versions that it may use, and what was live
    there.
    """

    store: Store
    persona: Persona
    guild_id: int

    def pages(self) -> list[str]:
        """The newest versions first; at least one page."""
        entries = list(self._entries())
        live = version_label(self.store.versions.live(self.persona.id, self.guild_id))
        count = max(1, math.ceil(len(entries) / VERSIONS_PER_PAGE))
        pages = []
        for number in range(count):
            head = gettext_lazy(
                "**{persona}**: {version} is live. Page {page} of {pages}.",
                persona=markdown_name(self.persona),
                version=live,
                page=number + 1,
                pages=count,
            )
            first = number * VERSIONS_PER_PAGE
            shown = [localise(head), *entries[first : first + VERSIONS_PER_PAGE]]
            pages.append("\n\n".join(shown))
        return pages

    def _entries(self) -> Iterator[str]:
        changes = list(self._changes())
        versions = self.store.versions
        usable = [version.version for version in versions.installed(self.persona.id, self.guild_id)]
        for installed in reversed(versions.ever_installed(self.persona.id)):
            job = self.store.jobs.get(installed.job_id)
            is_here = job is None or job.guild_id in (ALL_GUILDS, self.guild_id)
            if is_here or installed.version in usable:
                head = [*self._origin_lines(installed, job), *self._tally_lines(installed.version)]
                yield self._entry(head, self._event_lines(installed.version, changes))
        if base := [*self._tally_lines(None), *self._event_lines(None, changes)]:
            yield self._entry([gettext_lazy("**the base model**")], base)

    def _entry(self, head: Iterable[str], events: Iterable[str]) -> str:
        heads = [localise(line) for line in head]
        return _entry(heads, [localise(line) for line in events])

    def _changes(self) -> Iterator[Promotion]:
        """The changes of the version that was live here: its own, and those of all servers while it
        had none.
        """
        own: str | None = None
        for_all: str | None = None
        for change in self.store.versions.history(self.persona.id):
            if change.for_guild == ALL_GUILDS:
                for_all = change.version
                if own is None:
                    yield change
            elif change.for_guild == self.guild_id:
                own = change.version
                yield replace(change, version=own or for_all)

    def _origin_lines(self, installed: InstalledVersion, job: TrainingJob | None) -> Iterator[str]:
        line = _origin_text(installed, job)
        if job and job.guild_id == self.guild_id:
            line = gettext_lazy(
                "{version} for {member}", version=line, member=_mention(job.requested_by)
            )
        yield line
        yield from self._score_lines(installed.scorecard)

    def _tally_lines(self, version: str | None) -> Iterator[str]:
        tally = self.store.reply_stats.of(
            ReplySelection(self.persona.id, version, guild_id=self.guild_id)
        )
        if tally.replies:
            yield gettext_lazy("On this server: {counts}", counts=_tally_text(tally))

    def _event_lines(self, version: str | None, changes: list[Promotion]) -> Iterator[str]:
        for start, end in pairwise([*changes, None]):
            if start is not None and start.version == version:
                since = f"<t:{start.at:.0f}:f>"
                reason = self._start_text(start)
                if not end:
                    yield gettext_lazy("Live from {start} ({reason})", start=since, reason=reason)
                    continue
                yield gettext_lazy(
                    "Live from {start} ({reason}) to {end}: {ending}",
                    start=since,
                    reason=reason,
                    end=f"<t:{end.at:.0f}:f>",
                    ending=self._end_text(end),
                )

    def _start_text(self, change: Promotion) -> str:
        if change.why == SHIPPED_ORIGIN:
            return gettext_lazy("shipped with Understudy")
        by = self._by(change)
        return {
            "promotion": gettext_lazy("promoted {by}", by=by),
            "automatic promotion": gettext_lazy(
                "promoted automatically, as its score card was good"
            ),
            "rollback": gettext_lazy("rolled back to {by}", by=by),
            "withdrawal": gettext_lazy("the other was withdrawn"),
        }[change.kind]

    def _end_text(self, change: Promotion) -> str:
        ends: dict[str, str] = {
            "rollback": gettext_lazy("rolled back {by}", by=self._by(change)),
            "withdrawal": gettext_lazy("withdrawn"),
        }
        followed = gettext_lazy("{version} followed", version=version_label(change.version))
        return ends.get(change.kind, followed)

    def _by(self, change: Promotion) -> str:
        if change.guild_id != self.guild_id:
            return gettext_lazy("elsewhere")
        return gettext_lazy("by {member}", member=_mention(change.promoted_by))

    def _score_lines(self, card: ScoreSummary) -> Iterator[str]:
        if card.verdict:
            text = gettext_lazy(
                "Verdict: {verdict}. {reasons}",
                verdict=verdict_name(card.verdict),
                reasons=" ".join(card.reasons),
            )
            whole = localise(text)
            yield shorten(whole, MAX_VERDICT_CHARACTERS, placeholder=" …")
        if card.is_measured:
            yield _loss_text(card)


def _origin_text(installed: InstalledVersion, job: TrainingJob | None) -> str:
    values: dict[str, object] = {
        "version": installed.version,
        "at": f"<t:{installed.installed_at:.0f}:f>",
    }
    if job and job.shipped:
        return gettext_lazy("**{version}** was shipped with Understudy, installed {at}", **values)
    if job and job.dialogue:
        return gettext_lazy(
            "**{version}** is the dialogue adapter `{name}`, installed {at}",
            name=job.dialogue,
            **values,
        )
    if job and job.result and job.result.imported:
        return gettext_lazy("**{version}** was imported {at}", **values)
    return gettext_lazy("**{version}** trained {at}", **values)


def _loss_text(card: ScoreSummary) -> str:
    return gettext_lazy(
        "Held-out loss {base:.3f} → {tuned:.3f} ({change:+.0%}), general {general_base:.3f} → "
        "{general_tuned:.3f}",
        base=card.loss_base,
        tuned=card.loss_tuned,
        change=card.loss_tuned / card.loss_base - 1,
        general_base=card.general_loss_base,
        general_tuned=card.general_loss_tuned,
    )


def _tally_text(tally: ReplyTally) -> str:
    """Counts in a line."""
    return gettext_lazy(
        "{replies} replies · {up} 👍 · {down} 👎 · {interrupted} stopped or regenerated",
        replies=tally.replies,
        up=tally.up,
        down=tally.down,
        interrupted=tally.interrupted,
    )


def _mention(user_id: int) -> str:
    """Mention a member; 0 stands for an erased member, and for the bot itself."""
    return f"<@{user_id}>" if user_id else gettext_lazy("somebody")


def _entry(head: list[str], events: list[str]) -> str:
    """The head, and the latest events that fit, oldest first."""
    room = MAX_ENTRY_CHARACTERS - len("\n".join(head))
    latest = deque[str]()
    for line in reversed(events):
        room -= len(line) + 1
        if room >= 0:
            latest.appendleft(line)
            continue
        if latest:
            latest.appendleft("…")
        else:
            latest.appendleft(shorten(line, max(room + len(line), 1), placeholder=" …"))
        break
    return "\n".join([*head, *latest])
