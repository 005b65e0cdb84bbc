"""From conversations to the samples of a run: what is held out, what each reply is asked with, what is dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from personas.contracts import Persona
from personas.prompt import Renderer, Sample
from personas.rights import DISCORD_API
from trainer.conversation import Conversation, speaks, spoken_by
from trainer.filters import Filters
from trainer.ledger import Ledger
from trainer.material import Content
from trainer.recipe import Recipe
from trainer.samples import SampleHash, SampleMaker, require_both_sides
from trainer.sieve import SIDES, sift
from trainer.split import HELD_OUT


@dataclass(frozen=True)
class Dataset:
    """`counts` says how many of what there are, dropped replies by reason among them.

    `rights` and `sources` count samples by right and by source, `days` by the day on which they came. `people` lists
    who is in it (`personas.people`), `replaced` and `permission` are those of the material, `ledger` accounts for the
    records.
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
    of = {what: Counter[str]() for what in ("right", "source", "day")}
    conversations = stood_in_for(content.persona, content.conversations)
    fates = sift(conversations, filters, recipe.heldout_share)
    maker = SampleMaker(renderer, content.persona, content.lore, recipe, filters)
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    with_lore = 0
    # Held-out samples first: of two equal ones, the one that stays is the one that is not trained on.
    for side in SIDES:
        for conversation in _of_fate(conversations, fates, side):
            used: set[int] = set()
            faults: dict[int, str] = {}
            sides[side] += 1
            for made in maker.made_from(conversation, faults):
                used.update(made.places)
                with_lore += bool(made.lore)
                samples[side].append(made.sample)
                content.met.heard(made.people)
                for what, it in (("right", conversation.right), ("source", conversation.source), ("day", made.arrived)):
                    of[what][it] += 1
            ledger.settle(conversation, used, faults)
    for conversation, fate in zip(conversations, fates, strict=True):
        if fate not in SIDES:
            ledger.drop(conversation, fate)
    require_both_sides(*(len(samples[side]) for side in reversed(SIDES)))
    train, heldout = (tuple(samples[side]) for side in reversed(SIDES))
    counts = {
        "conversations_train": sides["train"],
        "conversations_heldout": sides[HELD_OUT],
        "samples_train": len(train),
        "samples_heldout": len(heldout),
        "samples_with_lore": with_lore,
        **{f"dropped: {reason}": n for reason, n in sorted((content.dropped + ledger.replies).items())},
    }
    ledger.take_in(content.dropped)
    general = SampleMaker(renderer, None, None, recipe, None)  # measured as it is
    measured = tuple(made.sample for talk in content.general for made in general.made_from(talk, {}))
    rights, sources, days = (dict(counter) for counter in of.values())
    permission = content.permission if DISCORD_API in rights else ""
    return Dataset(
        train,
        heldout,
        measured,
        counts,
        rights,
        sources,
        days,
        content.met.listed(content.people_key),
        content.replaced,
        permission,
        ledger,
    )


def stood_in_for(persona: Persona | None, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    """Where the persona speaks nowhere by name, the assistant of the material speaks for it."""
    if persona is None or any(speaks(persona, conversation) for conversation in conversations):
        return conversations
    return [spoken_by(persona, conversation) for conversation in conversations]


def _of_fate(conversations: Sequence[Conversation], fates: Sequence[str], fate: str) -> Iterator[Conversation]:
    return (conversation for conversation, its in zip(conversations, fates, strict=True) if its == fate)
