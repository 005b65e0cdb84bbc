"""Summary of a card: fields, token counts, assets and problems."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from personas.card.card_book import book_entries
from personas.card.card_picture import card_picture, picture_type
from personas.card.card_report import report_card
from personas.card.spec_card import TEXT_FIELDS, Card, replace_surrogates
from personas.card.toml_card import has_example_dialogue, to_persona
from personas.errors import BaseModelError, CardError
from personas.models.base_model import EMBEDDED
from personas.models.bundled_model import bundled_model_folder
from personas.prompt.renderer import EXAMPLE_USER, MAX_CARD_TOKENS, system_text
from personas.schemas.import_report import ALL_ITEMS, ImportReport

CountTokens = Callable[[str], int]
FORM_LABELS = {"json": "JSON", "yaml": "YAML", "png": "PNG", "charx": "CHARX", "toml": "TOML"}
ASSET_KEYS = ("type", "name", "ext", "uri")
NOT_FOR_PROMPTS = ("creator_notes", "nickname")
PREVIEW_CHARACTERS = 72


def token_counter(base_model: str) -> CountTokens | None:
    """Return a token counter for a base model; None if the embedded model is not unpacked yet.
    Imports no torch.
    """
    folder = bundled_model_folder() if base_model == EMBEDDED else Path(base_model).expanduser()
    file = folder / "tokenizer.json"
    if not file.is_file():
        if base_model == EMBEDDED:
            return None
        raise BaseModelError(
            f"There is no tokenizer.json in {folder}.", "Name the folder of a base model."
        )
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def summarise_card(card: Card, where: str, count: CountTokens | None) -> dict[str, Any]:
    """Summarise a card as JSON with stable keys. `tokens` are None without a counter."""
    data = card.data
    icon = card_picture(card)
    fields = {}
    for key in TEXT_FIELDS:
        if card.text(key).strip():
            fields[key] = _field(card.text(key), count)
    book = []
    for entry in book_entries(card):
        described = {"topic": entry.topic, "unused": entry.unused}
        book.append({**described, **_field(entry.text, count)})
    assets = []
    for asset in card.assets:
        assets.append({key: _plain_text(asset.get(key))[:120] for key in ASSET_KEYS})
    extensions = data.get("extensions")
    problems = []
    prompt: int | None = None
    try:
        persona = to_persona(card, where)
        if count:
            prompt = count(system_text(persona, EXAMPLE_USER) + persona.mes_example)
        if prompt and prompt > MAX_CARD_TOKENS:
            problems.append(
                "it is long: prompts include examples only while the card has at most "
                f"{MAX_CARD_TOKENS} tokens."
            )
        if not has_example_dialogue(card):
            problems.append(
                "mes_example is not a conversation of {{user}} and {{char}}; it is used in the "
                "prompt unchanged."
            )
    except CardError as error:
        problems.append(str(error))
    names = sorted(extensions) if isinstance(extensions, dict) else []
    picture = picture_type(icon) if icon else None
    return {
        "file": where,
        "form": card.container,
        "version": card.version,
        "name": card.name,
        "nickname": card.text("nickname"),
        "tags": list(card.tags),
        "creator": _plain_text(data.get("creator")),
        "character_version": _plain_text(data.get("character_version")),
        "fields": fields,
        "alternate_greetings": _fields(card.texts("alternate_greetings"), count),
        "group_only_greetings": _fields(card.texts("group_only_greetings"), count),
        "book": book,
        "assets": assets,
        "extensions": names,
        "picture": picture,
        "prompt_tokens": prompt,
        "problems": problems,
        "imported": report_card(card).as_json(),
    }


def format_summary(summary: dict[str, Any]) -> str:
    lines = [_heading(summary)]
    if summary["tags"]:
        lines.append(f"tags: {', '.join(summary['tags'])}")
    lines += ["", f"{'field':<28}{'characters':>11}{'tokens':>8}  begins"]
    for key, entry in summary["fields"].items():
        label = f"{key} *" if key in NOT_FOR_PROMPTS else key
        lines.append(_row(label, entry))
    for kind in ("alternate_greetings", "group_only_greetings", "book"):
        for number, entry in enumerate(summary[kind], start=1):
            label = f"{kind.removesuffix('s')} {number}"
            if kind == "book":
                label += f" [{entry['topic'] or 'no topic'}]"
            if entry.get("unused"):
                label += f" ({entry['unused']})"
            lines.append(_row(label, entry))
    lines.append("")
    if summary["prompt_tokens"] is not None:
        lines.append(f"About {summary['prompt_tokens']} tokens of every prompt.")
    lines.append("* never part of a prompt")
    for asset in summary["assets"]:
        lines.append(
            f"asset: {asset['type']} {asset['name']} ({asset['uri'][:PREVIEW_CHARACTERS]})"
        )
    if summary["extensions"]:
        lines.append(f"extensions, preserved unchanged: {', '.join(summary['extensions'])}")
    lines += [f"note: {problem}" for problem in summary["problems"]]
    return "\n".join([*lines, "", *ImportReport.from_json(summary["imported"]).lines(ALL_ITEMS)])


def _heading(summary: dict[str, Any]) -> str:
    about = [f"card V{summary['version']}", FORM_LABELS[summary["form"]]]
    if summary["picture"]:
        about.append(f"{summary['picture'].upper()} picture")
    else:
        about.append("no picture")
    if summary["creator"]:
        about.append(f"by {summary['creator']}")
    return f"{summary['name']} ({', '.join(about)})"


def _field(text: str, count: CountTokens | None) -> dict[str, Any]:
    tokens = count(text) if count else None
    return {"characters": len(text), "tokens": tokens, "text": text}


def _fields(texts: tuple[str, ...], count: CountTokens | None) -> list[dict[str, Any]]:
    return [_field(text, count) for text in texts]


def _row(label: str, entry: dict[str, Any]) -> str:
    shown = " ".join(entry["text"].split())
    if len(shown) > PREVIEW_CHARACTERS:
        shown = f"{shown[: PREVIEW_CHARACTERS - 1]}…"
    tokens = "" if entry["tokens"] is None else entry["tokens"]
    return f"{label:<28}{entry['characters']:>11}{tokens:>8}  {shown}"


def _plain_text(value: object) -> str:
    return replace_surrogates(value) if isinstance(value, str) else ""
