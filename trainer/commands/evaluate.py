"""`python -m trainer evaluate`: the score card of an adapter that is there."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from personas.errors import RequestError

if TYPE_CHECKING:
    from personas.compare import Compare, Neighbour
    from personas.contracts import JobSpec, Manifest, TrainerEvent
    from personas.scorecard import Audit, FullScoreCard
    from trainer.job import Job
    from trainer.scorecard.budget import Extent

EVALUATE_HELP = """\
Makes the score card of an adapter: what it says and what it predicts, beside the base model and the live version, with
the gate's verdict. Measured on what was held out of its training, in no more time than the training took.

  python -m trainer evaluate --adapter ~/.understudy/models/persona_adapters/oda/v2
  python -m trainer evaluate --adapter runs/oda/adapter --against ~/.understudy/models/persona_adapters/oda/v1
  python -m trainer evaluate --adapter runs/oda/adapter --neighbour thrip=runs/thrip/adapter,runs/thrip --quick --json
  python -m trainer evaluate --adapter runs/oda/adapter --audit          trains a copy with planted texts, too

The job's folder, which holds what was held out, is found beside the adapter or in the bot's home, or named with --job.
Progress goes to standard error; scorecard.json and scorecard.md lie in --out.
"""
OUT = Path("build") / "evaluate"
UNKNOWN_S = 180.0
"""Seconds for the card of an adapter that does not say how long its training took."""


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="the score card of an adapter, and the gate's verdict",
        description=EVALUATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = evaluate.add_argument
    add("--adapter", type=Path, required=True, metavar="DIR", help="the folder of a version")
    add("--against", type=Path, metavar="DIR", help="the version that speaks now (else as the job's folder has it)")
    add("--job", type=Path, metavar="FOLDER", help="the folder of the job that made the adapter")
    add(
        "--neighbour",
        type=_neighbour,
        action="append",
        default=[],
        metavar="PERSONA=ADAPTER,JOB",
        help="another persona, with its adapter's and its job's folder; may repeat",
    )
    add("--quick", action="store_true", help="all sections in a fifth of the time, from fewer prompts")
    add("--audit", action="store_true", help="train a copy with planted texts, and say what it learns by heart")
    add("--home", type=Path, metavar="DIR", help="the bot's home (else UNDERSTUDY_HOME, ~/.understudy)")
    add("--out", type=Path, metavar="DIR", help=f"where the card goes (default: {OUT}/PERSONA-VERSION)")
    add("--json", action="store_true", help="print scorecard.json")
    return evaluate


def evaluate(options: argparse.Namespace) -> None:
    """Runs `evaluate`."""
    from personas.adapters import NAME_ANOTHER, verify
    from trainer.commands.places import require_place
    from trainer.job import prepare
    from trainer.scorecard.markdown import markdown
    from trainer.scorecard.written import write_card

    logging.getLogger().setLevel(logging.WARNING)
    adapter = options.adapter.expanduser().absolute()
    manifest = verify(adapter, NAME_ANOTHER)
    folder, spec = _job_of(adapter, manifest, options)
    compare = _compare(folder, options)
    out = (options.out or OUT / f"{manifest.persona or 'dialogue'}-{manifest.version}").expanduser().absolute()
    require_place(out)
    job = prepare(folder, spec)
    card = _card(adapter, manifest, job, compare, options.quick)
    if options.audit:
        card = card.model_copy(update={"audit": _audit(job, out / "audit")})
    out.mkdir(parents=True, exist_ok=True)
    write_card(out, card)
    print(card.model_dump_json() if options.json else markdown(card), end="\n" if options.json else "")
    _say(f"{out}")


def _card(adapter: Path, manifest: Manifest, job: Job, compare: Compare, is_quick: bool) -> FullScoreCard:
    from trainer.scorecard.card import Order, make_card
    from trainer.scorecard.learned import losses_in
    from trainer.scorecard.sides import Compared

    new = Compared(manifest.version, adapter)
    extent: Extent = "quick" if is_quick else "full"
    of = (job, new, _training_s(adapter), compare, extent)
    return make_card(Order(*of, tell=_say, losses=losses_in(adapter)))


def _audit(job: Job, folder: Path) -> Audit:
    from trainer.commands.showing import Shown
    from trainer.job import Run
    from trainer.scorecard.audit import audit

    shown = Shown(sys.stderr)

    def show(event: TrainerEvent) -> None:
        shown.write(event.model_dump_json())

    return audit(job, folder, Run(show, lambda: None))


def _job_of(adapter: Path, manifest: Manifest, options: argparse.Namespace) -> tuple[Path, JobSpec]:
    """The folder of the job that made the adapter. Raises `RequestError` where there is none, or another's is named."""
    from trainer.commands.plan import home_of
    from trainer.material import read_spec

    home = home_of(options.home)
    places = [options.job.expanduser().absolute()] if options.job else [adapter.parent, home / "jobs" / manifest.job_id]
    folder = next((place for place in places if (place / "request.json").is_file()), None)
    if folder is None:
        raise RequestError(
            f"There is no folder of the job {manifest.job_id}, which made the adapter.",
            "Name it with --job: it holds what was held out of the training.",
        )
    spec = read_spec(folder)
    if spec.request.persona != manifest.persona:
        made_for, of = (persona or "dialogue" for persona in (spec.request.persona, manifest.persona))
        raise RequestError(
            f"{folder} is a job for {made_for}, and the adapter is {of}'s.", "Name the job that made the adapter."
        )
    return folder, spec


def _compare(folder: Path, options: argparse.Namespace) -> Compare:
    """What the command line names, or else what the job's folder does.

    Raises `AdapterError` or `RequestError` where something that is named is not there whole.
    """
    from personas.adapters import NAME_ANOTHER, verify
    from personas.compare import read_compare

    if options.against:
        verify(options.against.expanduser(), NAME_ANOTHER)
    for neighbour in options.neighbour:
        verify(Path(neighbour.adapter), NAME_ANOTHER)
        if not Path(neighbour.job).is_dir():
            raise RequestError(f"There is no folder {neighbour.job}.", "Name the job that made the adapter.")
    named = read_compare(folder)
    changes: dict[str, object] = {}
    if options.against:
        changes["live"] = str(options.against.expanduser().absolute())
    if options.neighbour:
        changes["neighbours"] = tuple(options.neighbour)
    return named.model_copy(update=changes)


def _training_s(adapter: Path) -> float:
    """How long the adapter's training took."""
    try:
        told = json.loads((adapter / "report" / "training.json").read_text(encoding="utf-8"))
        return float(told.get("training_seconds") or told["seconds"])
    except (OSError, ValueError, KeyError):
        return UNKNOWN_S


def _neighbour(text: str) -> Neighbour:
    from personas.compare import Neighbour

    persona, equals, folders = text.partition("=")
    adapter, comma, job = folders.partition(",")
    if not (persona and equals and adapter and comma and job):
        raise argparse.ArgumentTypeError(f"expected PERSONA=ADAPTER,JOB, got {text!r}")
    paths = (str(Path(folder).expanduser().absolute()) for folder in (adapter, job))
    return Neighbour(**dict(zip(("persona", "adapter", "job"), (persona, *paths), strict=True)))


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)
