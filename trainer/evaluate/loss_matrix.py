"""Compares each persona's held-out replies under all adapters, for a command."""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from personas.cli_common import LogProgress
from personas.engine.peft_runner import PeftSwitcher
from personas.errors import RequestError
from personas.home.adapters import verify_adapter
from personas.home.job_folder import read_spec
from personas.models.base_model import fingerprint
from personas.schemas.chat import AdapterRef
from trainer.evaluate.persona_separation import AdapterFit, fit_adapters
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.losses import ReplyLoss, load_serving_model, measure_reply_losses


def print_loss_matrix(adapters: dict[str, Path], jobs: dict[str, Path], as_json: bool) -> None:
    """Compute the matrix and print it as a table or as one JSON object."""
    matrix = compute_loss_matrix(adapters, jobs)
    if as_json:
        print(json.dumps({"loss_matrix": matrix.losses, "own_adapter_best": matrix.own_best}))
        return
    print("held-out replies of".ljust(22), *(f"{name:>12}" for name in adapters))
    for persona, row in matrix.losses.items():
        print(persona.ljust(22), *(f"{row[name]:12.4f}" for name in adapters))
    print(f"own adapter best: {matrix.own_best:.1%}")


def compute_loss_matrix(adapters: dict[str, Path], jobs: dict[str, Path]) -> AdapterFit:
    """Compute losses by persona from adapters and jobs. Raises `RequestError` if personas or base
    models differ.
    """
    if adapters.keys() != jobs.keys():
        advice = "Give one --adapter and one --job for each."
        raise RequestError("Adapters and jobs must name the same personas.", advice)
    prepared: dict[str, PreparedJob] = {}
    for persona, folder in jobs.items():
        prepared[persona] = prepare_job(folder, read_spec(folder))
    served = _load_shared_base(list(prepared.values()))
    progress = LogProgress()
    losses: dict[str, dict[str, list[ReplyLoss]]] = {persona: {} for persona in prepared}
    bar = tqdm(adapters.items(), desc="adapters", file=sys.stderr, disable=None, leave=False)
    for number, (name, folder) in enumerate(bar, 1):
        with served.use(AdapterRef(name, verify_adapter(folder).version, folder)):
            for persona, job in prepared.items():
                losses[persona][name] = measure_reply_losses(served.model, job.data.heldout)
        progress.update(f"adapters: {number} of {len(adapters)} measured")
    return fit_adapters(losses)


def _load_shared_base(jobs: list[PreparedJob]) -> PeftSwitcher:
    if len({(job.base, job.spec.serving_precision) for job in jobs}) > 1:
        raise RequestError(
            "The jobs are for different base models or precisions.", "Compare like with like."
        )
    base = jobs[0].base
    model = load_serving_model(base, jobs[0].spec.serving_precision)
    return PeftSwitcher(model, fingerprint(base))
