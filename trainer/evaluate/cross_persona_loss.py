"""Computes the loss of each persona's held-out replies under each adapter."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from personas.cli_common import LogProgress
from personas.engine.peft_runner import PeftSwitcher
from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.models.base_model import fingerprint
from personas.schemas.chat import AdapterRef
from trainer.data.job_inputs import read_spec
from trainer.evaluate.persona_separation import fit_adapters
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.losses import ReplyLoss, load_serving_model, measure_reply_losses


@dataclass(frozen=True)
class LossMatrix:
    """`losses` maps persona, then the adapter's persona, to nats per reply token.

    `own_adapter_best` is the share of held-out replies that no other adapter predicts as well as their persona's own.
    """

    losses: dict[str, dict[str, float]]
    own_adapter_best: float


def print_loss_matrix(adapters: dict[str, Path], jobs: dict[str, Path], as_json: bool) -> None:
    """Compute the matrix and print it, as a table or as one JSON object."""
    matrix = compute_loss_matrix(adapters, jobs)
    if as_json:
        print(json.dumps({"loss_matrix": matrix.losses, "own_adapter_best": matrix.own_adapter_best}))
        return
    print("held-out replies of".ljust(22), *(f"{name:>12}" for name in adapters))
    for persona, row in matrix.losses.items():
        print(persona.ljust(22), *(f"{row[name]:12.4f}" for name in adapters))
    print(f"own adapter best: {matrix.own_adapter_best:.1%}")


def compute_loss_matrix(adapters: dict[str, Path], jobs: dict[str, Path]) -> LossMatrix:
    """Both map persona ids to folders. The prompts are rebuilt from the jobs.

    Raises `RequestError` when the two do not name the same personas or the jobs do not share one base model.
    """
    if adapters.keys() != jobs.keys():
        raise RequestError(
            "Adapters and jobs must name the same personas.", "Give one --adapter and one --job for each."
        )
    prepared = {persona: prepare_job(folder, read_spec(folder)) for persona, folder in jobs.items()}
    served = _load_shared_base(list(prepared.values()))
    plain, by_adapter = LogProgress(), {}
    for name, folder in tqdm(adapters.items(), desc="adapters", file=sys.stderr, disable=None, leave=False):
        by_adapter[name] = _losses_under_adapter(served, name, folder, prepared)
        plain.say(f"adapters: {len(by_adapter)} of {len(adapters)} measured")
    losses = {persona: {name: by_adapter[name][persona] for name in adapters} for persona in prepared}
    found = fit_adapters(losses)
    return LossMatrix({persona: dict(row) for persona, row in found.losses.items()}, found.own_best)


def _load_shared_base(jobs: list[PreparedJob]) -> PeftSwitcher:
    if len({(job.base, job.spec.serving_precision) for job in jobs}) > 1:
        raise RequestError("The jobs are for different base models or precisions.", "Compare like with like.")
    base = jobs[0].base
    return PeftSwitcher(load_serving_model(base, jobs[0].spec.serving_precision), fingerprint(base))


def _losses_under_adapter(
    served: PeftSwitcher, name: str, folder: Path, jobs: dict[str, PreparedJob]
) -> dict[str, list[ReplyLoss]]:
    """Each persona's held-out losses under one adapter."""
    with served.use(AdapterRef(name, verify_adapter(folder).version, folder)):
        return {persona: measure_reply_losses(served.model, job.data.heldout) for persona, job in jobs.items()}
