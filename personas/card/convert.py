"""Cards from one form to another. Nothing is left out without a word: `Written.notes` says what had no place."""

from __future__ import annotations

import base64
import binascii
import copy
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from personas.card import charx, png
from personas.card.document import SPECS, Card, Json, Version, json_bytes
from personas.card.own import MAX_CARD_BYTES, table_of, toml_bytes
from personas.errors import CardError

Form = Literal["toml", "v2", "v3", "png", "charx"]
FORMS: tuple[Form, ...] = get_args(Form)
BACKFILLED = (
    "This character card is Character Card V3, but it is loaded as a Character Card V2. Please use a Character Card V3 "
    "compatible application to use this character card properly."
)
"""What the V3 specification asks writers to say in the V2 copy beside a V3 card."""
DEFAULT_ICON: Json = {"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}
MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}
OTHER_FACE = "The picture around the card is left out: the card has an icon of its own."
V2_TEXTS = ("description", "personality", "scenario", "first_mes", "mes_example", "creator_notes", "system_prompt",
            "post_history_instructions", "creator", "character_version")  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A card as a file. `beside` are files that belong next to it, by name; `notes` say what was left out."""

    content: bytes
    notes: tuple[str, ...] = ()
    beside: dict[str, bytes] = field(default_factory=dict)


def write(card: Card, form: Form, where: str, avatar: str = "avatar", persona_id: str = "") -> Written:
    """A card in another form; a TOML card gets the id, and a picture beside it whose name is `avatar` and an ending.

    PNG and CHARX carry V3 as V3; PNG carries older cards as V2. Raises `CardError` when the form cannot hold it.
    """
    if form == "toml":
        return _toml(as_version(card, 2) if card.version == 1 else card, avatar, persona_id)
    if form == "png":
        return _png(as_version(card, 2) if card.version == 1 else card, where)
    if form == "charx":
        return _charx(as_version(card, 3))
    return _json(as_version(card, 2 if form == "v2" else 3))


def as_version(card: Card, version: Version) -> Card:
    """The card in another version of the format. Fields that only V3 knows stay in a V2 card, which may hold any."""
    if card.version == version:
        return card
    spec, spec_version = SPECS[version]
    outer, data = (card.document, card.data) if card.version != 1 else ({}, _v2_data(card.document))
    if version == 3:
        data = {"group_only_greetings": [], **data}
    return replace(card, document={**outer, "spec": spec, "spec_version": spec_version, "data": data}, version=version)


def with_picture(card: Card, picture: bytes, where: str) -> Card:
    """The card with another face; `where` names the picture. Raises `CardError` when it is none of a usual kind."""
    if picture_type(picture) is None:
        raise CardError(f"{where} is no picture that can be a face.", "Give a PNG, JPEG, GIF or WebP picture.")
    if picture.startswith(png.SIGNATURE):
        picture = png.picture(png.split(picture, where))
    icon = _main_icon(card)
    if icon is None or icon["uri"] == DEFAULT_ICON["uri"]:
        return replace(card, picture=picture)
    files = {uri: content for uri, content in card.files.items() if uri != _local(icon["uri"])}
    return replace(_with_uris(card, {icon["uri"]: DEFAULT_ICON["uri"]}), picture=picture, files=files)


def face(card: Card) -> bytes | None:
    """The character's picture: the main icon, or the picture that the card came in. Addresses are not fetched."""
    icon = _main_icon(card)
    own = _content(card, icon["uri"]) if icon else None
    return own if own and picture_type(own) else card.picture


def picture_type(data: bytes) -> str | None:
    """ "png", "jpeg", "gif" or "webp" by the first bytes; None for anything else."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)


# ------------------------------------------------------------------------------------------------ the forms


def _json(card: Card) -> Written:
    def place(uri: str, asset: Json | None) -> str | None:
        return _data_uri(asset, card.files[uri]) if asset else None

    moved, notes = _moved(card, place)
    if card.picture:
        notes += ("The picture is left out: JSON has no place for it.",)
    return Written(json_bytes(moved.document, indent=2) + b"\n", notes)


def _png(card: Card, where: str) -> Written:
    picture = card.picture or face(card)
    if picture is None:
        raise CardError(f"{where} has no picture, and a PNG card is one.", "Name a PNG picture with --picture.")
    if not picture.startswith(png.SIGNATURE):
        kind = (picture_type(picture) or "another kind").upper()
        raise CardError(f"The picture of {where} is {kind}; only PNG carries cards.", "Name one with --picture.")

    def place(uri: str, asset: Json | None) -> str | None:
        if asset and asset is _main_icon(card) and not card.picture:
            return str(DEFAULT_ICON["uri"])
        if uri.startswith(png.ASSET_URI):
            return uri
        # Numbers, since a keyword is short and knows no letters beyond Latin-1.
        return f"{png.ASSET_URI}{list(card.files).index(uri)}" if asset else None

    moved, notes = _moved(card, place)
    texts = {png.CARD_V2: json_bytes(moved.document)}
    if card.version == 3:
        texts = {png.CARD_V3: json_bytes(moved.document), png.CARD_V2: json_bytes(_backfilled(moved))}
    for uri, content in moved.files.items():
        if uri != DEFAULT_ICON["uri"]:
            texts[png.ASSET + uri.removeprefix(png.ASSET_URI)] = content
    return Written(png.with_card(picture, texts, where), notes)


def _charx(card: Card) -> Written:
    taken: set[str] = set()

    def place(uri: str, asset: Json | None) -> str | None:
        if uri.startswith(charx.SCHEME) or asset is None:
            return uri if uri.startswith(charx.SCHEME) else None
        name, extension = str(asset.get("name") or "unnamed"), str(asset.get("ext") or "unknown")
        made = charx.uri_for(str(asset.get("type") or "other"), name, extension)
        if made in taken:
            made = charx.uri_for(str(asset.get("type") or "other"), f"{name}_{len(taken)}", extension)
        taken.add(made)
        return made

    moved, notes = _moved(card, place)
    files = dict(moved.files)
    if card.picture:
        uri = charx.uri_for("icon", "main", picture_type(card.picture) or "unknown")
        icon = _main_icon(moved)
        if icon is None:
            new = {**DEFAULT_ICON, "uri": uri, "ext": picture_type(card.picture) or "unknown"}
            moved = _with_data(moved, {"assets": [*(moved.data.get("assets") or ()), new]})
        elif icon["uri"] == DEFAULT_ICON["uri"]:
            moved = _with_uris(moved, {DEFAULT_ICON["uri"]: uri}, only=icon)
        else:
            return Written(charx.write(json_bytes(moved.document), files), (*notes, OTHER_FACE))
        files[uri] = card.picture
    return Written(charx.write(json_bytes(moved.document, indent=2), files), notes)


def _toml(card: Card, avatar: str, persona_id: str) -> Written:
    picture, icon = face(card), _main_icon(card)

    def place(uri: str, asset: Json | None) -> str | None:
        return str(DEFAULT_ICON["uri"]) if asset and asset is icon else None

    moved, notes = _moved(card, place)
    table = table_of(moved, persona_id)
    if len(toml_bytes(table)) > MAX_CARD_BYTES:
        raise CardError(f"{card.name} is too much for a TOML card.", "Shorten its character book.")
    if picture is None:
        return Written(toml_bytes(table), notes)
    name = f"{avatar}.{picture_type(picture) or 'png'}"
    return Written(toml_bytes({**table, "avatar": name}), notes, {name: picture})


def _backfilled(card: Card) -> Json:
    """The V2 copy for programs that know no V3."""
    notes = card.data.get("creator_notes")
    older = as_version(card, 2)
    return _with_data(older, {"creator_notes": f"{BACKFILLED}\n\n{notes}" if notes else BACKFILLED}).document


def _v2_data(flat: Json) -> Json:
    """The data of a V2 card with the fields of a V1 card, unknown ones included."""
    required: Json = dict.fromkeys(V2_TEXTS, "") | {"alternate_greetings": [], "tags": [], "extensions": {}}
    return required | copy.deepcopy(flat)


# ------------------------------------------------------------------------------------------------ assets


def _main_icon(card: Card) -> Json | None:
    icons = [asset for asset in card.assets if asset.get("type") == "icon"]
    return next((icon for icon in icons if icon.get("name") == "main"), icons[0] if icons else None)


def _content(card: Card, uri: str) -> bytes | None:
    """What an asset's URI stands for, if it is in the card."""
    if uri.startswith("data:") and ";base64," in uri[:100]:
        try:
            return base64.b64decode(uri.partition(",")[2])
        except binascii.Error:
            return None
    return card.picture if uri == DEFAULT_ICON["uri"] else card.files.get(_local(uri))


def _local(uri: str) -> str:
    """A URI as the files of a card are named; "embeded" is how the specification spells it, not how everybody does."""
    return uri.replace("embedded://", charx.SCHEME, 1) if uri.startswith("embedded://") else uri


def _moved(card: Card, place: Callable[[str, Json | None], str | None]) -> tuple[Card, tuple[str, ...]]:
    """The card with its files where `place` puts them, given their URI and the asset that names them, and its notes."""
    renamed: dict[str, str] = {}
    files, left_out = {}, []
    for uri, content in card.files.items():
        naming = [asset for asset in card.assets if _local(asset["uri"]) == uri]
        new = place(uri, naming[0] if naming else None)
        if new is None:
            left_out.append(uri.removeprefix(charx.SCHEME))
        else:
            files[new] = content
            renamed |= {asset["uri"]: new for asset in naming}
    shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
    notes = (f"{len(left_out)} files are left out, which this form has no place for: {shown}.",) if left_out else ()
    return replace(_with_uris(card, renamed), files=files), notes


def _with_uris(card: Card, renamed: Mapping[str, str], only: Json | None = None) -> Card:
    """The card with other URIs for its assets, or for one of them."""
    if not renamed or not isinstance(card.data.get("assets"), list):
        return card

    def moved(asset: Any) -> Any:
        known = isinstance(asset, dict) and asset.get("uri") in renamed and only in (None, asset)
        return {**asset, "uri": renamed[asset["uri"]]} if known else asset

    return _with_data(card, {"assets": [moved(asset) for asset in card.data["assets"]]})


def _with_data(card: Card, changed: Json) -> Card:
    return replace(card, document={**card.document, "data": {**card.data, **changed}})


def _data_uri(asset: Json, content: bytes) -> str:
    kind = mimetypes.guess_type(f"x.{asset.get('ext')}")[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
