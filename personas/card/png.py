"""PNG pictures with a card in a `tEXt` chunk: keyword `chara` (V2) or `ccv3` (V3), base64 of UTF-8
JSON.

The picture itself is never decoded. Format: https://www.w3.org/TR/png-3/ (5 Datastream structure,
11.3.3 Textual information). `iTXt` and `zTXt` are read too, since some programs write them; others
write each field of a card as a text of its own.
"""

import base64
import binascii
import string
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from personas.card.other_spellings import is_known_name, with_v1_names
from personas.card.spec_card import MAX_JSON_BYTES
from personas.errors import CardError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CARD_V3 = "ccv3"
CARD_V2 = "chara"
ASSET = "chara-ext-asset_:"
"""Prefix of a chunk keyword with an asset."""
ASSET_URI = "__asset:"
"""Prefix of the asset's URI in the card; the same path follows both."""
TEXT_CHUNK_TYPES = (b"tEXt", b"zTXt", b"iTXt")
MAX_KEYWORD_BYTES = 79
TALK_FIELDS = ("personality", "scenario", "first_mes", "mes_example")
MAX_FIELDS_BYTES = 2**20
"""Bytes of all texts of a card whose fields are texts of their own."""
MAX_CHUNKS = 100_000
"""Programs write pictures of some gigabytes in fewer."""
URL_SAFE = bytes.maketrans(b"-_", b"+/")
LOST_CARD_ADVICE = (
    "Get the original file: pictures saved again, resized or shared as a photo lose their card."
)


@dataclass(frozen=True, slots=True)
class PngChunk:
    """One chunk of a PNG file."""

    kind: bytes
    data: bytes

    @property
    def keyword(self) -> str:
        """Keyword of a textual chunk in lower case; empty for other chunks."""
        if self.kind not in TEXT_CHUNK_TYPES:
            return ""
        keyword = self.data.partition(b"\0")[0]
        return keyword[:MAX_KEYWORD_BYTES].decode("latin-1").casefold()

    @property
    def belongs_to_card(self) -> bool:
        """True if it contains a card or an asset of one, and is not part of the picture. Texts with
        single fields stay in the picture.
        """
        return self.keyword in (CARD_V2, CARD_V3) or self.keyword.startswith(ASSET)


def split(data: bytes, where: str) -> list[PngChunk]:
    """Split a PNG file into chunks and verify their checksums. Ignores data after the end. Raises
    `CardError`.
    """
    chunks: list[PngChunk] = []
    at = len(SIGNATURE)
    while not chunks or chunks[-1].kind != b"IEND":
        if len(chunks) == MAX_CHUNKS:
            raise CardError(
                f"{where} has more than {MAX_CHUNKS:,} PNG chunks.", "Do not trust this file."
            )
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        end = at + 8 + length
        if len(data) < end + 4:
            raise CardError(
                f"{where} is cut off in the PNG chunk at byte {at}.", "Download it again."
            )
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            what = f"the PNG chunk {kind.decode('latin-1')!r} at byte {at} has a wrong checksum"
            raise CardError(f"{where} is damaged: {what}.", LOST_CARD_ADVICE)
        chunks.append(PngChunk(kind, data[at + 8 : end]))
        at = end + 4
    if chunks[0].kind != b"IHDR":
        raise CardError(
            f"{where} is not a PNG picture: it does not begin with a header.", LOST_CARD_ADVICE
        )
    return chunks


def join(chunks: Iterable[PngChunk]) -> bytes:
    parts = [SIGNATURE]
    for chunk in chunks:
        body = chunk.kind + chunk.data
        parts += [len(chunk.data).to_bytes(4, "big"), body, zlib.crc32(body).to_bytes(4, "big")]
    return b"".join(parts)


def card_chunks(chunks: Iterable[PngChunk]) -> list[PngChunk]:
    """List the chunks with a card: the newer version first, those with one keyword in order."""
    found = [chunk for chunk in chunks if chunk.keyword in (CARD_V2, CARD_V3)]
    # Programs with V3 write both, and a note into the V2 copy that asks for a newer program.
    return sorted(found, key=lambda chunk: chunk.keyword != CARD_V3)


def card_json(chunk: PngChunk, where: str) -> bytes:
    """Return the JSON of a card's chunk. Raises `CardError`."""
    text = _chunk_text(chunk, where, max_bytes=MAX_JSON_BYTES * 4 // 3 + 4)
    if text.lstrip().startswith(b"{"):  # written without base64
        return text
    return _decode_base64(text, chunk.keyword, where, MAX_JSON_BYTES)


def card_fields(chunks: Sequence[PngChunk], where: str) -> dict[str, str]:
    """Return the fields of a card whose fields are texts of the picture, by the names in the file;
    empty if the texts are no card.
    """
    fields: dict[str, str] = {}
    budget = MAX_FIELDS_BYTES
    for chunk in chunks:
        if is_known_name(chunk.keyword) and chunk.keyword not in fields:
            text = _chunk_text(chunk, where, max_bytes=budget)
            if len(text) > budget:
                raise _too_large(chunk.keyword, where)
            budget -= len(text)
            fields[chunk.keyword] = _decode_text(text)
    # Any picture may have a name and a description, as photos do.
    is_talk = not with_v1_names(fields).keys().isdisjoint(TALK_FIELDS)
    return fields if len(fields) > 1 and is_talk else {}


def has_card(chunks: Sequence[PngChunk], where: str) -> bool:
    """Report whether a picture has a card, readable or not. Raises `CardError` for a faulty text."""
    return bool(card_chunks(chunks) or card_fields(chunks, where))


def _decode_text(text: bytes) -> str:
    """Decode a text that is Latin-1 by the format, and UTF-8 in what most programs write."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def assets(chunks: Iterable[PngChunk], where: str, max_bytes: int) -> dict[str, bytes]:
    """Return the assets in a picture by the URI the card uses for them, at most `max_bytes`
    decoded. Raises `CardError`.
    """
    found = {}
    for chunk in chunks:
        if chunk.keyword.startswith(ASSET):
            path = chunk.data.partition(b"\0")[0].decode("latin-1")[len(ASSET) :]
            text = _chunk_text(chunk, where, max_bytes=max_bytes * 4 // 3 + 4)
            asset = _decode_base64(text, chunk.keyword, where, max_bytes)
            max_bytes -= len(asset)
            found[f"{ASSET_URI}{path}"] = asset
    return found


def picture(chunks: Iterable[PngChunk]) -> bytes:
    """Return the picture alone, without the chunks of a card."""
    return join(chunk for chunk in chunks if not chunk.belongs_to_card)


def with_card(picture: bytes, texts: Mapping[str, bytes], where: str) -> bytes:
    """Replace the card in a picture by these contents, by keyword; other chunks are preserved."""
    remaining = [chunk for chunk in split(picture, where) if not chunk.belongs_to_card]
    # Before the pixels: some programs stop reading there.
    kinds = [chunk.kind for chunk in remaining]
    position = kinds.index(b"IDAT") if b"IDAT" in kinds else kinds.index(b"IEND")
    new = []
    for keyword, text in texts.items():
        data = keyword.encode("latin-1") + b"\0" + base64.b64encode(text)
        new.append(PngChunk(b"tEXt", data))
    return join([*remaining[:position], *new, *remaining[position:]])


def _decode_base64(text: bytes, keyword: str, where: str, max_bytes: int) -> bytes:
    # Each three bytes are four letters, and the last ones are filled up to four.
    encoded = text.translate(None, string.whitespace.encode())
    if encoded.startswith(b"rcc||"):
        raise CardError(
            f"{where} contains an encrypted card.", "Export it from its program without encryption."
        )
    try:
        encoded = encoded.translate(URL_SAFE) + b"=" * (-len(encoded) % 4)
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        what = f"{where}: the text {keyword!r} in the picture is not base64."
        raise CardError(what, LOST_CARD_ADVICE) from None
    if len(decoded) > max_bytes:
        raise _too_large(keyword, where)
    return decoded


def _chunk_text(chunk: PngChunk, where: str, max_bytes: int) -> bytes:
    rest = chunk.data.partition(b"\0")[2]
    if chunk.kind == b"tEXt":
        return rest
    if chunk.kind == b"zTXt":
        return _inflate(rest[1:], chunk.keyword, where, max_bytes)
    compressed = rest[:1] == b"\1"
    rest = rest[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]  # after language tag and translated keyword
    return _inflate(text, chunk.keyword, where, max_bytes) if compressed else text


def _inflate(data: bytes, keyword: str, where: str, max_bytes: int) -> bytes:
    what = f"{where}: the text {keyword!r} in the picture"
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, max_bytes)
    except zlib.error:
        raise CardError(f"{what} cannot be decompressed.", LOST_CARD_ADVICE) from None
    if inflater.unconsumed_tail:
        raise _too_large(keyword, where)
    if not inflater.eof:
        raise CardError(f"{what} is cut off.", LOST_CARD_ADVICE)
    return text


def _too_large(keyword: str, where: str) -> CardError:
    what = f"{where}: the text {keyword!r} in the picture is too large."
    return CardError(what, "Cards are never that large.")
