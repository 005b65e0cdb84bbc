"""`python -m trainer study`."""

import argparse
import logging
import os
from pathlib import Path

from personas.cli_common import add_examples
from personas.schemas.base import RIGHTS
from trainer.cli.argtypes import Commands, add_command, add_home, add_settings, positive_int, right_name
from trainer.cli.create_job import draft_job
from trainer.cli.error_handling import require_writable, resolve_home
from trainer.cli.progress_view import EventPrinter
from trainer.cli.train_command import JobRunner
from trainer.process.environment import configure_process, restart_with_allocator_settings
from trainer.process.events import claim_stdout

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


def add_study(commands: Commands) -> argparse.ArgumentParser:
    """Add `study scale`."""
    study = add_command(commands, "study", "studies of many runs", STUDY_HELP)
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
    add_home(scale)
    add("--json", action="store_true", help="print one JSON object at the end")
    scale.set_defaults(general=None, dialogue=False, start_from=None)
    return scale


def run_scale_command(options: argparse.Namespace, run: JobRunner) -> int:
    """Run `study scale`; `run` runs a job folder (`options.folder`) and writes its events to a stream."""
    restart_with_allocator_settings()
    configure_process(options.nice, options.threads)
    from trainer.study import scale  # loads torch, which takes seconds and reads the number of threads

    home, named = resolve_home(options.home), options.out.expanduser().absolute() if options.out else None
    require_writable(named or home)
    points = scale.scale_points(options.sizes, options.runs, options.settings)
    draft = draft_job(options, home)
    folder = named or scale.scale_folder(draft)
    options.card = "losses"
    out = claim_stdout()
    logging.getLogger().setLevel(logging.WARNING)

    def report(line: str) -> None:
        if not options.json:
            print(f"\n{line}", file=out, flush=True)

    def run_one(job: Path) -> int:
        options.folder = job
        with Path(os.devnull).open("w", encoding="utf-8") as silent:
            return run(options, silent if options.json else EventPrinter(out))  # type: ignore[arg-type]  # as in `train`

    report(str(folder))
    results, code = scale.run_scale_study(draft, points, options.settings, folder, run_one, scale.score_adapter, report)
    if code:
        report("Run the same command again to resume.")
    else:
        scale.write_study(folder, draft.request.persona, results)
        report(f"{scale.study_markdown(draft.request.persona, results)}\n\nchart: {folder / 'study.svg'}")
        if options.json:
            print((folder / scale.STUDY_FILE).read_text(encoding="utf-8").replace("\n", ""), file=out)
    out.flush()
    return code


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected sizes such as 50,100,200, got {text!r}") from None
