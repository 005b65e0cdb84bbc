"""Character cards: our own TOML (`read_card`), and V1, V2 and V3 in JSON, PNG and CHARX, read and written."""

from personas.card.convert import FORMS, Form, Written, face, picture_type, with_picture, write
from personas.card.document import Card
from personas.card.files import parse_card, read_any, to_persona
from personas.card.own import ID_PATTERN, MAX_CARD_BYTES, SHIPPED_CARDS, find_persona, read_card, read_cards, slug

__all__ = [
    "FORMS",
    "ID_PATTERN",
    "MAX_CARD_BYTES",
    "SHIPPED_CARDS",
    "Card",
    "Form",
    "Written",
    "face",
    "find_persona",
    "parse_card",
    "picture_type",
    "read_any",
    "read_card",
    "read_cards",
    "slug",
    "to_persona",
    "with_picture",
    "write",
]
