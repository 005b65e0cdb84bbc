"""The audit: what a copy of the version learns by heart of texts that are planted in its training.

Canaries are texts that nobody wrote: tokens that the base model draws at a high temperature. Some are planted once,
some several times, some not at all; then their losses under the copy are compared with those of other texts that were
drawn alike. The exposure of a canary says how far it stands out (Carlini et al. 2019, arXiv 1802.08232). The copy is
marked in its manifest, and nothing serves it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personas.contracts import Turn
from personas.errors import RequestError
from personas.prompt import Renderer, Sample
from personas.scorecard import Audit, Spread
from trainer.evaluate import load_served, measure
from trainer.job import Job, Run
from trainer.loop.memory import release_memory
from trainer.run import ADAPTER, make_adapter
from trainer.scorecard.sides import NEW, Compared, Sides

PLANTED: Mapping[int, int] = {0: 16, 1: 8, 4: 4, 16: 3}
"""How often canaries are repeated, and how many canaries that is done with."""
REFERENCE = 256
TOKENS, TEMPERATURE, SEED = 24, 1.5, 0
ROWS = 64
"""Texts that are drawn at once."""
ASKED = "What do you remember?"


@dataclass(frozen=True)
class Canaries:
    """Canaries by how often they are repeated, and texts that were drawn alike and are never trained on."""

    by_repeats: Mapping[int, Sequence[Sample]]
    reference: Sequence[Sample]

    def planted(self) -> list[Sample]:
        """What is added to the training: each canary as often as it is repeated."""
        return [it for repeats, canaries in self.by_repeats.items() for it in canaries for _ in range(repeats)]


def audit(job: Job, folder: Path, run: Run, plan: Mapping[int, int] = PLANTED, reference: int = REFERENCE) -> Audit:
    """Train the copy in `folder`, or take the one that is there, and measure what it knows by heart.

    Raises `RequestError` for a run that does not learn from texts, and whatever a run raises.
    """
    if job.data.preferences:
        raise RequestError("An audit plants texts, and this run learned from what was liked.", "Leave --audit out.")
    canaries = _drawn_canaries(job, plan, reference)
    if not (folder / ADAPTER).exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_adapter(with_canaries(job, canaries), folder, folder / ADAPTER, replace(run, card="losses"), is_audit=True)
        release_memory()
    return _measured(job, folder / ADAPTER, canaries, run.between)


def with_canaries(job: Job, canaries: Canaries) -> Job:
    """The job with the canaries among what it trains on."""
    planted = canaries.planted()
    counts = {**job.data.counts, "samples_planted": len(planted)}
    return replace(job, data=replace(job.data, train=(*job.data.train, *planted), counts=counts))


def audit_section(losses: Mapping[int, Sequence[float]], reference: Sequence[float]) -> Audit:
    """The section from losses under the copy, in nats of the whole text: of canaries by repeats, and of the others."""
    return Audit(
        tokens=TOKENS,
        reference=len(reference),
        canaries={repeats: len(found) for repeats, found in losses.items()},
        exposure={repeats: _spread([exposure(it, reference) for it in found]) for repeats, found in losses.items()},
        chance=chance(len(reference) + 1),
        most=math.log2(len(reference) + 1),
    )


def exposure(loss: float, others: Sequence[float]) -> float:
    """log2 of how many texts there are less log2 of the text's rank among them, the likeliest first."""
    rank = 1 + sum(other <= loss for other in others)
    return math.log2(len(others) + 1) - math.log2(rank)


def chance(count: int) -> float:
    """The mean exposure of a text that is one of `count` like any other."""
    return math.log2(count) - sum(math.log2(rank) for rank in range(1, count + 1)) / count


def draw(model: Any, prompt: Sequence[int], count: int, barred: Sequence[int], seed: int = SEED) -> list[list[int]]:
    """So many different texts of `TOKENS` tokens that the model draws after a prompt, without `barred` ones."""
    chooser = torch.Generator().manual_seed(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        rows = torch.tensor([prompt] * ROWS, device=model.device)
        found |= dict.fromkeys(map(tuple, _continued(model, rows, barred, chooser)))
    return [list(text) for text in itertools.islice(found, count)]


def _continued(model: Any, ids: torch.Tensor, barred: Sequence[int], chooser: torch.Generator) -> list[list[int]]:
    cache: Any = None
    drawn: list[torch.Tensor] = []
    with torch.inference_mode():
        for _ in range(TOKENS):
            step = model(input_ids=ids, past_key_values=cache, use_cache=True)
            logits, cache = step.logits[:, -1].float().cpu(), step.past_key_values
            logits[:, list(barred)] = -math.inf
            ids = torch.multinomial((logits / TEMPERATURE).softmax(-1), 1, generator=chooser).to(model.device)
            drawn.append(ids)
    rows: list[list[int]] = torch.cat(drawn, dim=1).tolist()
    return rows


def _drawn_canaries(job: Job, plan: Mapping[int, int], reference: int) -> Canaries:
    """The same for the same base model: a second audit of a copy that is there looks for what was planted in it."""
    renderer = Renderer(job.tokenizer)
    prompt = renderer.prompt(None, [Turn("", ASKED)]).ids
    barred = sorted({*job.tokenizer.all_special_ids, *renderer.stop_ids, *renderer.end_ids})
    model = load_served(job.base, job.spec.serving_precision)
    texts = iter(draw(model, prompt, reference + sum(plan.values()), barred))
    del model
    release_memory()

    def samples(count: int) -> list[Sample]:
        answers = [(*text, *renderer.end_ids) for text in itertools.islice(texts, count)]
        return [Sample((*prompt, *it), (False,) * len(prompt) + (True,) * len(it)) for it in answers]

    return Canaries({repeats: samples(count) for repeats, count in plan.items()}, samples(reference))


def _measured(job: Job, adapter: Path, canaries: Canaries, between: Callable[[], None]) -> Audit:
    probe = job.data.heldout[0].ids
    sides = Sides.load(job.base, job.tokenizer, job.spec.serving_precision, probe, speaks=False)
    try:
        sides.add(NEW, Compared("audit", adapter, is_sealed=False))
        with sides.use(NEW) as model:
            losses = {
                repeats: [loss.nll for loss in measure(model, samples, between)]
                for repeats, samples in canaries.by_repeats.items()
            }
            reference = [loss.nll for loss in measure(model, canaries.reference, between)]
    finally:
        sides.close()
    return audit_section(losses, reference)


def _spread(values: Sequence[float]) -> Spread:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(mean=float(np.mean(values)), sd=sd, runs=len(values))
