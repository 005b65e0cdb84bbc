"""Character cards V1, V2 and V3 as JSON documents, with their picture and files."""

import copy
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from personas.card.other_spellings import with_v1_names
from personas.errors import CardError
from personas.lore.lorebooks import NAMES, find_lorebook_kind
from personas.schemas.import_report import ImportItem

JsonObject = dict[str, Any]
Version = Literal[1, 2, 3]
Container = Literal["json", "yaml", "png", "charx", "toml"]
SPECS: dict[Version, tuple[str, str]] = {2: ("chara_card_v2", "2.0"), 3: ("chara_card_v3", "3.0")}
V1_TEXT_FIELDS = ("description", "personality", "scenario", "first_mes", "mes_example")
TEXT_FIELDS = (
    *V1_TEXT_FIELDS,
    "creator_notes",
    "system_prompt",
    "post_history_instructions",
    "nickname",
)
"""Prose fields, besides `name`."""
ADAPTER_ASSET_TYPE = "x_understudy_adapter"
"""Type of the assets that are an adapter's files (`personas.home.card_adapter`)."""
MAX_JSON_BYTES = 16 * 2**20
LONE_SURROGATE_PATTERN = re.compile("[\ud800-\udfff]")
EXPECTED_FORMAT_ADVICE = (
    "A card is a JSON object of version 1, 2 (spec chara_card_v2) or 3 (chara_card_v3), by itself "
    "or in a PNG or CHARX file, a YAML file with name and context, or a TOML file of this project."
)
LOREBOOK_ADVICE = (
    "Add it as lore: `/persona lore add`, the persona's lore page, or `python -m personas lore "
    "convert`."
)


@dataclass(frozen=True)
class Card:
    """A card. `picture` is the picture file without the card; `files` are its other files by
    URI. `remarks` say what of the file it came in was not read.
    """

    document: JsonObject
    version: Version
    container: Container
    picture: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    remarks: tuple[ImportItem, ...] = ()

    @property
    def data(self) -> JsonObject:
        """Fields of the card: a V1 card's document, else the object under `data`."""
        return self.document if self.version == 1 else self.document["data"]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    def text(self, key: str) -> str:
        """Return a prose field; empty if the card has none. Lone surrogates are replaced."""
        return replace_surrogates(self.data.get(key) or "")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, such as `alternate_greetings`."""
        return tuple(replace_surrogates(text) for text in self.data.get(key) or ())

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags; some programs write them as one text with commas."""
        tags = self.data.get("tags") or []
        if isinstance(tags, str):
            tags = tags.split(",")
        stripped = [tag.strip() for tag in tags if isinstance(tag, str)]
        return tuple(replace_surrogates(tag) for tag in stripped if tag)

    @property
    def assets(self) -> list[JsonObject]:
        """Assets of a V3 card that have a URI."""
        assets = []
        for asset in self.data.get("assets") or []:
            if isinstance(asset, dict) and isinstance(asset.get("uri"), str):
                assets.append(asset)
        return assets

    @property
    def book(self) -> list[JsonObject]:
        entries = (self.data.get("character_book") or {}).get("entries") or []
        if isinstance(entries, dict):  # by number, as in the world files of SillyTavern
            return list(entries.values())
        return list(entries)


def empty_v2_data() -> JsonObject:
    """Build the required fields of a V2 card."""
    texts = [key for key in TEXT_FIELDS if key != "nickname"]  # a field of V3
    texts += ["creator", "character_version"]
    return dict.fromkeys(texts, "") | {"alternate_greetings": [], "tags": [], "extensions": {}}


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can represent but UTF-8 cannot."""
    return LONE_SURROGATE_PATTERN.sub("\ufffd", text)


def parse_document(document: Any, container: Container, where: str) -> Card:
    """Build the card of a JSON value. Raises `CardError` with the field that is wrong."""
    if not isinstance(document, dict):
        raise CardError(
            f"{where} contains no card: it is not an object with named fields.",
            EXPECTED_FORMAT_ADVICE,
        )
    is_old = "spec" not in document and not isinstance(document.get("data"), dict)
    if is_old and not find_lorebook_kind(document):
        document = with_v1_names(document)
    elif isinstance(document.get("data"), dict):
        document = {**document, "data": with_v1_names(document["data"])}
    card = Card(document, _version(document, where), container)
    _validate_card(card, where)
    return card


def _version(document: JsonObject, where: str) -> Version:
    spec = document.get("spec")
    data = document.get("data")
    versions = {name: version for version, (name, _) in SPECS.items()}
    if isinstance(spec, str) and spec in versions:
        if not isinstance(data, dict):
            raise CardError(
                f"{where}: data must be an object in a card of spec {spec}.", EXPECTED_FORMAT_ADVICE
            )
        return versions[spec]
    if kind := find_lorebook_kind(document):
        raise CardError(f"{where} is {NAMES[kind]}, not a character card.", LOREBOOK_ADVICE)
    if spec is not None:
        raise CardError(
            f"{where} has an unknown spec, {_short(spec)}.",
            f"Known: {', '.join(versions)}; V1 has none.",
        )
    if isinstance(data, dict) and "name" in data:  # some programs omit the spec
        return 2
    known = sum(key in document for key in V1_TEXT_FIELDS)
    if known > 1 or (known and "name" in document):
        return 1
    keys = ", ".join(_short(key) for key in list(document)[:8]) or "nothing"
    raise CardError(f"{where} is not a character card; it contains {keys}.", EXPECTED_FORMAT_ADVICE)


def _validate_card(card: Card, where: str) -> None:
    """Reject values of a wrong type where the formats require text or lists; null counts as
    absent.
    """
    data = card.data
    prefix = "" if card.version == 1 else "data."
    if not isinstance(data.get("name"), str) or not data["name"].strip():
        raise CardError(
            f"{where}: {prefix}name must be a non-empty text.", "Give the character a name."
        )
    for key in TEXT_FIELDS:
        if not isinstance(data.get(key), str | None):
            raise _wrong_type(where, prefix + key, data[key], expected="a text")
    for key in ("alternate_greetings", "group_only_greetings"):
        if not _is_string_list(data.get(key)):
            raise _wrong_type(where, prefix + key, data[key], expected="a list of texts")
    if not isinstance(data.get("tags"), str | list | None):
        raise _wrong_type(where, prefix + "tags", data["tags"], expected="a list of texts")
    if not isinstance(data.get("assets"), list | None):
        raise _wrong_type(where, prefix + "assets", data["assets"], expected="a list of objects")
    _validate_book(card, prefix + "character_book", where)


def _validate_book(card: Card, path: str, where: str) -> None:
    book = card.data.get("character_book")
    if not isinstance(book, dict | None):
        raise _wrong_type(where, path, book, expected="an object")
    entries = (book or {}).get("entries")
    if not isinstance(entries or [], list | dict):
        raise _wrong_type(where, f"{path}.entries", entries, expected="a list")
    for number, entry in enumerate(card.book):
        entry_path = f"{path}.entries[{number}]"
        if not isinstance(entry, dict):
            raise _wrong_type(where, entry_path, entry, expected="an object")
        content = entry.get("content")
        if not isinstance(content, str | None):
            raise _wrong_type(where, f"{entry_path}.content", content, expected="a text")


def _wrong_type(where: str, field_path: str, value: object, *, expected: str) -> CardError:
    return CardError(
        f"{where}: {field_path} must be {expected}, not {_short(value)}.",
        "Correct it in the card.",
    )


def _is_string_list(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(text, str) for text in value)
    return value is None


def _short(value: object) -> str:
    shown = replace_surrogates(repr(value))
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def parse_json(data: bytes, where: str) -> Any:
    """Parse JSON. Raises `CardError` if it is invalid, too large, nested too deeply, or has an
    unusable number.
    """
    if len(data) > MAX_JSON_BYTES:
        raise CardError(
            f"{where} is larger than {MAX_JSON_BYTES // 2**20} MiB of JSON.",
            "Cards are never that large.",
        )
    try:
        return json.loads(
            data.decode("utf-8-sig"), parse_constant=_reject_constant, parse_float=_parse_float
        )
    except UnicodeDecodeError as error:
        raise CardError(
            f"{where} is not UTF-8 (byte {error.start}).", "Save the card as UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise CardError(
            f"{where} is not valid JSON ({at}: {error.msg}).", "Export the card again."
        ) from None
    except RecursionError:
        raise CardError(f"{where} is nested too deeply.", "Cards are never that deep.") from None
    except ValueError as error:
        what = f"{where} contains a number that is not valid JSON: {error}."
        raise CardError(what, "Correct it in the card.") from None


def json_bytes(document: JsonObject, *, indent: int | None = None) -> bytes:
    """Format a document as JSON in UTF-8; equal documents give equal bytes."""
    separators = None if indent else (",", ":")
    text = json.dumps(
        document, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    # JSON represents lone surrogates as escapes only.
    return LONE_SURROGATE_PATTERN.sub(lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def _reject_constant(name: str) -> float:
    raise ValueError(name)


def _parse_float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is too large")
    return number


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
    document = {**outer, "spec": spec, "spec_version": spec_version, "data": data}
    return replace(card, document=document, version=version)
