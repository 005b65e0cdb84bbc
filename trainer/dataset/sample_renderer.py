"""Renders conversations to training samples, one per reply, with the prompt used when serving."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from personas.lore.index import LoreIndex
from personas.lore.index_terms import query_terms
from personas.lore.ranking import MAX_LORE_PASSAGES
from personas.prompt.renderer import DATASET_USER, Renderer, TokenizedSample, system_card
from personas.schemas.chat import LoreHit, Persona, Turn
from trainer.dataset.dedup_split import (
    EXACT_DUPLICATE,
    UNADDRESSED_REPLY,
    TooLittleMaterialError,
    hash_fraction,
)
from trainer.dataset.ledger import describe_dropped
from trainer.dataset.quality_filters import QualityFilters
from trainer.dataset.talk_text import fill_names, split_thought, without_thought
from trainer.schemas import Recipe
from trainer.sources.conversation import (
    Conversation,
    SourceMessage,
    author_ids,
    day_of,
    persona_speaks,
)

UNBOUNDED_TOKENS = 10**9
MIN_REPEATED_TERMS = 3
"""Terms that a reply that repeats lore has from one passage, and not from the question."""
MIN_REPEATED_SHARE = 0.3
"""Share of a reply's terms that they are at least."""
NOTHING_TRAINED = "no token of the reply to train on"
TOO_LONG = "too long"
HELD_OUT_BEFORE = "held out before"
EXCLUDED_BY_SOURCE = "excluded from the loss by the data (weight 0, train false)"


@dataclass(frozen=True)
class RenderedSample:
    """A sample and its origin: the turns of its prompt, and the indices `places` of its messages.

    The prompt has the card of `persona`. Its first turns may be from the conversations before.
    `trimmed` counts earlier turns that did not fit. `talk` is the row of the conversation's first
    message, which identifies it within its source. `speakers` are the displayed names, `people` the
    ids of human speakers. `arrived` is the date of arrival (ISO 8601), empty if unknown. `input` is
    the end of the last turn that came as a separate input to an instruction. `thought` is what the
    reply's source has as a thought before it, which is left out.
    `has_short_card`: the prompt has the short card of `persona` (`personas.prompt.short_card`).
    """

    sample: TokenizedSample
    persona: Persona | None
    turns: tuple[Turn, ...]
    reply: str
    lore: tuple[LoreHit, ...]
    row: str
    places: range
    trimmed: int
    talk: str
    speakers: tuple[str, ...]
    people: tuple[str, ...]
    arrived: str
    input: str = ""
    thought: str = ""
    has_short_card: bool = False

    @property
    def earlier(self) -> int:
        """Number of turns that are from the conversations before."""
        return len(self.turns) + 1 - len(self.places)


class SampleRenderer:
    """Renders samples; of equal ones, over all calls, only the first."""

    def __init__(
        self,
        renderer: Renderer,
        persona: Persona | None,
        lore: LoreIndex | None,
        recipe: Recipe,
        filters: QualityFilters | None,
    ) -> None:
        """Conversations in which `persona` speaks get its card and `lore`. Without `filters` all
        replies pass.
        """
        self._renderer = renderer
        self._persona = persona
        self._lore = lore
        self._recipe = recipe
        self._filters = filters
        self._seen: set[bytes] = set()
        self._passages_with: dict[str, list[int]] = defaultdict(list)  # by term
        passages = lore.passages_of(*lore.owners) if lore and persona else ()
        for number, passage in enumerate(passages):
            for term in query_terms(f"{passage.heading}\n{passage.text}"):
                self._passages_with[term].append(number)

    def render(
        self,
        conversation: Conversation,
        faults: dict[int, str],
        withheld: Collection[int] = (),
        earlier: Sequence[SourceMessage] = (),
        short_card_share: float = 0.0,
    ) -> Iterator[RenderedSample]:
        """Yield one sample per reply to somebody that passes the filters, fits, and is new.

        `faults` gets the reasons for all other replies by index. `withheld` are replies, counted
        from 0, that were held out before. `earlier` are the messages before the conversation, which
        may be history but are not learned. A share of the persona's samples has the short card.
        """
        speaks = self._persona is not None and persona_speaks(self._persona, conversation)
        speaker = self._persona if speaks else None
        conversation = fill_names(conversation, speaker)
        thoughts = [split_thought(message.text)[0] for message in conversation.messages]
        earlier = [without_thought(message) for message in earlier]
        messages = tuple(map(without_thought, conversation.messages))
        conversation = replace(conversation, messages=messages)
        replies = [place for place, message in enumerate(messages) if message.speaker.is_persona]
        # Withheld replies are counted without a greeting, which answers nobody.
        answers = enumerate(filter(None, replies))
        held_out = {place for number, place in answers if number in withheld}
        for place in replies:
            if place in held_out:
                faults[place] = HELD_OUT_BEFORE
                continue
            fault = self._fault(messages[place], place)
            if fault:
                faults[place] = fault
                continue
            made = self._render_reply(
                conversation,
                place,
                earlier=earlier,
                thought=thoughts[place],
                short_card_share=short_card_share,
            )
            fault = self._sample_fault(made.sample) if made else TOO_LONG
            if fault:
                faults[place] = fault
            elif made:
                yield made

    def _fault(self, reply: SourceMessage, place: int) -> str:
        if not place:
            return UNADDRESSED_REPLY
        if not reply.is_trained:
            return EXCLUDED_BY_SOURCE
        return self._filters.reply_fault(reply.text) if self._filters else ""

    def _card(self, conversation: Conversation, place: int) -> Persona | None:
        """Return the card for the prompt: the persona's where it speaks, else the system text until
        there.
        """
        persona = self._persona
        if persona and persona_speaks(persona, conversation):
            return persona
        system = conversation.system_at(place)
        return system_card(system, conversation.messages[place].speaker.name) if system else None

    def _turn(self, message: SourceMessage, persona: Persona | None) -> Turn:
        """Return a message as a turn. The user of a row that names nobody has no name, unless our
        persona replies.
        """
        name = message.speaker.name
        if persona is not self._persona and name == DATASET_USER:
            name = ""
        return Turn(name, message.text, message.speaker.is_persona)

    def _render_reply(
        self,
        conversation: Conversation,
        place: int,
        earlier: Sequence[SourceMessage],
        thought: str,
        short_card_share: float,
    ) -> RenderedSample | None:
        """Return the sample with history, then lore, trimmed to fit, or None if it does not fit
        without either.
        """
        persona = self._card(conversation, place)
        reply = conversation.messages[place].text
        longest = self._recipe.max_length
        before = [*earlier, *conversation.messages[:place]][-self._recipe.history_turns :]
        turns = [self._turn(message, persona) for message in before]
        hits = self._hits(persona, turns[-1].text, reply)
        draw = hash_fraction("short card", turns[-1].text + reply)
        has_short_card = persona is self._persona is not None and draw < short_card_share
        renderer = self._renderer.with_card("short") if has_short_card else self._renderer
        render = partial(renderer.sample, persona, turns, reply)
        sample = render(lore=hits, max_tokens=UNBOUNDED_TOKENS)
        kept = len(turns)
        if len(sample.ids) > longest:
            room = longest - renderer.answer_tokens(persona, reply)
            fitting = fitting_lore(renderer, persona, turns[-1], hits=hits, max_tokens=room)
            if fitting is None:
                return None
            hits = fitting
            sample = render(lore=hits, max_tokens=longest)
            kept = renderer.prompt(persona, turns, hits, room).turns_kept
        return RenderedSample(
            sample,
            persona,
            tuple(turns[-kept:]),
            reply=reply,
            lore=tuple(hits),
            places=range(max(0, place - kept), place + 1),
            trimmed=len(turns) - kept,
            input=_input_text(conversation, place),
            thought=thought,
            has_short_card=has_short_card,
            **_provenance(conversation, [*before[-kept:], conversation.messages[place]]),
        )

    def _hits(self, persona: Persona | None, question: str, reply: str) -> list[LoreHit]:
        share = self._recipe.lore_share
        if not (share and self._lore and persona and persona is self._persona):
            return []
        is_drawn = hash_fraction("lore", question + reply) < share
        if not is_drawn and not self._repeats_lore(question, reply):
            return self._lore.always_given(persona.id)
        return self._lore.search(persona.id, question, MAX_LORE_PASSAGES)

    def _repeats_lore(self, question: str, reply: str) -> bool:
        """Report whether a reply repeats a passage: without it in the prompt, the model would learn
        to make up lore.
        """
        terms = set(query_terms(reply)) - set(query_terms(question))
        common_terms: Counter[int] = Counter()  # by passage
        for term in terms:
            common_terms.update(self._passages_with.get(term, ()))
        fewest = max(MIN_REPEATED_TERMS, MIN_REPEATED_SHARE * len(terms))
        return max(common_terms.values(), default=0) >= fewest

    def _sample_fault(self, sample: TokenizedSample) -> str:
        if has_no_targets(self._renderer, sample):
            return NOTHING_TRAINED
        digest = hashlib.blake2b(repr((sample.ids, sample.mask)).encode(), digest_size=16).digest()
        if digest in self._seen:
            return EXACT_DUPLICATE
        self._seen.add(digest)
        return ""


def fitting_lore(
    renderer: Renderer,
    persona: Persona | None,
    last: Turn,
    hits: Sequence[LoreHit],
    max_tokens: int,
) -> list[LoreHit] | None:
    """Return as many of the best passages as fit a prompt without history; None if it does not fit
    without any.
    """
    for count in range(len(hits), -1, -1):
        prompt = renderer.prompt(persona, [last], hits[:count], UNBOUNDED_TOKENS)
        if len(prompt.ids) <= max_tokens:
            return list(hits[:count])
    return None


def has_no_targets(renderer: Renderer, sample: TokenizedSample) -> bool:
    """Report whether there is no loss, or only on the end of the turn."""
    return sample.reply_tokens <= renderer.framing_tokens


def _provenance(conversation: Conversation, messages: Sequence[SourceMessage]) -> dict[str, Any]:
    """Return the fields of a `RenderedSample` about the people and the origin of its messages."""
    return {
        "row": messages[-1].row,
        "talk": conversation.messages[0].row,
        "speakers": tuple(dict.fromkeys(message.speaker.name for message in messages)),
        "people": tuple(dict.fromkeys(id for message in messages for id in author_ids(message))),
        "arrived": conversation.arrived or day_of(messages[-1].at),
    }


def _input_text(conversation: Conversation, place: int) -> str:
    """Return the input of the instruction that the message at this index answers; empty if it had
    none.
    """
    if not conversation.input_lines or place + 1 < len(conversation.messages):
        return ""
    lines = conversation.messages[place - 1].text.split("\n")
    return "\n".join(lines[-conversation.input_lines :])


class SampleHash:
    """SHA-256 over the SHA-256 of the training samples and that of the held-out ones: token ids and
    masks, in order.
    """

    def __init__(self) -> None:
        self._sides = {False: hashlib.sha256(), True: hashlib.sha256()}

    def add(self, sample: TokenizedSample, *, held_out: bool) -> None:
        """Add the next sample of its side."""
        self._sides[held_out].update(repr((sample.ids, sample.mask)).encode())

    def hexdigest(self) -> str:
        """Return the hash."""
        digests = b"".join(side.digest() for side in self._sides.values())
        return hashlib.sha256(digests).hexdigest()


def require_both_sides(train: int, heldout: int, dropped: Mapping[str, int]) -> None:
    """Raise `MaterialError` if there is no reply to train on or to evaluate with; `dropped` counts
    by reason.
    """
    if train and heldout:
        return
    advice = (
        "Add conversations in which the persona answers somebody; ten are a start, a hundred are "
        "enough."
    )
    if dropped.get(TOO_LONG, 0) > train + heldout:
        advice = (
            "Raise max_length: the card and the reply alone must fit. If it is the base model's "
            "limit, use a model "
            "with a longer context, or a shorter card."
        )
    counts = f"{train} replies to learn from and {heldout} to measure with are too few."
    raise TooLittleMaterialError(counts + describe_dropped(dropped), advice)
