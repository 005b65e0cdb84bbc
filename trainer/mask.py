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
from trainer.dataset import Dataset
from trainer.run import planned
from trainer.tokenizers import counting_tokenizer

SIDES = ((TRAIN, "train"), (HELD_OUT, "eval"))
"""Sides and their names in `--json`, which are those of a data set's files."""

BEGIN_LEARNED, END_LEARNED = "⟦", "⟧"


BEGIN_REJECTED, END_REJECTED = "⟪", "⟫"


@dataclass(frozen=True)
class Masked:
    """A sample as text: `parts` in order, each with whether it carries loss. Token counts are the trainer's.

    A `rejected` reply is judged and not learned from: its loss makes it less likely.
    """

    side: str
    parts: tuple[tuple[str, bool], ...]
    lossy: int
    tokens: int
    rejected: bool = False

    @property
    def trained(self) -> int:
        """How many tokens are learned from."""
        return 0 if self.rejected else self.lossy

    @property
    def marks(self) -> tuple[str, str]:
        """What the reply stands between."""
        return (BEGIN_REJECTED, END_REJECTED) if self.rejected else (BEGIN_LEARNED, END_LEARNED)

    def as_text(self) -> str:
        """With what is trained on between ⟦ and ⟧, and a reply that was rejected between ⟪ and ⟫."""
        begin, end = self.marks
        return "".join(f"{begin}{text}{end}" if lossy else text for text, lossy in self.parts)

    def as_json(self) -> dict[str, Any]:
        """As it stands in `mask --json` and `plan --json`: `parts` are pairs of text and whether it is trained on."""
        parts = [[text, lossy and not self.rejected] for text, lossy in self.parts]
        told = {"trained_tokens": self.trained, "tokens": self.tokens, "parts": parts}
        rejected = [text for text, lossy in self.parts if lossy]
        return {**told, "rejected_tokens": self.lossy, "rejected": "".join(rejected)} if self.rejected else told


@dataclass
class Masks:
    """What was found: the first samples to train on in full, and counts over all of them, held-out ones included.

    `dropped` counts replies that make no sample, by reason, `rejected` samples whose reply is judged alone, and the
    tokens of these replies.
    """

    base_model: str
    limit: int
    shown: list[Masked] = field(default_factory=list)
    samples: Counter[str] = field(default_factory=Counter)
    trained: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, tokenizer: Any, sample: Sample, side: str, *, rejected: bool = False) -> None:
        """Count a sample, and keep it if it is among the first."""
        self.samples[side] += 1
        self.tokens[side] += len(sample.ids)
        if rejected:
            self.rejected.update(samples=1, tokens=sample.reply_tokens)
        else:
            self.trained[side] += sample.reply_tokens
        if side == TRAIN and len(self.shown) < self.limit:
            self.shown.append(masked(tokenizer, sample, side, rejected=rejected))

    def as_json(self) -> dict[str, Any]:
        """The published object of `mask --json`."""
        return {
            "base_model": self.base_model,
            "samples": {name: self.samples[side] for side, name in SIDES},
            "trained_tokens": {name: self.trained[side] for side, name in SIDES},
            "tokens": {name: self.tokens[side] for side, name in SIDES},
            "dropped": dict(self.dropped.most_common()),
            **({"rejected": dict(self.rejected)} if self.rejected else {}),
            "shown": [it.as_json() for it in self.shown],
        }


def masked(tokenizer: Any, sample: Sample, side: str = TRAIN, *, rejected: bool = False) -> Masked:
    """A sample as text."""
    return Masked(side, tuple(parts_of(tokenizer, sample)), sample.reply_tokens, len(sample.ids), rejected)


def judged_samples(data: Dataset) -> Iterator[tuple[Sample, bool]]:
    """What a job trains on, each with whether its reply was rejected; such come in turns with the others."""
    if data.preferences is None:
        yield from ((sample, False) for sample in data.train)
        return
    marked = list(zip(data.train, (not one.is_good for one in data.preferences.judged), strict=True))
    sides = ([pair for pair in marked if pair[1] is bad] for bad in (False, True))
    yield from (pair for pairs in itertools.zip_longest(*sides) for pair in pairs if pair)


def parts_of(tokenizer: Any, sample: Sample) -> Iterator[tuple[str, bool]]:
    """The sample's text in pieces that wholly carry loss, or not at all."""
    for learned, group in itertools.groupby(zip(sample.ids, sample.mask, strict=True), key=lambda pair: pair[1]):
        yield tokenizer.decode([id for id, _ in group]), learned


def masks_of_job(folder: Path, limit: int) -> Masks:
    """Of a job folder's run. Raises `UnderstudyError` as the run would."""
    job = planned(folder)
    masks = Masks(job.base.name, limit, dropped=Counter(job.data.ledger.replies))
    for sample, rejected in judged_samples(job.data):
        masks.add(job.tokenizer, sample, TRAIN, rejected=rejected)
    for sample in job.data.heldout:
        masks.add(job.tokenizer, sample, HELD_OUT)
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
