"""Answering settings in words, for Discord and the dashboard."""

from bot.answering.actions import MAX_CHANCE, EffectiveAnswering
from bot.answering.store import AnsweringSettings
from bot.platform.localisation import gettext_lazy, join_texts

NAMES = {
    "wait_s": gettext_lazy("Wait for further lines"),
    "reply_chance": gettext_lazy("Reply chance"),
    "quiet_hours": gettext_lazy("Quiet hours"),
    "quiet_mentions": gettext_lazy("Silent to mentions in quiet hours"),
}


def effective_lines(answering: EffectiveAnswering, *, is_server: bool = True) -> list[str]:
    """Return a line for each field: its value, and what it means."""
    wait = gettext_lazy("none, each message is answered at once")
    if answering.wait_s:
        wait = gettext_lazy("{seconds:g} s, then one reply answers all", seconds=answering.wait_s)
    lines: list[str] = [_line("wait_s", wait)]
    if not is_server:
        return lines
    chance = gettext_lazy(
        "{chance} % of the messages that are said to nobody", chance=answering.reply_chance
    )
    if answering.reply_chance == MAX_CHANCE:
        chance = gettext_lazy("every message that is said to nobody else")
    lines.append(_line("reply_chance", chance))
    lines.append(_line("quiet_hours", _quiet_hours_text(answering)))
    return lines


def _line(name: str, value: str) -> str:
    return gettext_lazy("{setting}: {value}", setting=NAMES[name], value=value)


def _quiet_hours_text(answering: EffectiveAnswering) -> str:
    if not answering.quiet_hours:
        if answering.quiet_mentions:
            return gettext_lazy("none, in which mentions would be silent, too")
        return gettext_lazy("no hours")
    hours = str(answering.quiet_hours)
    zone = answering.zone.key
    if answering.quiet_mentions:
        return gettext_lazy("{hours} ({zone}), also for mentions", hours=hours, zone=zone)
    return gettext_lazy("{hours} ({zone}), but for mentions and replies", hours=hours, zone=zone)


def settings_text(settings: AnsweringSettings) -> str:
    """List the fields that are set."""
    parts: list[str] = []
    if settings.wait_s is not None:
        parts.append(gettext_lazy("wait {seconds:g} s", seconds=settings.wait_s))
    if settings.reply_chance is not None:
        parts.append(gettext_lazy("reply chance {chance} %", chance=settings.reply_chance))
    if settings.quiet_hours is not None:
        parts.append(gettext_lazy("quiet hours {hours}", hours=settings.quiet_hours))
    if settings.quiet_mentions:
        parts.append(gettext_lazy("mentions silent in quiet hours"))
    elif settings.quiet_mentions is not None:
        parts.append(gettext_lazy("mentions answered in quiet hours"))
    return join_texts(*parts, separator=", ") if parts else gettext_lazy("nothing")
