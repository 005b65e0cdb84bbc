"""`python -m trainer study`: many runs, and what they say together."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from personas.command_line import with_examples
from personas.rights import RIGHTS
from trainer.commands.build import right
from trainer.commands.counts import positive
from trainer.commands.dataset import guarded
from trainer.commands.plan import home_of
from trainer.commands.settings_given import add_settings
from trainer.process.environment import restart_with_allocator_settings, settle
from trainer.process.events import claim_stdout

if TYPE_CHECKING:
    from trainer.commands.job_making import Asked
    from trainer.commands.train import Runner
    from trainer.study.scale import Point

STUDY_HELP = """\
Studies take many runs. `scale` says how much data a persona needs: it trains on more and more of it, each time with
several seeds.

  python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3

Each run is kept in the study's folder as soon as it is measured. The same command goes on where it was stopped or
killed; with further sizes it is the same study, and grows. At its end stand study.md, study.json and a chart.
"""

SCALE_EXAMPLES = (
    "python -m trainer study scale --persona ballast --sizes 50,100,200 --runs 3",
    "python -m trainer study scale --persona oda --sizes 20,40 --runs 2 --set num_train_epochs=1 --json",
)


def add_study(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `study scale`."""
    study = commands.add_parser(
        "study",
        help="many runs, and what they say together",
        description=STUDY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = study.add_subparsers(required=True, metavar="KIND")
    scale = kinds.add_parser("scale", help="held-out loss and ROUGE by the number of samples trained on")
    with_examples(scale, *SCALE_EXAMPLES)
    add = scale.add_argument
    add("--persona", required=True, metavar="P", help="a persona's id or name, or a card file")
    add("--sizes", required=True, type=_sizes, metavar="N,N,…", help="how many samples are trained on")
    add("--runs", type=positive, default=3, metavar="N", help="runs of each size, each with a seed of its own: 3")
    add("--dataset", metavar="D", help="its talk, as for `train` (default: what ships for the persona)")
    add("--as", dest="names", action="append", default=[], metavar="NAME", help="who is P in the talk; may repeat")
    add("--recipe", default="demo-cpu", metavar="R", help="how to train (default: demo-cpu)")
    add_settings(scale)
    add("--base-model", default="embedded", metavar="M", help="`embedded`, a model folder, or a hub id")
    add("--right", type=right, metavar="R", help=f"the right to what has no rights.toml: {', '.join(RIGHTS)}")
    add("--out", type=Path, metavar="DIR", help="the study's folder (else in the bot's home)")
    add("--home", type=Path, metavar="DIR", help="the bot's home (else UNDERSTUDY_HOME, ~/.understudy)")
    add("--json", action="store_true", help="print one JSON object at the end")
    scale.set_defaults(general=None, dialogue=False, start_from=None)
    return scale


def study_scale(options: argparse.Namespace, run: Runner) -> int:
    """Runs `study scale`; `run` runs a job folder (`options.folder`) and tells its events to a stream."""
    from trainer.commands.showing import Shown
    from trainer.study.measure import scores_of
    from trainer.study.report import study_text, write_study
    from trainer.study.scale import STUDY, run_all

    restart_with_allocator_settings()
    made: list[tuple[Asked, list[Point], Path]] = []
    if code := guarded(lambda options: made.append(_made(options)))(options):
        return code
    (wanted, points, folder), options.card = made[0], "losses"
    settle(options.nice, options.threads)
    out = claim_stdout()
    logging.getLogger().setLevel(logging.WARNING)

    def tell(line: str) -> None:
        if not options.json:
            print(f"\n{line}", file=out, flush=True)

    def run_one(job: Path) -> int:
        options.folder = job
        return run(options, Shown(out) if not options.json else _Unheard())  # type: ignore[arg-type]  # as in `train`

    codes: list[int] = []

    def study(_: argparse.Namespace) -> None:
        results, code = run_all(wanted, points, options.settings, folder, run_one, scores_of, tell)
        codes.append(code)
        if code:
            return
        write_study(folder, wanted.request.persona, results)
        if options.json:
            print((folder / STUDY).read_text(encoding="utf-8").replace("\n", ""), file=out)
        else:
            print(
                "",
                study_text(wanted.request.persona, results),
                "",
                f"chart: {folder / 'study.svg'}",
                sep="\n",
                file=out,
            )

    tell(str(folder))
    code = guarded(study)(options) or codes[0]
    if code:
        tell("The same command goes on with it.")
    out.flush()
    return code


class _Unheard:
    """Where a run's events go when one JSON object is wanted at the end."""

    name = "events"

    def write(self, line: str) -> None:
        """Nothing is shown."""

    def flush(self) -> None:
        """Nothing is held."""


def _made(options: argparse.Namespace) -> tuple[Asked, list[Point], Path]:
    from trainer.commands.job_making import asked
    from trainer.commands.places import require_place
    from trainer.study.scale import folder_of, points_of

    home = home_of(options.home)
    out = options.out.expanduser().absolute() if options.out else None
    require_place(out or home)
    points = points_of(options.sizes, options.runs, options.settings)
    wanted = asked(options, home)
    return wanted, points, out or folder_of(wanted)


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected sizes such as 50,100,200, got {text!r}") from None
