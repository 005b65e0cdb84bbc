"""Makes the samples of a run: filters, splits, renders and counts them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from personas.home.holdout_index import HoldoutIndex
from personas.lore import LoreIndex
from personas.prompt import Renderer, TokenizedSample
from personas.schemas.base import DISCORD_API
from personas.schemas.chat import Persona
from trainer.data.data_mixture import general_sample_count, mixes_general, mixture_caveat
from trainer.data.dedup_split import HELD_OUT, SIDES, split_conversations
from trainer.data.job_inputs import JobInputs
from trainer.data.ledger import Ledger
from trainer.data.preference_policy import PreferenceSet
from trainer.data.quality_filters import QualityFilters
from trainer.data.sample_renderer import SampleHash, SampleRenderer, require_both_sides
from trainer.data.sample_sets import SampleRecord, SampleSets, add_counts, general_samples, make_sample_record
from trainer.schemas import PromptReply, Recipe
from trainer.sources.conversation import Conversation, persona_speaks, replace_assistant


@dataclass(frozen=True)
class Dataset:
    """`counts` says how many of what there are, dropped replies by reason among them.

    `first` is trained on in a stage of its own, before `train`. `rights` and `sources` count samples by right and by
    source, `days` by the day on which they came. `people` lists who is in it (`personas.home.data_subjects`), `replaced` and
    `permission` are those of the material, `ledger` accounts for the records. `held_out` is what has been held out
    until now, of this material and before. `stated` are the rights that a built data set brings along, as its
    `stats.json` has them; `caveats` say what is not as asked. `said_heldout` says in words what `heldout` holds,
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


def make_dataset(content: JobInputs, renderer: Renderer, recipe: Recipe) -> Dataset:
    """The samples of a job. Raises `MaterialError` when a side stays empty."""
    parts, learned, caveats = _make_sample_sets(content, renderer, recipe)
    dropped = content.dropped + parts.dropped
    require_both_sides(len(parts.own), len(parts.heldout), dropped + parts.ledger.dropped)
    general, told = ([], ()) if learned else _take_general(parts, content, recipe)
    stages = recipe.first_stage_epochs > 0 and content.persona is not None
    tally = _tally_samples((*parts.heldout, *parts.own, *general), content)
    measuring = _general_holdout(content, renderer, recipe, parts, general)
    replies = dropped + parts.ledger.replies
    parts.ledger.add_dropped(content.dropped)
    return Dataset(
        train=_samples(parts.own if stages else (*parts.own, *general)),
        heldout=_samples(parts.heldout),
        general=_samples(measuring),
        counts={
            **parts.counts,
            "samples_train": len(parts.own) + len(general),
            "samples_heldout": len(parts.heldout),
            "samples_with_lore": tally.with_lore,
            **({"samples_general": len(general)} if general else {}),
            **{f"dropped: {reason}": n for reason, n in sorted(replies.items())},
        },
        rights=dict(tally.rights),
        sources=dict(tally.sources),
        days=dict(tally.days),
        people=add_counts(content.met.listed(content.people_key), parts.people),
        replaced=add_counts(content.replaced, parts.replaced),
        permission=content.permission if DISCORD_API in tally.rights else "",
        ledger=parts.ledger,
        held_out=parts.held_out,
        first=_samples(general) if stages else (),
        stated=parts.stated,
        caveats=caveats + told,
        heldout_prompt_replies=tuple(counted.said for counted in parts.heldout),
        train_prompt_replies=tuple(counted.said for counted in parts.own[: learned.good if learned else None]),
        general_prompt_replies=tuple(counted.said for counted in measuring),
        persona=content.persona,
        lore=content.lore,
        preferences=learned,
        trimmed=parts.trimmed + sum(counted.is_trimmed for counted in (*parts.heldout, *parts.own, *general)),
    )


def _make_sample_sets(
    content: JobInputs, renderer: Renderer, recipe: Recipe
) -> tuple[SampleSets, PreferenceSet | None, tuple[str, ...]]:
    """What there is to train and measure with, what of it is learned by preference, and what to say of that."""
    if content.built:
        from trainer.data.loader import load_sample_sets  # which needs what stands here

        parts = load_sample_sets(content.built, content, renderer, recipe)
    else:
        parts = _sample_sets_of_conversations(content, renderer, recipe)
    parts, caveats = _limit_samples(parts, recipe)
    if not content.preferences:
        return parts, None, caveats
    from trainer.data.preference_samples import apply_preferences  # the same

    parts, learned, said = apply_preferences(parts, content, renderer, recipe)
    return parts, learned, caveats + said


def _limit_samples(parts: SampleSets, recipe: Recipe) -> tuple[SampleSets, tuple[str, ...]]:
    """The parts with `train_samples` of the job's own, drawn by the seed: with more of them the same and others."""
    wanted_samples, own = recipe.train_samples, parts.own
    if not wanted_samples:
        return parts, ()
    taken = random.Random(recipe.seed).sample(range(len(own)), len(own))[:wanted_samples]
    missing = wanted_samples - len(taken)
    said = (f"There are {len(own):,} samples to train on, {missing:,} fewer than train_samples asks for.",)
    return replace(parts, own=[own[place] for place in sorted(taken)]), said if missing else ()


def _sample_sets_of_conversations(content: JobInputs, renderer: Renderer, recipe: Recipe) -> SampleSets:
    """Sift, split by conversation, then one sample per reply."""
    filters, ledger, sides = QualityFilters(), Ledger(), Counter[str]()
    conversations = assistant_as_persona(content.persona, content.conversations)
    as_it_came = assistant_as_persona(content.persona, content.raw_conversations or content.conversations)
    sifted = split_conversations(as_it_came, filters, recipe.heldout_share, content.held_out, content.dropped)
    maker = SampleRenderer(renderer, content.persona, content.lore, recipe, filters)
    samples: dict[str, list[SampleRecord]] = {side: [] for side in SIDES}
    # Held-out samples first: of two equal ones, the one that stays is the one that is not trained on.
    for side in SIDES:
        for number, conversation in _conversations_on_side(conversations, sifted.outcomes, side):
            used: set[int] = set()
            faults: dict[int, str] = {}
            sides[side] += 1
            for made in maker.made_from(conversation, faults, sifted.withheld_replies.get(number, ())):
                used.update(made.places)
                samples[side].append(make_sample_record(conversation, made))
            ledger.settle(conversation, used, faults)
    for conversation, fate in zip(conversations, sifted.outcomes, strict=True):
        if fate not in SIDES:
            ledger.drop(conversation, fate)
    held_out, train = (samples[side] for side in SIDES)
    counts = {"conversations_train": sides["train"], "conversations_heldout": sides[HELD_OUT]}
    return SampleSets(train, general_samples(content, maker), held_out, counts, ledger, sifted.held_out)


def _take_general(parts: SampleSets, content: JobInputs, recipe: Recipe) -> tuple[list[SampleRecord], tuple[str, ...]]:
    """The general samples to train on, and what to say of how many there are."""
    if content.persona is None:
        unheard = (
            "A dialogue job trains on general dialogue alone: general_share and first_stage_epochs change nothing."
        )
        return list(parts.general), (unheard,) if mixes_general(recipe) else ()
    if not mixes_general(recipe):
        return list(parts.general), ()
    own = len(parts.own)
    most = general_sample_count(recipe, own)
    taken = list(itertools.islice(parts.general, most))
    told = mixture_caveat(recipe, own, len(taken))
    return taken, (told,) if told else ()


@dataclass
class _Tally:
    """Counts samples."""

    rights: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    with_lore: int = 0


def _tally_samples(samples: Iterable[SampleRecord], content: JobInputs) -> _Tally:
    tally = _Tally()
    for counted in samples:
        content.met.heard(counted.people)
        tally.rights[counted.right] += 1
        tally.sources[counted.source] += 1
        tally.days[counted.arrived] += 1
        tally.with_lore += counted.has_lore
    return tally


def _general_holdout(
    content: JobInputs, renderer: Renderer, recipe: Recipe, parts: SampleSets, trained: Sequence[SampleRecord]
) -> Sequence[SampleRecord]:
    """General dialogue that measures forgetting, as it is: what a persona's run trains on is left out of it."""
    maker = SampleRenderer(renderer, None, None, recipe, None)
    talk = (make_sample_record(talk, made) for talk in content.general for made in maker.made_from(talk, {}))
    found = [*parts.measured, *talk]
    known = {counted.sample for counted in trained} if content.persona else set[TokenizedSample]()
    return [it for it in found if it.sample not in known] or found


def _samples(counted: Iterable[SampleRecord]) -> tuple[TokenizedSample, ...]:
    return tuple(it.sample for it in counted)


def assistant_as_persona(persona: Persona | None, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    """Where the persona speaks nowhere by name, the assistant of the material speaks for it."""
    if persona is None or any(persona_speaks(persona, conversation) for conversation in conversations):
        return conversations
    return [replace_assistant(persona, conversation) for conversation in conversations]


def _conversations_on_side(
    conversations: Sequence[Conversation], fates: Sequence[str], fate: str
) -> Iterator[tuple[int, Conversation]]:
    return ((n, conversation) for n, conversation in enumerate(conversations) if fates[n] == fate)
