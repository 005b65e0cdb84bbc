"""Replies of measurements and trainings, as members and pages are shown them."""

from bot.platform.localisation import gettext_lazy
from bot.safety.rules import SafetyRules

WITHHELD_NOTE = gettext_lazy("(withheld: it may suggest self-harm)")


def is_withheld(asked: str, text: str) -> bool:
    """Report whether a reply to `asked` would be withheld in a channel."""
    rules = SafetyRules.shipped()
    return bool(rules.find_asked_means(asked) or rules.find_in_reply(text))


def shown_reply(asked: str, text: str) -> str:
    """Return a reply to `asked` as pages show it: a note stands for one that is withheld."""
    return WITHHELD_NOTE if is_withheld(asked, text) else text
