"""`python -m trainer dataset inspect|build|export|openai`."""

import argparse
import asyncio
import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from personas.card.toml_card import SHIPPED_CARDS
from personas.cli_common import add_examples, commands_as_typed, int_from, seed_number
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.errors import RequestError
from personas.home.column_maps import read_mapping, split_pairs, write_mapping
from personas.home.data_subjects import ErasureFence
from personas.home.external_files import delete_expired_reviews
from personas.home.rights import RIGHTS_FILE
from personas.home.shared_personas import read_shared_personas
from personas.schemas.base import DISCORD_API
from personas.schemas.import_report import ImportReport
from trainer.anonymise.name_detector import describe_name_search
from trainer.anonymise.output_files import ReviewLog
from trainer.cli.argtypes import Commands, add_command, column_mapping, positive_int
from trainer.cli.dataset_args import make_build_spec
from trainer.cli.error_handling import log_export, require_writable, with_error_handling
from trainer.cli.options import (
    BASE_MODEL,
    COLUMNS,
    CORRECTIONS,
    JSON,
    LORE,
    NAMES,
    OUT,
    PERSONA,
    PROGRESS_INTERVAL,
    RECIPE,
    REVIEW_DAYS,
    RIGHT,
    SET,
    add_options,
    choice,
    flag,
    option,
    repeated,
)
from trainer.cli.progress_view import ProgressCounter
from trainer.dataset.dataset_export import export_dataset
from trainer.dataset.inspection import format_question, format_summary, inspect_source
from trainer.dataset.layout import require_free, require_outside
from trainer.dataset.writer import DatasetBuildSpec, write_dataset
from trainer.export.openai_job import (
    ENDED_STATES,
    OpenAIClient,
    Submission,
    api_base_url,
    delete_files,
    describe_result,
    describe_submission,
    job_files,
    read_submission,
    submit,
)
from trainer.process.environment import find_home
from trainer.sources.column_question import UnclearColumnsError
from trainer.sources.formats.mapped_columns import COLUMNS_FORMAT
from trainer.sources.source_format import ReadOptions

BUILD_HELP = """\
Builds a data set from one or more sources, one sample per reply:

  python -m trainer dataset build --persona ballast --source data/logs/ballast.json --out build/ballast
  python -m trainer dataset build --persona oda --source talk.jsonl:4000 --source oda.json --mix 80:20 --out build/oda

A source is PATH, PATH=FORMAT, PATH:COUNT (at most so many samples) or PATH=FORMAT:COUNT; instead of a path it may be
the name of a shipped log (ballast) or an entry of catalogue.toml. Its format is detected from its content. The right to
use each source must be stated: in rights.toml beside it, or by --right, which does not override Discord's rules on
material that came through its API (docs/privacy.md).

Three ways to train a persona: on its own conversations alone, with a chat model; --mix 80:20, general and own
conversations in that ratio; --two-stage, all general conversations first, then its own.
"""
EXPORT_EXAMPLE = "python -m trainer dataset export build/ballast --to openai --out ballast.jsonl"
EXPORT_FORMATS = ("openai", "sharegpt", "alpaca")
MAX_REPLY_WORDS = 1_000_000
OPENAI_HELP = """\
Fine-tunes a model at OpenAI on a data set built by `dataset build`:

  python -m trainer dataset openai build/ballast --model gpt-4.1-mini-2025-04-14 --estimate
  OPENAI_API_KEY=… python -m trainer dataset openai build/ballast --model gpt-4.1-mini-2025-04-14
  python -m trainer dataset openai --follow ftjob-abc123

It shows the samples to be sent and the cost, asks, uploads training and held-out samples, creates the job and
follows it. Ctrl-C leaves the job running. Only samples whose right is own-writing or licensed:<name> are sent. The key
is OPENAI_API_KEY; OPENAI_BASE_URL names another server with the same API.
"""
FOLLOW_COMMAND = "python -m trainer dataset openai --follow"
INSPECT_EXAMPLES = (
    "python -m trainer dataset inspect talk.json",
    "python -m trainer dataset inspect chat.csv --map speaker=Absender text=Nachricht time=Zeit "
    "--as Oda",
    "python -m trainer dataset inspect rows.csv --map user=question assistant=reply --json",
)
BUILD_EXAMPLE = (
    "python -m trainer dataset build --persona ballast --source data/logs/ballast.json --out "
    "build/ballast"
)


def add_build(subcommands: Commands) -> argparse.ArgumentParser:
    """Add `dataset build` and return its parser."""
    build = add_command(
        subcommands,
        "build",
        "build a data set from sources: filtered, deduplicated, split",
        BUILD_HELP,
    )
    add_sources(build, required=True)
    add_options(
        build,
        [
            OUT.but(required=True, help="the data set's folder"),
            option(
                "--review",
                "FILE",
                "list the replacements in it, for you alone to check",
                type=Path,
            ),
            REVIEW_DAYS,
            JSON,
            PROGRESS_INTERVAL,
        ],
    )
    return build


def add_export(subcommands: Commands) -> argparse.ArgumentParser:
    """Add `dataset export` and return its parser."""
    export = subcommands.add_parser("export", help="write a data set in another tool's format")
    add_examples(export, EXPORT_EXAMPLE)
    add_options(
        export,
        [
            option("folder", "DIR", "the folder of a data set built by `dataset build`", type=Path),
            choice("--to", EXPORT_FORMATS, "the format", required=True),
            option("--out", "FILE", "the file; replaced", type=Path, required=True),
            flag("--eval", "write the held-out samples (default: the training samples)"),
            JSON,
        ],
    )
    return export


def add_openai(subcommands: Commands) -> argparse.ArgumentParser:
    """Add `dataset openai` and return its parser."""
    text = "fine-tune a model at OpenAI on a data set: cost estimate, upload, job, events"
    openai = add_command(subcommands, "openai", text, OPENAI_HELP)
    add_options(
        openai,
        [
            option(
                "folder",
                "DIR",
                "the folder of a data set built by `dataset build`",
                type=Path,
                nargs="?",
            ),
            option("--model", "M", "the model to train, such as gpt-4.1-mini-2025-04-14"),
            option(
                "--epochs",
                "N",
                "passes over the samples (default: 3)",
                type=positive_int,
                default=3,
            ),
            option(
                "--price",
                "USD",
                "price per million training tokens (default: a dated table)",
                type=_price,
            ),
            option(
                "--suffix", "TEXT", "part of the new model's name, up to 64 letters", default=""
            ),
            flag("--estimate", "only show the samples to be sent and the cost; needs no key"),
            flag("--yes", "spend it without being asked"),
            flag("--no-follow", "end as soon as the job is created"),
        ],
    )
    existing = openai.add_mutually_exclusive_group()
    add_options(
        existing,
        [
            option("--follow", "JOB_ID", "follow this job to its end"),
            option("--cancel", "JOB_ID", "cancel this job"),
            option("--delete-files", "JOB_ID", "delete this job's files at OpenAI"),
        ],
    )
    add_options(
        openai,
        [
            JSON.but(
                help="print the job as one JSON object at the end, the rest to standard error"
            ),
        ],
    )
    return openai


def add_sources(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add the options for sources and samples that `build`, `plan` and `mask` share."""
    add_options(
        parser,
        [
            PERSONA.but(help="a persona's id or name, or a card file (default: none, dialogue)"),
            NAMES.but(help="P's name, id or role in the sources"),
            repeated("--source", "PATH[=FORMAT][:COUNT]", "may repeat", required=required),
            option(
                "--mix", "80:20", "ratio of general to own conversations, or one number per source"
            ),
            flag("--two-stage", "general samples first, then the persona's"),
            LORE.but(help="lore folders by persona (default: the shipped ones)"),
            RIGHT,
            COLUMNS.but(help="as for `inspect`"),
            choice(
                "--tree-paths",
                ("best", "all"),
                "paths to use of message trees (default: best)",
                default="best",
            ),
            option("--languages", "en,vi", "keep only these languages", default=""),
            option(
                "--min-reply-words",
                "N",
                "drop shorter replies",
                type=int_from(0, MAX_REPLY_WORDS),
                default=0,
            ),
            option(
                "--max-reply-words",
                "N",
                "drop longer replies",
                type=int_from(1, MAX_REPLY_WORDS),
                default=MAX_REPLY_WORDS,
            ),
            RECIPE.but(help="recipe with lengths and shares (default: demo-cpu)"),
            SET,
            option(
                "--max-length",
                "TOKENS",
                "maximum tokens per sample (default: the recipe's)",
                type=positive_int,
            ),
            BASE_MODEL.but(
                help="base model for the tokenizer (default: BASE_MODEL, else embedded)"
            ),
            CORRECTIONS,
            option(
                "--seed",
                "N",
                "seed for sampling from limited sources (default: 0)",
                type=seed_number,
                default=0,
            ),
        ],
    )


def build_dataset(options: argparse.Namespace) -> None:
    """Run `dataset build`."""
    require_free(options.out)
    require_writable(options.out)
    fence = ErasureFence.begin(find_home())
    request: DatasetBuildSpec = replace(make_build_spec(options), storing=fence.storing)
    if options.review:
        request = replace(request, review=_review_file(options))
    try:
        with ProgressCounter(options.tell_every) as counter:
            summary = write_dataset(options.out.absolute(), request, counter.count)
    except FileNotFoundError:
        with fence.storing():  # an erasure deletes what is being built, too
            raise
    if options.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print("\n".join(_build_summary(summary, options.out)))


def _review_file(options: argparse.Namespace) -> ReviewLog:
    require_outside(options.review)
    if options.review.absolute().parent == options.out.absolute():
        raise RequestError(
            "--review names a file in the data set's folder.",
            "Name another: it reveals who is in it.",
        )
    require_writable(options.review, "Name another place with --review.")
    options.review.absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    home = find_home()
    now = time.time()
    delete_expired_reviews(home, now)
    return ReviewLog(options.review, home, now, options.review_days)


def export_dataset_file(options: argparse.Namespace) -> None:
    """Run `dataset export`."""
    require_writable(options.out)
    storing = ErasureFence.begin(find_home()).storing
    exported = export_dataset(
        options.folder, options.to, options.out, held_out=options.eval, storing=storing
    )
    log_export("data set", options.folder, options.out)
    rights_file = options.out.parent / RIGHTS_FILE if any(exported.rights) else None
    if options.json:
        summary = {
            "path": str(options.out),
            "samples": exported.samples,
            "rights": dict(exported.rights),
            "rights_file": str(rights_file) if rights_file else None,
        }
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print(f"{exported.samples:,} samples in {options.out}")
        if rights_file:
            print(f"the right to them is stated in {rights_file}: keep it beside the file")
    count = exported.rights.get(DISCORD_API)
    if count:
        print(
            f"warning: {count:,} of them came through Discord's API. Discord forbids training on "
            "them without its "
            "permission, with any tool, and requests to be forgotten do not reach exported files.",
            file=sys.stderr,
        )


def run_openai_job(options: argparse.Namespace) -> int:
    """Run `dataset openai`; Ctrl-C while following leaves the job running. Raises
    `UnderstudyError`.
    """
    out = sys.stderr if options.json else sys.stdout

    def report(line: str) -> None:
        print(commands_as_typed(line), file=out, flush=True)

    if options.follow or options.cancel or options.delete_files:
        if options.folder:
            raise RequestError("A data set and a job are named.", "Name one of them.")
        return _finish_openai_job(
            options, asyncio.run(_existing_openai_job(options, report)), report
        )
    if not (options.folder and options.model):
        raise RequestError("There is nothing to train.", "Name a data set's folder and a --model.")
    submission = read_submission(options.folder, options.model, options.epochs, options.price)
    for line in describe_submission(
        submission, api_base_url(os.environ), is_listed=options.price is None
    ):
        report(line)
    if options.estimate:
        return EXIT_DONE
    client = OpenAIClient(os.environ)
    if not options.yes:
        _confirm_spending()
    transfer = uuid.uuid4().hex
    log_export(
        "data set", options.folder, f"{client.base_url} files", transfer=transfer, state="begun"
    )
    job = asyncio.run(_submit_openai_job(client, submission, options, report))
    log_export("data set", options.folder, f"{client.base_url} {job['id']}", transfer=transfer)
    if not options.no_follow:
        options.follow = job["id"]
        job = asyncio.run(_existing_openai_job(options, report))
    return _finish_openai_job(options, job, report)


def _confirm_spending() -> None:
    if not sys.stdin.isatty():
        raise RequestError(
            "Nothing was sent, because nobody could be asked.", "Add --yes to spend it."
        )
    if input("Send this and spend it? Type yes: ").strip().casefold() not in ("y", "yes"):
        raise RequestError("Nothing was sent.", "")


async def _submit_openai_job(
    client: OpenAIClient,
    submission: Submission,
    options: argparse.Namespace,
    report: Callable[[str], None],
) -> dict[str, Any]:
    async with client:
        job = await submit(client, submission, options.suffix, report)
    report(f"job {job['id']}: {job.get('status')}; to follow it: {FOLLOW_COMMAND} {job['id']}")
    return job


async def _existing_openai_job(
    options: argparse.Namespace, report: Callable[[str], None]
) -> dict[str, Any]:
    async with OpenAIClient(os.environ) as client:
        if options.cancel:
            return await client.cancel(options.cancel)
        if options.delete_files:
            job = await client.job(options.delete_files)
            await delete_files(client, job_files(job), report)
            return job
        try:
            return await client.follow(options.follow, report)
        except asyncio.CancelledError:
            report(
                f"the job goes on at OpenAI; follow it again with: {FOLLOW_COMMAND} "
                f"{options.follow}"
            )
            raise


def _finish_openai_job(
    options: argparse.Namespace, job: dict[str, Any], report: Callable[[str], None]
) -> int:
    """Report the job's state; the exit code is 1 if a followed job has no model."""
    has_ended = job.get("status") in ENDED_STATES
    if has_ended:
        report(describe_result(job))
    else:
        report(f"job {job.get('id')}: {job.get('status')}")
    if has_ended and options.follow:
        report(
            "its files stay at OpenAI until: python -m trainer dataset openai --delete-files "
            f"{job.get('id')}"
        )
    if options.json:
        print(json.dumps(job, ensure_ascii=False))
    return EXIT_FAILED if options.follow and job.get("status") != "succeeded" else EXIT_DONE


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e6:
        raise argparse.ArgumentTypeError(f"expected dollars per million tokens, got {text!r}")
    return price


def _build_summary(summary: dict[str, Any], out: Path) -> list[str]:
    samples = summary["samples"]
    return [
        f"{out}: {samples['train']:,} training samples, {samples['eval']:,} held out, "
        f"{summary['tokens']:,} tokens",
        *record_lines(summary),
        f"hash {summary['hash']}",
    ]


def record_lines(summary: dict[str, Any]) -> list[str]:
    """Format the sources, the records used and dropped, what is not learned, and what is taken of
    the files.
    """
    sources = [f"{name} {count:,}" for name, count in summary["sources"].items()]
    lines = [
        f"from {', '.join(sources)}",
        f"{summary['rows_used']:,} of {summary['rows']:,} records used",
    ]
    for reason, rows in summary["dropped"].items():
        lines.append(f"  dropped {rows:>9,}  {reason}")
    for reason, count in summary.get("dropped_replies", {}).items():
        lines.append(f"  replies {count:>9,}  {reason}")
    thoughts = summary.get("with_thought", 0)
    if thoughts:
        lines.append(f"  thoughts {thoughts:>8,}  before replies: left out")
    lines += ImportReport.from_json(summary["import_report"]).lines()
    lines += filter(None, [describe_name_search(summary.get("name_search", {}))])
    return lines


def add_dataset(commands: Commands) -> None:
    """Add `dataset` with its subcommands."""
    dataset = commands.add_parser(
        "dataset", help="inspect material, and build and export data sets"
    )
    add_examples(dataset, *INSPECT_EXAMPLES, BUILD_EXAMPLE, EXPORT_EXAMPLE)
    subcommands = dataset.add_subparsers(required=True, metavar="COMMAND")
    text = "summarise a file or folder: format, conversations, unusable records with reasons"
    inspect = add_examples(subcommands.add_parser("inspect", help=text), *INSPECT_EXAMPLES)
    add_options(
        inspect,
        [
            option(
                "path",
                "PATH",
                "a file, a folder, or the id of a data set on the hub",
                type=_nonempty_path,
            ),
            option("--format", "F", "read it as this format (default: detected)"),
            COLUMNS.but(
                help="columns by role, such as speaker=User text=Message time=Date, or user=question "
                "assistant=reply"
            ),
            NAMES.but(help="character or author whose lines are the persona's; may repeat"),
            flag("--keep-map", "store --map in columns.toml beside PATH, for later builds"),
            JSON,
            PROGRESS_INTERVAL,
        ],
    )
    inspect.set_defaults(command=with_error_handling(_inspect))
    add_build(subcommands).set_defaults(command=with_error_handling(build_dataset))
    add_export(subcommands).set_defaults(command=with_error_handling(export_dataset_file))
    add_openai(subcommands).set_defaults(command=with_error_handling(run_openai_job))


def _nonempty_path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _inspect(options: argparse.Namespace) -> int:
    path: Path = options.path
    personas = tuple(read_shared_personas(SHIPPED_CARDS, find_home()).values())
    stated = column_mapping(options.map)
    if options.keep_map and not stated:
        raise RequestError(
            "--keep-map stores what --map says, and there is no --map.",
            "Add --map, or leave it out.",
        )
    mapping = stated or split_pairs(read_mapping(path))
    read_options = ReadOptions(
        mapping=mapping, personas=personas, persona_names=tuple(options.names)
    )
    try:
        with ProgressCounter(options.tell_every) as counter:
            summary = inspect_source(
                path, read_options, options.format, partial(counter.count, "reading")
            )
    except UnclearColumnsError as error:
        return _ask_columns(options, error)
    if options.keep_map:
        write_mapping(path, tuple(f"{role}={column}" for role, column in stated.items()))
    if options.json:
        print(json.dumps(summary.as_json(), ensure_ascii=False))
    else:
        print("\n".join(format_summary(summary, path.name or path.resolve().name)))
    return EXIT_DONE


def _ask_columns(options: argparse.Namespace, error: UnclearColumnsError) -> int:
    """Print the columns of a table that nothing is read from, and the command that says which is
    which.
    """
    question = error.question
    words = [
        "python",
        "-m",
        "trainer",
        "dataset",
        "inspect",
        str(options.path),
        "--map",
        *question.pairs,
    ]
    for name in options.names:
        words += ["--as", name]
    command = shlex.join(words)
    if options.json:
        print(json.dumps({"format": COLUMNS_FORMAT.name, "question": question.as_json() | {"command": command}},
                         ensure_ascii=False))  # fmt: skip
        print(error, file=sys.stderr)
    else:
        print("\n".join(format_question(question, command)), file=sys.stderr)
    return EXIT_FAILED
