"""Opening a card of any form; the form is recognised from the content, never from the name."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

from personas.card import charx, png
from personas.card.convert import as_version
from personas.card.document import EXPECTED, Card, Json, card_of, parse_json
from personas.card.own import card_of_table, parse_table, persona_of, table_of
from personas.contracts import Persona
from personas.errors import CardError

MAX_FILE_BYTES = 256 * 2**20
JPEG, WEBP = b"\xff\xd8\xff", b"RIFF"
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", JPEG: "a JPEG picture", WEBP: "a WebP picture", b"GIF8": "a GIF"}
CONVERTED = "Cards travel in PNG pictures; many sites convert them and lose the card: get the original file."


def read_any(path: Path) -> Card:
    """Read a card file of any form. Raises `CardError` that names the file, the place and what to do."""
    try:
        if path.is_dir():
            raise CardError(f"{path} is a folder.", "Name one card file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CardError(f"{path} exceeds {MAX_FILE_BYTES // 2**20} MiB.", "No card needs that much.")
        card, table = _parsed(path.read_bytes(), str(path))
        if table and (avatar := table.get("avatar")):
            picture = path.parent / avatar
            card = replace(card, picture=picture.read_bytes() if picture.is_file() else None)
    except FileNotFoundError:
        raise CardError(f"There is no card at {path}.", "Check the path.") from None
    except OSError as error:
        raise CardError(f"The card {path} cannot be read: {error.strerror}.", "Check its rights.") from None
    return card


def parse_card(data: bytes, where: str, most_bytes: int = charx.MAX_UNPACKED_BYTES) -> Card:
    """The card in a file's bytes; `where` names it in errors. A zip may unpack to `most_bytes`. Raises `CardError`."""
    return _parsed(data, where, most_bytes)[0]


def to_persona(card: Card, where: str, persona_id: str = "", avatar: Path | None = None) -> Persona:
    """The persona that a card describes; without an id given it has the card's or one made of its name.

    Raises `CardError` when it cannot speak on Discord.
    """
    table = table_of(as_version(card, 2) if card.version == 1 else card, persona_id)
    return replace(persona_of(table, where), avatar=avatar)


def _parsed(data: bytes, where: str, most_bytes: int = charx.MAX_UNPACKED_BYTES) -> tuple[Card, Json | None]:
    if data.startswith(png.SIGNATURE):
        chunks = png.split(data, where)
        card = card_of(parse_json(png.card_json(chunks, where), f"The card in {where}"), "png", where)
        return replace(card, picture=png.picture(chunks), files=png.assets(chunks, where)), None
    # Some programs put the zip behind a JPEG, so that it shows a face.
    if data.startswith(b"PK") or (data.startswith(JPEG) and zipfile.is_zipfile(io.BytesIO(data))):
        content, files = charx.read(data, where, most_bytes)
        return replace(card_of(parse_json(content, f"{charx.CARD} in {where}"), "charx", where), files=files), None
    if mark := next((mark for mark in MARKS if data.startswith(mark)), None):
        advice = CONVERTED if mark not in (b"\xff\xfe", b"\xfe\xff") else "Save the card as UTF-8."
        raise CardError(f"{where} is {MARKS[mark]}, in which no card is read.", advice)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return card_of(parse_json(data, where), "json", where), None
    if b"=" not in data or b"\0" in data:
        raise CardError(f"{where} is no character card.", EXPECTED)
    table = parse_table(data, where)
    return card_of_table(table, where), table
