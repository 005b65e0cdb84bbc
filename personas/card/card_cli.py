"""Shows and converts character cards.

  python -m personas card show FILE             what a card holds
  python -m personas card convert FILE OUT      write it in another form

A card is read in any form it comes in, recognised by its content: V1, V2 and V3 as JSON, in a PNG picture or in a CHARX
file, and the TOML cards of this project. Fields that nothing here knows are kept and written again.

  $ python -m personas card show mira.png
  $ python -m personas card convert mira.png personas/cards/mira.toml
  $ python -m personas card convert personas/cards/oda.toml oda.png
  $ python -m personas card convert mira.json mira.charx --picture mira-face.png

Exit codes: 0 done, 1 the card cannot be read or written, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from personas.card import CARD_FORMS, Card, CardForm, read_card_file, with_picture, write_card
from personas.card.card_summary import format_summary, summarise_card, token_counter
from personas.card.character_book import book_as_lore
from personas.cli_common import add_examples
from personas.errors import CardError, UnderstudyError
from personas.models.base_model import EMBEDDED

SHOW_EXAMPLES = (
    "python -m personas card show mira.png",
    "python -m personas card show personas/cards/oda.toml --json",
)
CONVERT_EXAMPLES = (
    "python -m personas card convert mira.png personas/cards/mira.toml",
    "python -m personas card convert mira.json mira.charx --picture mira-face.png",
)
FORM_BY_SUFFIX: dict[str, CardForm] = {".toml": "toml", ".png": "png", ".charx": "charx"}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        options.command(options)
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if not error.filename:  # of the output, not of a card
            raise
        print(f"{error.filename} cannot be used: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def _show(options: argparse.Namespace) -> None:
    held = summarise_card(read_card_file(options.file), str(options.file), token_counter(options.base_model))
    print(json.dumps(held, ensure_ascii=False, indent=2) if options.json else format_summary(held))


def _convert(options: argparse.Namespace) -> None:
    card, out = read_card_file(options.file), options.out
    if options.picture:
        card = with_picture(card, options.picture.read_bytes(), str(options.picture))
    form = options.to or _form_from_suffix(out, card)
    written = write_card(card, form, str(options.file), avatar=out.stem)
    files = {out: written.content} | {out.with_name(name): content for name, content in written.beside.items()}
    if options.lore:
        files[options.lore] = _book_markdown(card, options.file).encode()
    for path in files:
        if path.exists() and not options.overwrite:
            raise CardError(f"{path} is there already.", "Choose another name, or add --overwrite.")
    for path, content in files.items():
        aside = path.with_name(f"{path.name}.part")  # a half-written file never has its final name
        aside.write_bytes(content)
        aside.replace(path)
        print(f"wrote {path} ({len(content)} bytes)")
    for note in written.notes:
        print(f"note: {note}", file=sys.stderr)


def _form_from_suffix(out: Path, card: Card) -> CardForm:
    ending = out.suffix.lower()
    if ending == ".json":
        return "v3" if card.version == 3 else "v2"
    if ending not in FORM_BY_SUFFIX:
        raise CardError(f"What to make of {out} cannot be told from its name.", f"Add --to {'|'.join(CARD_FORMS)}.")
    return FORM_BY_SUFFIX[ending]


def _book_markdown(card: Card, file: Path) -> str:
    lore = book_as_lore(card)
    if not lore:
        raise CardError(f"{file} has no character book with entries to use.", "Leave --lore out.")
    return lore[0]


def build_parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    made = argparse.ArgumentParser(
        prog="python -m personas", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subjects = made.add_subparsers(required=True, metavar="SUBJECT")
    card = add_examples(subjects.add_parser("card", help="character cards"), *SHOW_EXAMPLES, *CONVERT_EXAMPLES)
    commands = card.add_subparsers(required=True, metavar="COMMAND")

    show = commands.add_parser(
        "show", help="say what a card holds", description="Say what a card holds, and what it costs in every prompt."
    )
    add_examples(show, *SHOW_EXAMPLES)
    show.add_argument("file", type=Path, metavar="FILE", help="the card: JSON, PNG, CHARX or TOML")
    show.add_argument("--json", action="store_true", help="print one JSON object, with all texts")
    show.add_argument(
        "--base-model", default=EMBEDDED, metavar="FOLDER", help="count tokens as this model does (default: embedded)"
    )
    show.set_defaults(command=_show)

    convert = commands.add_parser(
        "convert",
        help="write a card in another form",
        description="Write a card in another form. Says what it had to leave out.",
    )
    add_examples(convert, *CONVERT_EXAMPLES)
    convert.add_argument("file", type=Path, metavar="FILE", help="the card: JSON, PNG, CHARX or TOML")
    convert.add_argument(
        "out", type=Path, metavar="OUT", help="the file to write; a TOML card's picture is put beside it"
    )
    convert.add_argument(
        "--to",
        choices=CARD_FORMS,
        help="the form: TOML, JSON of V2 or V3, PNG or CHARX (default: by the ending of OUT)",
    )
    convert.add_argument("--picture", type=Path, metavar="PICTURE", help="the character's face; for a PNG card a PNG")
    convert.add_argument("--lore", type=Path, metavar="MARKDOWN", help="write the character book as lore, too")
    convert.add_argument("--overwrite", action="store_true", help="replace files that are there")
    convert.set_defaults(command=_convert)
    return made
