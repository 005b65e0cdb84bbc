"""Renders preferences into labelled samples, or filters a persona's own data by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from personas.errors import MaterialError
from personas.home.preferences import TAUGHT, PreferenceRecord
from personas.lore.index import MAX_LORE_PASSAGES, LoreIndex
from personas.prompt import EXAMPLE_USER, Renderer, TokenizedSample
from personas.schemas.chat import Persona, Turn
from trainer.data.dataset import SampleRecord, SampleSets, add_counts
from trainer.data.holdout_fingerprints import MIN_REPLY_KEY_WORDS, match_held_out
from trainer.data.ledger import describe_dropped
from trainer.data.minhash import split_words
from trainer.data.preference_policy import (
    BAD_REPLIES_KEY,
    GOOD_REPLIES_KEY,
    MIN_PREFERENCES,
    LabelledReply,
    PreferencePair,
    PreferencePlan,
    PreferenceSet,
    latest_per_member,
    plan_preferences,
    preference_warnings,
    reply_ids,
    require_preference_recipe,
)
from trainer.data.sample_renderer import HELD_OUT_BEFORE, NOTHING_TRAINED, TOO_LONG, UNBOUNDED_TOKENS, has_no_targets
from trainer.schemas import PromptReply, Recipe

PREFERENCE_SOURCE = "preferences"
VOTED_DOWN = "voted down"
TOO_FEW_ADVICE = (
    f"Gather more: {MIN_PREFERENCES} votes are learned from; "
    "before that, a reply of its talk that two members more reject than "
    "choose is left out, and a reply that is taught is learned."
)


def apply_preferences(
    parts: SampleSets,
    preferences: Sequence[PreferenceRecord],
    persona: Persona | None,
    lore: LoreIndex | None,
    renderer: Renderer,
    recipe: Recipe,
) -> tuple[SampleSets, PreferenceSet | None, tuple[str, ...]]:
    """The parts of a preference job, what is learned by preference (None where it only filters), and what to say.

    Raises `MaterialError` when nothing of them can be learned from.
    """
    use, maker = plan_preferences(preferences, recipe), _PreferenceRenderer(parts, persona, lore, renderer, recipe)
    if use.only_filters:
        return _filter_by_votes(parts, preferences, maker.make(preferences), use)
    require_preference_recipe(recipe)
    made = maker.make(use.used)
    judged = made.judged if use.method == "kto" else [it for pair in made.pairs for it in (pair.chosen, pair.rejected)]
    judged = sorted(judged, key=lambda it: not it.is_good)
    if not judged:
        raise MaterialError(f"No preference can be learned from.{describe_dropped(made.dropped)}", "Raise max_length.")
    counts = {
        "preferences": use.given,
        "preferences_used": len(use.used),
        "preferences_members": use.of_members,
        GOOD_REPLIES_KEY: sum(it.is_good for it in judged),
        BAD_REPLIES_KEY: sum(not it.is_good for it in judged),
        "conversations_train": 0,
        "conversations_heldout": parts.counts.get("conversations_heldout", 0),
    }
    own, people = [_labelled_record(it) for it in judged], _count_people(parts, preferences, judged)
    learned = PreferenceSet(use.method, tuple(judged), tuple(made.pairs))
    parts = replace(parts, own=own, counts=counts, dropped=made.dropped, people=people)
    return parts, learned, (use.words, *preference_warnings(recipe))


@dataclass
class _RenderedPreferences:
    """Rendered preferences; `taught` are replies that somebody wrote."""

    judged: list[LabelledReply] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    taught: list[LabelledReply] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class _PreferenceRenderer:
    """Makes samples of preferences, asked as they would be asked when serving."""

    def __init__(
        self, parts: SampleSets, persona: Persona | None, lore: LoreIndex | None, renderer: Renderer, recipe: Recipe
    ) -> None:
        self._parts, self._persona, self._lore = parts, persona, lore
        self._renderer, self._longest = renderer, recipe.max_length
        self._history = recipe.history_turns
        self._prompts: dict[tuple[Turn, ...], int] = {}

    def make(self, used: Sequence[PreferenceRecord]) -> _RenderedPreferences:
        """All of what is used; a pair that cannot be made is left out whole."""
        made = _RenderedPreferences()
        held = self._held_out(used)
        for one in used:
            replies = [text for text in (one.chosen, one.rejected) if text is not None]
            fault = HELD_OUT_BEFORE if any(text in held for text in replies) else ""
            samples = [] if fault else self._samples(one, replies)
            fault = fault or ("" if samples else TOO_LONG) or self._nothing(samples)
            if fault:
                made.dropped[fault] += len(replies)
            else:
                self._take(made, one, samples)
        return made

    def _held_out(self, used: Sequence[PreferenceRecord]) -> set[str]:
        """Replies that are held out, now or before: they are not learned from, whoever gives them.

        Those of this job are known under its pseudonyms too. Replies of few words are said again by chance.
        """
        replies = sorted({text for one in used for text in (one.chosen, one.rejected) if text})
        known = match_held_out(replies, self._parts.held_out)
        here = {counted.said.reply for counted in self._parts.heldout}
        now = {reply for reply in replies if reply in here and len(split_words(reply)) >= MIN_REPLY_KEY_WORDS}
        return now | {reply for reply, is_held in zip(replies, known, strict=True) if is_held}

    def _samples(self, one: PreferenceRecord, replies: Sequence[str]) -> list[TokenizedSample]:
        """A sample for each reply, after the same tokens; none where the longest does not fit."""
        persona, lore, turns = self._persona, self._lore, _prompt_turns(one)[-self._history :]
        hits = lore.search(persona.id, turns[-1].text, MAX_LORE_PASSAGES) if lore and persona else []
        whole = [self._renderer.sample(persona, turns, reply, hits, UNBOUNDED_TOKENS) for reply in replies]
        if max(len(sample.ids) for sample in whole) <= self._longest:
            return whole
        room = self._longest - max(sample.reply_tokens for sample in whole)
        alone = self._renderer.prompt(persona, turns[-1:], hits, UNBOUNDED_TOKENS)
        if len(alone.ids) > room:
            return []
        prompt = self._renderer.prompt(persona, turns, hits, room).ids
        return [_with_prompt(prompt, sample) for sample in whole]

    def _nothing(self, samples: Sequence[TokenizedSample]) -> str:
        return NOTHING_TRAINED if any(has_no_targets(self._renderer, sample) for sample in samples) else ""

    def _take(self, made: _RenderedPreferences, one: PreferenceRecord, samples: Sequence[TokenizedSample]) -> None:
        prompt = self._prompts.setdefault(_prompt_turns(one), len(self._prompts))
        kinds = [(good, text) for good, text in ((True, one.chosen), (False, one.rejected)) if text is not None]
        of, asked = (prompt, one.by, one.right, one.at), one.prompt[-1].text
        judged = [
            LabelledReply(sample, good, *of, (asked, text)) for sample, (good, text) in zip(samples, kinds, strict=True)
        ]
        made.judged += judged
        if len(judged) == 2:
            made.pairs.append(PreferencePair(*judged))
        if one.kind == TAUGHT and judged[0].is_good:
            made.taught.append(judged[0])


def _count_people(
    parts: SampleSets, given: Iterable[PreferenceRecord], judged: Iterable[LabelledReply]
) -> dict[str, int]:
    """Counts the people in the samples, including all who gave preferences, so that forgetting them reaches the
    adapter."""
    everybody = dict.fromkeys((one.by for one in given), 0)
    return add_counts(parts.people, add_counts(everybody, Counter(it.by for it in judged)))


def _labelled_record(judged: LabelledReply) -> SampleRecord:
    said = PromptReply(f"{PREFERENCE_SOURCE} {judged.prompt}", *judged.said, by_persona=True)
    return SampleRecord(judged.sample, judged.right, PREFERENCE_SOURCE, judged.at, said)


def _with_prompt(prompt: Sequence[int], sample: TokenizedSample) -> TokenizedSample:
    """The reply of a sample after another prompt."""
    answer = sample.ids[len(sample.ids) - sample.reply_tokens :]
    return TokenizedSample((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


def _prompt_turns(one: PreferenceRecord) -> tuple[Turn, ...]:
    """The prompt's turns; whoever asks has the name that those who ask in the card's examples have."""
    return tuple(
        Turn(said.name if said.by_persona else EXAMPLE_USER, said.text, said.by_persona) for said in one.prompt
    )


# ------------------------------------------------------------------------------------------------ as a filter


def _filter_by_votes(
    parts: SampleSets, given: Sequence[PreferenceRecord], made: _RenderedPreferences, use: PreferencePlan
) -> tuple[SampleSets, None, tuple[str, ...]]:
    """The persona's own talk without what was voted down, and with what was taught.

    Raises `MaterialError` where that is its talk as it was: the same version once more would come of it.
    """
    down = downvoted_replies(made.judged)
    own = [counted for counted in parts.own if reply_ids(counted.sample) not in down]
    taught = latest_per_member(made.taught, max(1, int(use.share * len(own))))
    removed = len(parts.own) - len(own)
    if not removed and not taught:
        raise MaterialError(f"These preferences change nothing. {use.words} There were neither.", TOO_FEW_ADVICE)
    counts = {
        **parts.counts,
        "preferences": use.given,
        "replies_voted_down": removed,
        "replies_taught": len(taught),
    }
    dropped = parts.dropped + made.dropped + Counter({VOTED_DOWN: removed} if removed else {})
    people = _count_people(parts, given, taught)
    said = f"Voted down and left out: {removed}. Taught and trained on: {len(taught)}."
    own += map(_labelled_record, taught)
    return replace(parts, own=own, counts=counts, dropped=dropped, people=people), None, (use.words, said)


def downvoted_replies(judged: Sequence[LabelledReply]) -> set[tuple[int, ...]]:
    """The replies, as token ids, that more members rejected than chose, and two at least."""
    members: dict[tuple[int, ...], tuple[set[str], set[str]]] = {}
    for one in judged:
        members.setdefault(one.reply, (set(), set()))[one.is_good].add(one.by)
    return {reply for reply, (bad, good) in members.items() if len(bad) > max(len(good), 1)}
