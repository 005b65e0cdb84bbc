"""Summary of a card: fields, token counts, assets and problems."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from personas.card.card_book import book_entries
from personas.card.card_picture import card_picture, picture_type
from personas.card.card_report import report_card
from personas.card.spec_card import TEXT_FIELDS, Card, replace_surrogates
from personas.card.toml_card import to_persona
from personas.errors import BaseModelError, CardError
from personas.models.base_model import EMBEDDED
from personas.models.bundled_model import bundled_model_folder
from personas.prompt.renderer import EXAMPLE_USER, MAX_CARD_TOKENS, system_text
from personas.schemas.import_report import ALL_ITEMS, ImportReport

CountTokens = Callable[[str], int]
FORM_LABELS = {"json": "JSON", "png": "PNG", "charx": "CHARX", "toml": "TOML"}
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
    book = book_entries(card)
    texts = {key: card.text(key) for key in TEXT_FIELDS if card.text(key).strip()}
    problems = []
    prompt: int | None = None
    try:
        persona = to_persona(card, where)
        prompt = count(system_text(persona, EXAMPLE_USER) + persona.mes_example) if count else None
        if prompt and prompt > MAX_CARD_TOKENS:
            problems.append(
                "it is long: prompts include examples only while the card has at most "
                f"{MAX_CARD_TOKENS} tokens."
            )
        if persona.speech:
            problems.append(
                "mes_example is not a conversation of {{user}} and {{char}}; it is used in the "
                "prompt unchanged."
            )
    except CardError as error:
        problems.append(str(error))
    return {
        "file": where,
        "form": card.container,
        "version": card.version,
        "name": card.name,
        "nickname": card.text("nickname"),
        "tags": list(card.tags),
        "creator": _plain_text(data.get("creator")),
        "character_version": _plain_text(data.get("character_version")),
        "fields": {key: _field(text, count) for key, text in texts.items()},
        "alternate_greetings": [_field(text, count) for text in card.texts("alternate_greetings")],
        "group_only_greetings": [
            _field(text, count) for text in card.texts("group_only_greetings")
        ],
        "book": [
            {"topic": entry.topic, "unused": entry.unused, **_field(entry.text, count)}
            for entry in book
        ],
        "assets": [
            {key: _plain_text(asset.get(key))[:120] for key in ASSET_KEYS} for asset in card.assets
        ],
        "extensions": sorted(data["extensions"])
        if isinstance(data.get("extensions"), dict)
        else [],
        "picture": picture_type(icon) if icon else None,
        "prompt_tokens": prompt,
        "problems": problems,
        "imported": report_card(card, where).as_json(),
    }


def format_summary(summary: dict[str, Any]) -> str:
    version = f"card V{summary['version']}, {FORM_LABELS[summary['form']]}"
    by = f", by {summary['creator']}" if summary["creator"] else ""
    picture = f", {summary['picture'].upper()} picture" if summary["picture"] else ", no picture"
    lines = [f"{summary['name']} ({version}{picture}{by})"]
    if summary["tags"]:
        lines.append(f"tags: {', '.join(summary['tags'])}")
    lines += ["", f"{'field':<28}{'characters':>11}{'tokens':>8}  begins"]
    for key, entry in summary["fields"].items():
        label = f"{key} *" if key in NOT_FOR_PROMPTS else key
        lines.append(_row(label, entry))
    for kind in ("alternate_greetings", "group_only_greetings", "book"):
        for number, entry in enumerate(summary[kind], start=1):
            note = f" [{entry['topic'] or 'no topic'}]" if kind == "book" else ""
            off = f" ({entry['unused']})" if entry.get("unused") else ""
            lines.append(_row(f"{kind.removesuffix('s')} {number}{note}{off}", entry))
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


def _field(text: str, count: CountTokens | None) -> dict[str, Any]:
    return {"characters": len(text), "tokens": count(text) if count else None, "text": text}


def _row(label: str, entry: dict[str, Any]) -> str:
    opening = " ".join(entry["text"].split())
    shown = (
        opening if len(opening) <= PREVIEW_CHARACTERS else f"{opening[: PREVIEW_CHARACTERS - 1]}…"
    )
    tokens = "" if entry["tokens"] is None else entry["tokens"]
    return f"{label:<28}{entry['characters']:>11}{tokens:>8}  {shown}"


def _plain_text(value: object) -> str:
    return replace_surrogates(value) if isinstance(value, str) else ""
