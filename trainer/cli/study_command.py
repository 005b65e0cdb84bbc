"""`python -m trainer study`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from personas.cli_common import add_examples
from personas.schemas.base import RIGHTS
from trainer.cli.argtypes import add_settings, positive_int, right_name
from trainer.cli.create_job import draft_job
from trainer.cli.error_handling import require_writable, resolve_home, with_error_handling
from trainer.cli.progress_view import EventPrinter
from trainer.cli.train_command import JobRunner
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import claim_stdout
from trainer.train.job_folder import JobDraft

if TYPE_CHECKING:
    from trainer.study.scale import ScalePoint

STUDY_HELP = """\
Studies consist of many runs. `scale` measures how much data a persona needs: it trains on increasing amounts, each with
several seeds.

  python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3

Each run's result is stored in the study's folder as soon as it is measured. The same command resumes an interrupted
study; further sizes extend it. The results are study.md, study.json and a chart.
"""

SCALE_EXAMPLES = (
    "python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3",
    "python -m trainer study scale --persona oda --sizes 20,40 --runs 2 --set num_train_epochs=1 --json",
)


def add_study(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add `study scale`."""
    study = commands.add_parser(
        "study",
        help="studies of many runs",
        description=STUDY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = study.add_subparsers(required=True, metavar="KIND")
    scale = kinds.add_parser("scale", help="held-out loss and ROUGE by the number of samples trained on")
    add_examples(scale, *SCALE_EXAMPLES)
    add = scale.add_argument
    add("--persona", required=True, metavar="P", help="a persona's id or name, or a card file")
    add("--sizes", required=True, type=_sizes, metavar="N,N,…", help="numbers of training samples")
    add("--runs", type=positive_int, default=3, metavar="N", help="runs per size, each with its own seed (default: 3)")
    add("--dataset", metavar="D", help="its conversations, as for `train` (default: the shipped ones)")
    add("--as", dest="names", action="append", default=[], metavar="NAME", help="P's name in them; may repeat")
    add("--recipe", default="demo-cpu", metavar="R", help="the recipe (default: demo-cpu)")
    add_settings(scale)
    add("--base-model", default="embedded", metavar="M", help="`embedded`, a model folder, or a hub id")
    add("--right", type=right_name, metavar="R", help=f"the right to sources without rights.toml: {', '.join(RIGHTS)}")
    add("--out", type=Path, metavar="DIR", help="the study's folder (default: in the bot's home)")
    add("--home", type=Path, metavar="DIR", help="the bot's home (default: UNDERSTUDY_HOME, ~/.understudy)")
    add("--json", action="store_true", help="print one JSON object at the end")
    scale.set_defaults(general=None, dialogue=False, start_from=None)
    return scale


def run_scale_command(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `study scale`; `run` runs a job folder (`options.folder`) and writes its events to a stream."""
    from trainer.study.scale import STUDY_FILE, run_scale_study, score_adapter, study_markdown, write_study

    restart_with_allocator_settings()
    made: list[tuple[JobDraft, list[ScalePoint], Path]] = []
    if code := with_error_handling(lambda options: made.append(_draft_study(options)))(options):
        return code
    (wanted, points, folder), options.card = made[0], "losses"
    configure_process(options.nice, options.threads)
    out = claim_stdout()
    logging.getLogger().setLevel(logging.WARNING)

    def tell(line: str) -> None:
        if not options.json:
            print(f"\n{line}", file=out, flush=True)

    def run_one(job: Path) -> int:
        options.folder = job
        return run(options, EventPrinter(out) if not options.json else _NullStream())  # type: ignore[arg-type]  # as in `train`

    codes: list[int] = []

    def study(_: argparse.Namespace) -> None:
        results, code = run_scale_study(wanted, points, options.settings, folder, run_one, score_adapter, tell)
        codes.append(code)
        if code:
            return
        write_study(folder, wanted.request.persona, results)
        if options.json:
            print((folder / STUDY_FILE).read_text(encoding="utf-8").replace("\n", ""), file=out)
        else:
            print(
                "",
                study_markdown(wanted.request.persona, results),
                "",
                f"chart: {folder / 'study.svg'}",
                sep="\n",
                file=out,
            )

    tell(str(folder))
    code = with_error_handling(study)(options) or codes[0]
    if code:
        tell("Run the same command again to resume.")
    out.flush()
    return code


class _NullStream:
    """Discards a run's events when only one JSON object is printed at the end."""

    name = "events"

    def write(self, line: str) -> None:
        """Discard the line."""

    def flush(self) -> None:
        """Do nothing."""


def _draft_study(options: argparse.Namespace) -> tuple[JobDraft, list[ScalePoint], Path]:
    from trainer.study.scale import scale_folder, scale_points

    home = resolve_home(options.home)
    out = options.out.expanduser().absolute() if options.out else None
    require_writable(out or home)
    points = scale_points(options.sizes, options.runs, options.settings)
    wanted = draft_job(options, home)
    return wanted, points, out or scale_folder(wanted)


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected sizes such as 50,100,200, got {text!r}") from None
