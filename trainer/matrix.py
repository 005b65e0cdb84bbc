"""The matrix: how well each adapter predicts each persona's held-out replies, after the prompts they are served with.

`trainer.scorecard.separation` asks the same with prompts that tell nobody who speaks.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from personas.adapters import verify
from personas.base_model import fingerprint
from personas.contracts import AdapterRef
from personas.engine.weights import AdaptedModel
from personas.errors import RequestError
from personas.progress import Plain
from trainer.evaluate import ReplyLoss, load_served, measure
from trainer.material import read_spec
from trainer.run import Job, prepare
from trainer.scorecard.separation import fitting


@dataclass(frozen=True)
class Matrix:
    """`losses` maps persona, then the adapter's persona, to nats per reply token.

    `own_adapter_best` is the share of held-out replies that no other adapter predicts as well as their persona's own.
    """

    losses: dict[str, dict[str, float]]
    own_adapter_best: float


def print_matrix(adapters: dict[str, Path], jobs: dict[str, Path], as_json: bool) -> None:
    """Compute the matrix and print it, as a table or as one JSON object."""
    matrix = compute_matrix(adapters, jobs)
    if as_json:
        print(json.dumps({"loss_matrix": matrix.losses, "own_adapter_best": matrix.own_adapter_best}))
        return
    print("held-out replies of".ljust(22), *(f"{name:>12}" for name in adapters))
    for persona, row in matrix.losses.items():
        print(persona.ljust(22), *(f"{row[name]:12.4f}" for name in adapters))
    print(f"own adapter best: {matrix.own_adapter_best:.1%}")


def compute_matrix(adapters: dict[str, Path], jobs: dict[str, Path]) -> Matrix:
    """Both map persona ids to folders. The prompts are rebuilt from the jobs.

    Raises `RequestError` when the two do not name the same personas or the jobs do not share one base model.
    """
    if adapters.keys() != jobs.keys():
        raise RequestError(
            "Adapters and jobs must name the same personas.", "Give one --adapter and one --job for each."
        )
    prepared = {persona: prepare(folder, read_spec(folder)) for persona, folder in jobs.items()}
    served = _served(list(prepared.values()))
    plain, by_adapter = Plain(), {}
    for name, folder in tqdm(adapters.items(), desc="adapters", file=sys.stderr, disable=None, leave=False):
        by_adapter[name] = _under(served, name, folder, prepared)
        plain.say(f"adapters: {len(by_adapter)} of {len(adapters)} measured")
    losses = {persona: {name: by_adapter[name][persona] for name in adapters} for persona in prepared}
    found = fitting(losses)
    return Matrix({persona: dict(row) for persona, row in found.losses.items()}, found.own_best)


def _served(jobs: list[Job]) -> AdaptedModel:
    if len({(job.base, job.spec.serving_precision) for job in jobs}) > 1:
        raise RequestError("The jobs are for different base models or precisions.", "Compare like with like.")
    base = jobs[0].base
    return AdaptedModel(load_served(base, jobs[0].spec.serving_precision), fingerprint(base))


def _under(served: AdaptedModel, name: str, folder: Path, jobs: dict[str, Job]) -> dict[str, list[ReplyLoss]]:
    """Each persona's held-out losses under one adapter."""
    with served.use(AdapterRef(name, verify(folder).version, folder)):
        return {persona: measure(served.model, job.data.heldout) for persona, job in jobs.items()}
