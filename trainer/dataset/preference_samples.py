"""Renders preferences into labelled samples, or filters a persona's own data by them."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from personas.errors import MaterialError
from personas.home.preferences import TAUGHT, PreferenceRecord
from personas.lore.index import LoreIndex
from personas.lore.ranking import MAX_LORE_PASSAGES
from personas.prompt.renderer import EXAMPLE_USER, Renderer, TokenizedSample
from personas.schemas.chat import Persona, Turn
from trainer.dataset.dataset import SampleRecord, SampleSets, add_counts
from trainer.dataset.holdout_fingerprints import MIN_REPLY_KEY_WORDS, match_held_out
from trainer.dataset.ledger import describe_dropped
from trainer.dataset.minhash import split_words
from trainer.dataset.preference_policy import (
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
from trainer.dataset.sample_renderer import (
    HELD_OUT_BEFORE,
    NOTHING_TRAINED,
    TOO_LONG,
    UNBOUNDED_TOKENS,
    fitting_lore,
    has_no_targets,
)
from trainer.dataset.talk_text import split_thought
from trainer.schemas import PromptReply, Recipe

PREFERENCE_SOURCE = "preferences"
VOTED_DOWN = "voted down"
TOO_FEW_ADVICE = (
    f"Gather more: training on votes takes {MIN_PREFERENCES}. Until then, replies that at least "
    "two members reject, "
    "and more than choose them, are left out, and taught replies are learned."
)


def apply_preferences(
    parts: SampleSets,
    preferences: Sequence[PreferenceRecord],
    persona: Persona | None,
    lore: LoreIndex | None,
    renderer: Renderer,
    recipe: Recipe,
) -> tuple[SampleSets, PreferenceSet | None, tuple[str, ...]]:
    """Return the sample sets of a preference job, the preferences to learn (None if they only
    filter), and notes.

    Raises `MaterialError` if nothing can be learned from them.
    """
    plan = plan_preferences(preferences, recipe)
    preferred = _PreferenceRenderer(parts, persona, lore, renderer, recipe)
    if plan.only_filters:
        return _filter_by_votes(parts, preferences, preferred.render(preferences), plan)
    require_preference_recipe(recipe)
    rendered = preferred.render(plan.used)
    in_pairs = (reply for pair in rendered.pairs for reply in (pair.chosen, pair.rejected))
    judged = sorted(
        rendered.judged if plan.method == "kto" else in_pairs, key=lambda reply: not reply.is_good
    )
    if not judged:
        reasons = describe_dropped(rendered.dropped)
        raise MaterialError(f"No preference can be learned from.{reasons}", "Raise max_length.")
    counts = {
        "preferences": plan.given,
        "preferences_used": len(plan.used),
        "preferences_members": plan.of_members,
        GOOD_REPLIES_KEY: sum(it.is_good for it in judged),
        BAD_REPLIES_KEY: sum(not it.is_good for it in judged),
        "conversations_train": 0,
        "conversations_heldout": parts.counts.get("conversations_heldout", 0),
    }
    own = [_labelled_record(it) for it in judged]
    people = _count_people(parts, preferences, judged)
    learned = PreferenceSet(plan.method, tuple(judged), tuple(rendered.pairs))
    parts = replace(parts, own=own, counts=counts, dropped=rendered.dropped, people=people)
    return parts, learned, (plan.words, *preference_warnings(recipe))


@dataclass
class _RenderedPreferences:
    """Rendered preferences; `taught` are replies that somebody wrote."""

    judged: list[LabelledReply] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    taught: list[LabelledReply] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class _PreferenceRenderer:
    """Renders preferences with the prompts used when serving."""

    def __init__(
        self,
        parts: SampleSets,
        persona: Persona | None,
        lore: LoreIndex | None,
        renderer: Renderer,
        recipe: Recipe,
    ) -> None:
        self._parts = parts
        self._persona = persona
        self._lore = lore
        self._renderer = renderer
        self._longest = recipe.max_length
        self._history = recipe.history_turns
        self._prompts: dict[tuple[Turn, ...], int] = {}

    def render(self, used: Sequence[PreferenceRecord]) -> _RenderedPreferences:
        """Render preferences; a pair with an unusable reply is dropped whole."""
        rendered = _RenderedPreferences()
        held_out = self._held_out(used)
        for one in used:
            replies = [
                split_thought(text)[1] for text in (one.chosen, one.rejected) if text is not None
            ]
            fault = HELD_OUT_BEFORE if not held_out.isdisjoint(replies) else ""
            samples = [] if fault else self._samples(one, replies)
            if any(has_no_targets(self._renderer, sample) for sample in samples):
                fault = NOTHING_TRAINED
            if fault or not samples:
                rendered.dropped[fault or TOO_LONG] += len(replies)
            else:
                self._add(rendered, one, samples)
        return rendered

    def _held_out(self, used: Sequence[PreferenceRecord]) -> set[str]:
        """Return the replies that are held out, now or before, which are never learned.

        This job's are matched with its pseudonyms. Short replies recur by chance and do not count.
        """
        replies = sorted({text for one in used for text in (one.chosen, one.rejected) if text})
        before = match_held_out(replies, self._parts.held_out)
        held_out = {record.said.reply for record in self._parts.heldout}
        now = {
            reply
            for reply in held_out.intersection(replies)
            if len(split_words(reply)) >= MIN_REPLY_KEY_WORDS
        }
        return now | set(itertools.compress(replies, before))

    def _samples(self, one: PreferenceRecord, replies: Sequence[str]) -> list[TokenizedSample]:
        """Return a sample per reply, with the same prompt tokens, as much of history and lore as
        fits the longest.

        Empty if that does not fit without either.
        """
        persona = self._persona
        lore = self._lore
        turns = _prompt_turns(one)[-self._history :]
        hits = (
            lore.search(persona.id, turns[-1].text, MAX_LORE_PASSAGES) if lore and persona else []
        )
        whole = [
            self._renderer.sample(persona, turns, reply, hits, UNBOUNDED_TOKENS)
            for reply in replies
        ]
        if max(len(sample.ids) for sample in whole) <= self._longest:
            return whole
        sizes = [self._renderer.answer_tokens(persona, reply) for reply in replies]
        room = self._longest - max(sizes)
        fitting = fitting_lore(self._renderer, persona, turns[-1], hits, room)
        if fitting is None:
            return []
        return [
            self._renderer.sample(persona, turns, reply, fitting, room + size)
            for reply, size in zip(replies, sizes, strict=True)
        ]

    def _add(
        self,
        rendered: _RenderedPreferences,
        one: PreferenceRecord,
        samples: Sequence[TokenizedSample],
    ) -> None:
        prompt = self._prompts.setdefault(_prompt_turns(one), len(self._prompts))
        labels = [
            (is_good, text)
            for is_good, text in ((True, one.chosen), (False, one.rejected))
            if text is not None
        ]
        origin = (prompt, one.by, one.right, one.at)
        message = one.prompt[-1].text
        judged = [
            LabelledReply(sample, is_good, *origin, (message, text))
            for sample, (is_good, text) in zip(samples, labels, strict=True)
        ]
        rendered.judged += judged
        if len(judged) == 2:
            rendered.pairs.append(PreferencePair(*judged))
        if one.kind == TAUGHT and judged[0].is_good:
            rendered.taught.append(judged[0])


def _count_people(
    parts: SampleSets, given: Iterable[PreferenceRecord], judged: Iterable[LabelledReply]
) -> dict[str, int]:
    """Count the people in the samples, with all who gave preferences, so that deleting them reaches
    the adapter.
    """
    everybody = dict.fromkeys((one.by for one in given), 0)
    return add_counts(parts.people, add_counts(everybody, Counter(it.by for it in judged)))


def _labelled_record(judged: LabelledReply) -> SampleRecord:
    texts = PromptReply(f"{PREFERENCE_SOURCE} {judged.prompt}", *judged.texts, by_persona=True)
    return SampleRecord(judged.sample, judged.right, PREFERENCE_SOURCE, judged.at, texts)


def _prompt_turns(one: PreferenceRecord) -> tuple[Turn, ...]:
    """Return the prompt's turns; users are named as in the card's examples."""
    return tuple(
        Turn(it.name if it.by_persona else EXAMPLE_USER, it.text, it.by_persona)
        for it in one.prompt
    )


def _filter_by_votes(
    parts: SampleSets,
    given: Sequence[PreferenceRecord],
    rendered: _RenderedPreferences,
    plan: PreferencePlan,
) -> tuple[SampleSets, None, tuple[str, ...]]:
    """Return the persona's own samples without downvoted replies and with taught ones.

    Raises `MaterialError` if nothing changes: training would only repeat the current version.
    """
    downvoted = downvoted_replies(rendered.judged)
    own = [record for record in parts.own if reply_ids(record.sample) not in downvoted]
    taught = latest_per_member(rendered.taught, max(1, int(plan.share * len(own))))
    removed = len(parts.own) - len(own)
    if not removed and not taught:
        raise MaterialError(
            f"These preferences change nothing. {plan.words} There were neither.", TOO_FEW_ADVICE
        )
    counts = {
        **parts.counts,
        "preferences": plan.given,
        "replies_voted_down": removed,
        "replies_taught": len(taught),
    }
    dropped = parts.dropped + rendered.dropped + Counter({VOTED_DOWN: removed} if removed else {})
    people = _count_people(parts, given, taught)
    note = f"Voted down and left out: {removed}. Taught and trained on: {len(taught)}."
    own += map(_labelled_record, taught)
    return (
        replace(parts, own=own, counts=counts, dropped=dropped, people=people),
        None,
        (plan.words, note),
    )


def downvoted_replies(judged: Sequence[LabelledReply]) -> set[tuple[int, ...]]:
    """Return the replies, as token ids, that at least two members rejected, and more than chose
    them.
    """
    members: dict[tuple[int, ...], tuple[set[str], set[str]]] = {}
    for one in judged:
        members.setdefault(one.reply, (set(), set()))[one.is_good].add(one.by)
    return {reply for reply, (bad, good) in members.items() if len(bad) > max(len(good), 1)}
