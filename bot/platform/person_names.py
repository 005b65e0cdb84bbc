"""Which names of people identify them in a text, and which are words that it has anyway."""

from personas.lore.semantic import rarity

MIN_NAME_CHARACTERS = 3
"""Shorter names are not searched."""
COMMON_WORD_RARITY = 0.2
"""A name of a lower rarity (`personas.lore.semantic.rarity`) is a common English word."""
ANY_WORD_RARITY = 0.95
"""A name of a lower rarity is an English word."""
MIN_NAME_PART_RARITY = 0.4
"""A part of a name that is more common in English identifies nobody: "Castle" in "Wren Castle"."""
COMMON_NAME_PARTS = frozenset(
    """nguyễn nguyen trần tran phạm pham huỳnh huynh hoàng hoang phan đặng dang bùi bui dương duong anh chị chi bác bac
    ông ong thầy thay cậu mình minh hoa mai lan the von van der den del della dos das bin ibn mac mrs miss sir dame
    lord lady doctor captain""".casefold().split()
)
"""Very common family names, forms of address, Vietnamese words, and particles of names."""


def is_distinctive(name: str) -> bool:
    """Return whether a name identifies a person wherever it occurs."""
    # Digits may be the id of anything.
    if len(name) < MIN_NAME_CHARACTERS or name.isdecimal():
        return False
    if not is_english_word(name):
        return True
    return name[0].isupper() and rarity(name.casefold()) >= COMMON_WORD_RARITY


def is_distinctive_part(word: str) -> bool:
    """Return whether the first or last word of a name identifies a person where it stands alone."""
    letters = word.replace("-", "").replace("'", "").replace("’", "")
    return (
        len(word) >= MIN_NAME_CHARACTERS
        and letters.isalpha()
        and word[0].isupper()
        and word.casefold() not in COMMON_NAME_PARTS
        and rarity(word.casefold()) >= MIN_NAME_PART_RARITY
    )


def is_english_word(name: str) -> bool:
    """Return whether a name is an English word, too."""
    return name.isascii() and name.isalpha() and rarity(name.casefold()) < ANY_WORD_RARITY
