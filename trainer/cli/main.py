"""Trains and compares adapters.

  python -m trainer train …             train a persona's adapter, or one for dialogue
  python -m trainer preference …        let an adapter go on learning from what was liked better than what
  python -m trainer study scale …       how a persona's voice grows with its data
  python -m trainer run FOLDER          train the job in FOLDER
  python -m trainer evaluate …          an adapter's score card, and the gate's verdict
  python -m trainer matrix …            compare adapters on each other's held-out replies
  python -m trainer dataset inspect …   what a file or folder of material holds
  python -m trainer dataset build …     make a data set of such files; `dataset export` writes other tools' formats
  python -m trainer plan …              what a run would do
  python -m trainer mask …              what is trained on in each sample
  python -m trainer recipes …           the recipes, and what each value does
  python -m trainer predictions …       how near predicted memory and time are to measured ones
  python -m trainer doctor …            what this machine can train, what is wrong with it, and the remedies
  python -m trainer export …            make an adapter usable in other programs
  python -m trainer anonymise …         take personal data out of a file, and put its people under pseudonyms
  python -m trainer completion bash     completion of these commands in a shell
  python -m trainer lore ask …          which lore a question finds; `lore extract` and `synthesise` make material of it

A job folder holds `request.json` (which persona, which base model, which settings) and `material/` (copies of all that
it learns from). The bot makes such folders; one made by hand, or on another machine, works the same way:

  $ python -m trainer run ~/jobs/ballast --threads 2
  {"event":"phase","name":"material","detail":""}
  …
  {"event":"done","adapter":"/home/me/jobs/ballast/adapter","seconds":142.1}

Standard output holds one JSON event a line and nothing else; FOLDER/events.jsonl keeps them. The log goes to standard
error. A run that was stopped or killed goes on from its last checkpoint when the same folder is run again, and ends
with the same weights as if nothing had happened. On a folder whose adapter is complete it ends at once.

Exit codes: 0 done, 1 it failed and the message says why, 2 wrong usage, 3 another trainer
works on this folder, 130 Ctrl-C, 141 nobody reads the output, 143 stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from personas.cli_common import SHELLS, add_examples, completion_script
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.errors import RequestError
from personas.home.job_folder import store_holdout_at_home
from personas.schemas.training_events import Failed
from trainer.cli.anonymise_command import add_anonymise, anonymise
from trainer.cli.argtypes import positive_int
from trainer.cli.dataset_command import add_dataset
from trainer.cli.doctor_command import add_doctor, add_predictions, show_doctor_report, show_predictions
from trainer.cli.error_handling import resolve_home, with_error_handling
from trainer.cli.evaluate_command import add_evaluate, evaluate
from trainer.cli.export import add_export_command
from trainer.cli.lore_command import add_lore
from trainer.cli.mask_command import add_mask, show_mask
from trainer.cli.plan_command import add_plan, add_plan_output, show_plan, show_run_plan
from trainer.cli.preference_command import add_preference, draft_preference_job
from trainer.cli.recipes_command import add_recipes, show_recipes
from trainer.cli.study_command import add_study, run_scale_command
from trainer.cli.train_command import add_train, run_train_command
from trainer.process.cancellation import CancelToken, RunCancelled, cancel_on_signals
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import EventWriter, claim_stdout, failed_event
from trainer.process.pause import PauseControl, listen_to_parent
from trainer.run import run_job, run_worker
from trainer.train.distributed import DistributedContext, distributed_context
from trainer.train.job import RunContext
from trainer.train.resume_config import CHECKPOINT_INTERVAL_S, resume_thread_count

PROGRAM_NAME = "understudy-trainer"


"""The command's name for shells: they complete the first word, and `python` is everybody's."""


def add_completion(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parser: Callable[[str], argparse.ArgumentParser]
) -> None:
    """Adds `completion`; `parser` makes the whole parser under a name."""
    command = commands.add_parser(
        "completion",
        help="a script that completes these commands in a shell",
        description="Completes `understudy-trainer`: `python -m trainer` under a name of its own, in .venv/bin.",
    )
    add_examples(
        command,
        "python -m trainer completion bash > ~/.local/share/bash-completion/completions/understudy-trainer",
        "python -m trainer completion zsh > ~/.zfunc/_understudy-trainer",
        "python -m trainer completion fish > ~/.config/fish/completions/understudy-trainer.fish",
    )
    command.add_argument("shell", choices=SHELLS, help="which shell")
    command.set_defaults(
        command=with_error_handling(lambda options: print(completion_script([parser(PROGRAM_NAME)], options.shell))),
    )


EXIT_LOCKED, EXIT_STOPPED = 3, 143


RUN_EXAMPLES = (
    "python -m trainer run ~/.understudy/jobs/3f9a2c41d0 --threads 2",
    "python -m trainer run ~/.understudy/jobs/3f9a2c41d0 --dry-run --json",
)


MATRIX_EXAMPLES = (
    "python -m trainer matrix --adapter oda=runs/oda/adapter --adapter thrip=runs/thrip/adapter "
    "--job oda=runs/oda --job thrip=runs/thrip",
)


log = logging.getLogger("trainer")


def main() -> int:
    """Returns the exit code."""
    try:
        options = build_parser().parse_args()
    except RequestError as error:  # what is typed well, and not there
        print(error, file=sys.stderr)
        return EXIT_FAILED
    if options.dry_run and options.command is _run:
        return with_error_handling(show_run_plan)(options)
    if options.computes:
        restart_with_allocator_settings()
        frozen = resume_thread_count(options.folder) if options.command is _run else None
        configure_process(options.nice, frozen or options.threads)
    command: int = options.command(options)
    return command


def _run(options: argparse.Namespace, out: TextIO | None = None) -> int:
    """`out`: where events go instead of standard output."""
    stop = CancelToken()
    hold = PauseControl(stop)
    cancel_on_signals(stop)
    if options.stop_on_eof:
        listen_to_parent(stop, hold)
    events = EventWriter(out or claim_stdout())
    processes = distributed_context(os.environ)
    if not processes.is_first:
        return _run_worker(options, stop, processes)
    try:
        with FileLock(options.folder / "lock", timeout=0), events.also_to(options.folder / "events.jsonl"):
            return _locked_run(options, events, stop, hold, processes)
    except Timeout:
        _report_failure(
            events, Failed(cause=f"Another trainer works on {options.folder}.", advice="Wait for it.", retry=True)
        )
        return EXIT_LOCKED
    except OSError as error:
        _report_failure(events, failed_event(error))
        return EXIT_FAILED


def _locked_run(
    options: argparse.Namespace,
    events: EventWriter,
    stop: CancelToken,
    hold: PauseControl,
    processes: DistributedContext,
) -> int:

    try:
        run = RunContext(
            events.emit,
            stop.check,
            options.checkpoint_every,
            hold=hold,
            processes=processes,
            skips_memory_check=options.ignore_memory,
            card=options.card or "full",
        )
        run_job(options.folder, run)
        store_holdout_at_home(options.folder, resolve_home(options.home))
    except Exception as error:  # the edge: whatever went wrong becomes one event
        _report_failure(events, failed_event(error))
        return EXIT_STOPPED if isinstance(error, RunCancelled) else EXIT_FAILED
    return EXIT_DONE


def _report_failure(events: EventWriter, failed: Failed) -> None:
    """For programs as an event, for people in the log."""
    log.error("%s %s", failed.cause, failed.advice)
    events.emit(failed)


def _run_worker(options: argparse.Namespace, stop: CancelToken, processes: DistributedContext) -> int:
    """One of several processes, not the first: it says nothing but in the log."""

    try:
        run_worker(
            options.folder, RunContext(lambda event: None, stop.check, options.checkpoint_every, processes=processes)
        )
    except Exception as error:  # the edge: the first process tells what it means for the run
        log.error("process %d: %s", processes.index, failed_event(error).cause)
        return EXIT_STOPPED if isinstance(error, RunCancelled) else EXIT_FAILED
    return EXIT_DONE


def _matrix(options: argparse.Namespace) -> int:
    from trainer.evaluate.persona_separation import print_loss_matrix

    try:
        print_loss_matrix(dict(options.adapter), dict(options.job), as_json=options.json)
    except Exception as error:  # the edge
        failed = failed_event(error)
        print(f"{failed.cause} {failed.advice}".strip(), file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


def build_parser(prog: str = "python -m trainer") -> argparse.ArgumentParser:
    """What the command line may hold."""
    made = argparse.ArgumentParser(prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.set_defaults(computes=False, dry_run=False)
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train the job in a folder")
    add_examples(run, *RUN_EXAMPLES)
    run.add_argument(
        "folder",
        type=_existing_folder,
        help="holds request.json and material/; gets dataset/, adapter/ and events.jsonl",
    )
    run.add_argument(
        "--stop-on-eof", action="store_true", help="wait and go on as standard input says; stop at its end"
    )
    run.add_argument("--dry-run", action="store_true", help="only say what would be done, as `plan` does")
    add_plan_output(run)
    run.set_defaults(command=_run)

    matrix = commands.add_parser("matrix", help="the loss of each persona's held-out replies under each adapter")
    add_examples(matrix, *MATRIX_EXAMPLES)
    matrix.add_argument(
        "--adapter", type=_persona_folder, action="append", required=True, metavar="PERSONA=ADAPTER_FOLDER"
    )
    matrix.add_argument("--job", type=_persona_folder, action="append", required=True, metavar="PERSONA=JOB_FOLDER")
    matrix.add_argument("--json", action="store_true", help="print one JSON object")
    matrix.set_defaults(command=_matrix)

    add_dataset(commands)
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
    add_completion(commands, build_parser)
    return made


def _add_runs(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    run: argparse.ArgumentParser,
    computing: Sequence[argparse.ArgumentParser],
) -> None:
    """Adds the commands that make job folders and run them, and how all that compute may do so."""
    for command in (run, *computing):
        command.set_defaults(computes=True)
    by_words, by_preference, by_study = add_train(commands), add_preference(commands), add_study(commands)
    by_words.set_defaults(command=partial(run_train_command, run=_run), asks=None)
    by_preference.set_defaults(command=partial(run_train_command, run=_run), asks=draft_preference_job)
    by_study.set_defaults(command=partial(run_scale_command, run=_run))
    making = (by_words, by_preference, by_study)
    for command in making:
        command.set_defaults(stop_on_eof=False)
    for command in (run, *making):
        command.add_argument(
            "--checkpoint-every",
            type=positive_int,
            default=CHECKPOINT_INTERVAL_S,
            metavar="SECONDS",
            help=f"a run that is killed loses at most so much (default: {CHECKPOINT_INTERVAL_S})",
        )
        command.add_argument(
            "--card",
            choices=("full", "quick", "losses"),
            help="what is measured of the adapter: everything, the same in a fifth of the time, or losses alone "
            "(default: full; losses for each run of a sweep)",
        )
        command.add_argument(
            "--ignore-memory", action="store_true", help="begin even where the memory that it needs is not free"
        )
    for command in (run, *computing, *making):
        command.add_argument("--threads", type=positive_int, help="compute with so many threads (default: all cores)")
        command.add_argument("--nice", type=int, default=0, help="lower the priority by so much (default: 0)")


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
