"""`python -m trainer train`: creates a job folder from options and runs it, or sweeps settings."""

import argparse
import logging
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from personas.cli_common import commands_as_typed
from personas.cli_entry import EXIT_DONE
from personas.errors import RequestError
from personas.home.adapters import read_epochs, score_card_file
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.home.written_replies import read_summary, written_file
from personas.models.base_model import name_with_settings
from personas.models.base_model_setting import base_model_name
from trainer.cli.argtypes import Commands, add_command, parse_setting_args
from trainer.cli.error_handling import require_writable, resolve_home
from trainer.cli.options import (
    BASE_MODEL,
    COLUMNS,
    FROM_CARD,
    HELD_OUT,
    LORE,
    LORE_PAIRS,
    NAMES,
    PERSONA,
    PLAN_OUTPUT,
    RECIPE,
    RIGHT,
    RUN_FOLDER_OPTIONS,
    SET,
    TEACHER_OPTIONS,
    add_options,
    flag,
    option,
    repeated,
)
from trainer.cli.plan_command import show_draft_plan
from trainer.cli.progress_view import EventPrinter
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import claim_stdout
from trainer.report.run_report import epoch_table
from trainer.study.sweep import (
    SWEEP_ADAPTER_FOLDER,
    SWEEP_RESULTS_FILE,
    SWEEP_RUNS_FOLDER,
    best_result,
    make_sweep_folders,
    run_sweep,
    sweep_folder,
    sweep_points,
    sweep_results_table,
    write_sweep_results,
)
from trainer.train.distributed import distributed_context
from trainer.train.job_folder import make_job_folder
from trainer.train.resume_config import resume_thread_count

TRAIN_HELP = """\
Trains an adapter for a persona, or for dialogue in general.

  python -m trainer train --persona ballast                                   on its own chat log
  python -m trainer train --persona ballast --dataset build/ballast           on a data set built by `dataset build`
  python -m trainer train --persona ada.toml --dataset talk.json --as Wick    on a log in which it speaks as Wick
  python -m trainer train --persona oda --recipe mixed-80-20 --general chat.jsonl
  python -m trainer train --dialogue --dataset chat.jsonl --recipe s3-dialogue --base-model Qwen/Qwen2.5-3B-Instruct
  python -m trainer train --persona oda --start-from ~/.understudy/runs/dialogue-s3-dialogue-3f9a2c41d0/adapter
  python -m trainer train --persona oda --lore-pairs 0.3                      pairs from its lore besides
  python -m trainer train --persona wick.toml --lore lore --lore-pairs 1      on its lore alone
  python -m trainer train --persona wick.toml --from-card                     on replies written from its card
  python -m trainer train --persona oda --set learning_rate=5e-4 --set lora_r=8 --dry-run
  python -m trainer train --persona oda --sweep learning_rate=2e-4,5e-4,1e-3

All inputs of the run are copied with their rights into a job folder (--out; by default in the bot's home). The same
command resumes an interrupted run, and so does `run FOLDER`, also on another machine.
"""
JobRunner = Callable[[argparse.Namespace, TextIO], int]


def add_train(commands: Commands) -> argparse.ArgumentParser:
    """Add `train`."""
    train = add_command(
        commands, "train", "train an adapter for a persona or for dialogue", TRAIN_HELP
    )
    add_options(
        train,
        [
            PERSONA,
            flag("--dialogue", "train no persona: dialogue in general"),
            option(
                "--dataset",
                "D",
                "a built data set's folder, a file or folder of chats, or a catalogue entry",
            ),
            NAMES,
            COLUMNS.but(help="D's columns by role, as for `dataset inspect`"),
            option(
                "--general",
                "G",
                "general dialogue for recipes that mix it in: a file, a folder, or a name",
            ),
            LORE_PAIRS,
            FROM_CARD,
            *TEACHER_OPTIONS,
            HELD_OUT,
            LORE,
            option(
                "--start-from",
                "A",
                "train this adapter further: its folder, or a dialogue adapter's name",
            ),
            RECIPE.but(
                help="the recipe (default: demo-cpu; card with --from-card); `recipes` lists them",
                default=None,
            ),
            SET,
            repeated("--sweep", "NAME=V,V,…", "run each value and select the best; may repeat"),
            BASE_MODEL,
            RIGHT,
            *RUN_FOLDER_OPTIONS,
            *PLAN_OUTPUT,
        ],
    )
    return train


def run_train_command(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `train`; `run` runs a job folder (`options.folder`) and writes its events to a stream."""
    if options.dry_run:
        _show_dry_run(options)
        return EXIT_DONE
    restart_with_allocator_settings()
    if options.sweep:
        return _run_sweep(options, run)
    home, out = _resolve_paths(options)
    options.folder = make_job_folder(options.draft(options, home), out)
    if options.make_only:
        print(options.folder)
        return EXIT_DONE
    configure_process(options.nice, resume_thread_count(options.folder) or options.threads)
    return run(options, claim_stdout()) if options.json else _run_with_progress(options, run)


def _run_sweep(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `train --sweep`: all runs in sequence, then the table and the best adapter."""
    home, out = _resolve_paths(options)
    draft = options.draft(options, home)
    points = sweep_points(options.sweep, options.settings)
    folder = out or sweep_folder(draft, [point for point, _ in points])
    jobs = make_sweep_folders(draft, points, folder)
    options.card = options.card or "losses"
    threads = next(filter(None, (resume_thread_count(job) for _, job in jobs)), options.threads)
    configure_process(options.nice, threads)
    stdout = claim_stdout()
    if not options.json:
        logging.getLogger().setLevel(logging.WARNING)

    def report(line: str) -> None:
        if not options.json:
            print(f"\n{line}", file=stdout, flush=True)

    def run_one(job: Path) -> int:
        options.folder = job
        return run(options, stdout if options.json else EventPrinter(stdout))  # type: ignore[arg-type]  # as below

    report(str(folder))
    results, code = run_sweep(jobs, run_one, report)
    if code:
        report("Run the same command again to resume.")
    else:
        best = best_result(results)
        write_sweep_results(folder, results, best)
        best_job = folder / SWEEP_RUNS_FOLDER / best.name
        next_steps = _next_step_lines(options, best_job, folder / SWEEP_ADAPTER_FOLDER)
        table = sweep_results_table(results, best)
        report("\n".join([table, "", *map(commands_as_typed, next_steps)]))
        if options.json:
            # In one line, as the events before it.
            written = (folder / SWEEP_RESULTS_FILE).read_text(encoding="utf-8")
            print(written.replace("\n", ""), file=stdout)
    stdout.flush()
    return code


def _run_with_progress(options: argparse.Namespace, run: JobRunner) -> int:
    logging.getLogger().setLevel(logging.WARNING)  # phases are shown
    out = claim_stdout()
    head = str(options.folder)
    if (options.folder / CHECKPOINTS_FOLDER).is_dir():
        head += ": resuming from its last checkpoint"
    print(head, file=out)
    print(_adapter_owner_note(options), end="", file=out, flush=True)
    code = run(options, EventPrinter(out))  # type: ignore[arg-type]  # as much of a stream as events need
    lines = "\n".join(["", *_result_lines(options, code)])
    print(commands_as_typed(lines), file=out, flush=True)
    return code


def _adapter_owner_note(options: argparse.Namespace) -> str:
    """Name the base model that a bot needs for the adapter, if it is not the configured one."""
    name = _unserved_base_model(options)
    if not name:
        return ""
    return (
        f"for a bot with BASE_MODEL={name}: bots with another base model cannot use the adapter\n"
    )


def _unserved_base_model(options: argparse.Namespace) -> str:
    """Return the base model's name if it is not the configured one, else an empty text."""
    name = name_with_settings(options.base_model, parse_setting_args(options))
    return "" if name == base_model_name() else name


def _result_lines(options: argparse.Namespace, code: int) -> list[str]:
    folder: Path = options.folder
    if code:
        return [f"resume with: python -m trainer run {shlex.quote(str(folder))}"]
    if options.only_write:
        return [
            f"written: {written_file(folder)}",
            "Read it, and change or remove lines. Train with: python -m trainer run "
            f"{shlex.quote(str(folder))}",
        ]
    written = read_summary(folder)
    return [
        *([written.text] if written else []),
        epoch_table(read_epochs(folder / "adapter")),
        "",
        *_next_step_lines(options, folder, folder / "adapter"),
    ]


def _next_step_lines(options: argparse.Namespace, folder: Path, adapter: Path) -> list[str]:
    """List commands and files of a job's adapter."""
    base_model = _unserved_base_model(options)
    setting = f"BASE_MODEL={shlex.quote(base_model)} " if base_model else ""
    return [
        f"adapter: {adapter}",
        f"ask it: {setting}model_inference --adapter {shlex.quote(str(adapter))} 'What is rope "
        "for?'",
        f"training samples: python -m trainer mask {shlex.quote(str(folder))}",
        f"for other programs: python -m trainer export --adapter {shlex.quote(str(adapter))} --to "
        "gguf --out FILE",
        f"score card: {score_card_file(adapter, 'scorecard.md')}",
        f"training report: {adapter / 'report' / 'README.md'}",
    ]


def _resolve_paths(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the home and the folder named by --out."""
    if distributed_context(os.environ).is_distributed:
        raise RequestError(
            "Several processes cannot create one folder together.",
            "Create it with --make-only, then: accelerate launch -m trainer run FOLDER",
        )
    home = resolve_home(options.home)
    out = options.out.expanduser().absolute() if options.out else None
    if out:
        require_writable(out)
    else:
        require_writable(
            home, "It is the home: set UNDERSTUDY_HOME to a writable folder, or name --out."
        )
    return home, out


def _show_dry_run(options: argparse.Namespace) -> None:
    draft = options.draft(options, resolve_home(options.home))
    points = sweep_points(options.sweep, options.settings) if options.sweep else []
    first = draft.with_settings(points[0][1]) if points else draft
    os.nice(options.nice)
    show_draft_plan(first, options)
    if points and not options.json:
        names = ", ".join(point.name for point, _ in points)
        print(f"{len(points)} runs: the first is shown; they are {names}.")
