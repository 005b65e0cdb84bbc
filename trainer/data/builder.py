"""Builds the samples of a data set from any number of sources in two passes, buffering conversations on disk."""

from __future__ import annotations

import itertools
import pickle
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from personas.errors import MaterialError, RequestError
from personas.home.holdout_index import HoldoutIndex
from personas.lore.index import LoreIndex
from personas.prompt import Renderer
from personas.schemas.chat import Persona
from trainer.anonymise import Anonymiser
from trainer.anonymise.allowlist import NameCorrections, world_names
from trainer.anonymise.output_files import ReviewLog
from trainer.data.data_mixture import interleave, split_limit
from trainer.data.dedup_split import HELD_OUT, SIDES, TRAIN, ConversationSplitter, hash_fraction
from trainer.data.ledger import Ledger, Participants
from trainer.data.quality_filters import QualityFilters
from trainer.data.sample_renderer import RenderedSample, SampleRenderer
from trainer.schemas import Recipe
from trainer.sources.conversation import Conversation, RejectedRecord, is_chat_log, persona_speaks, replace_assistant

SampleKind = Literal["persona", "general"]
OVER_LIMIT, OVER_MIX = "over the source's limit", "over the mix"
SourceItems = Iterable[Conversation | RejectedRecord]


class DiskBuffer:
    """A file of this process alone, without a name, that goes with it: only so is pickle safe to read."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None puts the file where the system keeps temporary ones."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__
        self._ends = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, conversation: Conversation) -> None:
        """Add a conversation at the end."""
        data = pickle.dumps(conversation, pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def __getitem__(self, number: int) -> Conversation:
        self._file.seek(self._ends[number])
        conversation: Conversation = pickle.loads(self._file.read(self._ends[number + 1] - self._ends[number]))
        return conversation


@dataclass(frozen=True)
class DatasetPlan:
    """Specification of a data set to build.

    `limits`: source to the number of its samples, at most. `mix`: the ratio of general talk to the persona's, or of
    the sources in their order; empty takes everything. `stages` puts all general samples before the persona's, for
    training in two stages. `key` is the pseudonyms', `people_key` that of the list of people. `seed` decides what is
    taken where not all is. `held_out` is what was held out before. `corrections` are what a person has found wrong with
    what the anonymiser finds. `for_run`: the samples of one job, in which all talk is the persona's and every speaker
    gets a pseudonym; without a persona nobody does.
    """

    renderer: Renderer
    recipe: Recipe
    persona: Persona | None = None
    lore: LoreIndex | None = None
    key: bytes = b""
    people_key: bytes = b""
    filters: QualityFilters = field(default_factory=QualityFilters)
    limits: Mapping[str, int] = field(default_factory=dict)
    mix: tuple[float, ...] = ()
    stages: bool = False
    seed: int = 0
    held_out: HoldoutIndex | None = None
    corrections: NameCorrections = field(default_factory=NameCorrections)
    for_run: bool = False

    @property
    def persona_id(self) -> str | None:
        """Persona that the data set is for."""
        return self.persona.id if self.persona else None


@dataclass(frozen=True)
class BuiltSample:
    """A sample of a data set: its side, where it came from, and what kind of talk it is."""

    side: str
    source: str
    right: str
    kind: SampleKind
    made: RenderedSample


class DatasetBuilder:
    """Use as a context: `take` each source, then ask once for `samples`; `ledger` is complete at their end."""

    def __init__(
        self, plan: DatasetPlan, ledger: Ledger, folder: Path | None = None, review: ReviewLog | None = None
    ) -> None:
        """`folder` is where the waiting conversations lie; `review` lists what is replaced in them."""
        self._plan, self.ledger, self._review = plan, ledger, review
        self._stack = ExitStack()
        self._spool = self._stack.enter_context(DiskBuffer(folder))
        self._sieve = self._stack.enter_context(
            ConversationSplitter(plan.filters, folder, plan.held_out or HoldoutIndex.empty(plan.people_key))
        )
        self._maker = SampleRenderer(plan.renderer, plan.persona, plan.lore, plan.recipe, plan.filters)
        keep = world_names(plan.persona, plan.lore)
        self.anonymiser = Anonymiser(
            plan.key,
            persona=plan.persona,
            keep=keep,
            also=plan.corrections.also,
            keep_always=plan.corrections.keep,
            on_replaced=review.note if review else None,
        )
        self.met = Participants(self.anonymiser.strangers if self._has_pseudonyms else None)
        self._sources: list[str] = []
        self._source_of, self._speaks, self._order = array("i"), bytearray(), array("d")
        self._is_log = bytearray()
        self._is_anybody_learned_from = False
        self._settled = bytearray()
        self._room: dict[tuple[int, str], int] = {}
        self.shares: dict[str, float] = {}
        self.conversations: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def take(self, source: str, items: SourceItems, heard: Callable[[int], None] = lambda rows: None) -> None:
        """Read a source to its end; `heard` is told of each record. Without a name conversations keep their sources."""
        self._sources.append(source)
        for item in items:
            if isinstance(item, RejectedRecord):
                self.ledger.reject(source, item)
            else:
                self._add(replace(item, source=source) if source else item)
            heard(item.rows)

    @property
    def held_out(self) -> HoldoutIndex:
        """Replies held out before and, once samples are made, now."""
        return self._sieve.held_out

    def samples(self) -> Iterator[BuiltSample]:
        """All samples, those held out first: of two equal ones, the one that stays is not trained on.

        Raises `MaterialError` where one side would stay empty.
        """
        if not (self._is_anybody_learned_from or self._plan.for_run):
            raise MaterialError(
                "The sources do not say whose replies are to be learned.",
                "Name who it is: --persona with a card, and --as with its name in the logs if that is another.",
            )
        self.shares = self._shares()
        fates = self._sieve.outcomes(self._plan.recipe.heldout_share, self.ledger.dropped)
        self._settled = bytearray(len(fates))
        self.conversations = Counter(fates)
        self._share_room(fates)
        for side in SIDES:
            streams = [self._stream(numbers, side) for numbers in self._groups(fates, side)]
            try:
                yield from self._mixed(streams, side)
            finally:
                for stream in streams:
                    stream.close()
        for number, fate in enumerate(fates):
            if not self._settled[number]:
                self.ledger.drop(self._read(number), OVER_MIX if fate in SIDES else fate)

    def mixed(self, conversations: Sequence[Conversation]) -> Iterator[BuiltSample]:
        """Samples of general dialogue to train on besides, made as they are taken; to be called after `samples`."""
        for talk in conversations:
            self.met.meet(talk)
            if is_chat_log(talk):
                self.anonymiser.meet(talk)
        masked = [
            self.anonymiser.masked(talk) if is_chat_log(talk) else self.anonymiser.mask_patterns(talk)
            for talk in conversations
        ]
        return (
            BuiltSample(TRAIN, talk.source, talk.right, "general", made)
            for talk in masked
            for made in self._maker.made_from(talk, {})
        )

    # ------------------------------------------------------------------------------------------ reading

    @property
    def _has_pseudonyms(self) -> bool:
        """Whether anybody gets a pseudonym: in a job without a persona nobody does."""
        return self._plan.persona is not None or not self._plan.for_run

    def _add(self, conversation: Conversation) -> None:
        persona = self._plan.persona
        speaks_itself = persona is not None and persona_speaks(persona, conversation)
        has_people = persona is not None if self._plan.for_run else speaks_itself or is_chat_log(conversation)
        if self._has_pseudonyms:
            self.met.meet(conversation)
            if has_people or conversation.unheard:
                self.anonymiser.meet(conversation)
        self._is_anybody_learned_from |= any(message.speaker.is_persona for message in conversation.messages)
        self._spool.append(conversation)
        self._sieve.add(conversation)
        self._source_of.append(len(self._sources) - 1)
        self._speaks.append(speaks_itself)
        self._is_log.append(has_people)
        self._order.append(hash_fraction(f"taken {self._plan.seed}", conversation.raw_text))

    # ------------------------------------------------------------------------------------------ choosing

    @property
    def _stands_in(self) -> bool:
        """Tells whether the sources' assistant stands in for a persona that speaks in none of them by name."""
        return self._plan.persona is not None and not any(self._speaks)

    def _kind(self, number: int) -> SampleKind:
        return "persona" if self._speaks[number] or self._stands_in else "general"

    def _groups(self, fates: Sequence[str], side: str) -> list[list[int]]:
        """The conversations of a side, in the order in which they are taken: all together, or one list a share."""
        numbers = [number for number, fate in enumerate(fates) if fate == side]
        if self.shares or self._plan.limits:
            numbers.sort(key=self._order.__getitem__)
        if self.shares:
            of = self._kind if "general" in self.shares else self._name
            return [[n for n in numbers if of(n) == share] for share in self.shares]
        if self._plan.stages:
            return [[n for n in numbers if self._kind(n) == kind] for kind in ("general", "persona")]
        return [numbers]

    def _shares(self) -> dict[str, float]:
        """Resolves what the ratio's numbers refer to. Raises `RequestError` when they do not fit the sources."""
        mix, kinds = self._plan.mix, {self._kind(number) for number in range(len(self._speaks))}
        if len(mix) == 2 and len(kinds) == 2:
            return dict(zip(("general", "persona"), mix, strict=True))
        if mix and len(mix) != len(self._sources):
            raise RequestError(
                f"The mix has {len(mix)} numbers for {len(self._sources)} sources.",
                "Give two, general:persona, or one for each source in their order.",
            )
        return dict(zip(self._sources, mix, strict=False))

    def _mixed(self, streams: Sequence[Iterator[BuiltSample]], side: str) -> Iterator[BuiltSample]:
        if not self.shares:
            for stream in streams:
                yield from stream
            return
        weights = list(self.shares.values())
        if side == TRAIN:
            yield from interleave(streams, weights)
            return
        # Too little is held out to give any of it up only because another share has nothing held out.
        first = [next(stream, None) for stream in streams]
        held = [number for number, item in enumerate(first) if item]
        rest = [itertools.chain([item], stream) for item, stream in zip(first, streams, strict=True) if item]
        yield from interleave(rest, [weights[number] for number in held]) if held else ()

    def _share_room(self, fates: Sequence[str]) -> None:
        counts = Counter(zip(self._source_of, fates, strict=True))
        for place, name in enumerate(self._sources):
            limit = self._plan.limits.get(name)
            train, heldout = split_limit(limit, counts[place, TRAIN], counts[place, HELD_OUT])
            self._room |= {(place, TRAIN): train, (place, HELD_OUT): heldout}

    def _name(self, number: int) -> str:
        return self._sources[self._source_of[number]]

    # ------------------------------------------------------------------------------------------ making samples

    def _stream(self, numbers: Sequence[int], side: str) -> Generator[BuiltSample]:
        for number in numbers:
            yield from self._made_of(number, side)

    def _made_of(self, number: int, side: str) -> Iterator[BuiltSample]:
        """The samples of a conversation, which is accounted for at the end, also when no more of them are wanted."""
        conversation, kind, room = self._read(number), self._kind(number), (self._source_of[number], side)
        used: set[int] = set()
        replies: set[int] = set()
        faults: dict[int, str] = {}
        why_not = OVER_MIX
        self._settled[number] = True
        if not self._room[room]:  # nothing of it is wanted, so nothing is made
            self.ledger.drop(conversation, OVER_LIMIT)
            return
        try:
            for made in self._maker.made_from(conversation, faults, self._sieve.withheld_replies.get(number, ())):
                if not self._room[room]:
                    why_not = OVER_LIMIT
                    break
                self._room[room] -= 1
                used.update(made.places)
                replies.add(made.places[-1])
                self.met.heard(made.people)
                yield BuiltSample(side, conversation.source, conversation.right, kind, made)
        finally:
            for place, message in enumerate(conversation.messages):
                if message.speaker.is_persona and place not in replies:
                    faults.setdefault(place, why_not)
            self.ledger.settle(conversation, used, faults)

    def _read(self, number: int) -> Conversation:
        """The conversation as it may be learned from: of people who talk nothing stays that tells who they are."""
        conversation = self._spool[number]
        if self._review:
            self._review.source, self._review.row = conversation.source, conversation.messages[0].row
        is_log, persona = bool(self._is_log[number]), self._plan.persona
        conversation = self.anonymiser.masked(conversation) if is_log else self.anonymiser.mask_patterns(conversation)
        if persona and self._stands_in and (self._plan.for_run or not is_log):
            return replace_assistant(persona, conversation)
        return conversation
