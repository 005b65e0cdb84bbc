"""Trains and compares adapters.

  python -m trainer train …             train an adapter for a persona or for dialogue
  python -m trainer preference …        continue training an adapter on preferences
  python -m trainer study scale …       measure how much data a persona needs
  python -m trainer run FOLDER          train the job in FOLDER
  python -m trainer evaluate …          evaluate an adapter: score card and the gate's verdict
  python -m trainer matrix …            compare adapters on each other's held-out replies
  python -m trainer dataset inspect …   summarise a file or folder of material
  python -m trainer dataset build …     build a data set; `dataset export` writes other tools' formats
  python -m trainer catalogue …         list data sets by name; fetch published ones
  python -m trainer plan …              plan a run without executing it
  python -m trainer mask …              show which part of each sample carries loss
  python -m trainer recipes …           list recipes, their values and their cost
  python -m trainer predictions …       compare predicted with measured memory and time
  python -m trainer doctor …            check this machine, with remedies; list the recipes that fit
  python -m trainer export …            export an adapter for other programs, or to a hub
  python -m trainer import …            check an adapter from a hub or of peft, and write it here
  python -m trainer anonymise …         replace personal data in a file
  python -m trainer completion bash     print a shell completion script
  python -m trainer lore ask …          search lore; `lore extract` and `synthesise` generate training material

A job folder holds `request.json` (persona, base model, settings) and `material/` (copies of all
training data). The bot creates such folders; one created by hand, or on another machine, works the
same way:

  $ python -m trainer run ~/jobs/ballast --threads 2
  {"event":"phase","name":"material","detail":""}
  …
  {"event":"done","adapter":"/home/me/jobs/ballast/adapter","seconds":142.1}

Standard output has one JSON event per line and nothing else; FOLDER/events.jsonl stores them. The
log goes to standard error. A run that was stopped or killed resumes from its last checkpoint when
the same folder is run again, and ends with the same weights as an uninterrupted run. It ends at
once if the folder's adapter is complete.

Exit codes: 0 done, 1 it failed and the message says why, 2 wrong usage, 3 another trainer works on
this folder, 130 Ctrl-C, 141 nobody reads the output, 143 stopped.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from personas.cli_common import (
    SHELLS,
    CommandParser,
    add_examples,
    completion_script,
    int_from,
    name_as_typed,
)
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.errors import RequestError, UnderstudyError
from personas.home.job_attempt import EVENTS_FILE, record_trainer
from personas.home.job_folder import store_holdout_at_home
from personas.schemas.training_events import Failed
from trainer.cli.anonymise_command import add_anonymise, anonymise
from trainer.cli.argtypes import Commands, positive_int
from trainer.cli.catalogue_command import add_catalogue
from trainer.cli.create_job import draft_job
from trainer.cli.dataset_command import add_dataset
from trainer.cli.doctor_command import (
    add_doctor,
    add_predictions,
    show_doctor_report,
    show_predictions,
)
from trainer.cli.error_handling import (
    EXIT_TERMINATED,
    resolve_home,
    with_error_handling,
    with_failure_report,
)
from trainer.cli.evaluate_command import add_evaluate, evaluate
from trainer.cli.export import add_export_command, add_import_command
from trainer.cli.lore_command import add_lore
from trainer.cli.mask_command import add_mask, show_mask
from trainer.cli.options import (
    DRY_RUN,
    JSON,
    PLAN_OUTPUT,
    add_options,
    choice,
    flag,
    option,
    repeated,
)
from trainer.cli.plan_command import add_plan, show_plan, show_run_plan
from trainer.cli.preference_command import add_preference, draft_preference_job
from trainer.cli.recipes_command import add_recipes, show_recipes
from trainer.cli.study_command import add_study, run_scale_command
from trainer.cli.train_command import add_train, run_train_command
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import EventWriter, claim_stdout, failed_event
from trainer.process.run_control import (
    AttemptFence,
    CancelToken,
    PauseControl,
    RunCancelled,
    cancel_on_signals,
    listen_to_parent,
)
from trainer.process.timeline import RunTimeline
from trainer.run import run_job, run_worker
from trainer.train.distributed import DistributedContext, distributed_context
from trainer.train.resume_config import CHECKPOINT_INTERVAL_S, resume_thread_count
from trainer.train.training_run import RunControl

PROGRAM_NAME = (
    "understudy-trainer"  # the command's name for shells, which complete by the first word
)
EXIT_LOCKED = 3
EXIT_STOPPED = EXIT_TERMINATED
ATTEMPT_LOCK_TIMEOUT_S = 20.0
"""Time in which an earlier attempt has to notice a newer one and release the folder; it may be cut
off for good.
"""
RUN_EXAMPLES = (
    "python -m trainer run ~/.understudy/jobs/3f9a2c41d0 --threads 2",
    "python -m trainer run ~/.understudy/jobs/3f9a2c41d0 --dry-run --json",
)
MATRIX_EXAMPLES = (
    "python -m trainer matrix --adapter oda=runs/oda/adapter --adapter thrip=runs/thrip/adapter "
    "--job oda=runs/oda --job thrip=runs/thrip",
)
RUN_OPTIONS = (
    option(
        "--checkpoint-every",
        "SECONDS",
        f"interval of checkpoints (default: {CHECKPOINT_INTERVAL_S})",
        type=positive_int,
        default=CHECKPOINT_INTERVAL_S,
    ),
    choice(
        "--card",
        ("full", "quick", "losses"),
        "extent of the evaluation: everything, the same in a fifth of the time, or losses alone "
        "(default: full; losses for each run of a sweep)",
    ),
    flag("--ignore-memory", "start even if too little memory is free"),
    flag(
        "--only-write",
        "with --from-card, end once the replies are written, to read and change them first; the same "
        "command without it trains on what is left",
    ),
    flag(
        "--defer-card",
        "end once the version is ready, where the recipe has a deadline; the same command without "
        "it completes the score card",
    ),
)
PROCESS_OPTIONS = (
    option("--threads", None, "number of threads (default: all cores)", type=positive_int),
    option(
        "--nice",
        None,
        "niceness added to the process (default: 0)",
        type=int_from(0, 19),
        default=0,
    ),
)
log = logging.getLogger("trainer")


def add_completion(commands: Commands, parser: Callable[[str], argparse.ArgumentParser]) -> None:
    """Add `completion`; `parser` builds the whole parser under a program name."""
    command = commands.add_parser(
        "completion",
        help="print a shell completion script",
        description="Completes `understudy-trainer`, the name of `python -m trainer` in .venv/bin.",
    )
    add_examples(
        command,
        "python -m trainer completion bash > "
        "~/.local/share/bash-completion/completions/understudy-trainer",
        "python -m trainer completion zsh > ~/.zfunc/_understudy-trainer",
        "python -m trainer completion fish > ~/.config/fish/completions/understudy-trainer.fish",
    )
    add_options(command, [choice("shell", SHELLS, "which shell")])
    command.set_defaults(
        command=with_error_handling(
            lambda options: print(completion_script([parser(PROGRAM_NAME)], options.shell))
        )
    )


def main() -> int:
    """Run the command line; return the exit code."""
    parser = name_as_typed(build_parser())
    try:
        options = parser.parse_args()
    except RequestError as error:  # valid syntax, but the file does not exist
        print(error, file=sys.stderr)
        return EXIT_FAILED
    if named := _named_without_card(options):
        parser.error(
            f"{named} is for replies that are written first: add --from-card, or leave it out"
        )
    if options.dry_run and options.command is _run:
        return with_error_handling(show_run_plan)(options)
    if options.computes:
        restart_with_allocator_settings()
        threads = resume_thread_count(options.folder) if options.command is _run else None
        configure_process(options.nice, threads or options.threads)
    command: int = options.command(options)
    return command


def _named_without_card(options: argparse.Namespace) -> str:
    """Return an option that only a training from a card has, of a command for another one."""
    if getattr(options, "from_card", True):  # a folder's request says it
        return ""
    for name in ("only_write", "teacher", "teacher_model", "teacher_licence"):
        if getattr(options, name, None):
            return f"--{name.replace('_', '-')}"
    return ""


def _run(options: argparse.Namespace, out: TextIO | None = None) -> int:
    """Run a job folder; `out` receives the events instead of standard output."""
    stop = CancelToken()
    events = EventWriter(out or claim_stdout())
    pause = PauseControl(stop, events.beat)
    cancel_on_signals(stop)
    if options.stop_on_eof:
        listen_to_parent(stop, pause)
    processes = distributed_context(os.environ)
    if not processes.is_first:
        return _run_worker(options, stop, processes)
    try:
        fence = AttemptFence(options.folder, options.attempt)
        with _job_lock(fence), events.also_to(options.folder / EVENTS_FILE, fence.check):
            if options.stop_on_eof:
                record_trainer(options.folder)
            return _locked_run(options, events, stop, pause=pause, processes=processes, fence=fence)
    except Timeout:
        cause = f"Another trainer works on {options.folder}."
        _report_failure(events, Failed(cause=cause, advice="Wait for it.", retry=True))
        return EXIT_LOCKED
    except (OSError, UnderstudyError) as error:
        _report_failure(events, failed_event(error))
        return EXIT_FAILED


@contextmanager
def _job_lock(fence: AttemptFence) -> Iterator[None]:
    """Hold the folder's lock. Raises `Timeout` if another trainer does, except for a fenced
    attempt: others are older.

    Raises as `AttemptFence.check`.
    """
    fence.check()
    timeout_s = ATTEMPT_LOCK_TIMEOUT_S if fence.attempt else 0
    lock = FileLock(fence.folder / "lock", timeout=timeout_s)
    try:
        lock.acquire()
    except Timeout:
        if not fence.attempt:
            raise
        log.warning(
            "an earlier attempt keeps %s locked and does not react; it can write nothing more",
            fence.folder,
        )
    try:
        yield
    finally:
        lock.release()


def _locked_run(
    options: argparse.Namespace,
    events: EventWriter,
    stop: CancelToken,
    pause: PauseControl,
    processes: DistributedContext,
    fence: AttemptFence,
) -> int:
    try:
        control = RunControl(
            emit=events.emit,
            check=stop.check,
            checkpoint_s=options.checkpoint_every,
            pause=pause,
            processes=processes,
            timeline=RunTimeline.read(options.folder / EVENTS_FILE),
            skips_memory_check=options.ignore_memory,
            card=options.card or "full",
            fence=fence.check,
            home=resolve_home(options.home),
            defers_card=options.defer_card,
            only_writes=options.only_write,
            is_by_hand=not (options.stop_on_eof or options.attempt or options.only_write),
        )
        run_job(options.folder, control)
        if not options.only_write:
            store_holdout_at_home(options.folder, resolve_home(options.home))
    except Exception as error:  # top level: every error becomes one event
        _report_failure(events, failed_event(error))
        return EXIT_STOPPED if isinstance(error, RunCancelled) else EXIT_FAILED
    return EXIT_DONE


def _report_failure(events: EventWriter, failed: Failed) -> None:
    """Report a failure as an event for programs and in the log for people."""
    log.error("%s %s", failed.cause, failed.advice)
    events.emit(failed)


def _run_worker(
    options: argparse.Namespace, stop: CancelToken, processes: DistributedContext
) -> int:
    """Run a process other than the first, which only writes to the log."""
    try:
        control = RunControl(
            check=stop.check, checkpoint_s=options.checkpoint_every, processes=processes
        )
        run_worker(options.folder, control)
    except Exception as error:  # top level: the first process reports the run's failure
        log.error("process %d: %s", processes.index, failed_event(error).cause)
        return EXIT_STOPPED if isinstance(error, RunCancelled) else EXIT_FAILED
    return EXIT_DONE


def _matrix(options: argparse.Namespace) -> None:
    # Loads torch, which takes seconds.
    from trainer.evaluate.loss_matrix import print_loss_matrix

    print_loss_matrix(dict(options.adapter), dict(options.job), as_json=options.json)


def build_parser(prog: str = "python -m trainer") -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser: argparse.ArgumentParser = CommandParser(
        prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(computes=False, dry_run=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train the job in a folder")
    add_examples(run, *RUN_EXAMPLES)
    add_options(
        run,
        [
            option(
                "folder",
                None,
                "has request.json and material/; dataset/, adapter/ and events.jsonl are written "
                "to it",
                type=_existing_folder,
            ),
            flag("--stop-on-eof", "pause and resume by standard input; stop at its end"),
            option(
                "--attempt",
                "N",
                "number of this attempt; it ends once FOLDER/attempt.json has a higher one",
                type=positive_int,
                default=0,
            ),
            DRY_RUN,
            *PLAN_OUTPUT,
        ],
    )
    run.set_defaults(command=_run)

    matrix = commands.add_parser(
        "matrix", help="compute the loss of each persona's held-out replies under each adapter"
    )
    add_examples(matrix, *MATRIX_EXAMPLES)
    folder = {"type": _persona_folder, "required": True, "default": None}
    add_options(
        matrix,
        [
            repeated("--adapter", "PERSONA=ADAPTER_FOLDER", None, **folder),
            repeated("--job", "PERSONA=JOB_FOLDER", None, **folder),
            JSON,
        ],
    )
    matrix.set_defaults(command=with_failure_report(_matrix))

    add_dataset(commands)
    add_catalogue(commands)
    add_anonymise(commands).set_defaults(command=with_error_handling(anonymise))
    add_lore(commands)
    add_plan(commands).set_defaults(command=with_error_handling(show_plan))
    add_mask(commands).set_defaults(command=with_error_handling(show_mask))
    add_recipes(commands).set_defaults(command=with_error_handling(show_recipes))
    add_predictions(commands).set_defaults(command=with_error_handling(show_predictions))
    add_doctor(commands).set_defaults(command=with_error_handling(show_doctor_report))
    evaluating = add_evaluate(commands)
    evaluating.set_defaults(command=with_error_handling(evaluate))
    _add_runs(commands, run, (matrix, evaluating, add_export_command(commands)))
    add_import_command(commands)
    add_completion(commands, build_parser)
    return parser


def _add_runs(
    commands: Commands, run: argparse.ArgumentParser, computing: Sequence[argparse.ArgumentParser]
) -> None:
    """Add the commands that create and run job folders, and the options of all commands that
    compute.
    """
    for command in (run, *computing):
        command.set_defaults(computes=True)
    train = add_train(commands)
    preference = add_preference(commands)
    study = add_study(commands)
    train_command = with_error_handling(partial(run_train_command, run=_run))
    train.set_defaults(command=train_command, draft=draft_job)
    preference.set_defaults(command=train_command, draft=draft_preference_job)
    study.set_defaults(command=with_error_handling(partial(run_scale_command, run=_run)))
    drafting = (train, preference, study)
    for command in drafting:
        command.set_defaults(stop_on_eof=False, attempt=0)
    for command in (run, *drafting):
        add_options(command, RUN_OPTIONS)
    for command in (run, *computing, *drafting):
        add_options(command, PROCESS_OPTIONS)


def _existing_folder(text: str) -> Path:
    folder = Path(text).expanduser().absolute()
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}.", "Check the path.")
    return folder


def _persona_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected PERSONA=FOLDER, got {text!r}")
    return name, _existing_folder(folder)
