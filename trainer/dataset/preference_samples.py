"""Renders preferences into labelled samples, or filters a persona's own data by them."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

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
    "two members reject, and more than choose them, are left out, and taught replies are learned."
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
    preferred = _PreferenceRenderer(parts, persona, lore, renderer=renderer, recipe=recipe)
    if plan.only_filters:
        return _filter_by_votes(parts, preferences, preferred.render(preferences), plan)
    require_preference_recipe(recipe)
    rendered = preferred.render(plan.used)
    judged = rendered.judged
    if plan.method == "dpo":
        # Of a pair that is left out, neither reply is used.
        judged = []
        for pair in rendered.pairs:
            judged += [pair.chosen, pair.rejected]
    judged = sorted(judged, key=lambda reply: not reply.is_good)
    if not judged:
        reasons = describe_dropped(rendered.dropped)
        raise MaterialError(f"No preference can be learned from.{reasons}", "Raise max_length.")
    good = sum(reply.is_good for reply in judged)
    counts = {
        "preferences": plan.given,
        "preferences_used": len(plan.used),
        "preferences_members": plan.of_members,
        GOOD_REPLIES_KEY: good,
        BAD_REPLIES_KEY: len(judged) - good,
        "conversations_train": 0,
        "conversations_heldout": parts.counts.get("conversations_heldout", 0),
    }
    samples = replace(
        parts,
        own=[_labelled_record(reply) for reply in judged],
        counts=counts,
        dropped=rendered.dropped,
        people=_count_people(parts, preferences, judged),
    )
    learned = PreferenceSet(plan.method, tuple(judged), tuple(rendered.pairs))
    return samples, learned, (plan.words, *preference_warnings(recipe))


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
        for preference in used:
            texts = [preference.chosen, preference.rejected]
            replies = [split_thought(text)[1] for text in texts if text is not None]
            if not held_out.isdisjoint(replies):
                rendered.dropped[HELD_OUT_BEFORE] += len(replies)
                continue
            samples = self._samples(preference, replies)
            if not samples:
                rendered.dropped[TOO_LONG] += len(replies)
            elif any(has_no_targets(self._renderer, sample) for sample in samples):
                rendered.dropped[NOTHING_TRAINED] += len(replies)
            else:
                self._add(rendered, preference, samples)
        return rendered

    def _held_out(self, used: Sequence[PreferenceRecord]) -> set[str]:
        """Return the replies that are held out, now or before, which are never learned.

        This job's are matched with its pseudonyms. Short replies recur by chance and do not count.
        """
        texts: set[str] = set()
        for preference in used:
            texts |= {text for text in (preference.chosen, preference.rejected) if text}
        replies = sorted(texts)
        earlier = match_held_out(replies, self._parts.held_out)
        held_out = set(itertools.compress(replies, earlier))
        for record in self._parts.heldout:
            reply = record.said.reply
            if reply in texts and len(split_words(reply)) >= MIN_REPLY_KEY_WORDS:
                held_out.add(reply)
        return held_out

    def _samples(
        self, preference: PreferenceRecord, replies: Sequence[str]
    ) -> list[TokenizedSample]:
        """Return a sample per reply, with the same prompt tokens, as much of history and lore as
        fits the longest.

        Empty if that does not fit without either.
        """
        persona = self._persona
        lore = self._lore
        turns = _prompt_turns(preference)[-self._history :]
        hits = []
        if lore and persona:
            hits = lore.search(persona.id, turns[-1].text, MAX_LORE_PASSAGES)
        sample = partial(self._renderer.sample, persona, turns)
        whole = [sample(reply, lore=hits, max_tokens=UNBOUNDED_TOKENS) for reply in replies]
        if max(len(each.ids) for each in whole) <= self._longest:
            return whole
        # The longer reply decides for both how much of the prompt fits: a comparison of replies to
        # different prompts would teach the difference between the prompts.
        sizes = [self._renderer.answer_tokens(persona, reply) for reply in replies]
        room = self._longest - max(sizes)
        fitting = fitting_lore(self._renderer, persona, turns[-1], hits=hits, max_tokens=room)
        if fitting is None:
            return []
        trimmed = []
        for reply, size in zip(replies, sizes, strict=True):
            trimmed.append(sample(reply, lore=fitting, max_tokens=room + size))
        return trimmed

    def _add(
        self,
        rendered: _RenderedPreferences,
        preference: PreferenceRecord,
        samples: Sequence[TokenizedSample],
    ) -> None:
        prompt_turns = _prompt_turns(preference)
        labels = [(True, preference.chosen), (False, preference.rejected)]
        given = [(is_good, text) for is_good, text in labels if text is not None]
        judged = []
        for sample, (is_good, text) in zip(samples, given, strict=True):
            reply = LabelledReply(
                sample,
                is_good,
                prompt=self._prompts.setdefault(prompt_turns, len(self._prompts)),
                by=preference.by,
                right=preference.right,
                at=preference.at,
                texts=(preference.prompt[-1].text, text),
            )
            judged.append(reply)
        rendered.judged += judged
        if len(judged) == 2:
            chosen, rejected = judged
            rendered.pairs.append(PreferencePair(chosen, rejected))
        if preference.kind == TAUGHT and judged[0].is_good:
            rendered.taught.append(judged[0])


def _count_people(
    parts: SampleSets, given: Iterable[PreferenceRecord], judged: Iterable[LabelledReply]
) -> dict[str, int]:
    """Count the people in the samples, with all who gave preferences, so that deleting them reaches
    the adapter.
    """
    everybody = dict.fromkeys((preference.by for preference in given), 0)
    learned_from = Counter(reply.by for reply in judged)
    return add_counts(parts.people, add_counts(everybody, learned_from))


def _labelled_record(judged: LabelledReply) -> SampleRecord:
    message, reply = judged.texts
    talk = f"{PREFERENCE_SOURCE} {judged.prompt}"
    said = PromptReply(talk, message, reply, by_persona=True)
    return SampleRecord(judged.sample, judged.right, PREFERENCE_SOURCE, judged.at, said=said)


def _prompt_turns(preference: PreferenceRecord) -> tuple[Turn, ...]:
    """Return the prompt's turns; users are named as in the card's examples."""
    turns = []
    for turn in preference.prompt:
        name = turn.name if turn.by_persona else EXAMPLE_USER
        turns.append(Turn(name, turn.text, turn.by_persona))
    return tuple(turns)


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
    dropped = parts.dropped + rendered.dropped
    if removed:
        dropped[VOTED_DOWN] += removed
    samples = replace(
        parts,
        own=[*own, *map(_labelled_record, taught)],
        counts=counts,
        dropped=dropped,
        people=_count_people(parts, given, taught),
    )
    note = f"Voted down and left out: {removed}. Taught and trained on: {len(taught)}."
    return samples, None, (plan.words, note)


def downvoted_replies(judged: Sequence[LabelledReply]) -> set[tuple[int, ...]]:
    """Return the replies, as token ids, that at least two members rejected, and more than chose
    them.
    """
    members: dict[tuple[int, ...], tuple[set[str], set[str]]] = {}
    for vote in judged:
        against, in_favour = members.setdefault(vote.reply, (set(), set()))
        voters = in_favour if vote.is_good else against
        voters.add(vote.by)
    downvoted = set()
    for reply, (against, in_favour) in members.items():
        # Members are counted rather than votes: one of them may vote on the same reply often.
        if len(against) > max(len(in_favour), 1):
            downvoted.add(reply)
    return downvoted
