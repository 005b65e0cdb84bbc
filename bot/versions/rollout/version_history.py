"""Version history of a persona for the moderators of one server: training, rollouts, promotions, rollbacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from textwrap import shorten

from bot.store import InstalledVersion, Promotion, ReplySelection, Rollout, Store, TrainingJob
from bot.versions.rollout import rollout_text
from personas.schemas.chat import Persona
from personas.schemas.training_events import ScoreSummary

VERSIONS_PER_PAGE = 3
MAX_ENTRY_CHARACTERS = 600  # characters about one version: three of them and a title fit into a message
MAX_VERDICT_CHARACTERS = 240  # characters for the gate's verdict with its reasons

ENDING_LABELS = {
    "promoted": "promoted",
    "stopped": "stopped",
    "superseded": "another version went live",
    "withdrawn": "withdrawn",
}


@dataclass(frozen=True)
class VersionHistory:
    """Version history that one server may see: its own versions, the operator's, its actions, and others' changes of
    the live version."""

    store: Store
    persona: Persona
    guild_id: int

    def pages(self) -> list[str]:
        """The newest versions first; at least one page."""
        entries = list(self._entries())
        pages = [entries[at : at + VERSIONS_PER_PAGE] for at in range(0, len(entries), VERSIONS_PER_PAGE)] or [[]]
        live = rollout_text.version_label(self.store.versions.live(self.persona.id))
        return [
            "\n\n".join([f"**{self.persona.name}**: {live} speaks. Page {number} of {len(pages)}.", *page])
            for number, page in enumerate(pages, 1)
        ]

    def _entries(self) -> Iterator[str]:
        rollouts = self.store.rollouts.of_persona(self.persona.id, self.guild_id)
        changes = self.store.versions.history(self.persona.id)
        for made in reversed(self.store.versions.ever_installed(self.persona.id)):
            job = self.store.jobs.get(made.job_id)
            if job is None or job.guild_id in (0, self.guild_id):
                tried = [rollout for rollout in rollouts if rollout.version == made.version]
                head = [*self._made(made, job), *self._heard(made.version)]
                yield _entry(head, [*self._fate(made.version, changes, tried)])
        if base := [*self._heard(None), *self._fate(None, changes, [])]:
            yield _entry(["**the base model**"], base)

    def _made(self, made: InstalledVersion, job: TrainingJob | None) -> Iterator[str]:
        imported = job is not None and job.result is not None and job.result.imported
        asked = f" for {_mention(job.requested_by)}" if job and job.guild_id == self.guild_id else ""
        yield f"**{made.version}** {'came in a card' if imported else 'trained'} <t:{made.installed_at:.0f}:f>{asked}"
        yield from _score_lines(made.scorecard)

    def _heard(self, version: str | None) -> Iterator[str]:
        tally = self.store.reply_stats.of(ReplySelection(self.persona.id, version, guild_id=self.guild_id))
        if tally.replies:
            yield f"Here: {rollout_text.tally_text(tally)}"

    def _fate(self, version: str | None, changes: list[Promotion], tried: list[Rollout]) -> Iterator[str]:
        for rollout in tried:
            if not rollout.is_promoted:
                yield _rollout_line(rollout)
        for began, after in pairwise([*changes, None]):
            if began is not None and began.version == version:
                yield self._live(began, after)

    def _live(self, began: Promotion, after: Promotion | None) -> str:
        until = f" to <t:{after.at:.0f}:f>: {self._ended(after)}" if after else ""
        return f"Live from <t:{began.at:.0f}:f> ({self._began(began)}){until}"

    def _began(self, change: Promotion) -> str:
        return {
            "promotion": f"promoted {self._by(change)}",
            "automatic promotion": "promoted by itself, as its score card was good",
            "rollback": f"rolled back to {self._by(change)}",
            "automatic rollback": "rolled back to by itself",
            "withdrawal": "the other was withdrawn",
        }[change.kind]

    def _ended(self, change: Promotion) -> str:
        ends = {
            "rollback": f"rolled back {self._by(change)}",
            "automatic rollback": _rollback_reason(change.why if change.guild_id == self.guild_id else ""),
            "withdrawal": "withdrawn",
        }
        return ends.get(change.kind, f"{rollout_text.version_label(change.version)} followed")

    def _by(self, change: Promotion) -> str:
        return f"by {_mention(change.promoted_by)}" if change.guild_id == self.guild_id else "elsewhere"


def _score_lines(card: ScoreSummary) -> Iterator[str]:
    if card.verdict:
        yield shorten(f"Verdict: {card.verdict}. {' '.join(card.reasons)}", MAX_VERDICT_CHARACTERS, placeholder=" …")
    yield (
        f"Held-out loss {card.loss_base:.3f} → {card.loss_tuned:.3f} "
        f"({card.loss_tuned / card.loss_base - 1:+.0%}), general {card.general_loss_base:.3f} → "
        f"{card.general_loss_tuned:.3f}"
    )


def _rollout_line(rollout: Rollout) -> str:
    begun = (
        f"Made {rollout_text.share_text(rollout)} from <t:{rollout.started_at:.0f}:f> "
        f"(by {_mention(rollout.started_by)})"
    )
    if rollout.ended_at is None or rollout.ending is None:
        return begun
    by = f" by {_mention(rollout.ended_by)}" if rollout.ending == "stopped" else ""
    how = ENDING_LABELS.get(rollout.ending, _rollback_reason(rollout.why))
    return f"{begun} to <t:{rollout.ended_at:.0f}:f>: {how}{by}"


def _rollback_reason(why: str) -> str:
    return f"taken back by itself, {why}" if why else "taken back by itself"


def _mention(user_id: int) -> str:
    """A member; 0 stands for whoever was forgotten, and for the bot's own doing."""
    return f"<@{user_id}>" if user_id else "somebody"


def _entry(head: list[str], happened: list[str]) -> str:
    """The head, and of what happened, the oldest first, the latest that fit."""
    room, kept = MAX_ENTRY_CHARACTERS - len("\n".join(head)), deque[str]()
    for line in reversed(happened):
        room -= len(line) + 1
        if room < 0:
            kept.appendleft("…" if kept else shorten(line, max(room + len(line), 1), placeholder=" …"))
            break
        kept.appendleft(line)
    return "\n".join([*head, *kept])
