"""One run of the gate's benchmark: a job's folder, its training, its card; and versions judged against each other."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from personas.adapters import verify
from personas.contracts import AdapterRef
from personas.job_material import ShippedData
from personas.prompt import Renderer
from personas.scorecard import FullScoreCard, Side
from trainer.evaluate import TokenLosses
from trainer.gate.damages import Damage, Log
from trainer.gate.judge import outcomes_of
from trainer.job import Job, Run, prepare
from trainer.material import read_spec
from trainer.run import ADAPTER as ADAPTER
from trainer.run import make_adapter
from trainer.scorecard.budget import Extent
from trainer.scorecard.heldout import heldout_section
from trainer.scorecard.measured import Measured, measured_alike
from trainer.scorecard.sides import BASE, Sides
from trainer.scorecard.written import CARD

AGAINST_LIVE = "no_worse_than_live"
RIGHTS = """\
["log.json"]
right = "own-writing"
stated_by = "the Understudy authors"
stated_on = 2026-11-20
why = "Written for this project, about nobody real, and damaged on purpose."
"""


def job_folder(
    folder: Path,
    home: Path,
    personas: tuple[str, str],
    recipe: str,
    settings: Sequence[str],
    damage: Callable[[Log, Log], Log] | None,
) -> Path:
    """The folder of a job for the first persona, as `python -m trainer train` makes it, its log damaged."""
    logs = [json.loads((ShippedData.beside_the_code().logs / f"{it}.json").read_text("utf-8")) for it in personas]
    log = damage(logs[0], logs[1]) if damage else logs[0]
    source = folder.with_name(f"{folder.name}-log") / "log.json"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(log), encoding="utf-8")
    (source.parent / "rights.toml").write_text(RIGHTS, encoding="utf-8")
    sets = [word for it in settings for word in ("--set", it)]
    words = ["--persona", personas[0], "--dataset", str(source), "--recipe", recipe, *sets]
    places = ["--home", str(home / "home"), "--out", str(folder), "--make-only"]
    command = [sys.executable, "-m", "trainer", "train", *words, *places]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def trained(folder: Path, damage: Damage | None, extent: Extent) -> None:
    """Train and judge as any run does; what the job learns from may be damaged. Raises whatever a run raises."""
    job = prepare(folder, read_spec(folder))
    if damage and damage.to_job:
        job = damage.to_job(job)
    make_adapter(job, folder, folder / ADAPTER, Run(lambda event: None, lambda: None, card=extent))


def card_in(folder: Path) -> FullScoreCard:
    """The card of a job that is done."""
    return FullScoreCard.model_validate_json((folder / ADAPTER / CARD).read_bytes())


def difference_verdicts(folders: Sequence[Path]) -> dict[tuple[int, int], bool]:
    """For each ordered pair of versions whether the first is shown to be worse than the second, if that is live."""
    job = prepare(folders[0], read_spec(folders[0]))
    found = _losses(job, folders)
    card, end_tokens = card_in(folders[0]), len(Renderer(job.tokenizer).end_ids)
    verdicts: dict[tuple[int, int], bool] = {}
    for one, other in itertools.permutations(range(len(folders)), 2):
        losses: dict[Side, Sequence[TokenLosses]] = {
            "base": found.losses[BASE],
            "live": found.losses[str(other)],
            "new": found.losses[str(one)],
        }
        heldout = heldout_section(Measured(found.places, losses), job.data.said_heldout, end_tokens)
        verdicts[one, other] = _is_worse(card.model_copy(update={"heldout": heldout}), job.spec.request.recipe)
    return verdicts


def _losses(job: Job, folders: Sequence[Path]) -> Measured[str]:
    """Of the held-out replies, under the base model and under each folder's adapter, by its number."""
    sides = Sides.load(job.base, job.tokenizer, job.spec.serving_precision, job.data.heldout[0].ids)
    adapters = [folder / ADAPTER for folder in folders]
    refs = {str(n): AdapterRef(f"seed-{n}", verify(it).version, it) for n, it in enumerate(adapters)}
    names: tuple[str, ...] = (BASE, *refs)
    try:
        return measured_alike(lambda name: sides.use_adapter(refs.get(name)), names, job.data.heldout)
    finally:
        sides.close()


def _is_worse(card: FullScoreCard, recipe: str) -> bool:
    return outcomes_of(card, recipe)[AGAINST_LIVE] == "fail"
