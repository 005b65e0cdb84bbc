"""`python -m trainer anonymise`."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from personas.cli_entry import DISK_FULL_ERRNOS
from personas.errors import RequestError
from personas.home.column_maps import read_mapping, split_pairs
from personas.home.data_subjects import ErasureFence
from personas.home.external_files import delete_expired_reviews
from personas.home.pseudonyms import HomeKey
from personas.schemas.chat import Persona
from personas.schemas.import_report import ImportReport
from trainer.anonymise import anonymise_file
from trainer.anonymise.allowlist import NameCorrections, read_corrections, world_names
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.name_detector import describe_name_search
from trainer.anonymise.output_files import ReviewLog, open_atomic
from trainer.cli.argtypes import Commands, add_command, column_mapping
from trainer.cli.dataset_args import load_lore_index, load_persona
from trainer.cli.error_handling import require_writable
from trainer.cli.options import (
    COLUMNS,
    CORRECTIONS,
    NAMES,
    PERSONA,
    REVIEW_DAYS,
    add_options,
    flag,
    listed,
    option,
)
from trainer.cli.progress_view import ProgressCounter
from trainer.process.environment import find_home
from trainer.sources.source_format import ReadOptions

HELP = """\
Replaces personal data in a file, and the names of people by pseudonyms:

  python -m trainer anonymise --in talk.json --out talk.anonymised.jsonl --report report.json --review
  python -m trainer anonymise --in texts.csv --out texts.anonymised.csv --report report.json

FILE is a chat in any format that `dataset inspect` recognises, written as a log with one message per line. If it has
system texts, excluded answers or languages, which a log cannot hold, each conversation is a row of "conversations".
Or FILE has rows with a "text" (JSON, JSON Lines, CSV), written with the text replaced and with entities: [{kind, start,
end, replacement}], offsets into the original. Fields that are not kept are listed.
docs/privacy.md lists the kinds of data that are found, and the limits. Pseudonymised is not anonymous.
"""


def add_anonymise(commands: Commands) -> argparse.ArgumentParser:
    """Add `anonymise` and return its parser."""
    parser = add_command(commands, "anonymise", "replace personal data in a file", HELP)
    add_options(
        parser,
        [
            option(
                "--in",
                "FILE",
                "the file to anonymise; not changed",
                dest="source",
                type=Path,
                required=True,
            ),
            option("--out", "FILE", "the result; replaced", type=Path, required=True),
            option(
                "--report",
                "FILE",
                "counts of the replacements (JSON); an existing file is overwritten",
                type=Path,
                required=True,
            ),
            flag("--review", "list the replacements beside the report, for you alone to check"),
            REVIEW_DAYS,
            PERSONA.but(
                help="keep this persona's name and its lore's names: an id, a name or a card file"
            ),
            NAMES.but(help="P's name in chat logs"),
            COLUMNS,
            option(
                "--format", "F", "read the file as this format (default: detected from its content)"
            ),
            listed("--keep", "NAME", "names to keep"),
            listed("--also", "NAME", "names to replace everywhere"),
            CORRECTIONS.but(help="more of both, one per line: `keep NAME` or `also NAME`"),
        ],
    )
    return parser


def anonymise(options: argparse.Namespace) -> None:
    """Run `anonymise`."""
    _require_distinct_paths(options)
    home = find_home()
    fence = ErasureFence.begin(home)
    try:
        delete_expired_reviews(home, time.time())
        review = None
        if options.review:
            review = ReviewLog(review_path(options.report), home, time.time(), options.review_days)
        anonymiser, persona = _anonymiser(options, home, review)
        mapping = column_mapping(options.map) or split_pairs(read_mapping(options.source))
        reading = ReadOptions(persona=persona, persona_names=tuple(options.names), mapping=mapping)
        request = anonymise_file.AnonymiseRequest(
            options.source,
            options.out,
            options=reading,
            anonymiser=anonymiser,
            format=options.format,
            review=review,
            storing=fence.storing,
        )
        with ProgressCounter() as counter:
            summary = anonymise_file.anonymise_file(request, counter.count)
        with open_atomic(options.report) as report:
            report.write(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise _write_error(error) from error
    print("\n".join(_summary_lines(summary, options)), file=sys.stderr)


def _write_error(error: OSError) -> RequestError:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in DISK_FULL_ERRNOS:
        return RequestError(
            f"{where}the disk is full.", "Free some space, then run the same command again."
        )
    return RequestError(f"{where}{error.strerror or error}.", "Check the path and its permissions.")


def _anonymiser(
    options: argparse.Namespace, home: Path, review: ReviewLog | None
) -> tuple[Anonymiser, Persona | None]:
    persona = lore = None
    if options.persona:
        persona = load_persona(options.persona, home)
        lore = load_lore_index(persona, None, home)
    keep, also = _corrections(options)
    key = HomeKey.of(home).pseudonyms(f"anonymise/{options.source.absolute()}")
    anonymiser = Anonymiser(
        key,
        persona=persona,
        keep=world_names(persona, lore),
        keep_always=keep,
        also=also,
        on_replaced=review.note if review else None,
    )
    return anonymiser, persona


def review_path(report: Path) -> Path:
    """Return the path of the list of replacements."""
    return report.with_name(f"{report.stem}.review.jsonl")


def _corrections(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return names to keep, and names to replace that were missed."""
    read = read_corrections(options.corrections) if options.corrections else NameCorrections()
    return [*options.keep, *read.keep], [*options.also, *read.also]


def _require_distinct_paths(options: argparse.Namespace) -> None:
    """Raise `RequestError` if a path is given twice, or an output is not writable."""
    paths = [
        options.source,
        options.out,
        options.report,
        *([review_path(options.report)] if options.review else []),
    ]
    if len({path.resolve() for path in paths}) < len(paths):
        raise RequestError(
            "--in, --out and --report name the same file twice.", "Name different files."
        )
    for path in (options.out, options.report):
        require_writable(path)


def _summary_lines(summary: dict[str, Any], options: argparse.Namespace) -> list[str]:
    replaced = [f"{kind} {count:,}" for kind, count in summary["replaced"].items()]
    lines = [
        f"{options.out}: {summary['texts']:,} texts, {summary['texts_per_s']:,.0f} a second",
        f"replaced: {', '.join(replaced) or 'nothing'}",
        f"names found by: {summary['names_found_by']}",
    ]
    lines += filter(None, [describe_name_search(summary["name_search"])])
    if summary["rejected"]:
        left_out = sum(summary["rejected"].values())
        lines.append(f"left out: {left_out:,} records (reasons in the report)")
    lines += ImportReport.from_json({"not_taken": summary["not_kept"]}).lines()
    if summary["review_deleted_on"]:
        lines.append(
            f"to check: {review_path(options.report)}, deleted on "
            f"{summary['review_deleted_on'][:10]}"
        )
    return lines
