"""Persona separation: compares each persona's held-out replies under its own and other personas'
adapters.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personas.errors import AdapterError, UnderstudyError
from personas.home.adapters import verify_adapter
from personas.home.comparison_targets import NeighbourPaths
from personas.home.job_folder import read_spec
from personas.models.base_model import fingerprint
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef, Turn
from personas.schemas.scorecard import Interval, Separation
from trainer.dataset.dataset import Dataset
from trainer.evaluate.bootstrap import bootstrap_ratio
from trainer.evaluate.candidates import NEW, Candidates
from trainer.evaluate.paired_losses import paired_losses
from trainer.evaluate.time_budget import TimeBudget
from trainer.schemas import PromptReply
from trainer.train.job import PreparedJob, prepare_job
from trainer.train.losses import ReplyLoss, mean_loss

MAX_OTHER_PERSONAS = 5
"""Neighbours that are compared at once; each takes its adapter's memory, and its replies some
time.
"""
CrossPersonaLosses = Mapping[str, Mapping[str, Sequence[ReplyLoss]]]
"""Losses of each persona's replies, in the same order, by the persona and then by the adapter's
persona.
"""
NO_OTHER_PERSONA = "No other persona has an adapter of its own that could be compared."


@dataclass(frozen=True)
class OtherPersona:
    """Another persona with its live adapter and data."""

    persona: str
    ref: AdapterRef
    data: Dataset


def load_other_personas(
    job: PreparedJob, named: Sequence[NeighbourPaths]
) -> tuple[tuple[OtherPersona, ...], tuple[str, ...]]:
    """Load the named personas that can be compared, and the reasons why others cannot."""
    neighbours: list[OtherPersona] = []
    missing: list[str] = []
    for paths in named:
        if paths.persona == job.spec.request.persona or len(neighbours) == MAX_OTHER_PERSONAS:
            continue
        try:
            neighbours.append(_load_other_persona(job, paths))
        except UnderstudyError as error:
            missing.append(f"{paths.persona}: {error.message}")
    return tuple(neighbours), tuple(missing)


def _load_other_persona(job: PreparedJob, named: NeighbourPaths) -> OtherPersona:
    folder = Path(named.job)
    adapter = Path(named.adapter)
    manifest = verify_adapter(adapter)
    if manifest.base_model_hash != fingerprint(job.base):
        raise AdapterError(
            f"Its adapter was made for another base model ({manifest.base_model}).",
            "Train it again.",
        )
    ref = AdapterRef(f"neighbour-{named.persona}", manifest.version, adapter)
    return OtherPersona(named.persona, ref, _load_dataset(folder))


@functools.lru_cache(maxsize=MAX_OTHER_PERSONAS)
def _load_dataset(folder: Path) -> Dataset:
    return prepare_job(folder, read_spec(folder)).data


@dataclass(frozen=True)
class AdapterFit:
    """Losses by persona and adapter in nats per token; `fits` marks replies that their own adapter
    predicts best.
    """

    fits: Mapping[str, NDArray[np.bool_]]
    losses: Mapping[str, Mapping[str, float]]

    @property
    def own_best(self) -> float:
        """The share of all replies that their own adapter predicts best."""
        return float(np.concatenate(list(self.fits.values())).mean())


def fit_adapters(losses: CrossPersonaLosses) -> AdapterFit:
    """Summarise the losses of all personas' replies under all adapters."""
    fits: dict[str, NDArray[np.bool_]] = {}
    means: dict[str, dict[str, float]] = {}
    for persona, row in losses.items():
        fits[persona] = _advantages(losses, persona) > 0
        means[persona] = {name: mean_loss(replies) for name, replies in row.items()}
    return AdapterFit(fits, means)


def margin_bits(losses: CrossPersonaLosses, talks: Mapping[str, Sequence[str]]) -> Interval:
    """Return the margin of own adapters over the best other one, in bits per token."""
    units: list[str] = []
    advantages: list[float] = []
    weights: list[float] = []
    for persona, row in losses.items():
        # Two personas' conversations may have the same name.
        units += [f"{persona} {talk}" for talk in talks[persona]]
        advantages += _advantages(losses, persona).tolist()
        # A ratio of sums: nats divided by tokens times ln 2 are bits per token.
        weights += [loss.tokens * math.log(2) for loss in row[persona]]
    return bootstrap_ratio(units, advantages, weights)


def separation_section(
    sides: Candidates,
    own: str,
    data: Dataset,
    neighbours: Sequence[OtherPersona],
    *,
    budget: TimeBudget,
    between: Callable[[], None],
) -> Separation:
    """Measure the persona `own` of the new version and at least one neighbour."""
    replies = {own: persona_replies(data)}
    refs = {own: sides.ref(NEW)}
    for neighbour in neighbours:
        replies[neighbour.persona] = persona_replies(neighbour.data)
        refs[neighbour.persona] = neighbour.ref
    renderer = Renderer(sides.tokenizer)

    def use_adapter(name: str) -> AbstractContextManager[Any]:
        return sides.use_adapter(refs[name])

    losses: dict[str, dict[str, list[ReplyLoss]]] = {}
    talks: dict[str, list[str]] = {}
    for persona, pairs in replies.items():
        samples = []
        for pair in pairs:
            # After the message alone: a prompt with the card would say who speaks.
            samples.append(renderer.sample(None, [Turn("", pair.message)], pair.reply))
        limit = budget.part(1 / (len(replies) - len(losses)))
        measured = paired_losses(use_adapter, tuple(refs), samples, limit, between=between)
        losses[persona] = {name: measured.whole(name) for name in refs}
        talks[persona] = [pair.talk for pair in measured.chosen(pairs)]
    for neighbour in neighbours:
        sides.adapted.drop(neighbour.ref)
    fit = fit_adapters(losses)
    return Separation(
        replies=sum(map(len, talks.values())),
        loss={persona: dict(row) for persona, row in fit.losses.items()},
        own_best=fit.own_best,
        own_best_new=float(fit.fits[own].mean()),
        margin_bits=margin_bits(losses, talks),
    )


def persona_replies(data: Dataset) -> list[PromptReply]:
    """Return the held-out replies of the persona itself, or all if there are none."""
    pairs = list(data.heldout_prompt_replies)
    return [pair for pair in pairs if pair.by_persona] or pairs


def _advantages(losses: CrossPersonaLosses, persona: str) -> NDArray[np.float64]:
    """Return each reply's gain in nats under its own adapter over the best other one."""
    others = []
    for name, replies in losses[persona].items():
        if name != persona:
            others.append([loss.nll for loss in replies])
    own = np.array([loss.nll for loss in losses[persona][persona]])
    return np.asarray(np.min(others, axis=0) - own, dtype=np.float64)
