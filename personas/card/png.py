"""PNG pictures with a card in a `tEXt` chunk: keyword `chara` (V2) or `ccv3` (V3), base64 of UTF-8
JSON.

The picture itself is never decoded. Format: https://www.w3.org/TR/png-3/ (5 Datastream structure,
11.3.3 Textual information). `iTXt` and `zTXt` are read too, since some programs write them.
"""

import base64
import binascii
import string
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
MAX_CHUNKS = 100_000
"""Programs write pictures of some gigabytes in fewer."""
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
        """True if it contains a card or an asset of one, and is not part of the picture."""
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


def card_json(chunks: Iterable[PngChunk], where: str) -> bytes:
    """Return the JSON of the card in a picture; of two versions the newer one. Raises
    `CardError`.
    """
    cards: dict[str, PngChunk] = {}
    for chunk in chunks:
        if chunk.keyword in (CARD_V2, CARD_V3):
            cards.setdefault(chunk.keyword, chunk)  # of several with a keyword, the first counts
    # Programs with V3 write both, and a note into the V2 copy that asks for a newer program.
    card = cards.get(CARD_V3) or cards.get(CARD_V2)
    if card is None:
        raise CardError(f"{where} is a picture without a card in it.", LOST_CARD_ADVICE)
    return _decode_card_chunk(card, where, MAX_JSON_BYTES)


def assets(chunks: Iterable[PngChunk], where: str, max_bytes: int) -> dict[str, bytes]:
    """Return the assets in a picture by the URI the card uses for them, at most `max_bytes`
    decoded. Raises `CardError`.
    """
    found = {}
    for chunk in chunks:
        if chunk.keyword.startswith(ASSET):
            path = chunk.data.partition(b"\0")[0].decode("latin-1")[len(ASSET) :]
            asset = _decode_card_chunk(chunk, where, max_bytes)
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


def _decode_card_chunk(chunk: PngChunk, where: str, max_bytes: int) -> bytes:
    # Each three bytes are four letters, and the last ones are filled up to four.
    text = _chunk_text(chunk, where, max_bytes=max_bytes * 4 // 3 + 4)
    encoded = text.translate(None, string.whitespace.encode())
    if encoded.startswith(b"rcc||"):
        raise CardError(
            f"{where} contains an encrypted card.", "Export it from its program without encryption."
        )
    try:
        decoded = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        what = f"{where}: the text {chunk.keyword!r} in the picture is not base64."
        raise CardError(what, LOST_CARD_ADVICE) from None
    if len(decoded) > max_bytes:
        raise _too_large(chunk.keyword, where)
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
