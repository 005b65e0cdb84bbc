"""From conversations to training samples: what is held out, what each reply is asked with, what is dropped."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from personas.contracts import LoreHit, Persona, Turn
from personas.errors import MaterialError
from personas.lore import LORE_PASSAGES, LoreIndex
from personas.prompt import Renderer, Sample
from trainer.conversation import Conversation
from trainer.material import Content
from trainer.recipe import Recipe

UNBOUNDED_TOKENS = 10**9


@dataclass(frozen=True)
class Dataset:
    """`counts` says how many of what there are, dropped ones included; `rights` how many conversations by right."""

    train: tuple[Sample, ...]
    heldout: tuple[Sample, ...]
    general: tuple[Sample, ...]
    counts: dict[str, int]
    rights: dict[str, int]

    @property
    def hash(self) -> str:
        """SHA-256 over the token ids and masks of what is trained on and of what is held out, in order."""
        digest = hashlib.sha256()
        for part in (self.train, self.heldout):
            digest.update(repr([(sample.ids, sample.mask) for sample in part]).encode())
        return digest.hexdigest()


def make_dataset(content: Content, renderer: Renderer, recipe: Recipe) -> Dataset:
    """Split by conversation, then one sample per reply. Raises `MaterialError` when a side stays empty."""
    train, heldout = split(content.conversations, recipe.heldout_share)
    maker = SampleMaker(renderer, content.persona, content.lore, recipe, content.dropped.copy())
    # Held-out samples first: of two equal ones, the one that stays is the one that is not trained on.
    heldout_samples = tuple(maker.samples(heldout))
    train_samples = tuple(maker.samples(train))
    general = SampleMaker(renderer, None, None, recipe, Counter())
    if not train_samples or not heldout_samples:
        raise MaterialError(
            f"{len(train_samples)} replies to learn from and {len(heldout_samples)} to measure with are too few.",
            "Give conversations in which the persona answers somebody; ten are a start, a hundred are enough.",
        )
    counts = {
        "conversations_train": len(train),
        "conversations_heldout": len(heldout),
        "samples_train": len(train_samples),
        "samples_heldout": len(heldout_samples),
        "samples_with_lore": maker.with_lore,
        **{f"dropped: {reason}": count for reason, count in sorted(maker.dropped.items())},
    }
    rights = Counter(conversation.right for conversation in content.conversations)
    return Dataset(train_samples, heldout_samples, tuple(general.samples(content.general)), counts, dict(rights))


def split(conversations: list[Conversation], heldout_share: float) -> tuple[list[Conversation], list[Conversation]]:
    """(train, held out). A conversation's own text decides, so it stays on its side when others come or go.

    Only when one side would stay empty, the conversation that was nearest to the border changes over.
    """
    if len(conversations) < 2:
        raise MaterialError("There is only one conversation; measuring needs a second.", "Give more of them.")
    drawn = sorted(conversations, key=lambda conversation: _drawn("held out", conversation.raw_text))
    border = sum(_drawn("held out", conversation.raw_text) < heldout_share for conversation in conversations)
    border = min(max(border, 1), len(conversations) - 1)
    chosen = {id(conversation) for conversation in drawn[:border]}
    train = [conversation for conversation in conversations if id(conversation) not in chosen]
    return train, [conversation for conversation in conversations if id(conversation) in chosen]


class SampleMaker:
    """Makes samples and counts, over all calls, what it drops and how many carry lore."""

    def __init__(
        self, renderer: Renderer, persona: Persona | None, lore: LoreIndex | None, recipe: Recipe, dropped: Counter[str]
    ) -> None:
        self._renderer, self._persona, self._lore, self._recipe = renderer, persona, lore, recipe
        self._seen: set[Sample] = set()
        self.dropped, self.with_lore = dropped, 0

    def samples(self, conversations: Iterable[Conversation]) -> Iterator[Sample]:
        """One sample per reply that follows somebody's turn, fits, and has not come before."""
        for conversation in conversations:
            for turns, reply in self._replies(conversation):
                hits = self._hits(turns, reply)
                sample = self._render(turns, reply, hits)
                if sample is None:
                    self.dropped["too long"] += 1
                elif sample in self._seen:
                    self.dropped["duplicate"] += 1
                else:
                    self._seen.add(sample)
                    self.with_lore += bool(hits)
                    yield sample

    def _replies(self, conversation: Conversation) -> Iterator[tuple[list[Turn], str]]:
        turns = [Turn(m.speaker.name, m.text, m.speaker.is_persona) for m in conversation.messages]
        for place, turn in enumerate(turns):
            if turn.by_persona and place == 0:
                self.dropped["reply to nobody"] += 1
            elif turn.by_persona:
                yield turns[max(0, place - self._recipe.history_turns) : place], turn.text

    def _hits(self, turns: list[Turn], reply: str) -> list[LoreHit]:
        chosen = _drawn("lore", turns[-1].text + reply) < self._recipe.lore_share
        if not (chosen and self._lore and self._persona):
            return []
        return self._lore.search(self._persona.id, turns[-1].text, LORE_PASSAGES)

    def _render(self, turns: list[Turn], reply: str, hits: list[LoreHit]) -> Sample | None:
        """The sample, its history trimmed to fit, or None when it does not fit without any history."""
        longest = self._recipe.max_length
        shortest = self._renderer.sample(self._persona, turns[-1:], reply, hits, UNBOUNDED_TOKENS)
        if len(shortest.ids) > longest:
            return None
        return self._renderer.sample(self._persona, turns, reply, hits, longest)


def _drawn(purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but purpose and text: the same on every machine, for ever."""
    digest = hmac.digest(f"understudy {purpose}".encode(), text.encode(), "sha256")
    return int.from_bytes(digest[:7], "big") / 2**56
