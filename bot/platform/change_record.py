"""How features tell what was changed, without knowing where that is said (`bot.audit`)."""

from collections.abc import Callable

ChangeRecord = Callable[[int, int | None, str], object]
"""Called after a change with the guild (0: all), who made it (a member, 0 for the operator, None for
the bot itself), and what they did, such as "muted Oda", whose language is chosen later: it follows
a name in each.
"""


def no_record(guild_id: int, by: int | None, what: str) -> None:
    """Tell nobody."""
