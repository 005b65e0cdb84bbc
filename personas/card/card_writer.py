"""Writes cards in any format (TOML, JSON, PNG, CHARX)."""

import base64
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from personas.card import charx, png
from personas.card.card_picture import (
    DEFAULT_ICON,
    asset_path,
    card_picture,
    main_icon,
    picture_type,
    with_data,
    with_uris,
)
from personas.card.spec_card import Card, JsonObject, convert_version, json_bytes
from personas.card.toml_card import MAX_CARD_BYTES, dump_toml, table_from_card
from personas.errors import CardError

Relocation = Callable[[str, JsonObject | None], str | None]
CardForm = Literal["toml", "v2", "v3", "png", "charx"]
CARD_FORMS: tuple[CardForm, ...] = get_args(CardForm)

BACKFILL_NOTICE = (
    "This character card is Character Card V3, but it is loaded as a Character Card V2. Please use "
    "a Character Card V3 compatible application to use this character card properly."
)
"""Notice that the V3 specification asks writers to put into the V2 copy beside a V3 card."""
PICTURE_DROPPED_NOTE = "The picture around the card is left out: the card has its own icon."


@dataclass(frozen=True)
class CardExport:
    """A card as a file. `beside` are further files to store next to it, by name; `notes` list
    omitted parts.
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
    if form in ("toml", "png") and card.version == 1:
        card = convert_version(card, 2)
    if form == "toml":
        return _export_toml(card, avatar, persona_id)
    if form == "png":
        return _export_png(card, where)
    if form == "charx":
        return _export_charx(convert_version(card, 3))
    if form == "v2":
        return _export_json(convert_version(card, 2))
    return _export_json(convert_version(card, 3))


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
        raise CardError(
            f"The picture of {where} is {kind}; a PNG card needs a PNG picture.",
            "Name one with --picture.",
        )

    def relocate(uri: str, asset: JsonObject | None) -> str | None:
        if asset and asset is main_icon(card) and not card.picture:
            return str(DEFAULT_ICON["uri"])
        if uri.startswith(png.ASSET_URI):
            return uri
        if asset is None:
            return None
        # Numbers, because keywords are short and limited to Latin-1.
        return f"{png.ASSET_URI}{list(card.files).index(uri)}"

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
        if uri.startswith(charx.ASSET_SCHEME):
            return uri
        if asset is None:
            return None
        kind = str(asset.get("type") or "other")
        name = str(asset.get("name") or "unnamed")
        extension = str(asset.get("ext") or "unknown")
        uri = charx.uri_for(kind, name, extension)
        if uri in used_uris:
            uri = charx.uri_for(kind, f"{name}_{len(used_uris)}", extension)
        used_uris.add(uri)
        return uri

    relocated, notes = _relocate_assets(card, relocate)
    files = dict(relocated.files)
    if card.picture:
        extension = picture_type(card.picture) or "unknown"
        uri = charx.uri_for("icon", "main", extension)
        icon = main_icon(relocated)
        if icon is None:
            assets = list(relocated.data.get("assets") or ())
            assets.append({**DEFAULT_ICON, "uri": uri, "ext": extension})
            relocated = with_data(relocated, {"assets": assets})
        elif icon["uri"] == DEFAULT_ICON["uri"]:
            relocated = with_uris(relocated, {DEFAULT_ICON["uri"]: uri}, only=icon)
        else:
            content = charx.write(json_bytes(relocated.document), files)
            return CardExport(content, (*notes, PICTURE_DROPPED_NOTE))
        files[uri] = card.picture
    return CardExport(charx.write(json_bytes(relocated.document, indent=2), files), notes)


def _export_toml(card: Card, avatar: str, persona_id: str) -> CardExport:
    picture = card_picture(card)
    icon = main_icon(card)

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
    notes = BACKFILL_NOTICE
    if stated := card.data.get("creator_notes"):
        notes = f"{BACKFILL_NOTICE}\n\n{stated}"
    return with_data(convert_version(card, 2), {"creator_notes": notes}).document


def _relocate_assets(card: Card, relocate: Relocation) -> tuple[Card, tuple[str, ...]]:
    """Move files to the URIs that `relocate` returns for the old URI and its asset; None leaves a
    file out (notes).
    """
    renamed: dict[str, str] = {}
    files = {}
    left_out = []
    for uri, content in card.files.items():
        referring = [asset for asset in card.assets if asset_path(asset["uri"]) == uri]
        asset = referring[0] if referring else None
        new = relocate(uri, asset)
        if new is None:
            left_out.append(uri.removeprefix(charx.ASSET_SCHEME))
        else:
            files[new] = content
            renamed |= {asset["uri"]: new for asset in referring}
    relocated = replace(with_uris(card, renamed), files=files)
    if not left_out:
        return relocated, ()
    shown = ", ".join(left_out[:5])
    if len(left_out) > 5:
        shown += " …"
    note = f"{len(left_out)} files are left out because this format cannot store them: {shown}."
    return relocated, (note,)


def _data_uri(asset: JsonObject, content: bytes) -> str:
    kind = mimetypes.guess_type(f"x.{asset.get('ext')}")[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
