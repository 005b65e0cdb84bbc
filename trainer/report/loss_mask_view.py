"""Shows which tokens of a data set, a job or sources carry loss."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from personas.home.built_dataset import EVAL_FILE, TRAIN_FILE
from personas.models.base_model import locate
from personas.prompt.renderer import Renderer, TokenizedSample
from trainer.dataset.builder import DatasetBuilder
from trainer.dataset.dataset import Dataset
from trainer.dataset.dedup_split import HELD_OUT, TRAIN
from trainer.dataset.layout import read_samples, read_stats
from trainer.dataset.ledger import Ledger
from trainer.dataset.loader import render_lines
from trainer.dataset.writer import DatasetBuildSpec, ReadProgress, previous_holdout
from trainer.estimate.workload import common_prefix_length
from trainer.train.job import load_fast_tokenizer, prepare_job_without_torch

SIDE_NAMES = ((TRAIN, "train"), (HELD_OUT, "eval"))
"""Sides and their names in `--json`, as in a data set's files."""
TRAINED_BEGIN = "⟦"
TRAINED_END = "⟧"
REJECTED_BEGIN = "⟪"
REJECTED_END = "⟫"


@dataclass(frozen=True)
class MaskedSample:
    """A sample as text: `parts` with a flag for loss, and token counts. A `rejected` reply is
    trained against.
    """

    side: str
    parts: tuple[tuple[str, bool], ...]
    lossy: int
    tokens: int
    rejected: bool = False

    @property
    def trained(self) -> int:
        """Tokens that are learned from."""
        return 0 if self.rejected else self.lossy

    @property
    def marks(self) -> tuple[str, str]:
        """Brackets around the reply."""
        if self.rejected:
            return REJECTED_BEGIN, REJECTED_END
        return TRAINED_BEGIN, TRAINED_END

    def as_text(self) -> str:
        """Render the text with trained parts in ⟦ ⟧ and a rejected reply in ⟪ ⟫."""
        begin, end = self.marks
        pieces = []
        for text, lossy in self.parts:
            pieces.append(f"{begin}{text}{end}" if lossy else text)
        return "".join(pieces)

    def as_json(self) -> dict[str, Any]:
        """Return the object of `mask --json` and `plan --json`: `parts` pairs each text with its
        trained flag.
        """
        parts = [[text, lossy and not self.rejected] for text, lossy in self.parts]
        fields = {"trained_tokens": self.trained, "tokens": self.tokens, "parts": parts}
        if self.rejected:
            fields["rejected_tokens"] = self.lossy
            fields["rejected"] = "".join(text for text, lossy in self.parts if lossy)
        return fields


@dataclass
class MaskSummary:
    """The first training samples in full, and counts over all samples including held-out ones.

    `dropped` counts replies that yield no sample, by reason. `rejected` counts the samples with a
    rejected reply and the tokens of these replies. `name_search` is the anonymiser's.
    """

    base_model: str
    limit: int
    shown: list[MaskedSample] = field(default_factory=list)
    samples: Counter[str] = field(default_factory=Counter)
    trained: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    name_search: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def add(
        self, tokenizer: Any, sample: TokenizedSample, side: str, *, rejected: bool = False
    ) -> None:
        """Count a sample, and store it if it is among the first."""
        self.samples[side] += 1
        self.tokens[side] += len(sample.ids)
        if rejected:
            self.rejected.update(samples=1, tokens=sample.reply_tokens)
        else:
            self.trained[side] += sample.reply_tokens
        if side == TRAIN and len(self.shown) < self.limit:
            self.shown.append(mask_sample(tokenizer, sample, side, rejected=rejected))

    def as_json(self) -> dict[str, Any]:
        """Return the published object of `mask --json`."""
        fields: dict[str, Any] = {
            "base_model": self.base_model,
            "samples": {name: self.samples[side] for side, name in SIDE_NAMES},
            "trained_tokens": {name: self.trained[side] for side, name in SIDE_NAMES},
            "tokens": {name: self.tokens[side] for side, name in SIDE_NAMES},
            "dropped": dict(self.dropped.most_common()),
        }
        if self.rejected:
            fields["rejected"] = dict(self.rejected)
        fields["name_search"] = dict(self.name_search)
        fields["shown"] = [sample.as_json() for sample in self.shown]
        return fields


def mask_sample(
    tokenizer: Any, sample: TokenizedSample, side: str = TRAIN, *, rejected: bool = False
) -> MaskedSample:
    """Decode a sample to text."""
    return MaskedSample(
        side=side,
        parts=tuple(split_by_loss(tokenizer, sample)),
        lossy=sample.reply_tokens,
        tokens=len(sample.ids),
        rejected=rejected,
    )


def labelled_samples(data: Dataset) -> Iterator[tuple[TokenizedSample, bool]]:
    """Yield a job's training samples with a flag for rejected replies, alternating with the
    others.
    """
    if data.preferences is None:
        for sample in data.train:
            yield sample, False
        return
    good: list[tuple[TokenizedSample, bool]] = []
    bad: list[tuple[TokenizedSample, bool]] = []
    for sample, reply in zip(data.train, data.preferences.judged, strict=True):
        if reply.is_good:
            good.append((sample, False))
        else:
            bad.append((sample, True))
    # In turns, so that the first samples, which are shown in full, are of both kinds.
    for pairs in itertools.zip_longest(good, bad):
        for pair in pairs:
            if pair:
                yield pair


def split_by_loss(tokenizer: Any, sample: TokenizedSample) -> Iterator[tuple[str, bool]]:
    """Split the sample's text into pieces that carry loss entirely or not at all.

    A character whose tokens lie on both sides of a border belongs whole to the piece in which it
    ends.
    """
    text = tokenizer.decode(sample.ids)
    done = 0
    count = 0
    for has_loss, group in itertools.groupby(sample.mask):
        count += len(list(group))
        before = tokenizer.decode(sample.ids[:count]) if count < len(sample.ids) else text
        # Half a character decodes to a replacement character, which is no prefix of the text.
        end = max(done, common_prefix_length([text, before]))
        yield text[done:end], has_loss
        done = end


def mask_summary_of_job(folder: Path, limit: int) -> MaskSummary:
    """Summarise a job folder's run. Raises the same `UnderstudyError`s as the run."""
    job = prepare_job_without_torch(folder)
    masks = MaskSummary(
        job.base.name,
        limit,
        dropped=Counter(job.data.ledger.replies),
        name_search=job.data.name_search,
    )
    for sample, rejected in labelled_samples(job.data):
        masks.add(job.tokenizer, sample, TRAIN, rejected=rejected)
    for sample in job.data.heldout:
        masks.add(job.tokenizer, sample, HELD_OUT)
    return masks


def mask_summary_of_sources(
    request: DatasetBuildSpec, limit: int, report_progress: ReadProgress
) -> MaskSummary:
    """Summarise sources as `dataset build` would read them; temporary files are removed."""
    masks = MaskSummary(request.base.name, limit)
    with temporary_build(request, report_progress) as builder:
        for built in builder.samples():
            masks.add(request.plan.renderer.tokenizer, built.made.sample, built.side)
            report_progress("making samples", 1)
        masks.dropped.update(builder.ledger.replies)
        masks.name_search = builder.anonymiser.searched_scripts
    return masks


@contextmanager
def temporary_build(
    request: DatasetBuildSpec, report_progress: ReadProgress
) -> Iterator[DatasetBuilder]:
    """Read a request's sources into a builder, whose files are temporary."""
    plan = replace(request.plan, held_out=previous_holdout(request))
    with (
        tempfile.TemporaryDirectory(prefix="understudy-build-") as folder,
        DatasetBuilder(plan, Ledger(), Path(folder)) as builder,
    ):
        for source, items in request.sources:
            builder.add_source(source, items, partial(report_progress, f"reading {source}"))
        yield builder


def mask_summary_of_dataset(folder: Path, limit: int) -> MaskSummary:
    """Summarise a data set built by `dataset build`. Raises `MaterialError` if it is damaged."""
    stats = read_stats(folder)
    base = locate(stats["base_model"])
    masks = MaskSummary(base.name, limit, name_search=dict(stats.get("name_search") or {}))
    renderer = Renderer(load_fast_tokenizer(base))
    for side, name in ((TRAIN, TRAIN_FILE), (HELD_OUT, EVAL_FILE)):
        for _, sample in render_lines(read_samples(folder / name), renderer, masks.dropped):
            masks.add(renderer.tokenizer, sample, side)
    return masks
