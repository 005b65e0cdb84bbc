"""`python -m trainer study`."""

import argparse
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from personas.cli_common import add_examples, int_from
from personas.errors import RequestError
from trainer.cli.argtypes import Commands, add_command, positive_int
from trainer.cli.create_job import draft_job
from trainer.cli.error_handling import require_writable, resolve_home
from trainer.cli.options import (
    BASE_MODEL,
    HOME,
    JSON,
    NAMES,
    OUT,
    PERSONA,
    RECIPE,
    RIGHT,
    SET,
    add_options,
    flag,
    option,
    repeated,
)
from trainer.cli.progress_view import EventPrinter
from trainer.cli.train_command import JobRunner
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import claim_stdout

STUDY_HELP = """\
Studies consist of many runs. `scale` measures how much data is needed: it trains on increasing amounts, each with
several seeds.

  python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3
  python -m trainer study scale --dialogue --dataset A --more B --sizes 100,200,300 --runs 3

A study of dialogue grows from one source to the next: B is used once A is exhausted. Larger sizes contain the smaller
ones. Every adapter answers the same held-out prompts of four tasks: held-out replies of A and B, instructions, general
dialogue and summarising. ROUGE-1, ROUGE-2 and ROUGE-L are compared with the untrained model's.

Each run's result is stored in the study's folder as soon as it is measured. The same command resumes an interrupted
study; further sizes or runs extend it. The results are a table, JSON and a chart.
"""

SCALE_EXAMPLES = (
    "python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3",
    "python -m trainer study scale --persona oda --sizes 20,40 --runs 2 --set num_train_epochs=1 "
    "--json",
    "python -m trainer study scale --dialogue --dataset chats.jsonl --more oasst2 --sizes "
    "100,200,300 "
    "--task summarising=my-summaries.jsonl",
)
RUN_COUNT = int_from(1, 1000, "runs")


def add_study(commands: Commands) -> argparse.ArgumentParser:
    """Add `study scale`."""
    study = add_command(commands, "study", "studies of many runs", STUDY_HELP)
    kinds = study.add_subparsers(required=True, metavar="KIND")
    scale = kinds.add_parser(
        "scale", help="held-out loss and ROUGE by the number of samples trained on"
    )
    add_examples(scale, *SCALE_EXAMPLES)
    add_options(
        scale,
        [
            PERSONA,
            flag("--dialogue", "train no persona: dialogue in general, measured on four tasks"),
            option("--sizes", "N,N,…", "numbers of training samples", required=True, type=_sizes),
            repeated(
                "--more",
                "D",
                "with --dialogue: conversations to use once those before are exhausted; may repeat",
            ),
            repeated(
                "--task",
                "NAME=FILE",
                "with --dialogue: a task's held-out conversations, instead of the shipped ones or as a "
                "task of its own",
                dest="tasks",
                type=_task_file,
            ),
            option(
                "--prompts",
                "N",
                "use at most N prompts per task (default: 24)",
                type=positive_int,
                default=24,
            ),
            option(
                "--runs",
                "N",
                "runs of each, each with its own seed (default: 3)",
                type=RUN_COUNT,
                default=3,
            ),
            option(
                "--dataset", "D", "its conversations, as for `train` (default: the shipped ones)"
            ),
            NAMES.but(help="P's name in them; may repeat"),
            RECIPE,
            SET,
            BASE_MODEL,
            RIGHT,
            OUT.but(help="the study's folder (default: in the bot's home)"),
            HOME,
            JSON.but(help="print one JSON object at the end"),
        ],
    )
    scale.set_defaults(start_from=None, lore_pairs=None, from_card=None, lore=None, general=None)
    return scale


def run_scale_command(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `study scale`; `run` runs a job folder (`options.folder`) and writes its events to a
    stream.
    """
    restart_with_allocator_settings()
    configure_process(options.nice, options.threads)
    home = resolve_home(options.home)
    named = options.out.expanduser().absolute() if options.out else None
    require_writable(named or home)
    options.card = "losses"
    # Loads torch, which takes seconds and reads the number of threads.
    from trainer.study import scale, scale_report, scale_tasks

    points = scale.scale_points(options.sizes, options.runs, options.settings)
    draft = draft_job(options, home)
    tasks = _study_tasks(options, scale_tasks.DIALOGUE_TASKS)
    scale_tasks.require_untrained_tasks(draft, tasks)
    scale.require_enough_samples(draft, points, options.settings)
    measure = scale_tasks.task_scorer(points, tasks, options.prompts)
    folder = named or scale.scale_folder(draft)
    output = _StudyOutput(options, run)
    output.report(str(folder))
    results, code = scale.run_scale_study(
        draft,
        points,
        settings=options.settings,
        out=folder,
        run=output.run_one,
        measure=measure,
        report=output.report,
    )
    if code:
        return output.report_stopped(code)
    scale_report.write_study(folder, draft.request.persona, results)
    text = scale_report.study_markdown(draft.request.persona, results)
    return output.report_results(text, folder / "study.svg", folder / scale_report.STUDY_FILE)


class _StudyOutput:
    """Runs jobs and reports on standard output: lines as they come, or one JSON object at the
    end.
    """

    def __init__(self, options: argparse.Namespace, run: JobRunner) -> None:
        self._options = options
        self._run = run
        self._out = claim_stdout()
        logging.getLogger().setLevel(logging.WARNING)

    def report(self, line: str) -> None:
        if not self._options.json:
            print(f"\n{line}", file=self._out, flush=True)

    def run_one(self, job: Path) -> int:
        """Run a job folder; returns its exit code."""
        self._options.folder = job
        with Path(os.devnull).open("w", encoding="utf-8") as silent:
            events = silent if self._options.json else EventPrinter(self._out)
            return self._run(self._options, events)  # type: ignore[arg-type]  # as in `train`

    def report_stopped(self, code: int) -> int:
        self.report("Run the same command again to resume.")
        return code

    def report_results(self, text: str, chart: Path, results: Path) -> int:
        self.report(f"{text}\n\nchart: {chart}")
        if self._options.json:
            print(results.read_text(encoding="utf-8").replace("\n", ""), file=self._out, flush=True)
        return 0


def _study_tasks(options: argparse.Namespace, shipped: Mapping[str, Path]) -> dict[str, Path]:
    """Return the tasks that are measured besides held-out replies, none for a persona. Raises
    `RequestError`.
    """
    if options.dialogue:
        return {**shipped, **dict(options.tasks)}
    if options.more or options.tasks:
        raise RequestError(
            "--more and --task are for studies of dialogue.", "Leave them out, or name --dialogue."
        )
    return {}


def _task_file(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not (name.strip() and file):
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text!r}")
    return name.strip(), Path(file).expanduser().absolute()


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected sizes such as 50,100,200, got {text!r}"
        ) from None
