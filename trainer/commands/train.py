"""`python -m trainer train`: makes a job folder of a command line's words and runs it."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from personas.base_model import EMBEDDED, named_with
from personas.errors import RequestError
from personas.rights import RIGHTS
from trainer.commands.build import right
from trainer.commands.dataset import guarded
from trainer.commands.plan import add_plan_output, home_of, plan_run
from trainer.commands.settings_given import add_settings, settings_given
from trainer.frozen import CHECKPOINTS, frozen_threads
from trainer.loop.processes import processes_here
from trainer.process.environment import restart_with_allocator_settings, settle
from trainer.process.events import claim_stdout

if TYPE_CHECKING:
    from trainer.commands.job_making import Asked
    from trainer.sweep import Point

TRAIN_HELP = """\
Trains an adapter: a persona's, or one for dialogue in general.

  python -m trainer train --persona ballast                                   on its own talk
  python -m trainer train --persona ballast --dataset build/ballast           on a data set that `dataset build` made
  python -m trainer train --persona ada.toml --dataset talk.json --as Wick    on a log in which it speaks as Wick
  python -m trainer train --persona oda --recipe mixed-80-20 --general chat.jsonl
  python -m trainer train --dialogue --dataset chat.jsonl --recipe s3-dialogue --base-model Qwen/Qwen2.5-3B-Instruct
  python -m trainer train --persona oda --start-from ~/.understudy/runs/dialogue-s3-dialogue-3f9a2c41d0/adapter
  python -m trainer train --persona oda --set learning_rate=5e-4 --set lora_r=8 --dry-run
  python -m trainer train --persona oda --sweep learning_rate=2e-4,5e-4,1e-3

Everything that the run takes is copied into a folder of its own (--out; in the bot's home unless given), under its
rights. The same command goes on where it was stopped, and so does `run FOLDER`, on another machine too.
"""
Runner = Callable[[argparse.Namespace, TextIO], int]


def add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `train`."""
    train = commands.add_parser(
        "train",
        help="train a persona's adapter, or one for dialogue",
        description=TRAIN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = train.add_argument
    add("--persona", metavar="P", help="a persona's id or name, or a card file")
    add("--dialogue", action="store_true", help="train no persona: dialogue in general")
    add(
        "--dataset", metavar="D", help="a built data set's folder, a file or folder of talk, or a name of the catalogue"
    )
    add("--as", dest="names", action="append", default=[], metavar="NAME", help="who is P in the talk; may repeat")
    add("--general", metavar="G", help="general dialogue for recipes that mix some in: a file, a folder, or a name")
    add("--start-from", metavar="A", help="train this adapter further: its folder, or a dialogue adapter's name")
    add("--recipe", default="demo-cpu", metavar="R", help="how to train (default: demo-cpu); `recipes` lists them")
    add_settings(train)
    add("--sweep", action="append", default=[], metavar="NAME=V,V,…", help="a run for each value, and the best of them")
    add("--base-model", default="embedded", metavar="M", help="`embedded`, a model folder, or a hub id")
    add("--right", type=right, metavar="R", help=f"the right to what has no rights.toml: {', '.join(RIGHTS)}")
    add("--out", type=Path, metavar="DIR", help="the run's folder")
    add("--make-only", action="store_true", help="make the folder and do not run it, to be run elsewhere")
    add("--dry-run", action="store_true", help="only say what would be done, as `plan` does")
    add_plan_output(train)
    return train


def train(options: argparse.Namespace, run: Runner) -> int:
    """Runs `train`; `run` runs a job folder (`options.folder`) and tells its events to a stream."""
    if options.dry_run:
        return guarded(_plan)(options)
    restart_with_allocator_settings()
    if options.sweep:
        return sweep(options, run)
    made: list[Path] = []
    if code := guarded(lambda options: made.append(_made(options)))(options):
        return code
    options.folder = made[0]
    if options.make_only:
        print(options.folder)
        return 0
    settle(options.nice, frozen_threads(options.folder) or options.threads)
    if options.json:
        return run(options, claim_stdout())
    return _run_for_people(options, run)


def sweep(options: argparse.Namespace, run: Runner) -> int:
    """Runs `train --sweep`: one run after another, then the table of them all and the best one's adapter."""
    from trainer.commands.showing import Shown
    from trainer.sweep import best_of, results_table, run_all, write_results

    made: list[tuple[Point, Path]] = []
    if code := guarded(lambda options: made.extend(_sweep_made(options)))(options):
        return code
    home, options.card = made[0][1].parent.parent, options.card or "losses"
    settle(options.nice, next(filter(None, (frozen_threads(folder) for _, folder in made)), options.threads))
    out = claim_stdout()
    if not options.json:
        logging.getLogger().setLevel(logging.WARNING)

    def tell(line: str) -> None:
        if not options.json:
            print(f"\n{line}", file=out, flush=True)

    def run_one(folder: Path) -> int:
        options.folder = folder
        return run(options, out if options.json else Shown(out))  # type: ignore[arg-type]  # as above

    def end(_: argparse.Namespace) -> None:
        best = best_of(results)
        write_results(home, results, best)
        if options.json:
            print((home / "sweep.json").read_text(encoding="utf-8").replace("\n", ""), file=out)
        else:
            job = home / "sweep" / best.name
            print("", results_table(results, best), "", *_next(job, home / "adapter"), sep="\n", file=out)

    tell(str(home))
    results, code = run_all(made, run_one, tell)
    if code:
        tell("The same command goes on with it.")
    code = code or guarded(end)(options)
    out.flush()
    return code


def _run_for_people(options: argparse.Namespace, run: Runner) -> int:
    from trainer.commands.showing import Shown

    logging.getLogger().setLevel(logging.WARNING)  # phases are shown
    out = claim_stdout()
    goes_on = (options.folder / CHECKPOINTS).is_dir()
    print(f"{options.folder}{': going on from its last checkpoint' if goes_on else ''}", file=out)
    print(_whose(options), end="", file=out, flush=True)
    code = run(options, Shown(out))  # type: ignore[arg-type]  # as much of a stream as events need
    print(file=out)
    for line in _ending(options.folder, code):
        print(line, file=out)
    out.flush()
    return code


def _whose(options: argparse.Namespace) -> str:
    """A line on who can use the adapter, where it is not the bot as it comes."""
    settings = settings_given(options)
    wanted = named_with(options.base_model, settings.rope_scaling_type, settings.rope_scaling_factor)
    if wanted == os.environ.get("BASE_MODEL", EMBEDDED):
        return ""
    return f"for a bot with BASE_MODEL={wanted}: one that serves another base model cannot use the adapter\n"


def _ending(folder: Path, code: int) -> list[str]:
    if code:
        return [f"goes on with: python -m trainer run {shlex.quote(str(folder))}"]
    return _next(folder, folder / "adapter")


def _next(folder: Path, adapter: Path) -> list[str]:
    """What can be done with the adapter of a job."""
    return [
        f"adapter: {adapter}",
        f"what was trained on: python -m trainer mask {shlex.quote(str(folder))}",
        f"for other programs: python -m trainer export --adapter {shlex.quote(str(adapter))} --to gguf --out FILE",
        f"what it is like: {adapter / 'scorecard.md'}",
        f"what its training was like: {adapter / 'report' / 'README.md'}",
    ]


def _made(options: argparse.Namespace) -> Path:
    from trainer.commands.job_making import job_folder

    home, out = _places(options)
    return job_folder(_asked(options, home), out)


def _sweep_made(options: argparse.Namespace) -> list[tuple[Point, Path]]:
    from trainer.sweep import folder_of, make_folders, points_of

    home, out = _places(options)
    wanted, points = _asked(options, home), points_of(options.sweep, options.settings)
    return make_folders(wanted, points, out or folder_of(wanted, [point for point, _ in points]))


def _places(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """The home, and the folder that is named for what is made."""
    from trainer.commands.places import require_place

    if processes_here(os.environ).are_many:
        raise RequestError(
            "Several processes cannot make one folder together.",
            "Make it with --make-only, then: accelerate launch -m trainer run FOLDER",
        )
    home = home_of(options.home)
    out = options.out.expanduser().absolute() if options.out else None
    if out:
        require_place(out)
    else:
        require_place(home, "It is the home: set UNDERSTUDY_HOME to a folder that can be written, or name --out.")
    return home, out


def _plan(options: argparse.Namespace) -> None:
    from personas.job_folder import MATERIAL
    from trainer.commands.job_making import made_aside
    from trainer.sweep import points_of

    wanted = _asked(options, home_of(options.home))
    points = points_of(options.sweep, options.settings) if options.sweep else []
    with made_aside(wanted.with_settings(points[0][1]) if points else wanted, Path(tempfile.gettempdir())) as (
        folder,
        _,
    ):
        options.folder = folder
        plan_run(options, {folder / MATERIAL / place: path for it in wanted.materials for path, place in it.copies})
    if points and not options.json:
        print(f"{len(points)} runs: the first is shown; they are {', '.join(point.name for point, _ in points)}.")


def _asked(options: argparse.Namespace, home: Path) -> Asked:
    from trainer.commands.job_making import asked

    asks: Callable[[argparse.Namespace, Path], Asked] = options.asks or asked
    return asks(options, home)
