"""Shows, converts and drafts character cards, and converts lorebooks.

  python -m personas card show FILE             show a card's contents, and the use of each part
  python -m personas card convert FILE OUT      convert it to another format
  python -m personas card draft FOLDER --out OUT      draft a card from markdown alone
  python -m personas lore convert FILE OUT.md         convert a lorebook of another program

Input formats are recognised by content: V1, V2 and V3 cards as JSON, in a PNG picture or in a CHARX
file, YAML of text-generation-webui, and the TOML cards of this project. Unknown fields are
preserved.

  $ python -m personas card show mira.png
  $ python -m personas card convert mira.png personas/cards/mira.toml
  $ python -m personas card convert personas/cards/oda.toml oda.png
  $ python -m personas card convert mira.json mira.charx --picture mira-face.png

Exit codes: 0 done, 1 the card cannot be read or written, 2 wrong usage.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from personas.card.card_book import book_as_lore, card_book
from personas.card.card_draft import draft_card
from personas.card.card_picture import with_picture
from personas.card.card_reader import read_card_file
from personas.card.card_summary import format_summary, summarise_card, token_counter
from personas.card.card_writer import CARD_FORMS, CardForm, write_card
from personas.card.spec_card import Card
from personas.card.toml_card import card_from_table
from personas.cli_common import CommandParser, CommandParsers, add_examples, name_as_typed
from personas.errors import CardError, LoreError, UnderstudyError
from personas.lore.lorebook_markdown import lorebook_as_markdown
from personas.lore.lorebooks import (
    MAX_LOREBOOK_BYTES,
    NAMES,
    known_lorebooks,
    parse_lorebook,
    read_lorebook,
)
from personas.models.base_model_setting import base_model_name
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.import_report import ALL_ITEMS

SHOW_EXAMPLES = (
    "python -m personas card show mira.png",
    "python -m personas card show personas/cards/oda.toml --json",
)
CONVERT_EXAMPLES = (
    "python -m personas card convert mira.png personas/cards/mira.toml",
    "python -m personas card convert mira.json mira.charx --picture mira-face.png",
)
DRAFT_EXAMPLES = (
    "python -m personas card draft lore/characters/Wick --out wick.toml --license own-writing",
    "python -m personas card draft notes/character_mira.md --out mira.json --name Mira",
)
LORE_EXAMPLES = (
    "python -m personas lore convert worldinfo.json lore/mira/world.md --name Mira",
    "python -m personas lore convert valley.lorebook lore/_world/valley.md --json",
)
FORM_BY_SUFFIX: dict[str, CardForm] = {".toml": "toml", ".png": "png", ".charx": "charx"}


def main(arguments: list[str] | None = None) -> int:
    options = name_as_typed(build_parser()).parse_args(arguments)
    try:
        options.command(options)
    except UnderstudyError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if not error.filename:  # an error of the output, not of a card
            raise
        print(f"{error.filename} cannot be used: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def _show(options: argparse.Namespace) -> None:
    card = read_card_file(options.file)
    summary = summarise_card(card, str(options.file), token_counter(options.base_model))
    if options.json:
        print(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        print(format_summary(summary))


def _convert(options: argparse.Namespace) -> None:
    card = read_card_file(options.file)
    out = options.out
    if options.picture:
        card = with_picture(card, options.picture.read_bytes(), str(options.picture))
    form = options.to or _form_from_suffix(out, card)
    export = write_card(card, form, str(options.file), avatar=out.stem)
    files = {out: export.content}
    for name, content in export.beside.items():
        files[out.with_name(name)] = content
    if options.lore:
        files[options.lore] = _book_markdown(card, options.file).encode()
    _write_files(files, options.overwrite)
    notes = list(export.notes)
    if options.lore:
        notes += card_book(card).report().lines(ALL_ITEMS)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _draft(options: argparse.Namespace) -> None:
    draft = draft_card(options.folder, options.name)
    card = card_from_table(draft.table(options.id, options.license), str(options.folder))
    form = _form_from_suffix(options.out, card)
    written = write_card(card, form, str(options.folder), persona_id=options.id)
    _write_files({options.out: written.content}, options.overwrite)
    for key, entry in summarise_card(card, str(options.out), None)["fields"].items():
        print(f"  {key}: {entry['characters']} characters")
    for note in draft.notes:
        print(f"note: {note}", file=sys.stderr)


def _convert_lorebook(options: argparse.Namespace) -> None:
    file = options.file
    out = options.out
    if file.stat().st_size > MAX_LOREBOOK_BYTES:
        raise LoreError(
            f"{file} has more than {MAX_LOREBOOK_BYTES // 2**20} MiB.", "Divide the lorebook."
        )
    document = parse_lorebook(file.read_bytes(), file.name)
    if document is None:
        raise LoreError(
            f"{file} is not JSON.", "Markdown is lore as it is: put it into the folder."
        )
    book = read_lorebook(document, options.name, EXAMPLE_USER)
    report = book.report()
    texts = lorebook_as_markdown(book.entries, book.title or file.stem)
    if not texts:
        raise LoreError(
            f"{file} is {NAMES[book.kind]} without usable entries.", " ".join(report.lines())
        )
    _write_files({out: texts[0].encode()}, options.overwrite, silent=options.json)
    if options.json:
        stated = {
            "kind": book.kind,
            "entries": len(book.entries),
            "file": str(out),
            "imported": report.as_json(),
        }
        print(json.dumps(stated, ensure_ascii=False, indent=2))
    else:
        print("\n".join(report.lines(ALL_ITEMS)))


def _write_files(files: dict[Path, bytes], overwrite: bool, *, silent: bool = False) -> None:
    """Write files completely. Raises `CardError` if one exists, unless it may be overwritten."""
    # All names are checked before the first file is written.
    for path in files:
        if path.exists() and not overwrite:
            raise CardError(f"{path} exists already.", "Choose another name, or add --overwrite.")
    for path, content in files.items():
        temporary = path.with_name(f"{path.name}.part")  # a partial file never has the final name
        try:
            with temporary.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if not silent:
            print(f"wrote {path} ({len(content)} bytes)")


def _form_from_suffix(out: Path, card: Card) -> CardForm:
    suffix = out.suffix.lower()
    if suffix == ".json":
        return "v3" if card.version == 3 else "v2"
    if suffix not in FORM_BY_SUFFIX:
        raise CardError(
            f"The format of {out} is not clear from its name.", f"Add --to {'|'.join(CARD_FORMS)}."
        )
    return FORM_BY_SUFFIX[suffix]


def _book_markdown(card: Card, file: Path) -> str:
    lore = book_as_lore(card)
    if not lore:
        raise CardError(f"{file} has no character book with usable entries.", "Leave --lore out.")
    return lore[0]


def build_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = CommandParser(
        prog="python -m personas",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT")
    card = add_examples(
        subjects.add_parser("card", help="character cards"),
        *SHOW_EXAMPLES,
        *CONVERT_EXAMPLES,
        *DRAFT_EXAMPLES,
    )
    commands = card.add_subparsers(required=True, metavar="COMMAND")

    description = "Show a card's contents, and its tokens in every prompt."
    show = commands.add_parser("show", help="show a card's contents", description=description)
    add_examples(show, *SHOW_EXAMPLES)
    show.add_argument(
        "file", type=Path, metavar="FILE", help="the card: JSON, YAML, PNG, CHARX or TOML"
    )
    show.add_argument("--json", action="store_true", help="print one JSON object, with all texts")
    base_help = "count tokens with the tokenizer of this model (default: BASE_MODEL, else embedded)"
    show.add_argument(
        "--base-model", type=base_model_name, default="", metavar="FOLDER", help=base_help
    )
    show.set_defaults(command=_show)

    description = "Convert a card to another format, and list the parts left out."
    convert = commands.add_parser(
        "convert", help="convert a card to another format", description=description
    )
    add_examples(convert, *CONVERT_EXAMPLES)
    convert.add_argument(
        "file", type=Path, metavar="FILE", help="the card: JSON, YAML, PNG, CHARX or TOML"
    )
    out_help = "the file to write; a TOML card's picture is written beside it"
    convert.add_argument("out", type=Path, metavar="OUT", help=out_help)
    to_help = "the format: TOML, JSON (V2 or V3), PNG or CHARX (default: by the suffix of OUT)"
    convert.add_argument("--to", choices=CARD_FORMS, help=to_help)
    picture_help = "the character's picture; a PNG for a PNG card"
    convert.add_argument("--picture", type=Path, metavar="PICTURE", help=picture_help)
    convert.add_argument(
        "--lore", type=Path, metavar="MARKDOWN", help="also write the character book as lore"
    )
    convert.add_argument("--overwrite", action="store_true", help="replace existing files")
    convert.set_defaults(command=_convert)
    _add_draft(commands)
    _add_lore(subjects)
    return parser


def _add_draft(commands: CommandParsers) -> None:
    description = (
        "Draft a card from markdown alone, by rules: headings, labelled lines, lists, quotations. "
        "Names the missing fields."
    )
    draft = commands.add_parser(
        "draft", help="draft a card from markdown alone", description=description
    )
    add_examples(draft, *DRAFT_EXAMPLES)
    add = draft.add_argument
    add(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="a folder about one character, or a markdown file",
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="the card to write: .toml, .json or .charx",
    )
    add("--name", default="", metavar="N", help="the character's name (default: as found)")
    add("--id", default="", metavar="ID", help="the persona's id (default: derived from the name)")
    add(
        "--license",
        default="",
        metavar="L",
        help="the licence of the text, such as own-writing or CC-BY-4.0",
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    draft.set_defaults(command=_draft)


def _add_lore(subjects: CommandParsers) -> None:
    lore = add_examples(
        subjects.add_parser("lore", help="lorebooks of other programs"), *LORE_EXAMPLES
    )
    commands = lore.add_subparsers(required=True, metavar="COMMAND")
    description = (
        "Convert a lorebook to markdown lore, and list the use of each part. Known: "
        f"{known_lorebooks()}."
    )
    convert = commands.add_parser(
        "convert", help="convert a lorebook to markdown", description=description
    )
    add_examples(convert, *LORE_EXAMPLES)
    add = convert.add_argument
    add("file", type=Path, metavar="FILE", help="the lorebook: JSON of another program")
    add("out", type=Path, metavar="OUT", help="the markdown file to write, in a folder of lore")
    add(
        "--name",
        default="{{char}}",
        metavar="N",
        help="the name for {{char}} (default: the persona that speaks)",
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    add("--json", action="store_true", help="print the list as one JSON object")
    convert.set_defaults(command=_convert_lorebook)
