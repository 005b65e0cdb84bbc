"""Reads card files of any format (TOML, JSON, YAML, PNG, CHARX)."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

from personas.card import charx, png
from personas.card.other_spellings import looks_like_yaml, parse_yaml
from personas.card.spec_card import (
    EXPECTED_FORMAT_ADVICE,
    V1_TEXT_FIELDS,
    Card,
    JsonObject,
    parse_document,
    parse_json,
)
from personas.card.toml_card import avatar_path, card_from_table, parse_table
from personas.errors import CardError
from personas.schemas.import_report import ImportItem, not_taken, other_meaning

CONTENT_FIELDS = (*V1_TEXT_FIELDS, "system_prompt")
MAX_FILE_BYTES = 256 * 2**20
JPEG_SIGNATURE = b"\xff\xd8\xff"
WEBP_SIGNATURE = b"RIFF"
UTF_16_SIGNATURES = (b"\xff\xfe", b"\xfe\xff")
FOREIGN_SIGNATURES = {
    **dict.fromkeys(UTF_16_SIGNATURES, "UTF-16"),
    JPEG_SIGNATURE: "a JPEG picture",
    WEBP_SIGNATURE: "a WebP picture",
    b"GIF8": "a GIF",
}
CONVERTED_PICTURE_ADVICE = (
    "Cards are stored in PNG pictures; many sites convert them and lose the card: get the original "
    "file."
)


def read_card_file(path: Path) -> Card:
    """Read a card file of any format. Raises `CardError` with the file, the position and advice."""
    try:
        if path.is_dir():
            raise CardError(f"{path} is a folder.", "Name one card file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CardError(
                f"{path} exceeds {MAX_FILE_BYTES // 2**20} MiB.", "Cards are never that large."
            )
        card, table = _parse_container(path.read_bytes(), str(path))
        if table and (avatar := table.get("avatar")):
            picture = avatar_path(path.parent, str(avatar), path)
            card = replace(card, picture=picture.read_bytes() if picture.is_file() else None)
    except FileNotFoundError:
        raise CardError(f"There is no card at {path}.", "Check the path.") from None
    except OSError as error:
        raise CardError(
            f"The card {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None
    return card


def parse_card(data: bytes, where: str, max_bytes: int = charx.MAX_UNPACKED_BYTES) -> Card:
    """Parse a card file; `where` names it in errors. Its assets may unpack to `max_bytes`. Raises
    `CardError`.
    """
    return _parse_container(data, where, max_bytes)[0]


def _parse_container(
    data: bytes, where: str, max_bytes: int = charx.MAX_UNPACKED_BYTES
) -> tuple[Card, JsonObject | None]:
    if data.startswith(png.SIGNATURE):
        return _parse_picture(data, where, max_bytes), None
    # Some programs prepend a JPEG to the zip, so that it shows a picture.
    is_zip = data.startswith(b"PK")
    if data.startswith(JPEG_SIGNATURE):
        is_zip = zipfile.is_zipfile(io.BytesIO(data))
    if is_zip:
        content, files = charx.read(data, where, max_bytes)
        card = parse_document(parse_json(content, f"{charx.CARD_ENTRY} in {where}"), "charx", where)
        return replace(card, files=files), None
    for signature, kind in FOREIGN_SIGNATURES.items():
        if data.startswith(signature):
            advice = CONVERTED_PICTURE_ADVICE
            if signature in UTF_16_SIGNATURES:
                advice = "Save the card as UTF-8."
            raise CardError(f"{where} is {kind}; cards are not read from these.", advice)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return parse_document(parse_json(data, where), "json", where), None
    if looks_like_yaml(data):
        return parse_document(parse_yaml(data, where), "yaml", where), None
    if b"=" not in data or b"\0" in data:
        raise CardError(f"{where} is not a character card.", EXPECTED_FORMAT_ADVICE)
    table = parse_table(data, where)
    return card_from_table(table, where), table


def _parse_picture(data: bytes, where: str, max_bytes: int) -> Card:
    """Parse the first readable card of a picture that says something; what is not readable becomes
    a remark.
    """
    chunks = png.split(data, where)
    faults: list[CardError] = []
    empty: Card | None = None
    remarks: list[ImportItem] = []
    for chunk in png.card_chunks(chunks):
        try:
            document = parse_json(png.card_json(chunk, where), f"The card in {where}")
            card = parse_document(document, "png", where)
            if not any(map(card.text, CONTENT_FIELDS)):
                empty = empty or card
                raise CardError(
                    f"The card in {where} says nothing of its character.", png.LOST_CARD_ADVICE
                )
        except CardError as error:
            faults.append(error)
            remarks.append(not_taken(f"{chunk.keyword} in the picture", error.message))
            continue
        if remarks:
            remarks.append(other_meaning(chunk.keyword, "it is read in place of the faulty card"))
        files = png.assets(chunks, where, max_bytes)
        return replace(card, picture=png.picture(chunks), files=files, remarks=tuple(remarks))
    if empty:
        files = png.assets(chunks, where, max_bytes)
        return replace(empty, picture=png.picture(chunks), files=files)
    if faults:
        raise faults[0]
    fields = png.card_fields(chunks, where)
    if not fields:
        raise CardError(f"{where} is a picture without a card in it.", png.LOST_CARD_ADVICE)
    return replace(parse_document(fields, "png", where), picture=png.picture(chunks))
