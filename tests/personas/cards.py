"""Cards for tests: a picture of one pixel, and cards with everything that the formats know, and
more.
"""

from __future__ import annotations

import copy
import json
import zlib

from personas.card.png import PngChunk, join

PIXEL = join(
    [
        PngChunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0])),
        PngChunk(b"pHYs", bytes(9)),
        PngChunk(b"tEXt", b"Software\0a paint program"),
        PngChunk(b"IDAT", zlib.compress(b"\0\x80\x40\x20")),
        PngChunk(b"IEND", b""),
    ]
)
TALK = "<START>\n{{user}}: evening\n{{char}}: Mind the step, {{user}}."
V1 = {
    "name": "Mira",
    "description": "{{char}} keeps the lighthouse.",
    "personality": "dry",
    "scenario": "",
    "first_mes": "You found the stairs.",
    "mes_example": "You: evening\nMira: Mind the step.",
    "metadata": {"tool": "an old one"},
}
V2 = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "create_date": "2025-1-1",
    "data": {
        "name": "Mira",
        "description": "{{char}} keeps the lighthouse.",
        "personality": "dry",
        "scenario": "A stormy night.",
        "first_mes": "You found the stairs, {{user}}.",
        "mes_example": TALK,
        "creator_notes": "NOTES FOR PEOPLE",
        "system_prompt": "{{original}} You are {{char}}.",
        "post_history_instructions": "Stay dry.",
        "alternate_greetings": ["The lamp is out.", ""],
        "character_book": {
            "name": "the light",
            "extensions": {},
            "entries": [
                {
                    "keys": ["lamp"],
                    "content": "@@depth 4\n{{char}} trims the lamp at six.",
                    "extensions": {"a": 1},
                    "enabled": True,
                    "insertion_order": 1,
                },
                {
                    "keys": ["x"],
                    "content": "secret",
                    "enabled": False,
                    "insertion_order": 2,
                    "extensions": {},
                },
            ],
        },
        "tags": ["sea", "night"],
        "creator": "a friend",
        "character_version": "1.1",
        "extensions": {
            "tool/x": {"depth": [1, 2.5, None, True, "\U0001f600 ü \ud800"]},
            "talkativeness": "0.5",
        },
        "unheard_of": [{"so": "far"}],
    },
}


def v3() -> dict:
    """A V3 card with an icon and an emotion."""
    card = copy.deepcopy(V2)
    card |= {"spec": "chara_card_v3", "spec_version": "3.0"}
    card["data"] |= {
        "nickname": "Mi",
        "creator_notes_multilingual": {"de": "HINWEISE"},
        "source": ["https://example.org/mira"],
        "group_only_greetings": ["All of you, mind the step."],
        "creation_date": 1_700_000_000,
        "modification_date": 1_700_000_001,
        "assets": [
            {
                "type": "icon",
                "uri": "embeded://assets/icon/images/main.png",
                "name": "main",
                "ext": "png",
            },
            {
                "type": "emotion",
                "uri": "embeded://assets/emotion/images/joy.webp",
                "name": "joy",
                "ext": "webp",
            },
            {
                "type": "background",
                "uri": "https://example.org/sea.png",
                "name": "main",
                "ext": "png",
            },
        ],
    }
    return card


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


def brought_in(personas, guild_id, card):
    """A new persona of a guild, with the id that its name gives it."""
    full_id = personas.new_id(guild_id, card.name)
    return personas.bring_in(guild_id, card, where="it", full_id=full_id)
