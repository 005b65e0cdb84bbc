"""Character cards: TOML cards of this project, and V1, V2 and V3 cards in JSON, PNG and CHARX."""

from personas.card.formats import (
    CARD_FORMS,
    CardExport,
    CardForm,
    card_picture,
    parse_card,
    picture_type,
    read_card_file,
    to_persona,
    with_picture,
    write_card,
)
from personas.card.spec_card import Card
from personas.card.toml_card import ID_PATTERN, MAX_CARD_BYTES, SHIPPED_CARDS, find_persona, read_card, read_cards, slug

__all__ = [
    "CARD_FORMS",
    "ID_PATTERN",
    "MAX_CARD_BYTES",
    "SHIPPED_CARDS",
    "Card",
    "CardExport",
    "CardForm",
    "card_picture",
    "find_persona",
    "parse_card",
    "picture_type",
    "read_card",
    "read_card_file",
    "read_cards",
    "slug",
    "to_persona",
    "with_picture",
    "write_card",
]
