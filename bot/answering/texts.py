"""Answering settings in words, for Discord and the dashboard."""

from bot.answering.actions import MAX_CHANCE, EffectiveAnswering
from bot.answering.store import AnsweringSettings

NAMES = {
    "wait_s": "Wait for further lines",
    "reply_chance": "Reply chance",
    "quiet_hours": "Quiet hours",
    "quiet_mentions": "Silent to mentions in quiet hours",
}


def effective_lines(answering: EffectiveAnswering, *, is_server: bool = True) -> list[str]:
    """Return a line for each field: its value, and what it means."""
    wait = "none, each message is answered at once"
    if answering.wait_s:
        wait = f"{answering.wait_s:g} s, then one reply answers all"
    lines = [f"{NAMES['wait_s']}: {wait}"]
    if not is_server:
        return lines
    chance = f"{answering.reply_chance} % of the messages that are said to nobody"
    if answering.reply_chance == MAX_CHANCE:
        chance = "every message that is said to nobody else"
    lines.append(f"{NAMES['reply_chance']}: {chance}")
    hours = "none"
    if answering.quiet_mentions:
        hours += ", in which mentions would be silent, too"
    if answering.quiet_hours:
        hours = f"{answering.quiet_hours} ({answering.zone.key})"
        hours += (
            ", also for mentions" if answering.quiet_mentions else ", but for mentions and replies"
        )
    lines.append(f"{NAMES['quiet_hours']}: {hours}")
    return lines


def settings_text(settings: AnsweringSettings) -> str:
    """List the fields that are set."""
    parts = []
    if settings.wait_s is not None:
        parts.append(f"wait {settings.wait_s:g} s")
    if settings.reply_chance is not None:
        parts.append(f"reply chance {settings.reply_chance} %")
    if settings.quiet_hours is not None:
        parts.append(f"quiet hours {settings.quiet_hours}")
    if settings.quiet_mentions is not None:
        parts.append(
            f"mentions {'silent' if settings.quiet_mentions else 'answered'} in quiet hours"
        )
    return ", ".join(parts) or "nothing"
