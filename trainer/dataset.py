"""From material to the samples of a run: what is held out, what each reply is asked with, what is dropped."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from personas.contracts import Persona
from personas.heldout import HeldOut
from personas.lore import LoreIndex
from personas.prompt import Renderer, Sample
from personas.rights import DISCORD_API
from trainer.building.filters import Filters
from trainer.building.ledger import Ledger
from trainer.building.samples import Made, SampleHash, SampleMaker, require_both_sides
from trainer.building.sieve import SIDES, sift
from trainer.building.split import HELD_OUT
from trainer.conversation import Conversation, speaks, spoken_by
from trainer.exchange import Exchange
from trainer.general import mixes, told_ratio, wanted
from trainer.material import Content
from trainer.preference.judged import Preferences
from trainer.recipe import Recipe


@dataclass(frozen=True)
class Dataset:
    """`counts` says how many of what there are, dropped replies by reason among them.

    `first` is trained on in a stage of its own, before `train`. `rights` and `sources` count samples by right and by
    source, `days` by the day on which they came. `people` lists who is in it (`personas.people`), `replaced` and
    `permission` are those of the material, `ledger` accounts for the records. `held_out` is what has been held out
    until now, of this material and before. `stated` are the rights that a built data set brings along, as its
    `stats.json` has them; `caveats` say what is not as asked. `said_heldout` says in words what `heldout` holds,
    `said_train` what the first samples of `train` hold, the job's own, and `said_general` what `general` holds;
    `persona` and `lore` are what they were asked with. `preferences` say which of what is trained on was liked, where
    that is what is learned. Of `trimmed` samples the oldest turns did not fit.
    """

    train: tuple[Sample, ...]
    heldout: tuple[Sample, ...]
    general: tuple[Sample, ...]
    counts: dict[str, int]
    rights: dict[str, int]
    sources: dict[str, int]
    days: dict[str, int]
    people: dict[str, int]
    replaced: Mapping[str, int]
    permission: str
    ledger: Ledger
    held_out: HeldOut
    first: tuple[Sample, ...] = ()
    stated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    said_heldout: tuple[Exchange, ...] = ()
    said_train: tuple[Exchange, ...] = ()
    said_general: tuple[Exchange, ...] = ()
    persona: Persona | None = None
    lore: LoreIndex | None = None
    preferences: Preferences | None = None
    trimmed: int = 0

    @property
    def trained(self) -> tuple[Sample, ...]:
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


@dataclass(frozen=True)
class Counted:
    """A sample with what is counted of it. `people` are the ids of those who speak in it."""

    sample: Sample
    right: str
    source: str
    arrived: str
    said: Exchange
    has_lore: bool = False
    people: tuple[str, ...] = ()
    is_trimmed: bool = False


@dataclass(frozen=True)
class Parts:
    """What there is to train and measure with, before general dialogue is mixed in.

    `own` is to be trained on whatever the recipe says, `general` as far as it says so: made as it is taken. `measured`
    are samples that measure forgetting beside the job's own. `faults` counts replies of `general` that make no sample.
    `trimmed` counts samples whose oldest turns did not fit, where the samples themselves do not say so.
    """

    own: Sequence[Counted]
    general: Iterable[Counted]
    heldout: Sequence[Counted]
    counts: Mapping[str, int]
    ledger: Ledger
    held_out: HeldOut
    measured: Sequence[Counted] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    people: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[str, int] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trimmed: int = 0


def make_dataset(content: Content, renderer: Renderer, recipe: Recipe) -> Dataset:
    """The samples of a job. Raises `MaterialError` when a side stays empty."""
    parts, learned, caveats = _parts_of(content, renderer, recipe)
    dropped = content.dropped + parts.dropped
    require_both_sides(len(parts.own), len(parts.heldout), dropped + parts.ledger.dropped)
    general, told = ([], ()) if learned else _general_of(parts, content, recipe)
    stages = recipe.first_stage_epochs > 0 and content.persona is not None
    tally = _tallied((*parts.heldout, *parts.own, *general), content)
    measuring = _measuring(content, renderer, recipe, parts, general)
    replies = dropped + parts.ledger.replies
    parts.ledger.take_in(content.dropped)
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
        people=added(content.met.listed(content.people_key), parts.people),
        replaced=added(content.replaced, parts.replaced),
        permission=content.permission if DISCORD_API in tally.rights else "",
        ledger=parts.ledger,
        held_out=parts.held_out,
        first=_samples(general) if stages else (),
        stated=parts.stated,
        caveats=caveats + told,
        said_heldout=tuple(counted.said for counted in parts.heldout),
        said_train=tuple(counted.said for counted in parts.own[: learned.good if learned else None]),
        said_general=tuple(counted.said for counted in measuring),
        persona=content.persona,
        lore=content.lore,
        preferences=learned,
        trimmed=parts.trimmed + sum(counted.is_trimmed for counted in (*parts.heldout, *parts.own, *general)),
    )


def _parts_of(
    content: Content, renderer: Renderer, recipe: Recipe
) -> tuple[Parts, Preferences | None, tuple[str, ...]]:
    """What there is to train and measure with, what of it is learned by preference, and what to say of that."""
    if content.built:
        from trainer.building.built import parts_of_set  # which needs what stands here

        parts = parts_of_set(content.built, content, renderer, recipe)
    else:
        parts = _parts_of_talk(content, renderer, recipe)
    parts, caveats = _limited(parts, recipe)
    if not content.preferences:
        return parts, None, caveats
    from trainer.preference.samples import preferring  # the same

    parts, learned, said = preferring(parts, content, renderer, recipe)
    return parts, learned, caveats + said


def _limited(parts: Parts, recipe: Recipe) -> tuple[Parts, tuple[str, ...]]:
    """The parts with `train_samples` of the job's own, drawn by the seed: with more of them the same and others."""
    wanted_samples, own = recipe.train_samples, parts.own
    if not wanted_samples:
        return parts, ()
    taken = random.Random(recipe.seed).sample(range(len(own)), len(own))[:wanted_samples]
    missing = wanted_samples - len(taken)
    said = (f"There are {len(own):,} samples to train on, {missing:,} fewer than train_samples asks for.",)
    return replace(parts, own=[own[place] for place in sorted(taken)]), said if missing else ()


def _parts_of_talk(content: Content, renderer: Renderer, recipe: Recipe) -> Parts:
    """Sift, split by conversation, then one sample per reply."""
    filters, ledger, sides = Filters(), Ledger(), Counter[str]()
    conversations = stood_in_for(content.persona, content.conversations)
    as_it_came = stood_in_for(content.persona, content.as_it_came or content.conversations)
    sifted = sift(as_it_came, filters, recipe.heldout_share, content.held_out, content.dropped)
    maker = SampleMaker(renderer, content.persona, content.lore, recipe, filters)
    samples: dict[str, list[Counted]] = {side: [] for side in SIDES}
    # Held-out samples first: of two equal ones, the one that stays is the one that is not trained on.
    for side in SIDES:
        for number, conversation in _of_fate(conversations, sifted.fates, side):
            used: set[int] = set()
            faults: dict[int, str] = {}
            sides[side] += 1
            for made in maker.made_from(conversation, faults, sifted.kept_back.get(number, ())):
                used.update(made.places)
                samples[side].append(_counted(conversation, made))
            ledger.settle(conversation, used, faults)
    for conversation, fate in zip(conversations, sifted.fates, strict=True):
        if fate not in SIDES:
            ledger.drop(conversation, fate)
    held_out, train = (samples[side] for side in SIDES)
    counts = {"conversations_train": sides["train"], "conversations_heldout": sides[HELD_OUT]}
    return Parts(train, general_samples(content, maker), held_out, counts, ledger, sifted.held_out)


def general_samples(content: Content, maker: SampleMaker) -> Iterator[Counted]:
    """Samples of general dialogue to train on, in the order in which they are taken."""
    return (_counted(talk, made) for talk in content.to_mix for made in maker.made_from(talk, {}))


def _general_of(parts: Parts, content: Content, recipe: Recipe) -> tuple[list[Counted], tuple[str, ...]]:
    """The general samples to train on, and what to say of how many there are."""
    if content.persona is None:
        unheard = (
            "A dialogue job trains on general dialogue alone: general_share and first_stage_epochs change nothing."
        )
        return list(parts.general), (unheard,) if mixes(recipe) else ()
    if not mixes(recipe):
        return list(parts.general), ()
    own = len(parts.own)
    most = wanted(recipe, own)
    taken = list(itertools.islice(parts.general, most))
    told = told_ratio(recipe, own, len(taken))
    return taken, (told,) if told else ()


@dataclass
class _Tally:
    """Counts samples."""

    rights: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    with_lore: int = 0


def _tallied(samples: Iterable[Counted], content: Content) -> _Tally:
    tally = _Tally()
    for counted in samples:
        content.met.heard(counted.people)
        tally.rights[counted.right] += 1
        tally.sources[counted.source] += 1
        tally.days[counted.arrived] += 1
        tally.with_lore += counted.has_lore
    return tally


def _measuring(
    content: Content, renderer: Renderer, recipe: Recipe, parts: Parts, trained: Sequence[Counted]
) -> Sequence[Counted]:
    """General dialogue that measures forgetting, as it is: what a persona's run trains on is left out of it."""
    maker = SampleMaker(renderer, None, None, recipe, None)
    talk = (_counted(talk, made) for talk in content.general for made in maker.made_from(talk, {}))
    found = [*parts.measured, *talk]
    known = {counted.sample for counted in trained} if content.persona else set[Sample]()
    return [it for it in found if it.sample not in known] or found


def _counted(conversation: Conversation, made: Made) -> Counted:
    by_persona = made.persona is not None and bool(made.persona.id)
    said = Exchange(f"{conversation.source} {made.talk}", made.turns[-1].text, made.reply, by_persona)
    of = (conversation.right, conversation.source, made.arrived, said)
    return Counted(made.sample, *of, has_lore=bool(made.lore), people=made.people, is_trimmed=made.trimmed > 0)


def added(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """The counts of both; whoever is counted 0 times stays."""
    return {name: some.get(name, 0) + others.get(name, 0) for name in (*some, *others)}


def _samples(counted: Iterable[Counted]) -> tuple[Sample, ...]:
    return tuple(it.sample for it in counted)


def stood_in_for(persona: Persona | None, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    """Where the persona speaks nowhere by name, the assistant of the material speaks for it."""
    if persona is None or any(speaks(persona, conversation) for conversation in conversations):
        return conversations
    return [spoken_by(persona, conversation) for conversation in conversations]


def _of_fate(
    conversations: Sequence[Conversation], fates: Sequence[str], fate: str
) -> Iterator[tuple[int, Conversation]]:
    return ((n, conversation) for n, conversation in enumerate(conversations) if fates[n] == fate)
