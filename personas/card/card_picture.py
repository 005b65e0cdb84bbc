"""The picture of a card: its main icon, or the picture that the card came in."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from personas.card import charx, png
from personas.card.spec_card import Card, JsonObject
from personas.errors import CardError

DEFAULT_ICON: JsonObject = {"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}
PICTURE_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


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
    icon = main_icon(card)
    if icon is None or icon["uri"] == DEFAULT_ICON["uri"]:
        return replace(card, picture=picture)
    files = dict(card.files)
    files.pop(asset_path(icon["uri"]), None)
    relocated = with_uris(card, {icon["uri"]: DEFAULT_ICON["uri"]})
    return replace(relocated, picture=picture, files=files)


def card_picture(card: Card) -> bytes | None:
    """Return the character's picture: the main icon, or the picture the card came in. URLs are not
    fetched.
    """
    icon = main_icon(card)
    own = _asset_content(card, icon["uri"]) if icon else None
    return own if own and picture_type(own) else card.picture


def picture_type(data: bytes) -> str | None:
    """Detect "png", "jpeg", "gif" or "webp" by the first bytes; None for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    for signature, name in PICTURE_SIGNATURES.items():
        if data.startswith(signature):
            return name
    return None


def main_icon(card: Card) -> JsonObject | None:
    """Return the icon that is named main, else the first one."""
    icons = [asset for asset in card.assets if asset.get("type") == "icon"]
    main = [icon for icon in icons if icon.get("name") == "main"]
    return next(iter(main or icons), None)


def _asset_content(card: Card, uri: str) -> bytes | None:
    """Return the content of an asset's URI if it is in the card."""
    if uri.startswith("data:") and ";base64," in uri[:100]:
        try:
            return base64.b64decode(uri.partition(",")[2])
        except binascii.Error:
            return None
    return card.picture if uri == DEFAULT_ICON["uri"] else card.files.get(asset_path(uri))


def asset_path(uri: str) -> str:
    """Normalise a URI to the "embeded" spelling of the specification; some programs write
    "embedded".
    """
    if uri.startswith("embedded://"):
        return charx.ASSET_SCHEME + uri.removeprefix("embedded://")
    return uri


def with_uris(card: Card, renamed: Mapping[str, str], only: JsonObject | None = None) -> Card:
    """Replace URIs of the assets, or of one of them."""
    if not renamed or not isinstance(card.data.get("assets"), list):
        return card

    assets: list[Any] = []
    for asset in card.data["assets"]:
        is_meant = isinstance(asset, dict) and only in (None, asset)
        uri = asset.get("uri") if is_meant else None
        if isinstance(uri, str) and uri in renamed:
            assets.append({**asset, "uri": renamed[uri]})
        else:
            assets.append(asset)
    return with_data(card, {"assets": assets})


def with_data(card: Card, changed: JsonObject) -> Card:
    return replace(card, document={**card.document, "data": {**card.data, **changed}})
