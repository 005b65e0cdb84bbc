"""`python -m trainer study`."""

import argparse
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from personas.cli_common import add_examples, int_from
from personas.cli_entry import EXIT_FAILED
from personas.errors import RequestError
from personas.home.adapters import NAME_ADAPTER_ADVICE, verify_adapter
from trainer.cli.argtypes import Commands, add_command, positive_int, unit_fraction
from trainer.cli.create_job import draft_job
from trainer.cli.error_handling import require_writable, resolve_home
from trainer.cli.evaluate_command import find_job
from trainer.cli.options import (
    ADAPTER,
    BASE_MODEL,
    HOME,
    JOB,
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
from trainer.cli.progress_view import EventPrinter, print_line
from trainer.cli.train_command import JobRunner
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import claim_stdout
from trainer.study.strategies import (
    STRATEGIES_FILE,
    read_strategy_run,
    strategies_folder,
    strategy_points,
    write_strategies,
)
from trainer.study.sweep import make_sweep_folders, run_sweep

STUDY_HELP = """\
Studies consist of many runs. `scale` measures how much data is needed: it trains on increasing amounts, each with
several seeds. `strategies` compares three ways of using general dialogue: not at all, mixed in at a ratio, and in a
first stage of its own. `quality` trains nothing: it measures an adapter's replies under several sampling settings.

  python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3
  python -m trainer study scale --dialogue --dataset A --more B --sizes 100,200,300 --runs 3
  python -m trainer study strategies --persona ballast --share 0.8 --runs 2
  python -m trainer study quality --adapter DIR --try temperature=0.3 --try temperature=0.3,min_p=0.05 --runs 3

A study of dialogue grows from one source to the next: B is used once A is exhausted. Larger sizes contain the smaller
ones. Every adapter answers the same held-out prompts of four tasks: held-out replies of A and B, instructions, general
dialogue and summarising. ROUGE-1, ROUGE-2 and ROUGE-L are compared with the untrained model's.

Each run's result is stored in the study's folder as soon as it is measured. The same command resumes an interrupted
study; further sizes or runs extend it. The results are a table, JSON and a chart.
"""

QUALITY_HELP = """\
Measures replies of an adapter, as the bot serves it and with other sampling: whether they make sense (an estimate),
know the lore, keep the voice over talks of 40 turns, and stay in character. Nothing is trained, but each seed of each
combination takes some minutes. --try takes temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens, and
candidates (the number of beginnings that a reply is chosen from). --against compares other versions of the persona,
each as served, on the same prompts.

Each seed's result is stored as soon as it is measured. The same command resumes an interrupted study; other settings
and more seeds extend it. The results are a table (quality.md), JSON (quality.json) and a chart (quality.png, .svg).
"""
SCALE_EXAMPLES = (
    "python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3",
    "python -m trainer study scale --persona oda --sizes 20,40 --runs 2 --set num_train_epochs=1 "
    "--json",
    "python -m trainer study scale --dialogue --dataset chats.jsonl --more oasst2 --sizes "
    "100,200,300 "
    "--task summarising=my-summaries.jsonl",
)
STRATEGY_EXAMPLES = (
    "python -m trainer study strategies --persona ballast --runs 2",
    "python -m trainer study strategies --persona oda --general chat.jsonl --share 0.5 --set "
    "num_train_epochs=1 --json",
)
QUALITY_EXAMPLES = (
    "python -m trainer study quality --adapter ~/.understudy/models/persona_adapters/oda/v2 --try "
    "temperature=0.3",
    "python -m trainer study quality --adapter runs/oda/adapter --try temperature=0.3,min_p=0.05 "
    "--try repetition_penalty=1.15 --runs 2 --json",
    "python -m trainer study quality --adapter runs/oda/adapter --against "
    "~/.understudy/models/persona_adapters/oda/v2",
)
RUN_COUNT = int_from(1, 1000, "runs")
DEFAULT_QUALITY_OUTPUT = Path("build") / "quality"


def add_study(commands: Commands) -> tuple[argparse.ArgumentParser, ...]:
    """Add `study scale`, `strategies` and `quality`; `study` of the options of the first two runs
    them.
    """
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
        ],
    )
    _add_study_options(scale)
    scale.set_defaults(general=None, study=run_scale_command)
    text = "held-out and general loss with the persona's data alone, mixed, and in two stages"
    strategies = kinds.add_parser("strategies", help=text)
    add_examples(strategies, *STRATEGY_EXAMPLES)
    add_options(
        strategies,
        [
            PERSONA.but(required=True),
            option(
                "--share",
                "S",
                "share of general dialogue in the mixed runs (default: 0.8, which is 80:20)",
                type=unit_fraction,
                default=0.8,
            ),
            option(
                "--general",
                "G",
                "general dialogue to train on (default: two thirds of the shipped)",
            ),
        ],
    )
    _add_study_options(strategies)
    strategies.set_defaults(dialogue=False, study=run_strategies_command)
    return scale, strategies, _add_quality(kinds)


def _add_quality(kinds: Commands) -> argparse.ArgumentParser:
    text = "sense, lore, style, long talks and pressure by sampling settings, with paired intervals"
    quality = add_command(kinds, "quality", text, QUALITY_HELP)
    add_examples(quality, *QUALITY_EXAMPLES)
    add_options(
        quality,
        [
            ADAPTER,
            JOB,
            repeated(
                "--try",
                "NAME=VALUE,…",
                "sampling settings to compare with those that the bot serves with; may repeat",
                dest="tried",
            ),
            repeated(
                "--against",
                "DIR",
                "another version of the persona to compare with; may repeat",
                type=Path,
            ),
            option(
                "--runs",
                "N",
                "seeds for each combination of settings (default: 3)",
                type=RUN_COUNT,
                default=3,
            ),
            OUT.but(help=f"the output folder (default: {DEFAULT_QUALITY_OUTPUT}/PERSONA-VERSION)"),
            HOME,
            JSON.but(help="print one JSON object at the end"),
        ],
    )
    return quality


def _add_study_options(study: argparse.ArgumentParser) -> None:
    add_options(
        study,
        [
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
    study.set_defaults(start_from=None, lore_pairs=None, from_card=None, lore=None)


def run_scale_command(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `study scale`; `run` runs a job folder (`options.folder`) and writes its events to a
    stream.
    """
    home, named = _prepare(options)
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


def run_strategies_command(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `study strategies`; `run` as in `run_scale_command`."""
    home, named = _prepare(options)
    points = strategy_points(options.share, options.runs, options.settings)
    draft = draft_job(options, home)
    folder = named or strategies_folder(draft, options.share)
    jobs = make_sweep_folders(draft, points, folder)
    output = _StudyOutput(options, run)
    output.report(str(folder))
    _, code = run_sweep(jobs, output.run_one, output.report)
    results = []
    for point, job in jobs:
        result = read_strategy_run(point, job)
        if result:
            results.append(result)
    if code or not results:
        return output.report_stopped(code or EXIT_FAILED)
    text = write_strategies(folder, draft.request.persona, results)
    return output.report_results(text, folder / "strategies.svg", folder / STRATEGIES_FILE)


def run_quality_command(options: argparse.Namespace) -> None:
    """Run `study quality`."""
    logging.getLogger().setLevel(logging.WARNING)
    adapter = options.adapter.expanduser().absolute()
    manifest = verify_adapter(adapter, NAME_ADAPTER_ADVICE)
    folder, spec = find_job(adapter, manifest, options)
    default_out = DEFAULT_QUALITY_OUTPUT / f"{manifest.persona or 'dialogue'}-{manifest.version}"
    out = (options.out or default_out).expanduser().absolute()
    require_writable(out)
    # These load torch, which takes seconds.
    from trainer.evaluate.candidates import Candidate
    from trainer.study import quality, quality_meter, quality_report
    from trainer.train.job import prepare_job

    points = quality.quality_points(options.tried, options.runs)
    rivals = []
    for path in options.against:
        rival = path.expanduser().absolute()
        rivals.append(Candidate(_rival_version(rival, manifest.persona), rival))
    with quality.lock_study(out):
        job = prepare_job(folder, spec)
        try:
            results = quality_meter.measure_versions(
                out,
                points,
                job=job,
                adapter=Candidate(manifest.version, adapter),
                rivals=rivals,
                report=print_line,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Run the same command again to resume.") from None
        text = quality_report.write_quality(out, manifest.persona or "", results)
    if options.json:
        text = (out / quality_report.QUALITY_FILE).read_text(encoding="utf-8").replace("\n", "")
    print(text)
    print_line(str(out))


def _rival_version(adapter: Path, persona: str | None) -> str:
    """Return the version of another adapter of the persona. Raises `UnderstudyError`."""
    manifest = verify_adapter(adapter, NAME_ADAPTER_ADVICE)
    if manifest.persona != persona:
        raise RequestError(
            f"{adapter} is {manifest.persona or 'nobody'}'s.", f"Name a version of {persona}'s."
        )
    return manifest.version


def _prepare(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Configure the process; returns the home and the named folder. Raises `RequestError` if
    nothing can be written.
    """
    restart_with_allocator_settings()
    configure_process(options.nice, options.threads)
    home = resolve_home(options.home)
    named = options.out.expanduser().absolute() if options.out else None
    require_writable(named or home)
    options.card = "losses"
    return home, named


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
