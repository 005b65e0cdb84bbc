"""Ids of the personas of a home: shared ones, and those that one guild owns, whose ids end with the
guild's suffix.
"""

from collections.abc import Iterable

from personas.schemas.chat import Persona, fold_name

BASE36_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
GuildPersona = tuple[int, Persona]
"""The id of the guild that owns a persona (0: shared by all guilds), and the persona."""


def guild_suffix(guild_id: int) -> str:
    """Suffix of the ids of a guild's own personas; empty for guild 0, whose personas are shared."""
    digits = ""
    while guild_id:
        guild_id, digit = divmod(guild_id, len(BASE36_DIGITS))
        digits = BASE36_DIGITS[digit] + digits
    return digits and f"-{digits}"


def match_personas(personas: Iterable[GuildPersona], wanted: str) -> list[GuildPersona]:
    """Return the personas that a text names, in any case: the one with this id, else all with this
    name, or with this id without their guild's suffix.
    """
    key = fold_name(wanted)
    alike = []
    for guild_id, persona in personas:
        full_id = fold_name(persona.id)
        if key == full_id:
            return [(guild_id, persona)]
        if key in (full_id.removesuffix(guild_suffix(guild_id)), fold_name(persona.name)):
            alike.append((guild_id, persona))
    return alike
