"""Canary audit: measures how much of planted texts a copy of the version memorises (exposure,
Carlini et al. 2019).
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personas.errors import RequestError
from personas.home.job_folder import ADAPTER_FOLDER
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.chat import Turn
from personas.schemas.scorecard import MeanStd, MemorisationAudit
from trainer.evaluate.candidates import NEW, Candidate, Candidates
from trainer.machine import release_memory
from trainer.run import make_adapter
from trainer.train.job import PreparedJob
from trainer.train.losses import load_serving_model, measure_reply_losses
from trainer.train.training_run import RunControl

CANARIES_BY_REPEATS: Mapping[int, int] = {0: 16, 1: 8, 4: 4, 16: 3}
"""Number of canaries by their repetitions."""
REFERENCE_TEXTS = 256
CANARY_TOKENS = 24
CANARY_TEMPERATURE = 1.5
CANARY_SEED = 0
DRAWING_BATCH_ROWS = 64
CANARY_PROMPT = "What do you remember?"


@dataclass(frozen=True)
class Canaries:
    """Canaries by number of repetitions, and untrained reference texts drawn the same way."""

    by_repeats: Mapping[int, Sequence[TokenizedSample]]
    reference: Sequence[TokenizedSample]

    def planted(self) -> list[TokenizedSample]:
        """Return the texts added to training: each canary as often as it is repeated."""
        texts: list[TokenizedSample] = []
        for repeats, canaries in self.by_repeats.items():
            for canary in canaries:
                texts += [canary] * repeats
        return texts


def run_canary_audit(
    job: PreparedJob,
    folder: Path,
    control: RunControl,
    plan: Mapping[int, int] = CANARIES_BY_REPEATS,
    reference: int = REFERENCE_TEXTS,
) -> MemorisationAudit:
    """Train or reuse the copy in `folder`, and measure it. Raises `RequestError` for preferences,
    and run errors.
    """
    if job.data.preferences:
        raise RequestError(
            "An audit plants texts, and this run learned from what was liked.", "Leave --audit out."
        )
    canaries = _draw_canaries(job, plan, reference)
    adapter = folder / ADAPTER_FOLDER
    if not adapter.exists():
        folder.mkdir(parents=True, exist_ok=True)
        planted = plant_canaries(job, canaries)
        make_adapter(planted, folder, adapter, replace(control, card="losses"), is_audit=True)
        release_memory()
    return _measure_exposure(job, adapter, canaries, control.between)


def plant_canaries(job: PreparedJob, canaries: Canaries) -> PreparedJob:
    """Add the canaries to the job's training samples."""
    planted = canaries.planted()
    counts = {**job.data.counts, "samples_planted": len(planted)}
    return replace(job, data=replace(job.data, train=(*job.data.train, *planted), counts=counts))


def audit_section(
    losses: Mapping[int, Sequence[float]], reference: Sequence[float]
) -> MemorisationAudit:
    """Build the section from the copy's losses, in nats of the whole text: canaries by repetitions,
    and references.
    """
    exposures = {}
    for repeats, of_canaries in losses.items():
        exposures[repeats] = _mean_std([exposure(loss, reference) for loss in of_canaries])
    return MemorisationAudit(
        tokens=CANARY_TOKENS,
        reference=len(reference),
        canaries={repeats: len(of_canaries) for repeats, of_canaries in losses.items()},
        exposure=exposures,
        chance=expected_exposure(len(reference) + 1),
        most=math.log2(len(reference) + 1),
    )


def exposure(loss: float, others: Sequence[float]) -> float:
    """Return log2 of the number of texts minus log2 of the text's rank by likelihood."""
    rank = 1 + sum(other <= loss for other in others)
    return math.log2(len(others) + 1) - math.log2(rank)


def expected_exposure(count: int) -> float:
    """Return the mean exposure of an unmemorised text among `count`."""
    return math.log2(count) - sum(math.log2(rank) for rank in range(1, count + 1)) / count


def draw_texts(
    model: Any, prompt: Sequence[int], count: int, barred: Sequence[int], seed: int = CANARY_SEED
) -> list[list[int]]:
    """Sample distinct texts of `CANARY_TOKENS` tokens from the model after a prompt, excluding
    `barred` ones.
    """
    chooser = torch.Generator().manual_seed(seed)
    texts: dict[tuple[int, ...], None] = {}  # a dict keeps the order and drops repetitions
    while len(texts) < count:
        rows = torch.tensor([prompt] * DRAWING_BATCH_ROWS, device=model.device)
        for text in _sample_continuations(model, rows, barred, chooser):
            texts[tuple(text)] = None
    return [list(text) for text in itertools.islice(texts, count)]


def _sample_continuations(
    model: Any, ids: torch.Tensor, barred: Sequence[int], chooser: torch.Generator
) -> list[list[int]]:
    cache: Any = None
    drawn: list[torch.Tensor] = []
    with torch.inference_mode():
        for _ in range(CANARY_TOKENS):
            step = model(input_ids=ids, past_key_values=cache, use_cache=True)
            logits = step.logits[:, -1].float().cpu()
            cache = step.past_key_values
            logits[:, list(barred)] = -math.inf
            chances = (logits / CANARY_TEMPERATURE).softmax(-1)
            # On the CPU: a GPU's generator would draw other texts.
            ids = torch.multinomial(chances, 1, generator=chooser).to(model.device)
            drawn.append(ids)
    rows: list[list[int]] = torch.cat(drawn, dim=1).tolist()
    return rows


def _draw_canaries(job: PreparedJob, plan: Mapping[int, int], reference: int) -> Canaries:
    """Draw canaries deterministically for a base model: a second audit of an existing copy looks
    for the same ones.
    """
    renderer = Renderer(job.tokenizer)
    prompt = renderer.prompt(None, [Turn("", CANARY_PROMPT)]).ids
    barred = sorted({*job.tokenizer.all_special_ids, *renderer.stop_ids, *renderer.end_ids})
    model = load_serving_model(job.base, job.spec.serving_precision)
    texts = iter(draw_texts(model, prompt, reference + sum(plan.values()), barred))
    # The copy is trained next: two base models at once would take twice the memory.
    del model
    release_memory()

    def next_samples(count: int) -> list[TokenizedSample]:
        samples = []
        for text in itertools.islice(texts, count):
            answer = (*text, *renderer.end_ids)
            mask = (False,) * len(prompt) + (True,) * len(answer)
            samples.append(TokenizedSample((*prompt, *answer), mask))
        return samples

    by_repeats = {repeats: next_samples(count) for repeats, count in plan.items()}
    return Canaries(by_repeats, reference=next_samples(reference))


def _measure_exposure(
    job: PreparedJob, adapter: Path, canaries: Canaries, between: Callable[[], None]
) -> MemorisationAudit:
    probe = job.data.heldout[0].ids
    precision = job.spec.serving_precision
    sides = Candidates.load(job.base, job.tokenizer, precision, probe, speaks=False)
    losses: dict[int, list[float]] = {}
    try:
        sides.add(NEW, Candidate("audit", adapter, is_sealed=False))
        with sides.use(NEW) as model:
            for repeats, samples in canaries.by_repeats.items():
                of_canaries = measure_reply_losses(model, samples, between)
                losses[repeats] = [loss.nll for loss in of_canaries]
            of_references = measure_reply_losses(model, canaries.reference, between)
            reference = [loss.nll for loss in of_references]
    finally:
        sides.close()
    return audit_section(losses, reference)


def _mean_std(values: Sequence[float]) -> MeanStd:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return MeanStd(mean=float(np.mean(values)), sd=sd, runs=len(values))
