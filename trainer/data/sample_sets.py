"""Sample records and the sets they form: own, general, held-out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from personas.home.holdout_index import HoldoutIndex
from personas.prompt import TokenizedSample
from trainer.data.job_inputs import JobInputs
from trainer.data.ledger import Ledger
from trainer.data.sample_renderer import RenderedSample, SampleRenderer
from trainer.schemas import PromptReply
from trainer.sources.conversation import Conversation


@dataclass(frozen=True)
class SampleRecord:
    """A sample with what is counted of it. `people` are the ids of those who speak in it."""

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
    """What there is to train and measure with, before general dialogue is mixed in.

    `own` is to be trained on whatever the recipe says, `general` as far as it says so: made as it is taken. `measured`
    are samples that measure forgetting beside the job's own. `faults` counts replies of `general` that make no sample.
    `trimmed` counts samples whose oldest turns did not fit, where the samples themselves do not say so.
    """

    own: Sequence[SampleRecord]
    general: Iterable[SampleRecord]
    heldout: Sequence[SampleRecord]
    counts: Mapping[str, int]
    ledger: Ledger
    held_out: HoldoutIndex
    measured: Sequence[SampleRecord] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    people: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, int] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trimmed: int = 0


def general_samples(content: JobInputs, maker: SampleRenderer) -> Iterator[SampleRecord]:
    """Samples of general dialogue to train on, in the order in which they are taken."""
    return (make_sample_record(talk, made) for talk in content.to_mix for made in maker.made_from(talk, {}))


def make_sample_record(conversation: Conversation, made: RenderedSample) -> SampleRecord:
    by_persona = made.persona is not None and bool(made.persona.id)
    said = PromptReply(f"{conversation.source} {made.talk}", made.turns[-1].text, made.reply, by_persona)
    of = (conversation.right, conversation.source, made.arrived, said)
    return SampleRecord(made.sample, *of, has_lore=bool(made.lore), people=made.people, is_trimmed=made.trimmed > 0)


def add_counts(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """The counts of both; whoever is counted 0 times stays."""
    return {name: some.get(name, 0) + others.get(name, 0) for name in (*some, *others)}
