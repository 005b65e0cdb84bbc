"""Ids of the personas of a home: shared ones, and those that one guild owns, whose ids end with the
guild's suffix.
"""

from collections.abc import Iterable

from personas.schemas.chat import Persona, fold_name, to_nfc

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
    """Return the personas that a text names: the one with this id, else all with this id without
    their guild's suffix, else all with this name; then the same in any case.

    What is typed exactly comes first: "lan" may be the id of Lân, and "Lan" another persona's name.
    """
    text = to_nfc(wanted.strip())
    key = fold_name(text)
    known = list(personas)
    tiers = (
        [(guild, one) for guild, one in known if one.id == text],
        [(guild, one) for guild, one in known if short_id(one, guild) == text],
        [(guild, one) for guild, one in known if to_nfc(one.name) == text],
        [(guild, one) for guild, one in known if fold_name(one.name) == key],
        [(guild, one) for guild, one in known if key in (one.id, short_id(one, guild))],
    )
    return next(filter(None, tiers), [])


def short_id(persona: Persona, guild_id: int) -> str:
    """A persona's id without its guild's suffix, as it is shown and exported."""
    return persona.id.removesuffix(guild_suffix(guild_id))
