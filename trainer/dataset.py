"""From conversations to the samples of a run: what is held out, what each reply is asked with, what is dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from personas.contracts import Persona
from personas.heldout import HeldOut
from personas.prompt import Renderer, Sample
from personas.rights import DISCORD_API
from trainer.conversation import Conversation, speaks, spoken_by
from trainer.filters import Filters
from trainer.ledger import Ledger
from trainer.material import Content
from trainer.recipe import Recipe
from trainer.samples import Made, SampleHash, SampleMaker, require_both_sides
from trainer.sieve import SIDES, sift
from trainer.split import HELD_OUT


@dataclass(frozen=True)
class Dataset:
    """`counts` says how many of what there are, dropped replies by reason among them.

    `rights` and `sources` count samples by right and by source, `days` by the day on which they came. `people` lists
    who is in it (`personas.people`), `replaced` and `permission` are those of the material, `ledger` accounts for the
    records. `held_out` is what has been held out until now, of this material and before.
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

    @property
    def hash(self) -> str:
        """Over the token ids and masks of what is trained on and of what is held out (see `SampleHash`)."""
        digest = SampleHash()
        for samples, held_out in ((self.train, False), (self.heldout, True)):
            for sample in samples:
                digest.add(sample, held_out=held_out)
        return digest.hexdigest()


def make_dataset(content: Content, renderer: Renderer, recipe: Recipe) -> Dataset:
    """Sift, split by conversation, then one sample per reply. Raises `MaterialError` when a side stays empty."""
    filters, ledger, sides = Filters(), Ledger(), Counter[str]()
    conversations = stood_in_for(content.persona, content.conversations)
    as_it_came = stood_in_for(content.persona, content.as_it_came or content.conversations)
    sifted = sift(as_it_came, filters, recipe.heldout_share, content.held_out, content.dropped)
    maker = SampleMaker(renderer, content.persona, content.lore, recipe, filters)
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    tally = _Tally()
    # Held-out samples first: of two equal ones, the one that stays is the one that is not trained on.
    for side in SIDES:
        for number, conversation in _of_fate(conversations, sifted.fates, side):
            used: set[int] = set()
            faults: dict[int, str] = {}
            sides[side] += 1
            for made in maker.made_from(conversation, faults, sifted.kept_back.get(number, ())):
                used.update(made.places)
                samples[side].append(made.sample)
                content.met.heard(made.people)
                tally.add(conversation, made)
            ledger.settle(conversation, used, faults)
    for conversation, fate in zip(conversations, sifted.fates, strict=True):
        if fate not in SIDES:
            ledger.drop(conversation, fate)
    train, heldout = (tuple(samples[side]) for side in reversed(SIDES))
    require_both_sides(len(train), len(heldout), content.dropped + ledger.dropped)
    counts = {
        "conversations_train": sides["train"],
        "conversations_heldout": sides[HELD_OUT],
        "samples_train": len(train),
        "samples_heldout": len(heldout),
        "samples_with_lore": tally.with_lore,
        **{f"dropped: {reason}": n for reason, n in sorted((content.dropped + ledger.replies).items())},
    }
    ledger.take_in(content.dropped)
    people = content.met.listed(content.people_key)
    permission = content.permission if DISCORD_API in tally.rights else ""
    of = (dict(tally.rights), dict(tally.sources), dict(tally.days), people, content.replaced, permission)
    return Dataset(train, heldout, _measured(content, renderer, recipe), counts, *of, ledger, sifted.held_out)


@dataclass
class _Tally:
    """Counts samples."""

    rights: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    with_lore: int = 0

    def add(self, conversation: Conversation, made: Made) -> None:
        self.rights[conversation.right] += 1
        self.sources[conversation.source] += 1
        self.days[made.arrived] += 1
        self.with_lore += bool(made.lore)


def _measured(content: Content, renderer: Renderer, recipe: Recipe) -> tuple[Sample, ...]:
    """General dialogue, as it is."""
    maker = SampleMaker(renderer, None, None, recipe, None)
    return tuple(made.sample for talk in content.general for made in maker.made_from(talk, {}))


def stood_in_for(persona: Persona | None, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    """Where the persona speaks nowhere by name, the assistant of the material speaks for it."""
    if persona is None or any(speaks(persona, conversation) for conversation in conversations):
        return conversations
    return [spoken_by(persona, conversation) for conversation in conversations]


def _of_fate(
    conversations: Sequence[Conversation], fates: Sequence[str], fate: str
) -> Iterator[tuple[int, Conversation]]:
    return ((n, conversation) for n, conversation in enumerate(conversations) if fates[n] == fate)
