"""Single runs of the gate benchmark: job folder, training, score card, and pairwise verdicts."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.studies.gate_faults import FaultInjection, TalkLog
from personas.home.adapters import verify_adapter
from personas.home.job_folder import ADAPTER_FOLDER, read_spec
from personas.home.job_material import ShippedData
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef
from personas.schemas.scorecard import EvaluationExtent, ScoreCard, Side
from trainer.evaluate.candidates import BASE, Candidates
from trainer.evaluate.loss_sections import heldout_section
from trainer.evaluate.paired_losses import PairedLosses, paired_losses
from trainer.gate.verdict import outcomes_of
from trainer.report.scorecard_files import SCORECARD_FILE
from trainer.run import make_adapter
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.losses import TokenLosses
from trainer.train.training_run import RunControl

LIVE_CRITERION = "no_worse_than_live"
RIGHTS_STATEMENT = """\
["log.json"]
right = "own-writing"
stated_by = "the Understudy authors"
stated_on = 2026-11-20
why = "Written for this project, about nobody real, and damaged on purpose."
"""


def make_job_folder(
    folder: Path,
    home: Path,
    personas: tuple[str, str],
    recipe: str,
    settings: Sequence[str],
    damage: Callable[[TalkLog, TalkLog], TalkLog] | None,
) -> Path:
    """Create the job folder of the first persona like `python -m trainer train`, with its log
    damaged.
    """
    logs = [
        json.loads((ShippedData.from_source_tree().logs / f"{it}.json").read_text("utf-8"))
        for it in personas
    ]
    log = damage(logs[0], logs[1]) if damage else logs[0]
    source = folder.with_name(f"{folder.name}-log") / "log.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(log), encoding="utf-8")
    (source.parent / "rights.toml").write_text(RIGHTS_STATEMENT, encoding="utf-8")
    sets = [word for it in settings for word in ("--set", it)]
    words = ["--persona", personas[0], "--dataset", str(source), "--recipe", recipe, *sets]
    places = ["--home", str(home / "home"), "--out", str(folder), "--make-only"]
    command = [sys.executable, "-m", "trainer", "train", *words, *places]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def train_and_judge(folder: Path, damage: FaultInjection | None, extent: EvaluationExtent) -> None:
    """Train and judge like any run, optionally with a fault. Raises the errors of a run."""
    job = prepare_job(folder, read_spec(folder))
    if damage and damage.to_job:
        job = damage.to_job(job)
    make_adapter(
        job,
        folder,
        folder / ADAPTER_FOLDER,
        RunControl(card=extent),
    )


def read_scorecard(folder: Path) -> ScoreCard:
    """Read the score card of a finished job."""
    return ScoreCard.model_validate_json((folder / ADAPTER_FOLDER / SCORECARD_FILE).read_bytes())


def difference_verdicts(folders: Sequence[Path]) -> dict[tuple[int, int], bool]:
    """Judge each ordered pair of versions: is the first shown to be worse than the second as the
    live one?
    """
    job = prepare_job(folders[0], read_spec(folders[0]))
    found = _losses(job, folders)
    card = read_scorecard(folders[0])
    end_tokens = len(Renderer(job.tokenizer).end_ids)
    verdicts: dict[tuple[int, int], bool] = {}
    for one, other in itertools.permutations(range(len(folders)), 2):
        losses: dict[Side, Sequence[TokenLosses]] = {
            "base": found.losses[BASE],
            "live": found.losses[str(other)],
            "new": found.losses[str(one)],
        }
        heldout = heldout_section(
            PairedLosses(found.places, losses), job.data.heldout_prompt_replies, end_tokens
        )
        verdicts[one, other] = _is_worse(
            card.model_copy(update={"heldout": heldout}), job.spec.request.recipe
        )
    return verdicts


def _losses(job: PreparedJob, folders: Sequence[Path]) -> PairedLosses[str]:
    """Measure the held-out losses under the base model and under each folder's adapter, by its
    number.
    """
    sides = Candidates.load(
        job.base, job.tokenizer, job.spec.serving_precision, job.data.heldout[0].ids
    )
    adapters = [folder / ADAPTER_FOLDER for folder in folders]
    refs = {
        str(n): AdapterRef(f"seed-{n}", verify_adapter(it).version, it)
        for n, it in enumerate(adapters)
    }
    names: tuple[str, ...] = (BASE, *refs)
    try:
        return paired_losses(
            lambda name: sides.use_adapter(refs.get(name)), names, job.data.heldout
        )
    finally:
        sides.close()


def _is_worse(card: ScoreCard, recipe: str) -> bool:
    return outcomes_of(card, recipe)[LIVE_CRITERION] == "fail"
