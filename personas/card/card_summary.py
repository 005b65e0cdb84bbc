"""Summary of a card: fields, token counts, assets and problems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from personas.card.character_book import book_entries
from personas.card.formats import card_picture, picture_type, to_persona
from personas.card.spec_card import TEXT_FIELDS, Card, replace_surrogates
from personas.errors import BaseModelError, CardError
from personas.models.base_model import EMBEDDED
from personas.models.bundled_model import unpacked_folder
from personas.prompt import EXAMPLE_USER, MAX_CARD_TOKENS, system_text

CountTokens = Callable[[str], int]
FORM_LABELS = {"json": "JSON", "png": "PNG", "charx": "CHARX", "toml": "TOML"}
NOT_FOR_PROMPTS = ("creator_notes", "nickname")
PREVIEW_CHARACTERS = 72


def token_counter(base_model: str) -> CountTokens | None:
    """Counts tokens as a base model does; None where its tokenizer is not at hand. Loads no model library."""
    folder = unpacked_folder() if base_model == EMBEDDED else Path(base_model).expanduser()
    file = folder / "tokenizer.json"
    if not file.is_file():
        if base_model == EMBEDDED:
            return None
        raise BaseModelError(f"There is no tokenizer.json in {folder}.", "Name the folder of a base model.")
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def summarise_card(card: Card, where: str, count: CountTokens | None) -> dict[str, Any]:
    """What the card holds, under keys that stay. `tokens` are None without a counter."""
    data, icon = card.data, card_picture(card)
    book = book_entries(card)
    texts = {key: card.text(key) for key in TEXT_FIELDS if card.text(key).strip()}
    problems = []
    prompt: int | None = None
    try:
        persona = to_persona(card, where)
        prompt = count(system_text(persona, EXAMPLE_USER) + persona.mes_example) if count else None
        if prompt and prompt > MAX_CARD_TOKENS:
            problems.append(
                f"it is long: prompts take examples only while the card has at most {MAX_CARD_TOKENS} tokens."
            )
        if persona.speech:
            problems.append("mes_example is no talk of {{user}} and {{char}}; it goes into the prompt as it is.")
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
        "group_only_greetings": [_field(text, count) for text in card.texts("group_only_greetings")],
        "book": [{"topic": entry.topic, "unused": entry.unused, **_field(entry.text, count)} for entry in book],
        "assets": [
            {key: _plain_text(asset.get(key))[:120] for key in ("type", "name", "ext", "uri")} for asset in card.assets
        ],
        "extensions": sorted(data["extensions"]) if isinstance(data.get("extensions"), dict) else [],
        "picture": picture_type(icon) if icon else None,
        "prompt_tokens": prompt,
        "problems": problems,
    }


def format_summary(summed: dict[str, Any]) -> str:
    """A summary for people."""
    version = f"card V{summed['version']}, {FORM_LABELS[summed['form']]}"
    by = f", by {summed['creator']}" if summed["creator"] else ""
    picture = f", {summed['picture'].upper()} picture" if summed["picture"] else ", no picture"
    lines = [f"{summed['name']} ({version}{picture}{by})"]
    if summed["tags"]:
        lines.append(f"tags: {', '.join(summed['tags'])}")
    lines += ["", f"{'field':<28}{'characters':>11}{'tokens':>8}  begins"]
    for key, held in summed["fields"].items():
        label = f"{key} *" if key in NOT_FOR_PROMPTS else key
        lines.append(_row(label, held))
    for kind in ("alternate_greetings", "group_only_greetings", "book"):
        for number, held in enumerate(summed[kind], start=1):
            note = f" [{held['topic'] or 'no topic'}]" if kind == "book" else ""
            off = f" ({held['unused']})" if held.get("unused") else ""
            lines.append(_row(f"{kind.removesuffix('s')} {number}{note}{off}", held))
    lines.append("")
    if summed["prompt_tokens"] is not None:
        lines.append(f"About {summed['prompt_tokens']} tokens of every prompt.")
    lines.append("* never part of a prompt")
    lines += [f"asset: {one['type']} {one['name']} ({one['uri'][:PREVIEW_CHARACTERS]})" for one in summed["assets"]]
    if summed["extensions"]:
        lines.append(f"extensions, kept as they are: {', '.join(summed['extensions'])}")
    return "\n".join([*lines, *(f"note: {problem}" for problem in summed["problems"])])


def _field(text: str, count: CountTokens | None) -> dict[str, Any]:
    return {"characters": len(text), "tokens": count(text) if count else None, "text": text}


def _row(label: str, held: dict[str, Any]) -> str:
    begins = " ".join(held["text"].split())
    shown = begins if len(begins) <= PREVIEW_CHARACTERS else f"{begins[: PREVIEW_CHARACTERS - 1]}…"
    tokens = "" if held["tokens"] is None else held["tokens"]
    return f"{label:<28}{held['characters']:>11}{tokens:>8}  {shown}"


def _plain_text(value: object) -> str:
    return replace_surrogates(value) if isinstance(value, str) else ""
