"""`python -m trainer dataset build` and `dataset export`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.command_line import with_examples
from personas.errors import RequestError
from personas.rights import DISCORD_API, RIGHTS, RIGHTS_FILE, wrong_right
from trainer.commands.counts import REVIEW_DAYS, add_telling, days
from trainer.commands.settings_given import add_settings

if TYPE_CHECKING:
    from trainer.anonymise.review import Review
    from trainer.building.write import Order

BUILD_HELP = """\
Makes a data set of one or more sources, one sample per reply:

  python -m trainer dataset build --persona ballast --source data/logs/ballast.json --out build/ballast
  python -m trainer dataset build --persona oda --source talk.jsonl:4000 --source oda.json --mix 80:20 --out build/oda

A source is PATH, PATH=FORMAT, PATH:COUNT (so many of its samples at most) or PATH=FORMAT:COUNT; in place of a path it
may be a name, of a log that ships (ballast) or an entry of catalogue.toml. Its format is recognised by content. A right
to each must be stated: in rights.toml beside it, or by --right, which does not lift what came through Discord's API out
of Discord's rules (docs/privacy.md).

Three ways to train a persona: its own talk alone, over a chat model; --mix 80:20, general talk and its own in that
ratio; --two-stage, all general talk first, then its own.
"""
EXPORT_EXAMPLE = "python -m trainer dataset export build/ballast --to openai --out ballast.jsonl"
TARGETS = ("openai", "sharegpt", "alpaca")


def pair(text: str) -> tuple[str, str]:
    """Both sides of `a=b`, for argparse."""
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        raise argparse.ArgumentTypeError(f"expected ROLE=COLUMN, got {text!r}")
    return left, right


def mapping_of(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What `--map` says. Raises `RequestError` when it says two things of one name."""
    mapping: dict[str, str] = {}
    for left, right in pairs:
        if mapping.get(left, right) != right:
            raise RequestError(f"--map gives {left} twice: {mapping[left]!r} and {right!r}.", "Give each one column.")
        mapping[left] = right
    return mapping


def right(text: str) -> str:
    """A right, for argparse."""
    if wrong := wrong_right(text):
        raise argparse.ArgumentTypeError(f"{text!r} {wrong}")
    return text


def add_build(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `build`; its parser is given back for its command to be set."""
    build = subcommands.add_parser(
        "build",
        help="make a data set of sources: filtered, without duplicates, split, mixed",
        description=BUILD_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_sources(build, required=True)
    add = build.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the data set's folder")
    add("--review", type=Path, metavar="FILE", help="list what is anonymised in it, for you alone to check")
    add("--review-days", type=days, default=REVIEW_DAYS, metavar="N", help="delete that after so many days (14)")
    add("--json", action="store_true", help="print one JSON object")
    add_telling(build)
    return build


def add_export(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `export`."""
    export = subcommands.add_parser("export", help="write a data set in another tool's format")
    with_examples(export, EXPORT_EXAMPLE)
    export.add_argument("folder", type=Path, metavar="DIR", help="a data set's folder, as `build` makes it")
    export.add_argument("--to", choices=TARGETS, required=True, help="the format")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file; replaced")
    export.add_argument("--eval", action="store_true", help="write the held-out samples (default: those to train on)")
    export.add_argument("--json", action="store_true", help="print one JSON object")
    return export


def add_sources(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds what `build` and `plan` share: sources, and how samples are made of them."""
    add = parser.add_argument
    add("--persona", metavar="P", help="a persona's id or name, or a card file; without, a data set of dialogue")
    add(
        "--as",
        dest="names",
        action="append",
        default=[],
        metavar="NAME",
        help="who is P in chat logs: a name, id or role",
    )
    add("--source", action="append", default=[], required=required, metavar="PATH[=FORMAT][:COUNT]", help="may repeat")
    add("--mix", metavar="80:20", help="general talk to the persona's; or one number per source, in their order")
    add("--two-stage", action="store_true", help="general samples first, then the persona's")
    add("--lore", type=Path, metavar="DIR", help="lore folders by persona (default: those that ship)")
    add("--right", type=right, metavar="R", help=f"the right to sources without rights.toml: {', '.join(RIGHTS)}")
    add("--map", type=pair, nargs="+", action="extend", default=[], metavar="ROLE=COLUMN", help="as for `inspect`")
    add("--tree-paths", choices=("best", "all"), default="best", help="of message trees: which paths to take")
    add("--languages", default="", metavar="en,vi", help="keep only these")
    add("--min-reply-words", type=int, default=0, metavar="N", help="drop shorter replies")
    add("--max-reply-words", type=int, default=1_000_000, metavar="N", help="drop longer replies")
    add("--recipe", default="demo-cpu", metavar="R", help="whose lengths and shares hold (default: demo-cpu)")
    add_settings(parser)
    add("--max-length", type=int, metavar="TOKENS", help="most tokens of a sample (default: the recipe's)")
    add("--base-model", default="embedded", metavar="M", help="whose tokenizer counts (default: embedded)")
    add("--corrections", type=Path, metavar="FILE", help="names to keep or to replace, as for `anonymise`")
    add("--seed", type=int, default=0, metavar="N", help="decides what is taken where not all is (default: 0)")


def build(options: argparse.Namespace) -> None:
    """Runs `dataset build`."""
    from trainer.building.write import require_free, write_dataset
    from trainer.commands.orders import order_of
    from trainer.commands.places import require_place
    from trainer.commands.progress import Counting

    require_free(options.out)
    require_place(options.out)
    order: Order = order_of(options)
    if options.review:
        order = replace(order, review=_review(options))
    with Counting(options.tell_every) as counting:
        told = write_dataset(options.out.absolute(), order, counting.heard)
    if options.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print("\n".join(_told(told, options.out)))


def _review(options: argparse.Namespace) -> Review:
    from personas.reviews import delete_expired
    from trainer.anonymise.review import Review
    from trainer.building.folder import require_outside
    from trainer.commands.places import require_place
    from trainer.home import home

    require_outside(options.review)
    if options.review.absolute().parent == options.out.absolute():
        raise RequestError("--review names a file in the data set's folder.", "Name another: it tells who is in it.")
    require_place(options.review, "Name another place with --review.")
    options.review.absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place, now = home(), time.time()
    delete_expired(place, now)
    return Review(options.review, place, now, options.review_days)


def export(options: argparse.Namespace) -> None:
    """Runs `dataset export`."""
    from trainer.building.export import export_dataset
    from trainer.commands.left import note_left
    from trainer.commands.places import require_place

    require_place(options.out)
    exported = export_dataset(options.folder, options.to, options.out, held_out=options.eval)
    note_left("data set", options.folder, options.out)
    rights_file = options.out.parent / RIGHTS_FILE if any(exported.rights) else None
    if options.json:
        told = {"path": str(options.out), "samples": exported.samples, "rights": dict(exported.rights)}
        print(json.dumps({**told, "rights_file": str(rights_file) if rights_file else None}, ensure_ascii=False))
    else:
        print(f"{exported.samples:,} samples in {options.out}")
        if rights_file:
            print(f"the right to them is stated in {rights_file}: keep it beside the file")
    if count := exported.rights.get(DISCORD_API):
        print(
            f"warning: {count:,} of them came through Discord's API. Discord forbids training on them without its "
            "permission, with any tool, and forgetting does not reach files that have left.",
            file=sys.stderr,
        )


def _told(told: dict[str, Any], out: Path) -> list[str]:
    samples = told["samples"]
    sources = ", ".join(f"{name} {count:,}" for name, count in told["sources"].items())
    lines = [
        f"{out}: {samples['train']:,} samples to train on, {samples['eval']:,} held out, {told['tokens']:,} tokens",
        f"from {sources}",
        f"{told['rows_used']:,} of {told['rows']:,} records used",
        *(f"  dropped {rows:>9,}  {reason}" for reason, rows in told["dropped"].items()),
        f"hash {told['hash']}",
    ]
    return lines
