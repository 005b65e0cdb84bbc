"""Replies of measurements and trainings, as members and pages are shown them."""

from bot.platform.localisation import gettext_lazy
from bot.safety.rules import SafetyRules

WITHHELD_NOTE = gettext_lazy("(withheld: it suggests self-harm)")


def suggests_self_harm(asked: str, text: str) -> bool:
    """Report whether a reply to `asked` would be withheld in a channel."""
    return SafetyRules.shipped().reply_check(asked)(text) is not None


def shown_reply(asked: str, text: str) -> str:
    """Return a reply to `asked` as pages show it: a note stands for one that suggests self-harm."""
    return WITHHELD_NOTE if suggests_self_harm(asked, text) else text
