"""Version history of a persona for the moderators of one server: training, rollouts, promotions,
rollbacks.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import shorten

from bot.chat.model_names import version_label
from bot.personas.served_versions import SHIPPED_ORIGIN
from bot.store import (
    ALL_GUILDS,
    InstalledVersion,
    Promotion,
    ReplySelection,
    Rollout,
    Store,
    TrainingJob,
)
from bot.versions.rollout import report as rollout_report
from personas.schemas.chat import Persona
from personas.schemas.training_events import ScoreSummary

VERSIONS_PER_PAGE = 3
MAX_ENTRY_CHARACTERS = 600
"""Characters about one version: three versions and a title fit into a message."""
MAX_VERDICT_CHARACTERS = 240
"""Share of these for the gate's verdict with its reasons."""

ENDING_LABELS = {
    "promoted": "promoted",
    "stopped": "stopped",
    "superseded": "another version went live",
    "withdrawn": "withdrawn",
}


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
            head = f"**{self.persona.name}**: {live} is live. Page {number + 1} of {count}."
            first = number * VERSIONS_PER_PAGE
            pages.append("\n\n".join([head, *entries[first : first + VERSIONS_PER_PAGE]]))
        return pages

    def _entries(self) -> Iterator[str]:
        rollouts = self.store.rollouts.of_persona(self.persona.id, self.guild_id)
        changes = list(self._changes())
        versions = self.store.versions
        usable = [version.version for version in versions.installed(self.persona.id, self.guild_id)]
        for installed in reversed(versions.ever_installed(self.persona.id)):
            job = self.store.jobs.get(installed.job_id)
            is_here = job is None or job.guild_id in (ALL_GUILDS, self.guild_id)
            if is_here or installed.version in usable:
                trials = [rollout for rollout in rollouts if rollout.version == installed.version]
                head = [*self._origin_lines(installed, job), *self._tally_lines(installed.version)]
                yield _entry(head, list(self._event_lines(installed.version, changes, trials)))
        if base := [*self._tally_lines(None), *self._event_lines(None, changes, [])]:
            yield _entry(["**the base model**"], base)

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
        origin = "was imported" if job and job.result and job.result.imported else "trained"
        if job and job.dialogue:
            origin = f"is the dialogue adapter `{job.dialogue}`, installed"
        if job and job.shipped:
            origin = f"was {SHIPPED_ORIGIN}, installed"
        author = (
            f" for {_mention(job.requested_by)}" if job and job.guild_id == self.guild_id else ""
        )
        yield f"**{installed.version}** {origin} <t:{installed.installed_at:.0f}:f>{author}"
        yield from _score_lines(installed.scorecard)

    def _tally_lines(self, version: str | None) -> Iterator[str]:
        tally = self.store.reply_stats.of(
            ReplySelection(self.persona.id, version, guild_id=self.guild_id)
        )
        if tally.replies:
            yield f"On this server: {rollout_report.tally_text(tally)}"

    def _event_lines(
        self, version: str | None, changes: list[Promotion], trials: list[Rollout]
    ) -> Iterator[str]:
        for rollout in trials:
            if not rollout.is_promoted:
                yield _rollout_line(rollout)
        for start, end in pairwise([*changes, None]):
            if start is not None and start.version == version:
                until = ""
                if end:
                    until = f" to <t:{end.at:.0f}:f>: {self._end_text(end)}"
                yield f"Live from <t:{start.at:.0f}:f> ({self._start_text(start)}){until}"

    def _start_text(self, change: Promotion) -> str:
        if change.why == SHIPPED_ORIGIN:
            return SHIPPED_ORIGIN
        return {
            "promotion": f"promoted {self._by(change)}",
            "automatic promotion": "promoted automatically, as its score card was good",
            "rollback": f"rolled back to {self._by(change)}",
            "automatic rollback": "rolled back to automatically",
            "withdrawal": "the other was withdrawn",
        }[change.kind]

    def _end_text(self, change: Promotion) -> str:
        # The reason has numbers of votes, which only the guild itself may see.
        why = ""
        if change.guild_id == self.guild_id:
            why = change.why
        ends = {
            "rollback": f"rolled back {self._by(change)}",
            "automatic rollback": _rollback_reason(why),
            "withdrawal": "withdrawn",
        }
        return ends.get(change.kind, f"{version_label(change.version)} followed")

    def _by(self, change: Promotion) -> str:
        if change.guild_id != self.guild_id:
            return "elsewhere"
        return f"by {_mention(change.promoted_by)}"


def _score_lines(card: ScoreSummary) -> Iterator[str]:
    if card.verdict:
        yield shorten(
            f"Verdict: {card.verdict}. {' '.join(card.reasons)}",
            MAX_VERDICT_CHARACTERS,
            placeholder=" …",
        )
    if card.is_measured:
        yield _loss_text(card)


def _loss_text(card: ScoreSummary) -> str:
    return (
        f"Held-out loss {card.loss_base:.3f} → {card.loss_tuned:.3f} "
        f"({card.loss_tuned / card.loss_base - 1:+.0%}), general {card.general_loss_base:.3f} → "
        f"{card.general_loss_tuned:.3f}"
    )


def _rollout_line(rollout: Rollout) -> str:
    start = f"<t:{rollout.started_at:.0f}:f> (by {_mention(rollout.started_by)})"
    line = f"Made {rollout_report.share_text(rollout)} from {start}"
    if rollout.ended_at is None or rollout.ending is None:
        return line
    by = ""
    if rollout.ending == "stopped":
        by = f" by {_mention(rollout.ended_by)}"
    ending = ENDING_LABELS.get(rollout.ending, _rollback_reason(rollout.why))
    return f"{line} to <t:{rollout.ended_at:.0f}:f>: {ending}{by}"


def _rollback_reason(why: str) -> str:
    if why:
        return f"rolled back automatically, {why}"
    return "rolled back automatically"


def _mention(user_id: int) -> str:
    """Mention a member; 0 stands for an erased member, and for the bot itself."""
    return f"<@{user_id}>" if user_id else "somebody"


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
