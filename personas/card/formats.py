"""Reads cards of any format and writes them in any other (TOML, JSON, PNG, CHARX)."""

import base64
import binascii
import copy
import io
import mimetypes
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from personas.card import charx, png
from personas.card.spec_card import (
    EXPECTED_FORMAT_ADVICE,
    SPECS,
    Card,
    JsonObject,
    Version,
    empty_v2_data,
    json_bytes,
    parse_document,
    parse_json,
)
from personas.card.toml_card import (
    MAX_CARD_BYTES,
    avatar_path,
    card_from_table,
    dump_toml,
    parse_table,
    persona_from_table,
    table_from_card,
)
from personas.errors import CardError
from personas.schemas.chat import Persona

Relocation = Callable[[str, JsonObject | None], str | None]
CardForm = Literal["toml", "v2", "v3", "png", "charx"]
CARD_FORMS: tuple[CardForm, ...] = get_args(CardForm)

BACKFILL_NOTICE = (
    "This character card is Character Card V3, but it is loaded as a Character Card V2. Please use "
    "a Character Card V3 "
    "compatible application to use this character card properly."
)
"""Notice that the V3 specification asks writers to put into the V2 copy beside a V3 card."""

DEFAULT_ICON: JsonObject = {"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}
PICTURE_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}
PICTURE_DROPPED_NOTE = "The picture around the card is left out: the card has its own icon."


MAX_FILE_BYTES = 256 * 2**20
JPEG_SIGNATURE = b"\xff\xd8\xff"
WEBP_SIGNATURE = b"RIFF"

FOREIGN_SIGNATURES = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    JPEG_SIGNATURE: "a JPEG picture",
    WEBP_SIGNATURE: "a WebP picture",
    b"GIF8": "a GIF",
}

CONVERTED_PICTURE_ADVICE = (
    "Cards are stored in PNG pictures; many sites convert them and lose the card: get the original "
    "file."
)


@dataclass(frozen=True)
class CardExport:
    """A card as a file. `beside` are further files to store next to it, by name; `notes` list what
    was left out.
    """

    content: bytes
    notes: tuple[str, ...] = ()
    beside: dict[str, bytes] = field(default_factory=dict)


def write_card(
    card: Card, form: CardForm, where: str, avatar: str = "avatar", persona_id: str = ""
) -> CardExport:
    """Export a card in another format. A TOML card gets the id, and its picture the name `avatar`
    plus a suffix.

    CHARX files contain V3; PNG files contain V3 cards as V3 and older ones as V2. Raises
    `CardError` if the format cannot represent the card.
    """
    if form == "toml":
        return _export_toml(
            convert_version(card, 2) if card.version == 1 else card, avatar, persona_id
        )
    if form == "png":
        return _export_png(convert_version(card, 2) if card.version == 1 else card, where)
    if form == "charx":
        return _export_charx(convert_version(card, 3))
    return _export_json(convert_version(card, 2 if form == "v2" else 3))


def convert_version(card: Card, version: Version) -> Card:
    """Convert the card to another version. Fields of V3 stay in a V2 card, which may have any."""
    if card.version == version:
        return card
    spec, spec_version = SPECS[version]
    outer = card.document
    data = card.data
    if card.version == 1:
        outer = {}
        data = empty_v2_data() | copy.deepcopy(card.document)
    if version == 3:
        data = {"group_only_greetings": [], **data}
    return replace(
        card,
        document={**outer, "spec": spec, "spec_version": spec_version, "data": data},
        version=version,
    )


def with_picture(card: Card, picture: bytes, where: str) -> Card:
    """Replace the picture of a card; `where` names the new one. Raises `CardError` for an
    unsupported format.
    """
    if picture_type(picture) is None:
        raise CardError(
            f"{where} is not a supported picture.", "Use a PNG, JPEG, GIF or WebP picture."
        )
    if picture.startswith(png.SIGNATURE):
        picture = png.picture(png.split(picture, where))
    icon = _main_icon(card)
    if icon is None or icon["uri"] == DEFAULT_ICON["uri"]:
        return replace(card, picture=picture)
    files = {uri: content for uri, content in card.files.items() if uri != _asset_path(icon["uri"])}
    return replace(
        _with_uris(card, {icon["uri"]: DEFAULT_ICON["uri"]}), picture=picture, files=files
    )


def card_picture(card: Card) -> bytes | None:
    """Return the character's picture: the main icon, or the picture the card came in. URLs are not
    fetched.
    """
    icon = _main_icon(card)
    own = _asset_content(card, icon["uri"]) if icon else None
    return own if own and picture_type(own) else card.picture


def picture_type(data: bytes) -> str | None:
    """Detect "png", "jpeg", "gif" or "webp" by the first bytes; None for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return next(
        (name for signature, name in PICTURE_SIGNATURES.items() if data.startswith(signature)), None
    )


def _export_json(card: Card) -> CardExport:
    def relocate(uri: str, asset: JsonObject | None) -> str | None:
        return _data_uri(asset, card.files[uri]) if asset else None

    relocated, notes = _relocate_assets(card, relocate)
    if card.picture:
        notes += ("The picture is left out: JSON cards have none.",)
    return CardExport(json_bytes(relocated.document, indent=2) + b"\n", notes)


def _export_png(card: Card, where: str) -> CardExport:
    picture = card.picture or card_picture(card)
    if picture is None:
        raise CardError(
            f"{where} has no picture, which a PNG card needs.", "Name a PNG picture with --picture."
        )
    if not picture.startswith(png.SIGNATURE):
        kind = (picture_type(picture) or "another kind").upper()
        what = f"The picture of {where} is {kind}; a PNG card needs a PNG picture."
        raise CardError(what, "Name one with --picture.")

    def relocate(uri: str, asset: JsonObject | None) -> str | None:
        if asset and asset is _main_icon(card) and not card.picture:
            return str(DEFAULT_ICON["uri"])
        if uri.startswith(png.ASSET_URI):
            return uri
        # Numbers, because keywords are short and limited to Latin-1.
        return f"{png.ASSET_URI}{list(card.files).index(uri)}" if asset else None

    relocated, notes = _relocate_assets(card, relocate)
    texts = {png.CARD_V2: json_bytes(relocated.document)}
    if card.version == 3:
        texts = {
            png.CARD_V3: json_bytes(relocated.document),
            png.CARD_V2: json_bytes(_backfill_v2(relocated)),
        }
    for uri, content in relocated.files.items():
        if uri != DEFAULT_ICON["uri"]:
            texts[png.ASSET + uri.removeprefix(png.ASSET_URI)] = content
    return CardExport(png.with_card(picture, texts, where), notes)


def _export_charx(card: Card) -> CardExport:
    used_uris: set[str] = set()

    def relocate(uri: str, asset: JsonObject | None) -> str | None:
        if uri.startswith(charx.ASSET_SCHEME) or asset is None:
            return uri if uri.startswith(charx.ASSET_SCHEME) else None
        name = str(asset.get("name") or "unnamed")
        extension = str(asset.get("ext") or "unknown")
        uri = charx.uri_for(str(asset.get("type") or "other"), name, extension)
        if uri in used_uris:
            uri = charx.uri_for(
                str(asset.get("type") or "other"), f"{name}_{len(used_uris)}", extension
            )
        used_uris.add(uri)
        return uri

    relocated, notes = _relocate_assets(card, relocate)
    files = dict(relocated.files)
    if card.picture:
        uri = charx.uri_for("icon", "main", picture_type(card.picture) or "unknown")
        icon = _main_icon(relocated)
        if icon is None:
            new = {**DEFAULT_ICON, "uri": uri, "ext": picture_type(card.picture) or "unknown"}
            relocated = _with_data(
                relocated, {"assets": [*(relocated.data.get("assets") or ()), new]}
            )
        elif icon["uri"] == DEFAULT_ICON["uri"]:
            relocated = _with_uris(relocated, {DEFAULT_ICON["uri"]: uri}, only=icon)
        else:
            return CardExport(
                charx.write(json_bytes(relocated.document), files), (*notes, PICTURE_DROPPED_NOTE)
            )
        files[uri] = card.picture
    return CardExport(charx.write(json_bytes(relocated.document, indent=2), files), notes)


def _export_toml(card: Card, avatar: str, persona_id: str) -> CardExport:
    picture = card_picture(card)
    icon = _main_icon(card)

    def relocate(uri: str, asset: JsonObject | None) -> str | None:
        return str(DEFAULT_ICON["uri"]) if asset and asset is icon else None

    relocated, notes = _relocate_assets(card, relocate)
    table = table_from_card(relocated, persona_id)
    if len(dump_toml(table)) > MAX_CARD_BYTES:
        raise CardError(f"{card.name} is too large for a TOML card.", "Shorten its character book.")
    if picture is None:
        return CardExport(dump_toml(table), notes)
    name = f"{avatar}.{picture_type(picture) or 'png'}"
    return CardExport(dump_toml({**table, "avatar": name}), notes, {name: picture})


def _backfill_v2(card: Card) -> JsonObject:
    """Build the V2 copy for programs without V3 support."""
    notes = card.data.get("creator_notes")
    older = convert_version(card, 2)
    return _with_data(
        older, {"creator_notes": f"{BACKFILL_NOTICE}\n\n{notes}" if notes else BACKFILL_NOTICE}
    ).document


def _main_icon(card: Card) -> JsonObject | None:
    icons = [asset for asset in card.assets if asset.get("type") == "icon"]
    return next((icon for icon in icons if icon.get("name") == "main"), icons[0] if icons else None)


def _asset_content(card: Card, uri: str) -> bytes | None:
    """Return the content of an asset's URI if it is in the card."""
    if uri.startswith("data:") and ";base64," in uri[:100]:
        try:
            return base64.b64decode(uri.partition(",")[2])
        except binascii.Error:
            return None
    return card.picture if uri == DEFAULT_ICON["uri"] else card.files.get(_asset_path(uri))


def _asset_path(uri: str) -> str:
    """Normalise a URI to the "embeded" spelling of the specification; some programs write
    "embedded".
    """
    return (
        uri.replace("embedded://", charx.ASSET_SCHEME, 1) if uri.startswith("embedded://") else uri
    )


def _relocate_assets(card: Card, relocate: Relocation) -> tuple[Card, tuple[str, ...]]:
    """Move files to the URIs that `relocate` returns for the old URI and its asset; None leaves a
    file out (notes).
    """
    renamed: dict[str, str] = {}
    files = {}
    left_out = []
    for uri, content in card.files.items():
        referring = [asset for asset in card.assets if _asset_path(asset["uri"]) == uri]
        new = relocate(uri, referring[0] if referring else None)
        if new is None:
            left_out.append(uri.removeprefix(charx.ASSET_SCHEME))
        else:
            files[new] = content
            renamed |= {asset["uri"]: new for asset in referring}
    shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
    notes = (
        (f"{len(left_out)} files are left out because this format cannot store them: {shown}.",)
        if left_out
        else ()
    )
    return replace(_with_uris(card, renamed), files=files), notes


def _with_uris(card: Card, renamed: Mapping[str, str], only: JsonObject | None = None) -> Card:
    """Replace URIs of the assets, or of one of them."""
    if not renamed or not isinstance(card.data.get("assets"), list):
        return card

    def renamed_asset(asset: Any) -> Any:
        uri = asset.get("uri") if isinstance(asset, dict) and only in (None, asset) else None
        return {**asset, "uri": renamed[uri]} if isinstance(uri, str) and uri in renamed else asset

    return _with_data(card, {"assets": [renamed_asset(asset) for asset in card.data["assets"]]})


def _with_data(card: Card, changed: JsonObject) -> Card:
    return replace(card, document={**card.document, "data": {**card.data, **changed}})


def _data_uri(asset: JsonObject, content: bytes) -> str:
    kind = mimetypes.guess_type(f"x.{asset.get('ext')}")[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


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
    """Parse a card file; `where` names it in errors. A zip may unpack to `max_bytes`. Raises
    `CardError`.
    """
    return _parse_container(data, where, max_bytes)[0]


def to_persona(card: Card, where: str, persona_id: str = "", avatar: Path | None = None) -> Persona:
    """Convert a card to a persona; the default id is the card's own or derived from its name.
    Raises `CardError`.
    """
    table = table_from_card(convert_version(card, 2) if card.version == 1 else card, persona_id)
    return replace(persona_from_table(table, where), avatar=avatar)


def _parse_container(
    data: bytes, where: str, max_bytes: int = charx.MAX_UNPACKED_BYTES
) -> tuple[Card, JsonObject | None]:
    if data.startswith(png.SIGNATURE):
        chunks = png.split(data, where)
        card = parse_document(
            parse_json(png.card_json(chunks, where), f"The card in {where}"), "png", where
        )
        return replace(card, picture=png.picture(chunks), files=png.assets(chunks, where)), None
    # Some programs prepend a JPEG to the zip, so that it shows a picture.
    if data.startswith(b"PK") or (
        data.startswith(JPEG_SIGNATURE) and zipfile.is_zipfile(io.BytesIO(data))
    ):
        content, files = charx.read(data, where, max_bytes)
        card = parse_document(parse_json(content, f"{charx.CARD_ENTRY} in {where}"), "charx", where)
        return replace(card, files=files), None
    if signature := next(
        (signature for signature in FOREIGN_SIGNATURES if data.startswith(signature)), None
    ):
        advice = (
            CONVERTED_PICTURE_ADVICE
            if signature not in (b"\xff\xfe", b"\xfe\xff")
            else "Save the card as UTF-8."
        )
        raise CardError(
            f"{where} is {FOREIGN_SIGNATURES[signature]}, which cannot contain a card.", advice
        )
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return parse_document(parse_json(data, where), "json", where), None
    if b"=" not in data or b"\0" in data:
        raise CardError(f"{where} is not a character card.", EXPECTED_FORMAT_ADVICE)
    table = parse_table(data, where)
    return card_from_table(table, where), table
