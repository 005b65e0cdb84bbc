"""`python -m trainer evaluate`: evaluates an existing adapter."""

import argparse
import logging
import sys
from pathlib import Path

from personas.errors import RequestError
from personas.home.adapters import NAME_ADAPTER_ADVICE, verify_adapter
from personas.home.comparison_targets import (
    ComparisonTargets,
    NeighbourPaths,
    read_comparison_targets,
)
from personas.home.job_folder import read_spec
from personas.home.prompt_version import SHORT_CARD_COUNT
from personas.models.loading import load_bitsandbytes
from personas.outside_names import UnsafeNameError, path_inside
from personas.schemas.chat import CardChoice
from personas.schemas.scorecard import EvaluationExtent, MemorisationAudit, ScoreCard
from personas.schemas.training import AdapterManifest, JobSpec
from trainer.cli.argtypes import Commands, add_command
from trainer.cli.error_handling import require_writable, resolve_home
from trainer.cli.options import ADAPTER, HOME, JOB, JSON, OUT, add_options, flag, option, repeated
from trainer.cli.progress_view import EventPrinter, print_line
from trainer.report.scorecard_files import write_scorecard
from trainer.report.scorecard_markdown import render_markdown
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.training_run import RunControl

EVALUATE_HELP = """\
Evaluates an adapter: generates replies and measures losses on held-out data, compared with the base model and the live
version, and writes a score card with the gate's verdict. Takes at most about as long
as the training did, with --quick a fifth of that.

  python -m trainer evaluate --adapter ~/.understudy/models/persona_adapters/oda/v2
  python -m trainer evaluate --adapter runs/oda/adapter --against ~/.understudy/models/persona_adapters/oda/v1
  python -m trainer evaluate --adapter runs/oda/adapter --neighbour thrip=runs/thrip/adapter,runs/thrip --quick --json
  python -m trainer evaluate --adapter runs/oda/adapter --short-card     under the prompt with its name and one line
  python -m trainer evaluate --adapter runs/oda/adapter --audit          also trains a copy with planted texts

The job folder, which has the held-out data, is found beside the adapter or in the bot's home, or named with --job.
Progress goes to standard error; scorecard.json and scorecard.md are written to --out.
"""
DEFAULT_OUTPUT = Path("build") / "evaluate"


def add_evaluate(commands: Commands) -> argparse.ArgumentParser:
    """Add `evaluate`."""
    evaluate = add_command(
        commands,
        "evaluate",
        "evaluate an adapter: score card and the gate's verdict",
        EVALUATE_HELP,
    )
    add_options(
        evaluate,
        [
            ADAPTER,
            option("--against", "DIR", "the live version (default: the job folder's)", type=Path),
            JOB,
            repeated(
                "--neighbour",
                "PERSONA=ADAPTER,JOB",
                "another persona with its adapter and job folders; may repeat",
                type=_neighbour_arg,
            ),
            flag("--quick", "all sections in a fifth of the time, from fewer prompts"),
            flag("--short-card", "measure under the short card, for a version served with it"),
            flag("--audit", "train a copy with planted texts, and count the memorised ones"),
            HOME,
            OUT.but(help=f"the output folder (default: {DEFAULT_OUTPUT}/PERSONA-VERSION)"),
            JSON.but(help="print scorecard.json"),
        ],
    )
    return evaluate


def evaluate(options: argparse.Namespace) -> None:
    """Run `evaluate`."""
    logging.getLogger().setLevel(logging.WARNING)
    adapter = options.adapter.expanduser().absolute()
    manifest = verify_adapter(adapter, NAME_ADAPTER_ADVICE)
    folder, spec = _find_job(adapter, manifest, options)
    compare = _read_comparison(folder, options)
    prompt_card: CardChoice = "full"
    if options.short_card:
        prompt_card = "short"
        _require_short_card(manifest, options)
    out = (options.out or _default_output(manifest, prompt_card)).expanduser().absolute()
    require_writable(out)
    job = prepare_job(folder, spec, card=prompt_card)
    card = _make_score_card(adapter, manifest, job, compare=compare, options=options)
    if options.audit:
        card = card.model_copy(update={"audit": _run_audit(job, out / "audit")})
    out.mkdir(parents=True, exist_ok=True)
    write_scorecard(out, card)
    if options.json:
        print(card.model_dump_json())
    else:
        print(render_markdown(card), end="")
    print_line(str(out))


def _require_short_card(manifest: AdapterManifest, options: argparse.Namespace) -> None:
    """Raise `RequestError` for a version that was not trained under the short card, and for an
    audit, which trains a copy as the version was trained.
    """
    if not manifest.dataset.get(SHORT_CARD_COUNT):
        raise RequestError(
            f"{manifest.version} was not trained under the short card.",
            "Train with short_card_share above 0, or leave --short-card out.",
        )
    if options.audit:
        raise RequestError("--audit has no short card.", "Leave one of the two out.")


def _default_output(manifest: AdapterManifest, prompt_card: CardChoice) -> Path:
    """Return the folder of an adapter's results. Raises `RequestError` if its manifest's names lead
    elsewhere.
    """
    try:
        name = f"{manifest.persona or 'dialogue'}-{manifest.version}"
        return path_inside(DEFAULT_OUTPUT, f"{name}-short-card" if prompt_card == "short" else name)
    except UnsafeNameError as error:
        raise RequestError(
            f"The name of the adapter's version {error}.", "Name a folder with --out."
        ) from None


def _make_score_card(
    adapter: Path,
    manifest: AdapterManifest,
    job: PreparedJob,
    compare: ComparisonTargets,
    options: argparse.Namespace,
) -> ScoreCard:
    load_bitsandbytes()
    # These load torch, which takes seconds.
    from trainer.evaluate.candidates import Candidate
    from trainer.evaluate.data_checks import read_training_losses, read_training_seconds
    from trainer.evaluate.evaluate_version import EvaluationRequest, evaluate_version
    from trainer.evaluate.measurement_cache import MeasurementCache

    new = Candidate(manifest.version, adapter)
    extent: EvaluationExtent = "quick" if options.quick else "full"
    request = EvaluationRequest(
        job=job,
        new=new,
        training_s=read_training_seconds(adapter),
        compare=compare,
        extent=extent,
        tell=print_line,
        losses=read_training_losses(adapter),
        cache=MeasurementCache.at_home(resolve_home(options.home)),
    )
    return evaluate_version(request)


def _run_audit(job: PreparedJob, folder: Path) -> MemorisationAudit:
    from trainer.study.canary_audit import run_canary_audit  # loads torch, too

    return run_canary_audit(job, folder, RunControl(EventPrinter(sys.stderr).show))


def _job_at_home(manifest: AdapterManifest, options: argparse.Namespace) -> Path:
    """Return the home's folder of an adapter's job, whether or not it exists.

    Raises `RequestError` if the job's name leads elsewhere.
    """
    try:
        return path_inside(resolve_home(options.home) / "jobs", manifest.job_id)
    except UnsafeNameError as error:
        raise RequestError(
            f"The name of the adapter's job {error}.", "Name its folder with --job."
        ) from None


def _find_job(
    adapter: Path, manifest: AdapterManifest, options: argparse.Namespace
) -> tuple[Path, JobSpec]:
    """Find the job that trained the adapter. Raises `RequestError` if there is none or it does not
    match.
    """
    if options.job:
        folders = [options.job.expanduser().absolute()]
    else:
        folders = [adapter.parent, _job_at_home(manifest, options)]
    folder = next((folder for folder in folders if (folder / "request.json").is_file()), None)
    if folder is None:
        raise RequestError(
            f"There is no folder of the job {manifest.job_id}, which trained the adapter.",
            "Name it with --job: it has the held-out data.",
        )
    spec = read_spec(folder)
    if spec.request.persona != manifest.persona:
        job_for = spec.request.persona or "dialogue"
        adapter_of = manifest.persona or "dialogue"
        mismatch = f"{folder} is a job for {job_for}, but the adapter is {adapter_of}'s."
        raise RequestError(mismatch, "Name the job that trained the adapter.")
    if manifest.source is None and spec.job_id != manifest.job_id:
        what = f"{folder} is the job {spec.job_id}, but {manifest.job_id} trained the adapter."
        raise RequestError(
            what, "Name that one: the adapter may have been trained on what another one holds out."
        )
    return folder, spec


def _read_comparison(folder: Path, options: argparse.Namespace) -> ComparisonTargets:
    """Read the comparison targets of the options, or else of the job. Raises `UnderstudyError` for
    incomplete ones.
    """
    changes: dict[str, object] = {}
    if options.against:
        verify_adapter(options.against.expanduser(), NAME_ADAPTER_ADVICE)
        changes["live"] = str(options.against.expanduser().absolute())
    if options.neighbour:
        changes["neighbours"] = tuple(options.neighbour)
    for neighbour in options.neighbour:
        verify_adapter(Path(neighbour.adapter), NAME_ADAPTER_ADVICE)
        if not Path(neighbour.job).is_dir():
            raise RequestError(
                f"There is no folder {neighbour.job}.", "Name the job that trained the adapter."
            )
    return read_comparison_targets(folder).model_copy(update=changes)


def _neighbour_arg(text: str) -> NeighbourPaths:
    persona, equals, folders = text.partition("=")
    adapter, comma, job = folders.partition(",")
    if not (persona and equals and adapter and comma and job):
        raise argparse.ArgumentTypeError(f"expected PERSONA=ADAPTER,JOB, got {text!r}")
    return NeighbourPaths(persona=persona, adapter=_absolute(adapter), job=_absolute(job))


def _absolute(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())
