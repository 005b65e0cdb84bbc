"""Labelled replies and pairs, their order and weights, and whether there are enough to learn from."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from personas.errors import RequestError
from personas.home.preferences import PreferenceRecord
from personas.prompt import TokenizedSample
from personas.schemas.hyperparameters import PreferenceMethod
from personas.schemas.training import JobSpec
from trainer.data.job_inputs import read_job_preferences
from trainer.schemas import Recipe

GOOD_REPLIES_KEY, BAD_REPLIES_KEY = "replies_good", "replies_bad"
"""What the manifest of an adapter counts that has learned from preferences, and no other."""
MAX_GOOD_WEIGHT_RATIO = 4 / 3
"""Good replies count from as much to a third more than bad ones (arXiv 2402.01306, equation 8)."""
MAX_REORDER_LOOKAHEAD = 64
"""So many waiting replies are looked at for one that answers another prompt."""
MIN_PREFERENCES = 300
"""Fewer preferences are hardly more than noise to KTO and DPO: there is no proven benefit below about a thousand."""
MAX_LEARNING_RATE = 5e-5
SHARE_TOLERANCE = 1e-9
MIN_STEP_SAMPLES = 4
"""KTO estimates from the other samples of a batch how far the model has gone (arXiv 2402.01306, section 4.1)."""


@dataclass(frozen=True)
class LabelledReply:
    """A reply that was liked, or was not. `prompt` is the number of what it answers.

    `by` stands for who judged it, `right` and `at` are those of the preference, `said` is what was asked last and
    answered. The ids of a pair are the same up to where the replies begin.
    """

    sample: TokenizedSample
    is_good: bool
    prompt: int
    by: str = ""
    right: str = ""
    at: str = ""
    said: tuple[str, str] = ("", "")

    @property
    def reply(self) -> tuple[int, ...]:
        """The ids of the reply, end of turn included."""
        return reply_ids(self.sample)


@dataclass(frozen=True)
class PreferencePair:
    """Two replies to one prompt."""

    chosen: LabelledReply
    rejected: LabelledReply


@dataclass(frozen=True)
class PreferenceSet:
    """Preferences to learn from, and the method: `judged` holds all replies, good ones first, `pairs` the compared
    ones."""

    method: PreferenceMethod
    judged: tuple[LabelledReply, ...]
    pairs: tuple[PreferencePair, ...]

    @property
    def good(self) -> int:
        """Number of good samples."""
        return sum(one.is_good for one in self.judged)

    @property
    def marks(self) -> str:
        """Marks each sample as good or bad, as a `+` or `-`."""
        return "".join("+" if one.is_good else "-" for one in self.judged)


def reply_ids(sample: TokenizedSample) -> tuple[int, ...]:
    """The ids of a sample's reply, end of turn included."""
    return sample.ids[len(sample.ids) - sample.reply_tokens :]


def class_weights(judged: Sequence[LabelledReply]) -> tuple[float, float]:
    """Returns the weights of good and bad replies, so that all good ones together weigh 1 to 4/3 of all bad ones.

    Where one side is missing, nothing can balance it and both count 1.
    """
    good = sum(one.is_good for one in judged)
    bad = len(judged) - good
    if not (good and bad):
        return 1.0, 1.0
    wanted = min(max(good / bad, 1.0), MAX_GOOD_WEIGHT_RATIO)
    return wanted * bad / good, 1.0


def arrange_batches(judged: Sequence[LabelledReply], batch: int, seed: int) -> list[LabelledReply]:
    """A random order in which a batch's replies answer different prompts, as far as there are, and hold both kinds.

    KTO pairs each prompt with the reply before it in the batch to see how far the model has gone in general; a reply
    to the same prompt would not be general. The last batch is filled up with replies of the first.
    """
    draw = random.Random(seed)
    waiting = {good: draw.sample(of := [it for it in judged if it.is_good is good], len(of)) for good in (True, False)}
    total = {good: max(len(of), 1) for good, of in waiting.items()}
    order: list[LabelledReply] = []
    while any(waiting.values()):
        taken = Counter(it.prompt for it in order[len(order) // batch * batch :])
        good = len(waiting[True]) / total[True] >= len(waiting[False]) / total[False]
        kinds = [kind for kind in (good, not good) if waiting[kind]]
        place = next(((k, n) for k in kinds for n, it in _last_entries(waiting[k]) if it.prompt not in taken), None)
        kind, number = place or (kinds[0], len(waiting[kinds[0]]) - 1)
        order.append(waiting[kind].pop(number))
    missing = -len(order) % batch
    return order + [order[number % len(order)] for number in range(missing)] if order else order


def _last_entries(waiting: Sequence[LabelledReply]) -> list[tuple[int, LabelledReply]]:
    """The replies at the end of a list, with their places."""
    first = max(len(waiting) - MAX_REORDER_LOOKAHEAD, 0)
    return [(number, waiting[number]) for number in range(len(waiting) - 1, first - 1, -1)]


def shuffle_pairs(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """A random order of pairs."""
    return random.Random(seed).sample(list(pairs), len(pairs))


PreferenceT = TypeVar("PreferenceT", PreferenceRecord, LabelledReply)


@dataclass(frozen=True)
class PreferencePlan:
    """Preferences to use, and how. `given` counts all of them, `of_members` those who gave the used ones.

    `left_out` counts what went beyond a member's share, `alone` replies without another to compare with, which DPO
    cannot use, `again` those that the same member had given already.
    """

    method: PreferenceMethod
    share: float
    used: tuple[PreferenceRecord, ...]
    given: int
    left_out: int
    alone: int
    again: int
    of_members: int

    @property
    def only_filters(self) -> bool:
        """Tells whether there are too few to learn from."""
        return len(self.used) < MIN_PREFERENCES

    @property
    def words(self) -> str:
        """Describes for people what is done, and why."""
        told = f"Of {self.given:,} preferences {len(self.used):,} can be learned from{self._left_out}"
        if not self.only_filters:
            return f"{told}: {self.method.upper()} learns from these, which {_member_count(self.of_members)} gave."
        return (
            f"{told}, fewer than {MIN_PREFERENCES}: they only filter. "
            "The persona is trained anew, as the version before was, "
            "without replies that were voted down and with those that were taught."
        )

    @property
    def _left_out(self) -> str:
        """Returns why not all of them can be used; empty if they can."""
        why = []
        if self.again:
            why.append(f"{self.again:,} had been given already by the same member")
        if self.left_out:
            why.append(f"{self.left_out:,} go beyond the {self.share:.0%} that preference_share lets one member give")
            if not self.used:
                why.append(f"which takes {math.ceil(1 / self.share - SHARE_TOLERANCE)} members at least")
        if self.alone:
            why.append(f"{self.alone:,} hold one reply alone, which DPO cannot use")
        return f" ({'; '.join(why)})" if why else ""


def plan_preferences(preferences: Sequence[PreferenceRecord], recipe: Recipe) -> PreferencePlan:
    """Selects preferences, oldest first, under a recipe."""
    method, share = recipe.preference_method, recipe.preference_share
    once = list({(one.by, one.prompt, one.chosen, one.rejected): one for one in preferences}.values())
    fitting = [one for one in once if one.is_pair or method == "kto"]
    used = limit_member_share(fitting, share)
    return PreferencePlan(
        method,
        share,
        tuple(used),
        len(preferences),
        left_out=len(fitting) - len(used),
        alone=len(once) - len(fitting),
        again=len(preferences) - len(once),
        of_members=len({one.by for one in used}),
    )


def only_filters(folder: Path, spec: JobSpec, recipe: Recipe) -> bool:
    """Tells whether a preference job has too few to learn from and only filters. Raises `MaterialError`."""
    if spec.request.task_type != "preference":
        return False
    return plan_preferences(read_job_preferences(folder, spec), recipe).only_filters


def limit_member_share(preferences: Sequence[PreferenceRecord], share: float) -> list[PreferenceRecord]:
    """Returns as many preferences as possible with no member above the largest share; of each member the latest.

    None at all where there are fewer members than would fill it: of nine, one gives a ninth at least.
    """
    most = _max_per_member(Counter(one.by for one in preferences), share)
    return latest_per_member(preferences, most)


def latest_per_member(given: Sequence[PreferenceT], most: int) -> list[PreferenceT]:
    """At most so many of each who gave some, the latest, in their order."""
    seen: Counter[str] = Counter()
    kept = []
    for one in reversed(given):
        seen[one.by] += 1
        if seen[one.by] <= most:
            kept.append(one)
    return kept[::-1]


def _max_per_member(counts: Counter[str], share: float) -> int:
    """Returns how many preferences each member may contribute."""
    for most in range(max(counts.values(), default=0), 0, -1):
        if most <= share * sum(min(count, most) for count in counts.values()) + SHARE_TOLERANCE:
            return most
    return 0


def preference_warnings(recipe: Recipe) -> tuple[str, ...]:
    """Returns warnings about settings of a recipe that are likely mistakes for preferences."""
    if recipe.learning_rate <= MAX_LEARNING_RATE:
        return ()
    return (
        f"A learning rate of {recipe.learning_rate:g} is far above what KTO and DPO take, 5e-7 to 5e-6: the voice may "
        "be lost.",
    )


def require_preference_recipe(recipe: Recipe) -> None:
    """Raise `RequestError` where a recipe cannot learn from preferences, naming what to set."""
    if recipe.preference_method == "kto" and recipe.per_device_train_batch_size < MIN_STEP_SAMPLES:
        raise RequestError(
            f"KTO learns nothing useful in batches of {recipe.per_device_train_batch_size}.",
            f"Set per_device_train_batch_size={MIN_STEP_SAMPLES} or more, or preference_method=dpo.",
        )


def _member_count(count: int) -> str:
    return "1 member" if count == 1 else f"{count:,} members"
