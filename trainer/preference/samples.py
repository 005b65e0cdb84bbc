"""From preferences to what a job trains on: judged samples where there are enough, else a filter of its own talk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from personas.contracts import Turn
from personas.errors import MaterialError
from personas.lore import LORE_PASSAGES
from personas.preferences import TAUGHT, Preference
from personas.prompt import EXAMPLE_USER, Renderer, Sample
from trainer.building.duplicates import words_of
from trainer.building.heldout import REPLY_WORDS, were_held_out
from trainer.building.ledger import dropped_words
from trainer.building.samples import HELD_BEFORE, NOTHING_TRAINED, TOO_LONG, UNBOUNDED_TOKENS, learns_nothing
from trainer.dataset import Counted, Parts, added
from trainer.exchange import Exchange
from trainer.material import Content
from trainer.preference.judged import BAD_REPLIES, GOOD_REPLIES, Judged, Pair, Preferences, reply_of
from trainer.preference.use import LEAST, Use, latest_of_each, notes_on, require_possible, use_of
from trainer.recipe import Recipe

SOURCE = "preferences"
VOTED_DOWN = "voted down"
CHANGING = (
    f"Gather more: {LEAST} votes are learned from; before that, a reply of its talk that two members more reject than "
    "choose is left out, and a reply that is taught is learned."
)


def preferring(
    parts: Parts, content: Content, renderer: Renderer, recipe: Recipe
) -> tuple[Parts, Preferences | None, tuple[str, ...]]:
    """The parts of a preference job, what is learned by preference (None where it only filters), and what to say.

    Raises `MaterialError` when nothing of them can be learned from.
    """
    use, maker = use_of(content.preferences, recipe), _Maker(parts, content, renderer, recipe)
    if use.only_filters:
        return _filtered(parts, content.preferences, maker.make(content.preferences), use)
    require_possible(recipe)
    made = maker.make(use.used)
    judged = made.judged if use.method == "kto" else [it for pair in made.pairs for it in (pair.chosen, pair.rejected)]
    judged = sorted(judged, key=lambda it: not it.is_good)
    if not judged:
        raise MaterialError(f"No preference can be learned from.{dropped_words(made.dropped)}", "Raise max_length.")
    counts = {
        "preferences": use.given,
        "preferences_used": len(use.used),
        "preferences_members": use.of_members,
        GOOD_REPLIES: sum(it.is_good for it in judged),
        BAD_REPLIES: sum(not it.is_good for it in judged),
        "conversations_train": 0,
        "conversations_heldout": parts.counts.get("conversations_heldout", 0),
    }
    own, people = [_counted(it) for it in judged], _people(parts, content.preferences, judged)
    learned = Preferences(use.method, tuple(judged), tuple(made.pairs))
    parts = replace(parts, own=own, counts=counts, dropped=made.dropped, people=people)
    return parts, learned, (use.words, *notes_on(recipe))


@dataclass
class _Made:
    """What became of preferences; `taught` are replies that somebody wrote."""

    judged: list[Judged] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    taught: list[Judged] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class _Maker:
    """Makes samples of preferences, asked as they would be asked when serving."""

    def __init__(self, parts: Parts, content: Content, renderer: Renderer, recipe: Recipe) -> None:
        self._parts = parts
        self._content, self._renderer, self._longest = content, renderer, recipe.max_length
        self._history = recipe.history_turns
        self._prompts: dict[tuple[Turn, ...], int] = {}

    def make(self, used: Sequence[Preference]) -> _Made:
        """All of what is used; a pair that cannot be made is left out whole."""
        made = _Made()
        held = self._held_out(used)
        for one in used:
            replies = [text for text in (one.chosen, one.rejected) if text is not None]
            fault = HELD_BEFORE if any(text in held for text in replies) else ""
            samples = [] if fault else self._samples(one, replies)
            fault = fault or ("" if samples else TOO_LONG) or self._nothing(samples)
            if fault:
                made.dropped[fault] += len(replies)
            else:
                self._take(made, one, samples)
        return made

    def _held_out(self, used: Sequence[Preference]) -> set[str]:
        """Replies that are held out, now or before: they are not learned from, whoever gives them.

        Those of this job are known under its pseudonyms too. Replies of few words are said again by chance.
        """
        replies = sorted({text for one in used for text in (one.chosen, one.rejected) if text})
        known = were_held_out(replies, self._parts.held_out)
        here = {counted.said.reply for counted in self._parts.heldout}
        now = {reply for reply in replies if reply in here and len(words_of(reply)) >= REPLY_WORDS}
        return now | {reply for reply, is_held in zip(replies, known, strict=True) if is_held}

    def _samples(self, one: Preference, replies: Sequence[str]) -> list[Sample]:
        """A sample for each reply, after the same tokens; none where the longest does not fit."""
        persona, turns = self._content.persona, _turns(one)[-self._history :]
        lore = self._content.lore
        hits = lore.search(persona.id, turns[-1].text, LORE_PASSAGES) if lore and persona else []
        whole = [self._renderer.sample(persona, turns, reply, hits, UNBOUNDED_TOKENS) for reply in replies]
        if max(len(sample.ids) for sample in whole) <= self._longest:
            return whole
        room = self._longest - max(sample.reply_tokens for sample in whole)
        alone = self._renderer.prompt(persona, turns[-1:], hits, UNBOUNDED_TOKENS)
        if len(alone.ids) > room:
            return []
        prompt = self._renderer.prompt(persona, turns, hits, room).ids
        return [_after(prompt, sample) for sample in whole]

    def _nothing(self, samples: Sequence[Sample]) -> str:
        return NOTHING_TRAINED if any(learns_nothing(self._renderer, sample) for sample in samples) else ""

    def _take(self, made: _Made, one: Preference, samples: Sequence[Sample]) -> None:
        prompt = self._prompts.setdefault(_turns(one), len(self._prompts))
        kinds = [(good, text) for good, text in ((True, one.chosen), (False, one.rejected)) if text is not None]
        of, asked = (prompt, one.by, one.right, one.at), one.prompt[-1].text
        judged = [Judged(sample, good, *of, (asked, text)) for sample, (good, text) in zip(samples, kinds, strict=True)]
        made.judged += judged
        if len(judged) == 2:
            made.pairs.append(Pair(*judged))
        if one.kind == TAUGHT and judged[0].is_good:
            made.taught.append(judged[0])


def _people(parts: Parts, given: Iterable[Preference], judged: Iterable[Judged]) -> dict[str, int]:
    """Who is in the samples: all who gave preferences too, so that forgetting them reaches the adapter."""
    everybody = dict.fromkeys((one.by for one in given), 0)
    return added(parts.people, added(everybody, Counter(it.by for it in judged)))


def _counted(judged: Judged) -> Counted:
    said = Exchange(f"{SOURCE} {judged.prompt}", *judged.said, by_persona=True)
    return Counted(judged.sample, judged.right, SOURCE, judged.at, said)


def _after(prompt: Sequence[int], sample: Sample) -> Sample:
    """The reply of a sample after another prompt."""
    answer = sample.ids[len(sample.ids) - sample.reply_tokens :]
    return Sample((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


def _turns(one: Preference) -> tuple[Turn, ...]:
    """The prompt's turns; whoever asks has the name that those who ask in the card's examples have."""
    return tuple(
        Turn(said.name if said.by_persona else EXAMPLE_USER, said.text, said.by_persona) for said in one.prompt
    )


# ------------------------------------------------------------------------------------------------ as a filter


def _filtered(parts: Parts, given: Sequence[Preference], made: _Made, use: Use) -> tuple[Parts, None, tuple[str, ...]]:
    """The persona's own talk without what was voted down, and with what was taught.

    Raises `MaterialError` where that is its talk as it was: the same version once more would come of it.
    """
    down = voted_down(made.judged)
    own = [counted for counted in parts.own if reply_of(counted.sample) not in down]
    taught = latest_of_each(made.taught, max(1, int(use.share * len(own))))
    removed = len(parts.own) - len(own)
    if not removed and not taught:
        raise MaterialError(f"These preferences change nothing. {use.words} There were neither.", CHANGING)
    counts = {
        **parts.counts,
        "preferences": use.given,
        "replies_voted_down": removed,
        "replies_taught": len(taught),
    }
    dropped = parts.dropped + made.dropped + Counter({VOTED_DOWN: removed} if removed else {})
    people = _people(parts, given, taught)
    said = f"Voted down and left out: {removed}. Taught and trained on: {len(taught)}."
    own += map(_counted, taught)
    return replace(parts, own=own, counts=counts, dropped=dropped, people=people), None, (use.words, said)


def voted_down(judged: Sequence[Judged]) -> set[tuple[int, ...]]:
    """The replies, as token ids, that more members rejected than chose, and two at least."""
    members: dict[tuple[int, ...], tuple[set[str], set[str]]] = {}
    for one in judged:
        members.setdefault(one.reply, (set(), set()))[one.is_good].add(one.by)
    return {reply for reply, (bad, good) in members.items() if len(bad) > max(len(good), 1)}
