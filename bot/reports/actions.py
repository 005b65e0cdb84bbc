"""Takes members' reports of replies, and tells moderators.

Moderators learn which reply was reported, and why; not by whom, so that nobody need be afraid to.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from bot.audit.actions import AuditTrail
from bot.personas.registry import PersonaRegistry
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, join_texts
from bot.reports.store import Report
from bot.store import Store, StoredReply

REASONS = {
    "hateful": gettext_lazy("hateful or harassing"),
    "sexual": gettext_lazy("sexual"),
    "violent": gettext_lazy("violent or dangerous"),
    "harmful": gettext_lazy("harmful advice"),
    "private": gettext_lazy("private details of somebody"),
    "false": gettext_lazy("false, and it matters"),
    "other": gettext_lazy("something else"),
}
"""What a member can choose, as it is shown."""
REPORT_DAYS = 30
"""Days after which a report is deleted."""
HOUR_S = 3600.0
MAX_PER_HOUR = 5
"""Reports of a member in a server."""
MAX_NOTE_CHARS = 300


class AlreadyReportedError(RefusedError):
    """The member has reported this reply."""


@dataclass(frozen=True)
class ReplyReports:
    """Stores reports, and posts them in the audit channel of the server, if it has one. `clock`
    returns seconds since 1970.
    """

    store: Store
    audit: AuditTrail
    personas: PersonaRegistry
    clock: Callable[[], float] = time.time

    def require_can_report(self, reply: StoredReply, guild_id: int, user_id: int) -> None:
        """Raise `RefusedError` for a reply of another place, a second report, and too many."""
        if not guild_id or reply.guild_id != guild_id:
            raise RefusedError(
                gettext_lazy(
                    "Replies are reported to the moderators of the server in which they stand."
                ),
                gettext_lazy("In direct messages, there are none."),
            )
        if self.store.reports.has(reply.event_id, user_id):
            raise AlreadyReportedError(
                gettext_lazy("You have reported this reply."), gettext_lazy("Moderators see it.")
            )
        now = self.clock()
        latest = self.store.reports.times_since(guild_id, user_id, now - HOUR_S)
        if len(latest) >= MAX_PER_HOUR:
            until = math.ceil(latest[-MAX_PER_HOUR] + HOUR_S)
            raise RefusedError(
                gettext_lazy(
                    "You have reported {count} replies within an hour.", count=MAX_PER_HOUR
                ),
                gettext_lazy("You can report another one <t:{until}:R>.", until=until),
            )

    def report(
        self,
        reply: StoredReply,
        message_id: int,
        reason: str,
        *,
        guild_id: int,
        user_id: int,
        note: str = "",
    ) -> None:
        """Store a report, and tell moderators. Raises `RefusedError` as `require_can_report`, for a
        reason that is not listed, and for a note that is too long.
        """
        self.require_can_report(reply, guild_id, user_id)
        if reason not in REASONS:
            raise RefusedError(
                gettext_lazy("The report has no reason."), gettext_lazy("Choose one from the list.")
            )
        note = note.strip()
        if len(note) > MAX_NOTE_CHARS:
            raise RefusedError(
                gettext_lazy(
                    "It has {count:,} characters; {most:,} is the most.",
                    count=len(note),
                    most=MAX_NOTE_CHARS,
                ),
                gettext_lazy("Shorten it."),
            )
        report = Report(
            seq=0,
            guild_id=guild_id,
            channel_id=reply.channel_id,
            message_id=message_id,
            event_id=reply.event_id,
            persona_id=reply.persona_id,
            version=reply.adapter_version,
            reason=reason,
            user_id=user_id,
            at=self.clock(),
            note=note,
        )
        seq = self.store.reports.add(report)
        text = gettext_lazy(
            "Report {number} · {version}: {reason}. {link}",
            number=seq,
            version=self.version_text(report),
            reason=REASONS[reason],
            link=reply_link(report),
        )
        if note:  # the audit channel has nothing that somebody wrote
            text = join_texts(text, gettext_lazy("`/moderation reports` has a note on it."))
        self.audit.post(guild_id, text)

    def close(self, guild_id: int, seq: int, by: int) -> int:
        """Remove the reports of the reply that one of them is about, which a moderator has dealt
        with; returns their number. Raises `RefusedError` where there is none.
        """
        count = self.store.reports.remove(guild_id, seq)
        if not count:
            raise RefusedError(
                gettext_lazy("There is no report {seq}.", seq=seq),
                gettext_lazy("`/moderation reports` lists them."),
            )
        self.audit.record(guild_id, by, gettext_lazy("dealt with report {seq}", seq=seq))
        return count

    def version_text(self, report: Report) -> str:
        """Name the persona and the version that wrote the reported reply."""
        name = self.personas.markdown_name_of(report.persona_id, report.guild_id)
        version = report.version or gettext_lazy("base model")
        return gettext_lazy("**{persona}** ({version})", persona=name, version=version)


def reply_link(report: Report) -> str:
    """Return the link to the reported message, which shows no preview."""
    place = f"{report.guild_id}/{report.channel_id}/{report.message_id}"
    return f"https://discord.com/channels/{place}"
