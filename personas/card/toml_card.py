"""TOML cards of this project: parsing, writing, and conversion to and from card V2 fields and
macros.
"""

import copy
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personas.card.spec_card import (
    SPECS,
    Card,
    JsonObject,
    convert_version,
    empty_v2_data,
    json_bytes,
    parse_document,
    parse_json,
    replace_surrogates,
)
from personas.errors import CardError
from personas.human_claims import claims_to_be_human
from personas.ids import readable_id
from personas.outside_names import UnsafeNameError, path_inside
from personas.prompt.macros import SettledText, normalise_macros, settle_macros
from personas.prompt.renderer import example_turns
from personas.schemas.chat import Persona, to_nfc

MARKED_LABEL = re.compile(
    r"^[ \t]*[*_]{0,3}\{\{(user|char)\}\}[*_]{0,3}[ \t]*[:：][*_]{0,3}",
    re.IGNORECASE | re.MULTILINE,
)
"""A speaker's name with markup, or before a full-width colon."""
START_PATTERN = re.compile(r"<start>", re.IGNORECASE)
MAX_CARD_BYTES = 4 * 2**20
MAX_TAGLINE = 200
MAX_NAME_CHARS = 80
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

JOINERS = "\u200c\u200d"
"""Invisible characters within words of some scripts, and within emoji."""
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
NAME_MARKUP = {"@": "\uff20", "](": "] (", "://": ": //", "```": "'''"}

SHARED_TEXT_FIELDS = tuple(
    """description personality scenario system_prompt post_history_instructions first_mes mes_example
    creator_notes nickname""".split()
)
"""Text fields with the same name in the other formats."""

PROMPT_FIELDS = (
    "description",
    "personality",
    "scenario",
    "system_prompt",
    "post_history_instructions",
    "mes_example",
)
"""Shared text fields that prompts have."""

OWN_TEXT_FIELDS = ("tagline", "license", "speech", "asked_if_human")
"""Text fields of TOML cards only; the other formats store them in `extensions.understudy`."""

PROSE_FIELDS = (*SHARED_TEXT_FIELDS, *OWN_TEXT_FIELDS)
LIST_FIELDS = ("tags", "alternate_greetings")

FIELD_ORDER = tuple(
    """id name nickname tagline avatar description personality scenario system_prompt post_history_instructions
    first_mes alternate_greetings asked_if_human mes_example speech tags creator_notes license more""".split()
)

EXTENSION_KEY = "understudy"


def normalise_examples(text: str, name: str, nickname: str = "") -> str:
    """Normalise examples: lines begin with `{{char}}:` and `{{user}}:` where V1 cards have the name
    and "You".
    """
    text = START_PATTERN.sub("<START>", normalise_macros(text))
    text = MARKED_LABEL.sub(r"{{\1}}:", text)
    names = "|".join(re.escape(to_nfc(label)) for label in (name, nickname) if label)
    text = re.sub(rf"^[ \t]*(?:{names})[ \t]*:", "{{char}}:", text, flags=re.MULTILINE)
    return re.sub(
        r"^[ \t]*(?:you|user)[ \t]*:", "{{user}}:", text, flags=re.MULTILINE | re.IGNORECASE
    )


SHIPPED_CARDS = Path(__file__).parent.parent / "cards"


def read_card(path: Path) -> Persona:
    """Read a card. Raises `CardError` with the file and the problem."""
    return persona_from_table(read_table(path), path, path.parent)


def read_cards(folder: Path) -> dict[str, Persona]:
    """Read all cards of a folder by persona id, in file order. Raises `CardError` if any is
    unreadable.
    """
    cards = {}
    for path in sorted(folder.glob("*.toml")):
        persona = read_card(path)
        if persona.id in cards:
            raise CardError(
                f"Two cards in {folder} have the id {persona.id!r}.",
                f"Rename one; the second is {path}.",
            )
        cards[persona.id] = persona
    return cards


def read_table(path: Path) -> JsonObject:
    """Read the file's table. Raises `CardError`."""
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise CardError(
                f"The card {path} exceeds {MAX_CARD_BYTES // 2**20} MiB.",
                "Move lore into lore files.",
            )
        return parse_table(path.read_bytes(), path)
    except FileNotFoundError:
        raise CardError(f"There is no card at {path}.", "Check the path.") from None
    except OSError as error:
        raise CardError(
            f"The card {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None


def parse_table(data: bytes, where: Path | str) -> JsonObject:
    """Parse the table in a file's bytes. Raises `CardError`."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CardError(
            f"The card {where} is not UTF-8 (byte {error.start}).", "Save it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CardError(
            f"The card {where} is not valid TOML: {error}.", "Correct the named line."
        ) from None


def avatar_path(folder: Path, name: str, where: Path | str) -> Path:
    """Return the path of a card's picture, which is beside the card. Raises `CardError`."""
    try:
        return path_inside(folder, name)
    except UnsafeNameError as error:
        raise CardError(
            f"The card {where} has an avatar whose name {error}.", "Name a file beside it."
        ) from None


def persona_from_table(table: JsonObject, where: Path | str, folder: Path | None = None) -> Persona:
    """Build the persona of a card's table, with its avatar in `folder`. Raises `CardError`."""
    if unknown := sorted(set(table) - set(FIELD_ORDER)):
        raise CardError(
            f"The card {where} has unknown fields: {', '.join(unknown)}.",
            f"Known: {sorted(FIELD_ORDER)}.",
        )
    fields = {}
    for key in ("id", "name", "avatar", "more", *PROSE_FIELDS):
        fields[key] = _text(table, key, where)
    _require_honest(fields["asked_if_human"], where)
    name = visible_name(fields["name"])
    if not ID_PATTERN.fullmatch(fields["id"]):
        raise CardError(
            f"The card {where} needs an id of lower-case letters, digits, '-' and '_'.",
            'For example id = "ballast".',
        )
    if not 1 <= len(name) <= MAX_NAME_CHARS or re.search("discord|clyde", name, re.IGNORECASE):
        raise CardError(
            f"The card {where} needs a name of 1 to 80 visible characters without 'discord' or "
            "'clyde'.",
            "Discord refuses such webhook names.",
        )
    if len(fields["tagline"]) > MAX_TAGLINE:
        raise CardError(
            f"The card {where} has a tagline of more than {MAX_TAGLINE} characters.", "Shorten it."
        )
    examples = normalise_examples(fields["mes_example"], name, fields["nickname"])
    # Macros of what is sent as it is keep until then; those of a prompt have one value, in training
    # and in serving.
    settled = {key: settle_macros(fields[key], name) for key in PROSE_FIELDS}
    settled["mes_example"] = settle_macros(examples, name)
    prose = {key: text.text for key, text in settled.items()}
    prose["first_mes"] = normalise_macros(fields["first_mes"])
    prose["asked_if_human"] = normalise_macros(fields["asked_if_human"])
    greetings = []
    for text in _texts(table, "alternate_greetings", where):
        if text.strip():
            greetings.append(normalise_macros(text).strip())
    avatar = None
    if folder and fields["avatar"]:
        avatar = avatar_path(folder, fields["avatar"], where)
    persona = Persona(
        id=fields["id"],
        name=name,
        tags=tuple(map(to_nfc, _texts(table, "tags", where))),
        alternate_greetings=tuple(greetings),
        avatar=avatar,
        times=_prompt_times(settled),
        **prose,
    )
    try:
        example_turns(persona)
    except ValueError as error:
        raise CardError(
            f"The card {where}: {error}.", "Begin each line of it with {{user}}: or {{char}}:."
        ) from None
    return persona


def _require_honest(asked_if_human: str, where: Path | str) -> None:
    if claims_to_be_human(asked_if_human):
        raise CardError(
            f"The card {where}: asked_if_human says that the character is a human being.",
            "Say what it is: a character whose words an AI writes.",
        )


def _prompt_times(settled: Mapping[str, SettledText]) -> tuple[str, ...]:
    """Return the macros of the present moment in the fields that prompts have."""
    times: dict[str, None] = {}
    for key in (*PROMPT_FIELDS, "speech"):
        times |= dict.fromkeys(settled[key].times)
    return tuple(times)


def visible_name(text: str) -> str:
    """Return a name that cannot hide, turn the direction of the text after it, mention or link; ""
    if it has no visible letter.

    Answers to commands contain it.
    """
    name = ""
    for letter in " ".join(to_nfc(text).split()):
        if letter in JOINERS or unicodedata.category(letter) not in ("Cc", "Cf"):
            name += letter
    name = " ".join(name.split())
    for markup, harmless in NAME_MARKUP.items():
        name = name.replace(markup, harmless)
    for letter in name:
        if unicodedata.category(letter)[0] in "LNPS" and letter not in BLANK_LETTERS:
            return name
    return ""


def _text(table: JsonObject, key: str, where: Path | str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise CardError(f"The card {where}: {key} must be text.", f'Write {key} = "…".')
    return value.strip()


def _texts(table: JsonObject, key: str, where: Path | str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise CardError(
            f"The card {where}: {key} must be a list of texts.", f'For example {key} = ["…", "…"].'
        )
    return tuple(value)


def table_from_card(card: Card, persona_id: str = "") -> JsonObject:
    """Convert a card to a table. Its id is the given one, its earlier one here, or derived
    from its name.
    """
    if card.version == 1:
        card = convert_version(card, 2)
    own = _own_fields(card)
    table: JsonObject = {key: card.text(key) for key in SHARED_TEXT_FIELDS}
    table |= {key: own[key] for key in OWN_TEXT_FIELDS if key in own}
    table["name"] = replace_surrogates(card.name)
    table["tags"] = list(card.tags)
    greetings = card.texts("alternate_greetings")
    table["alternate_greetings"] = list(greetings) if any(greetings) else []
    table["id"] = persona_id or own.get("id") or readable_id(card.name)
    if not has_example_dialogue(card):
        table["mes_example"] = ""
        table["speech"] = card.text("mes_example")
    table["more"] = json_bytes(_unmapped_fields(card, table)).decode()
    return table


def card_from_table(table: JsonObject, where: str, picture: bytes | None = None) -> Card:
    """Convert a table to a card of its original version; V2 if written by hand. Raises
    `CardError`.
    """
    persona = persona_from_table(table, where)
    spec, spec_version = SPECS[2]
    document: Any = {"spec": spec, "spec_version": spec_version, "data": empty_v2_data()}
    if table.get("more"):
        document = parse_json(table["more"].encode(), f"{where}, more,")
    data = None
    if isinstance(document, dict):
        data = document.get("data")
    if not isinstance(data, dict):
        raise CardError(
            f"{where}: more is not the rest of a card.", "Restore the field, or remove it."
        )
    for key in ("name", *SHARED_TEXT_FIELDS, *LIST_FIELDS):
        if table.get(key):
            data[key] = table[key]
    own = {key: table[key] for key in OWN_TEXT_FIELDS if table.get(key)}
    if "speech" in own and not table.get("mes_example"):
        data["mes_example"] = own.pop("speech")
    if persona.id != readable_id(persona.name):
        own["id"] = persona.id
    if own:
        data["extensions"] = (data.get("extensions") or {}) | {EXTENSION_KEY: own}
    card = parse_document(document, "toml", where)
    return Card(card.document, card.version, "toml", picture)


def to_persona(card: Card, where: str, persona_id: str = "") -> Persona:
    """Convert a card to a persona; the default id is the card's own or derived from its name.
    Raises `CardError`.
    """
    return persona_from_table(table_from_card(card, persona_id), where)


def has_example_dialogue(card: Card) -> bool:
    """Report whether `mes_example` is empty or talk; other texts describe how they speak."""
    examples = normalise_examples(
        card.text("mes_example").strip(), card.name.strip(), card.text("nickname")
    )
    try:
        example_turns(Persona("x", "x", mes_example=examples))
    except ValueError:
        return False
    return True


def stated_id(card: Card) -> str:
    """Return the id that a card states for this project; empty where it states none."""
    return _own_fields(card).get("id", "")


def _own_fields(card: Card) -> dict[str, str]:
    extensions = card.data.get("extensions")
    if not isinstance(extensions, dict):
        return {}
    own = extensions.get(EXTENSION_KEY)
    if not isinstance(own, dict):
        return {}
    texts = {}
    for key in ("id", *OWN_TEXT_FIELDS):
        if isinstance(own.get(key), str) and own[key]:
            texts[key] = replace_surrogates(own[key])
    if not ID_PATTERN.fullmatch(texts.get("id", "")):
        texts.pop("id", None)
    return texts


def _unmapped_fields(card: Card, table: JsonObject) -> JsonObject:
    """Return the parts of the card that are not in the fields of the table."""
    document = copy.deepcopy(card.document)
    data = document["data"]
    for key in ("name", *SHARED_TEXT_FIELDS, *LIST_FIELDS):
        stored = table.get(key)
        if not stored and key == "mes_example":
            stored = table.get("speech")
        if stored and data.get(key) == stored:
            del data[key]
    extensions = data.get("extensions")
    if isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION_KEY), dict):
        for key, value in _own_fields(card).items():
            if extensions[EXTENSION_KEY][key] == value:
                del extensions[EXTENSION_KEY][key]
        if not extensions[EXTENSION_KEY]:
            del extensions[EXTENSION_KEY]
    return document


def dump_toml(table: JsonObject) -> bytes:
    lines = []
    for key in FIELD_ORDER:
        if not table.get(key):
            continue
        if key == "more":
            lines.append("\n# The rest of the card as JSON, for converting it back.")
        lines.append(f"{key} = {_toml_value(table[key])}")
    return ("\n".join(lines) + "\n").encode()


def dump_texts(texts: Mapping[str, str]) -> bytes:
    """Write texts by their keys, which are words."""
    return "".join(f"{key} = {_toml_value(text)}\n" for key, text in texts.items()).encode()


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(text) for text in value)}]"
    if value.isprintable() and "'" not in value and '"' in value:
        return f"'{value}'"
    escaped = "".join(map(_escape_character, value))
    if "\n" in value:
        return f'"""\n{escaped}"""'
    return f'"{escaped}"'


def _escape_character(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter != "\n" and unicodedata.category(letter) == "Cc":
        return f"\\u{ord(letter):04x}"
    return letter
