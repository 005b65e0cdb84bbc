"""Cards of text-generation-webui, Pygmalion and early TavernAI: V1 cards with other field names, in
YAML or JSON, or as texts of a picture.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from personas.errors import CardError
from personas.lore.entry_rules import require_plain_yaml

SPELLINGS = {
    "name": "char_name character_name bot_name",
    "description": "char_persona context persona char_description",
    "personality": "char_personality",
    "scenario": "world_scenario",
    "first_mes": "char_greeting greeting first_message first_msg",
    "mes_example": "example_dialogue example_dialogues example_dialog example_dialogs "
    "example_messages sample_chat samplechat",
}
"""Other names of V1 fields; of several in a card, the first one counts."""
KNOWN_NAMES = {*SPELLINGS, *" ".join(SPELLINGS.values()).split()}
YAML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\n]*|---[ \t]*)?\r?\n)*"
    rb"[\"']?[A-Za-z_]\w*[\"']?[ \t]*:(?:\s|\Z)"
)
"""Comments, then a name and a colon."""
MAX_YAML_BYTES = 2**18
YAML_NULLS = ("", "~", "null", "Null", "NULL")


def is_known_name(name: str) -> bool:
    """Report whether a name is one of a field of V1 cards, in any spelling."""
    return _plain_name(name) in KNOWN_NAMES


def with_v1_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the names that V1 cards have for its fields; others stay as they are.

    A field that is there twice, with the same text, stays once.
    """
    renamed = dict(document)
    by_plain_name = {_plain_name(name): name for name in reversed(list(document))}
    for field, spellings in SPELLINGS.items():
        for spelling in (field, *spellings.split()):
            name = by_plain_name.get(spelling, field)
            text = _joined(renamed.get(name))
            if name == field or text is None:
                continue
            if not _joined(renamed.get(field)):
                renamed[field] = text
            if renamed[field] == text:
                del renamed[name]
    return renamed


def _plain_name(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _joined(value: object) -> str | None:
    """Return a text, or the lines of a list as one; None for anything else."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value if isinstance(value, str) else None


def looks_like_yaml(data: bytes) -> bool:
    """Report whether a text begins as YAML with named fields does."""
    return YAML_START.match(data) is not None


def _require_single_keys(root: yaml.Node | None) -> None:
    """Raise `ValueError` if the document has a key twice, of which the loader drops the first."""
    if not isinstance(root, yaml.MappingNode):
        return
    counts = Counter(str(key.value) for key, _ in root.value)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"it has {twice[0][:40]!r} twice")


def parse_yaml(data: bytes, where: str) -> Any:
    """Parse YAML; all its values are texts, lists and mappings. Raises `CardError` for a faulty one,
    and for one that a few bytes could make endless.
    """
    if len(data) > MAX_YAML_BYTES:
        raise CardError(
            f"{where} is larger than {MAX_YAML_BYTES // 2**10} KiB of YAML.",
            "Move lore into lore files.",
        )
    try:
        text = data.decode("utf-8-sig")
        require_plain_yaml(text)
        # Texts, lists and mappings only: the loader makes no objects.
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
        _require_single_keys(yaml.compose(text, loader))
        document = yaml.load(text, loader)  # nosec B506
    except UnicodeDecodeError as error:
        raise CardError(
            f"{where} is not UTF-8 (byte {error.start}).", "Save the card as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CardError(
            f"{where} is YAML that is not read: {error}.",
            "Give each key once; quotation marks around a text that begins with * or & make it one.",
        ) from None
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())[:200]
        raise CardError(f"{where} is not valid YAML: {why}.", "Correct the named line.") from None
    if not isinstance(document, dict):
        return document
    return {name: value for name, value in document.items() if value not in YAML_NULLS}
