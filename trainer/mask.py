"""Which tokens of a data set are trained on: of a built one, of a job, or of sources."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from personas.base_model import locate
from personas.prompt import Renderer, Sample
from trainer.building.build import Builder
from trainer.building.built import samples_of
from trainer.building.folder import EVAL_FILE, TRAIN_FILE, read_samples, read_stats
from trainer.building.ledger import Ledger
from trainer.building.sieve import TRAIN
from trainer.building.split import HELD_OUT
from trainer.building.write import Heard, Order, held_out_before
from trainer.run import planned
from trainer.tokenizers import counting_tokenizer

SIDES = ((TRAIN, "train"), (HELD_OUT, "eval"))
"""Sides and their names in `--json`, which are those of a data set's files."""

BEGIN_LEARNED, END_LEARNED = "⟦", "⟧"


@dataclass(frozen=True)
class Masked:
    """A sample as text: `parts` in order, each with whether it is trained on. Token counts are the trainer's."""

    side: str
    parts: tuple[tuple[str, bool], ...]
    trained: int
    tokens: int

    def as_text(self) -> str:
        """With what is trained on between ⟦ and ⟧."""
        return "".join(f"{BEGIN_LEARNED}{text}{END_LEARNED}" if learned else text for text, learned in self.parts)

    def as_json(self) -> dict[str, Any]:
        """As it stands in `mask --json` and `plan --json`: `parts` are pairs of text and whether it is trained on."""
        return {"trained_tokens": self.trained, "tokens": self.tokens, "parts": [list(part) for part in self.parts]}


@dataclass
class Masks:
    """What was found: the first samples to train on in full, and counts over all of them, held-out ones included.

    `dropped` counts replies that make no sample, by reason.
    """

    base_model: str
    limit: int
    shown: list[Masked] = field(default_factory=list)
    samples: Counter[str] = field(default_factory=Counter)
    trained: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, tokenizer: Any, sample: Sample, side: str) -> None:
        """Count a sample, and keep it if it is among the first."""
        self.samples[side] += 1
        self.trained[side] += sample.reply_tokens
        self.tokens[side] += len(sample.ids)
        if side == TRAIN and len(self.shown) < self.limit:
            self.shown.append(masked(tokenizer, sample, side))

    def as_json(self) -> dict[str, Any]:
        """The published object of `mask --json`."""
        return {
            "base_model": self.base_model,
            "samples": {name: self.samples[side] for side, name in SIDES},
            "trained_tokens": {name: self.trained[side] for side, name in SIDES},
            "tokens": {name: self.tokens[side] for side, name in SIDES},
            "dropped": dict(self.dropped.most_common()),
            "shown": [it.as_json() for it in self.shown],
        }


def masked(tokenizer: Any, sample: Sample, side: str = TRAIN) -> Masked:
    """A sample as text."""
    return Masked(side, tuple(parts_of(tokenizer, sample)), sample.reply_tokens, len(sample.ids))


def parts_of(tokenizer: Any, sample: Sample) -> Iterator[tuple[str, bool]]:
    """The sample's text in pieces that are wholly trained on, or not at all."""
    for learned, group in itertools.groupby(zip(sample.ids, sample.mask, strict=True), key=lambda pair: pair[1]):
        yield tokenizer.decode([id for id, _ in group]), learned


def masks_of_job(folder: Path, limit: int) -> Masks:
    """Of a job folder's run. Raises `UnderstudyError` as the run would."""
    job = planned(folder)
    masks = Masks(job.base.name, limit, dropped=Counter(job.data.ledger.replies))
    for side, samples in ((TRAIN, job.data.train), (HELD_OUT, job.data.heldout)):
        for sample in samples:
            masks.add(job.tokenizer, sample, side)
    return masks


def masks_of_order(order: Order, limit: int, heard: Heard) -> Masks:
    """Of sources, as `dataset build` would take them; nothing is left of what is made for it."""
    plan, masks = replace(order.plan, held_out=held_out_before(order)), Masks(order.base.name, limit)
    with tempfile.TemporaryDirectory(prefix="understudy-mask-") as folder:
        with Builder(plan, Ledger(), Path(folder)) as builder:
            for source, items in order.sources:
                builder.take(source, items, partial(heard, f"reading {source}"))
            for built in builder.samples():
                masks.add(plan.renderer.tokenizer, built.made.sample, built.side)
                heard("making samples", 1)
        masks.dropped.update(builder.ledger.replies)
    return masks


def masks_of_dataset(folder: Path, limit: int) -> Masks:
    """Of a data set that `dataset build` made. Raises `MaterialError` when it is damaged."""
    base = locate(read_stats(folder)["base_model"])
    masks = Masks(base.name, limit)
    renderer = Renderer(counting_tokenizer(base))
    for side, name in ((TRAIN, TRAIN_FILE), (HELD_OUT, EVAL_FILE)):
        for _, sample in samples_of(read_samples(folder / name), renderer, masks.dropped):
            masks.add(renderer.tokenizer, sample, side)
    return masks
