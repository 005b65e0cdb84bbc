"""The samples of a run: single records, the sets they form, and the whole with its counts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from personas.home.holdout_index import HoldoutIndex
from personas.lore.index import LoreIndex
from personas.prompt.renderer import TokenizedSample
from personas.schemas.chat import Persona
from trainer.dataset.ledger import Ledger
from trainer.dataset.preference_policy import PreferenceSet
from trainer.dataset.sample_renderer import SampleHash
from trainer.languages import detect_main_language
from trainer.schemas import PromptReply


@dataclass(frozen=True)
class SampleRecord:
    """A sample with the attributes that are counted. `people` are its speakers' keys
    (`Participants.keys_of`).
    """

    sample: TokenizedSample
    right: str
    source: str
    arrived: str
    said: PromptReply
    has_lore: bool = False
    people: tuple[str, ...] = ()
    is_trimmed: bool = False
    has_short_card: bool = False


@dataclass(frozen=True)
class SampleSets:
    """Samples to train and evaluate with, before general dialogue is mixed in.

    All of `own` is trained on; of `general`, which is rendered lazily, as much as the recipe says.
    `measured` are samples that measure forgetting. `dropped` counts replies that yield no sample,
    `rejected` unusable records, both by reason. `pair_sources` name the sources of lore pairs.
    `people` and `trimmed` (samples whose oldest turns did not fit) count what the samples' own
    fields do not.
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
    name_search: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trimmed: int = 0
    pair_sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """The samples of a run. `counts` has their numbers by kind, dropped replies by reason included.

    `first` is trained on in a stage of its own, before `train`. `rights`, `sources` and `days`
    count samples by right, source and day of arrival. `people` lists who is in them
    (`personas.home.data_subjects`), `replaced`, `name_search` and `permission` are those of the material, `ledger`
    accounts for the records. `held_out` covers everything held out so far, also from earlier
    material. `stated` are the rights that a built data set states in its `stats.json`; `caveats`
    say what differs from the request. The `*_prompt_replies` are the texts of the samples: of
    `train` only the job's own, which come first; `own_words` are those of them that an author wrote
    and gave to others. `persona` and `lore` are part of their prompts.
    `preferences` labels the samples of a preference job. `trimmed` counts samples whose oldest
    turns did not fit. `with_other_card` are the places of those of `train` whose prompts have another
    card than the held-out ones.
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
    name_search: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    heldout_prompt_replies: tuple[PromptReply, ...] = ()
    train_prompt_replies: tuple[PromptReply, ...] = ()
    general_prompt_replies: tuple[PromptReply, ...] = ()
    own_words: tuple[PromptReply, ...] = ()
    persona: Persona | None = None
    lore: LoreIndex | None = None
    preferences: PreferenceSet | None = None
    trimmed: int = 0
    with_other_card: frozenset[int] = frozenset()

    @cached_property
    def language(self) -> str:
        """Code of the language of the trained replies, of the persona's own if there is one."""
        own: list[str] = []
        replies: list[str] = []
        for prompt_reply in self.train_prompt_replies:
            replies.append(prompt_reply.reply)
            if prompt_reply.by_persona or self.persona is None:
                own.append(prompt_reply.reply)
        return detect_main_language(own or replies)

    @property
    def trained(self) -> tuple[TokenizedSample, ...]:
        """All samples that are trained on, in any stage."""
        return self.first + self.train

    @property
    def hash(self) -> str:
        """Hash of the token ids and masks of training and held-out samples (see `SampleHash`)."""
        digest = SampleHash()
        for samples, held_out in ((self.trained, False), (self.heldout, True)):
            for sample in samples:
                digest.add(sample, held_out=held_out)
        return digest.hexdigest()


def add_counts(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """Add two counts; names with a count of 0 stay."""
    return {name: some.get(name, 0) + others.get(name, 0) for name in (*some, *others)}


def add_searched_scripts(
    some: Mapping[str, Mapping[str, int]], others: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Add two counts of texts by script and method."""
    scripts = (*some, *others)
    return {name: add_counts(some.get(name, {}), others.get(name, {})) for name in scripts}
