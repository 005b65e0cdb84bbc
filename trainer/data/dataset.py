"""The samples of a run: single records, the sets they form, and the whole with its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from personas.home.holdout_index import HoldoutIndex
from personas.lore.index import LoreIndex
from personas.prompt import TokenizedSample
from personas.schemas.chat import Persona
from trainer.data.ledger import Ledger
from trainer.data.preference_policy import PreferenceSet
from trainer.data.sample_renderer import SampleHash
from trainer.schemas import PromptReply


@dataclass(frozen=True)
class SampleRecord:
    """A sample with what is counted of it. `people` are the keys of those who speak in it (`Participants.keys_of`)."""

    sample: TokenizedSample
    right: str
    source: str
    arrived: str
    said: PromptReply
    has_lore: bool = False
    people: tuple[str, ...] = ()
    is_trimmed: bool = False


@dataclass(frozen=True)
class SampleSets:
    """Samples to train and evaluate with, before general dialogue is mixed in.

    `own` is to be trained on whatever the recipe says, `general` as far as it says so: made as it is taken. `measured`
    are samples that measure forgetting. `dropped` counts replies that make no sample, `rejected` records that could not
    be used, both by reason. `people` are counted without those of the samples themselves. `trimmed` counts samples
    whose oldest turns did not fit, where the samples themselves do not say so.
    """

    own: Sequence[SampleRecord]
    general: Iterable[SampleRecord]
    heldout: Sequence[SampleRecord]
    counts: Mapping[str, int]
    ledger: Ledger
    held_out: HoldoutIndex
    measured: Sequence[SampleRecord] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    people: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, int] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trimmed: int = 0


@dataclass(frozen=True)
class Dataset:
    """`counts` says how many of what there are, dropped replies by reason among them.

    `first` is trained on in a stage of its own, before `train`. `rights` and `sources` count samples by right and by
    source, `days` by the day on which they came. `people` lists who is in it (`personas.home.data_subjects`),
    `replaced` and `permission` are those of the material, `ledger` accounts for the records. `held_out` is what has
    been held out until now, of this material and before. `stated` are the rights that a built data set brings along, as
    its `stats.json` has them; `caveats` say what is not as asked. `said_heldout` says in words what `heldout` holds,
    `said_train` what the first samples of `train` hold, the job's own, and `said_general` what `general` holds;
    `persona` and `lore` are what they were asked with. `preferences` say which of what is trained on was liked, where
    that is what is learned. Of `trimmed` samples the oldest turns did not fit.
    """

    train: tuple[TokenizedSample, ...]
    heldout: tuple[TokenizedSample, ...]
    general: tuple[TokenizedSample, ...]
    counts: dict[str, int]
    rights: dict[str, int]
    sources: dict[str, int]
    days: dict[str, int]
    people: dict[str, int]
    replaced: Mapping[str, int]
    permission: str
    ledger: Ledger
    held_out: HoldoutIndex
    first: tuple[TokenizedSample, ...] = ()
    stated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    heldout_prompt_replies: tuple[PromptReply, ...] = ()
    train_prompt_replies: tuple[PromptReply, ...] = ()
    general_prompt_replies: tuple[PromptReply, ...] = ()
    persona: Persona | None = None
    lore: LoreIndex | None = None
    preferences: PreferenceSet | None = None
    trimmed: int = 0

    @property
    def trained(self) -> tuple[TokenizedSample, ...]:
        """All samples that are trained on, in any stage."""
        return self.first + self.train

    @property
    def hash(self) -> str:
        """Over the token ids and masks of what is trained on and of what is held out (see `SampleHash`)."""
        digest = SampleHash()
        for samples, held_out in ((self.trained, False), (self.heldout, True)):
            for sample in samples:
                digest.add(sample, held_out=held_out)
        return digest.hexdigest()


def add_counts(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """The counts of both; whoever is counted 0 times stays."""
    return {name: some.get(name, 0) + others.get(name, 0) for name in (*some, *others)}
