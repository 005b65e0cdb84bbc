"""Builds the samples of a data set from any number of sources in two passes, buffering
conversations on disk.
"""

import itertools
import pickle  # nosec B403  # see DiskBuffer
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from personas.errors import MaterialError, RequestError
from personas.home.holdout_index import HoldoutIndex
from personas.lore.index import LoreIndex
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona
from trainer.anonymise.allowlist import NameCorrections, world_names
from trainer.anonymise.anonymiser import Anonymiser
from trainer.anonymise.output_files import ReviewLog
from trainer.dataset.data_mixture import interleave, split_limit
from trainer.dataset.dedup_split import HELD_OUT, SIDES, TRAIN, ConversationSplitter, hash_fraction
from trainer.dataset.ledger import Ledger, Participants
from trainer.dataset.quality_filters import QualityFilters
from trainer.dataset.sample_renderer import RenderedSample, SampleRenderer
from trainer.schemas import Recipe
from trainer.sources.conversation import (
    Conversation,
    RejectedRecord,
    SourceMessage,
    is_chat_log,
    persona_speaks,
    replace_assistant,
)

SampleKind = Literal["persona", "general"]
SAMPLE_SETTINGS = (
    "max_length", "history_turns", "session_gap_minutes", "cross_session_share", "lore_share", "heldout_share",
    "short_card_share",
)  # fmt: skip
"""The settings of a recipe that determine the samples of given sources."""
OVER_LIMIT = "over the source's limit"
OVER_MIX = "over the mix"
MAX_CONVERSATIONS_BEFORE = 16
"""How far back a sample's history is looked for, including conversations not trained on."""
SourceItems = Iterable[Conversation | RejectedRecord]


class DiskBuffer(ExitStack):
    """Conversations in an unnamed temporary file, which only this process can write: so pickle is
    safe to read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None uses the system's temporary folder."""
        super().__init__()
        self._file = self.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  closed with the buffer
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, conversation: Conversation) -> None:
        data = pickle.dumps(conversation, pickle.HIGHEST_PROTOCOL)
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def __getitem__(self, number: int) -> Conversation:
        self._file.seek(self._ends[number])
        data = self._file.read(self._ends[number + 1] - self._ends[number])
        conversation: Conversation = pickle.loads(data)  # nosec B301
        return conversation


@dataclass(frozen=True)
class DatasetPlan:
    """Specification of a data set to build.

    `limits` is the maximum number of samples by source. `mix` is the ratio of general dialogue to
    the persona's, or of the sources in order; empty takes everything. `stages` puts all general
    samples before the persona's, for training in two stages. `key` is for pseudonyms, `people_key`
    for the list of people. `seed` selects samples if not all are used. `held_out` was held out
    before. `corrections` are a reviewer's, of the anonymiser. `for_run`: the samples of one job,
    whose conversations are all the persona's and whose speakers all get pseudonyms, or none without
    a persona.
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
        """Id of the data set's persona."""
        return self.persona.id if self.persona else None


@dataclass(frozen=True)
class BuiltSample:
    """A sample of a data set: its side (`HELD_OUT` or `TRAIN`), origin and kind."""

    side: str
    source: str
    right: str
    kind: SampleKind
    made: RenderedSample


class DatasetBuilder(ExitStack):
    """Context manager: `add_source` for each, then iterate once over `samples`; `ledger` is
    complete at their end.
    """

    def __init__(
        self,
        plan: DatasetPlan,
        ledger: Ledger,
        folder: Path | None = None,
        review: ReviewLog | None = None,
    ) -> None:
        """`folder` holds the buffered conversations; `review` logs the replacements in them."""
        super().__init__()
        self._plan = plan
        self.ledger = ledger
        self._review = review
        self._buffer = self.enter_context(DiskBuffer(folder))
        self._histories = self.enter_context(DiskBuffer(folder))
        held_out = plan.held_out or HoldoutIndex.empty(plan.people_key)
        splitter = ConversationSplitter(plan.filters, folder, held_out)
        self._splitter = self.enter_context(splitter)
        self._renderer = SampleRenderer(
            plan.renderer, plan.persona, plan.lore, recipe=plan.recipe, filters=plan.filters
        )
        self.anonymiser = Anonymiser(
            plan.key,
            persona=plan.persona,
            keep=world_names(plan.persona, plan.lore),
            also=plan.corrections.also,
            keep_always=plan.corrections.keep,
            on_replaced=review.note if review else None,
        )
        self.participants = Participants(
            self.anonymiser.non_speakers if self._has_pseudonyms else None
        )
        self._sources: list[str] = []
        # Of each conversation, by its number. Arrays, because there may be millions.
        self._source_of = array("i")
        self._draws = array("d")
        self._is_by_persona = bytearray()
        self._is_log = bytearray()
        self._is_settled = bytearray()
        self._history_of: dict[int, int] = {}  # places in `_histories`
        self._has_targets = False
        self._remaining: dict[tuple[int, str], int] = {}
        self.shares: dict[str, float] = {}
        self._mix_is_of_kinds = False
        self.conversations: Counter[str] = Counter()

    def add_source(
        self,
        source: str,
        items: SourceItems,
        on_progress: Callable[[int], object] = lambda rows: None,
    ) -> None:
        """Read a source; `on_progress` gets the rows of each item. Without a name conversations
        keep their sources.
        """
        self._sources.append(source)
        for item in items:
            if isinstance(item, RejectedRecord):
                self.ledger.reject(source, item)
            else:
                self._add(replace(item, source=source) if source else item)
            on_progress(item.rows)

    @property
    def held_out(self) -> HoldoutIndex:
        """Replies held out before and, after `samples`, now."""
        return self._splitter.held_out

    def samples(self) -> Iterator[BuiltSample]:
        """Yield all samples, held-out ones first: of two equal samples, the one that remains is not
        trained on.

        Raises `MaterialError` if a side would be empty.
        """
        if not (self._has_targets or self._plan.for_run):
            raise MaterialError(
                "The sources do not say whose replies are to be learned.",
                "Name the speaker: --persona with a card, and --as if its name in the logs is "
                "different.",
            )
        self.shares = self._resolve_shares()
        outcomes = self._splitter.outcomes(self._plan.recipe.heldout_share, self.ledger.dropped)
        self._is_settled = bytearray(len(outcomes))
        self.conversations = Counter(outcomes)
        self._apply_limits(outcomes)
        for side in SIDES:
            streams = [self._stream(numbers, side) for numbers in self._groups(outcomes, side)]
            try:
                yield from self._interleave(streams, side)
            finally:
                # A stream that the mix has left in the middle accounts for its conversation here.
                for stream in streams:
                    stream.close()
        for number, outcome in enumerate(outcomes):
            if not self._is_settled[number]:
                reason = OVER_MIX if outcome in SIDES else outcome
                self.ledger.drop(self._read(number), reason)

    def general_samples(self, conversations: Sequence[Conversation]) -> Iterator[BuiltSample]:
        """Render general dialogue to train on, lazily; to be called after `samples`."""
        # All before the first is anonymised: a name may stand in a text before its speaker speaks.
        for conversation in conversations:
            self.participants.register(conversation)
            if is_chat_log(conversation):
                self.anonymiser.register(conversation)
        anonymised = []
        for conversation in conversations:
            anonymised.append(self._anonymise(conversation, is_chat_log(conversation)))
        return self._render_general(anonymised)

    def _render_general(self, conversations: Iterable[Conversation]) -> Iterator[BuiltSample]:
        for conversation in conversations:
            for made in self._renderer.render(conversation, {}):
                yield BuiltSample(
                    TRAIN, conversation.source, conversation.right, kind="general", made=made
                )

    def _anonymise(self, conversation: Conversation, is_log: bool) -> Conversation:
        if is_log:
            return self.anonymiser.anonymise(conversation)
        return self.anonymiser.mask_patterns(conversation)

    @property
    def _has_pseudonyms(self) -> bool:
        return self._plan.persona is not None or not self._plan.for_run

    def _add(self, conversation: Conversation) -> None:
        persona = self._plan.persona
        is_by_persona = persona is not None and persona_speaks(persona, conversation)
        if self._plan.for_run:
            has_people = persona is not None
        else:
            has_people = is_by_persona or is_chat_log(conversation)
        if self._has_pseudonyms:
            self.participants.register(conversation)
            if has_people or conversation.unheard:
                self.anonymiser.register(conversation)
        self._has_targets |= any(message.speaker.is_persona for message in conversation.messages)
        self._buffer.append(conversation)
        self._splitter.add(conversation)
        self._source_of.append(len(self._sources) - 1)
        self._is_by_persona.append(is_by_persona)
        self._is_log.append(has_people)
        self._draws.append(hash_fraction(f"taken {self._plan.seed}", conversation.raw_text))

    @property
    def _assistant_stands_in(self) -> bool:
        """True if the sources' assistant stands in for a persona that none of them names."""
        return self._plan.persona is not None and not any(self._is_by_persona)

    def _kind(self, number: int) -> SampleKind:
        return "persona" if self._is_by_persona[number] or self._assistant_stands_in else "general"

    def _groups(self, outcomes: Sequence[str], side: str) -> list[list[int]]:
        """Return the conversations of a side in order: in a single list, or in one list per
        share.
        """
        numbers = [number for number, outcome in enumerate(outcomes) if outcome == side]
        if self.shares or self._plan.limits:
            numbers.sort(key=self._draws.__getitem__)
        group_of: Callable[[int], str] = self._kind
        if self.shares:
            names = list(self.shares)
            if not self._mix_is_of_kinds:
                group_of = self._source_name
        elif self._plan.stages:
            names = ["general", "persona"]
        else:
            return [numbers]
        groups: dict[str, list[int]] = defaultdict(list)
        for number in numbers:
            groups[group_of(number)].append(number)
        return [groups[name] for name in names]

    def _resolve_shares(self) -> dict[str, float]:
        """Map kinds or sources to the ratio's numbers. Raises `RequestError` if they do not fit the
        sources.
        """
        mix = self._plan.mix
        kinds = {self._kind(number) for number in range(len(self._is_by_persona))}
        self._mix_is_of_kinds = len(mix) == 2 and len(kinds) == 2
        if self._mix_is_of_kinds:
            return dict(zip(("general", "persona"), mix, strict=True))
        if mix and len(mix) != len(self._sources):
            raise RequestError(
                f"The mix has {len(mix)} numbers for {len(self._sources)} sources.",
                "Give two, general:persona, or one for each source in their order.",
            )
        return dict(zip(self._sources, mix, strict=False))

    def _interleave(
        self, streams: Sequence[Iterator[BuiltSample]], side: str
    ) -> Iterator[BuiltSample]:
        if not self.shares:
            return itertools.chain.from_iterable(streams)
        weights = list(self.shares.values())
        if side == TRAIN:
            return interleave(streams, weights)
        # Too little is held out to give any of it up only because another share has nothing held
        # out.
        filled: list[Iterator[BuiltSample]] = []
        their_weights: list[float] = []
        for stream, weight in zip(streams, weights, strict=True):
            first = next(stream, None)
            if first:
                filled.append(itertools.chain([first], stream))
                their_weights.append(weight)
        return interleave(filled, their_weights) if filled else iter(())

    def _apply_limits(self, outcomes: Sequence[str]) -> None:
        counts = Counter(zip(self._source_of, outcomes, strict=True))
        for place, name in enumerate(self._sources):
            limit = self._plan.limits.get(name)
            train, heldout = split_limit(limit, counts[place, TRAIN], counts[place, HELD_OUT])
            self._remaining |= {(place, TRAIN): train, (place, HELD_OUT): heldout}

    def _source_name(self, number: int) -> str:
        return self._sources[self._source_of[number]]

    def _stream(self, numbers: Sequence[int], side: str) -> Generator[BuiltSample]:
        for number in numbers:
            yield from self._render(number, side)

    def _render(self, number: int, side: str) -> Iterator[BuiltSample]:
        """Yield the samples of a conversation and account for it at the end, even if no more are
        requested.
        """
        conversation = self._read(number)
        kind = self._kind(number)
        quota = (self._source_of[number], side)
        used: set[int] = set()
        replies: set[int] = set()
        faults: dict[int, str] = {}
        reason = OVER_MIX
        self._is_settled[number] = True
        if not self._remaining[quota]:
            self.ledger.drop(conversation, OVER_LIMIT)
            return
        try:
            withheld = self._splitter.withheld_replies.get(number, ())
            earlier = self._messages_before(number, conversation) if side == TRAIN else ()
            # Held-out samples all have the full card, so that versions can be compared.
            share = self._plan.recipe.short_card_share if side == TRAIN else 0.0
            for made in self._renderer.render(
                conversation, faults, withheld, earlier=earlier, short_card_share=share
            ):
                if not self._remaining[quota]:
                    reason = OVER_LIMIT
                    break
                self._remaining[quota] -= 1
                used.update(made.places)
                replies.add(made.places[-1])
                self.participants.count_sample(made.people)
                yield BuiltSample(
                    side, conversation.source, conversation.right, kind=kind, made=made
                )
        finally:
            for place, message in enumerate(conversation.messages):
                if message.speaker.is_persona and place not in replies:
                    faults.setdefault(place, reason)
            self.ledger.settle(conversation, used, faults)
        if used and side == TRAIN and self._has_history(number, conversation):
            self._history_of[number] = len(self._histories)
            self._histories.append(conversation)

    def _messages_before(self, number: int, conversation: Conversation) -> list[SourceMessage]:
        """Return what the bot would show before a conversation: the last messages of its channel,
        as history.

        They come from the sessions before it that training samples were made of, without those that
        overlap with later ones.
        """
        recipe = self._plan.recipe
        begin = conversation.messages[0].at
        if not self._has_history(number, conversation):
            return []
        # The bot shows a channel's last messages however old they are, while many sessions of a
        # log are one question and its reply.
        if hash_fraction("history", conversation.raw_text) >= recipe.cross_session_share:
            return []
        history: list[SourceMessage] = []
        for before in range(number - 1, max(-1, number - 1 - MAX_CONVERSATIONS_BEFORE), -1):
            if len(history) + len(conversation.messages) > recipe.history_turns:
                break  # it is enough for the last reply
            place = self._history_of.get(before)
            if place is None:
                continue
            earlier = self._histories[place]
            if earlier.channel != conversation.channel:
                break
            if earlier.messages[-1].at <= begin:
                history = [*earlier.messages, *history]
                begin = earlier.messages[0].at
        return history[-recipe.history_turns :]

    def _has_history(self, number: int, conversation: Conversation) -> bool:
        """Report whether a conversation is a session of the persona's, which has others before and
        after it.
        """
        return bool(
            conversation.channel
            and self._is_by_persona[number]
            and self._plan.recipe.cross_session_share
        )

    def _read(self, number: int) -> Conversation:
        """Return a conversation, anonymised."""
        conversation = self._buffer[number]
        if self._review:
            self._review.source = conversation.source
            self._review.row = conversation.messages[0].row
        is_log = bool(self._is_log[number])
        persona = self._plan.persona
        conversation = self._anonymise(conversation, is_log)
        if persona and self._assistant_stands_in and (self._plan.for_run or not is_log):
            return replace_assistant(persona, conversation)
        return conversation
