"""Labelled replies and pairs, their order and weights, and the decision whether they are enough to
learn from.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from personas.errors import RequestError
from personas.home.preferences import PreferenceRecord
from personas.prompt.renderer import TokenizedSample
from personas.schemas.formatting import count_of
from personas.schemas.hyperparameters import PreferenceMethod
from trainer.schemas import Recipe

GOOD_REPLIES_KEY, BAD_REPLIES_KEY = "replies_good", "replies_bad"
"""Counts in the manifest of an adapter trained on preferences."""
MAX_GOOD_WEIGHT_RATIO = 4 / 3
"""Good replies count from as much to a third more than bad ones (arXiv 2402.01306, equation 8)."""
MAX_REORDER_LOOKAHEAD = 64  # number of waiting replies searched for one to another prompt
MIN_PREFERENCES = 300
"""Fewer are noise to KTO and DPO: there is no proven benefit below about a thousand."""
MAX_LEARNING_RATE = 5e-5
SHARE_TOLERANCE = 1e-9
MIN_STEP_SAMPLES = 4
"""KTO estimates from the other samples of a batch how far the model has moved (arXiv 2402.01306,
section 4.1).
"""


@dataclass(frozen=True)
class LabelledReply:
    """A reply labelled good or bad. `prompt` numbers the prompts.

    `by` is the keyed id of the member who judged it, `right` and `at` are the preference's, `texts`
    are those of the last message and the reply. The ids of a pair are equal up to the replies.
    """

    sample: TokenizedSample
    is_good: bool
    prompt: int
    by: str = ""
    right: str = ""
    at: str = ""
    texts: tuple[str, str] = ("", "")

    @property
    def reply(self) -> tuple[int, ...]:
        """Token ids of the reply, with the end of turn."""
        return reply_ids(self.sample)


@dataclass(frozen=True)
class PreferencePair:
    """Two replies to one prompt."""

    chosen: LabelledReply
    rejected: LabelledReply


@dataclass(frozen=True)
class PreferenceSet:
    """Preferences to learn from: `judged` are all replies, good ones first, `pairs` the compared
    ones.
    """

    method: PreferenceMethod
    judged: tuple[LabelledReply, ...]
    pairs: tuple[PreferencePair, ...]

    @property
    def good(self) -> int:
        """Number of good samples."""
        return sum(reply.is_good for reply in self.judged)

    @property
    def marks(self) -> str:
        """A `+` or `-` for each good or bad sample."""
        return "".join("+" if reply.is_good else "-" for reply in self.judged)


def reply_ids(sample: TokenizedSample) -> tuple[int, ...]:
    """Return the token ids of a sample's reply, with the end of turn."""
    return sample.ids[len(sample.ids) - sample.reply_tokens :]


def class_weights(judged: Sequence[LabelledReply]) -> tuple[float, float]:
    """Return the weights of good and bad replies, so that all good ones together weigh 1 to 4/3 of
    all bad ones.

    If one side is missing, both weights are 1.
    """
    good = sum(reply.is_good for reply in judged)
    bad = len(judged) - good
    if not (good and bad):
        return 1.0, 1.0
    ratio = min(max(good / bad, 1.0), MAX_GOOD_WEIGHT_RATIO)
    return ratio * bad / good, 1.0


def arrange_batches(judged: Sequence[LabelledReply], batch: int, seed: int) -> list[LabelledReply]:
    """Shuffle replies so that those of a batch answer different prompts, if there are enough, and
    are of both kinds.

    KTO pairs each prompt with the reply before it in the batch to estimate how far the model has
    moved in general; a reply to the same prompt would not be general. The last batch is filled up
    with replies of the first.
    """
    draw = random.Random(seed)  # nosec B311  # repeatable
    waiting: dict[bool, list[LabelledReply]] = {}
    for is_good in (True, False):
        of_kind = [reply for reply in judged if reply.is_good is is_good]
        waiting[is_good] = draw.sample(of_kind, len(of_kind))
    total = {is_good: max(len(replies), 1) for is_good, replies in waiting.items()}
    arranged: list[LabelledReply] = []
    while any(waiting.values()):
        batch_start = len(arranged) // batch * batch
        prompts = {reply.prompt for reply in arranged[batch_start:]}
        # Take from the kind of which the larger share waits, so that both end together.
        first = len(waiting[True]) / total[True] >= len(waiting[False]) / total[False]
        kinds = [kind for kind in (first, not first) if waiting[kind]]
        for kind in kinds:
            number = _last_with_other_prompt(waiting[kind], prompts)
            if number is not None:
                arranged.append(waiting[kind].pop(number))
                break
        else:
            arranged.append(waiting[kinds[0]].pop())
    missing = -len(arranged) % batch
    return arranged + list(itertools.islice(itertools.cycle(arranged), missing))


def _last_with_other_prompt(waiting: Sequence[LabelledReply], prompts: set[int]) -> int | None:
    """Return the index of the last of the next replies whose prompt is none of these."""
    first = max(len(waiting) - MAX_REORDER_LOOKAHEAD, 0)
    for number in range(len(waiting) - 1, first - 1, -1):
        if waiting[number].prompt not in prompts:
            return number
    return None


def shuffle_pairs(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """Return the pairs in random order."""
    return random.Random(seed).sample(list(pairs), len(pairs))  # nosec B311  # repeatable


PreferenceT = TypeVar("PreferenceT", PreferenceRecord, LabelledReply)


@dataclass(frozen=True)
class PreferencePlan:
    """Preferences to use, and how. `given` counts all of them, `of_members` the authors of the used
    ones.

    `left_out` counts those beyond a member's share, `alone` replies without another to compare
    with, which DPO cannot use, `again` duplicates by the same member.
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
        """True if there are too few to learn from."""
        return len(self.used) < MIN_PREFERENCES

    @property
    def words(self) -> str:
        """Describe the plan and its reason to users."""
        usable = (
            f"Of {self.given:,} preferences {len(self.used):,} can be learned from{self._left_out}"
        )
        if not self.only_filters:
            members = count_of(self.of_members, "member")
            return f"{usable}: {self.method.upper()} learns from these, which {members} gave."
        return (
            f"{usable}, fewer than {MIN_PREFERENCES}: they only filter. The persona is trained "
            "anew, as the version before was, without replies that were voted down and with those "
            "that were taught."
        )

    @property
    def _left_out(self) -> str:
        reasons = []
        if self.again:
            reasons.append(f"{self.again:,} had been given already by the same member")
        if self.left_out:
            reasons.append(
                f"{self.left_out:,} go beyond the {self.share:.0%} that preference_share lets one "
                "member give"
            )
            if not self.used:
                reasons.append(
                    f"which takes {math.ceil(1 / self.share - SHARE_TOLERANCE)} members at least"
                )
        if self.alone:
            reasons.append(f"{self.alone:,} hold one reply alone, which DPO cannot use")
        return f" ({'; '.join(reasons)})" if reasons else ""


def plan_preferences(preferences: Sequence[PreferenceRecord], recipe: Recipe) -> PreferencePlan:
    """Select preferences, oldest first, under a recipe."""
    method = recipe.preference_method
    share = recipe.preference_share
    distinct: dict[tuple[object, ...], PreferenceRecord] = {}
    # Of equal ones by a member, the latest.
    for record in preferences:
        distinct[record.by, record.prompt, record.chosen, record.rejected] = record
    fitting = [record for record in distinct.values() if record.is_pair or method == "kto"]
    used = limit_member_share(fitting, share)
    return PreferencePlan(
        method,
        share,
        used=tuple(used),
        given=len(preferences),
        left_out=len(fitting) - len(used),
        alone=len(distinct) - len(fitting),
        again=len(preferences) - len(distinct),
        of_members=len({record.by for record in used}),
    )


def limit_member_share(
    preferences: Sequence[PreferenceRecord], share: float
) -> list[PreferenceRecord]:
    """Return as many preferences as possible with no member above the largest share; of each member
    the latest.

    None if there are too few members: of nine, each gives at least a ninth.
    """
    per_member = Counter(preference.by for preference in preferences)
    return latest_per_member(preferences, _max_per_member(per_member, share))


def latest_per_member(given: Sequence[PreferenceT], most: int) -> list[PreferenceT]:
    """Return at most this many of each member, the latest, in their order."""
    seen: Counter[str] = Counter()
    latest = []
    for preference in reversed(given):
        seen[preference.by] += 1
        if seen[preference.by] <= most:
            latest.append(preference)
    return latest[::-1]


def _max_per_member(counts: Counter[str], share: float) -> int:
    for most in range(max(counts.values(), default=0), 0, -1):
        if most <= share * sum(min(count, most) for count in counts.values()) + SHARE_TOLERANCE:
            return most
    return 0


def preference_warnings(recipe: Recipe) -> tuple[str, ...]:
    """Return warnings about settings of a recipe that are likely mistakes for preferences."""
    rate = f"A learning rate of {recipe.learning_rate:g}"
    warning = f"{rate} is far above the usual 5e-7 to 5e-6 of KTO and DPO: the voice may be lost."
    return (warning,) if recipe.learning_rate > MAX_LEARNING_RATE else ()


def require_preference_recipe(recipe: Recipe) -> None:
    """Raise `RequestError` if a recipe cannot learn from preferences, naming what to set."""
    if recipe.preference_method == "kto" and recipe.per_device_train_batch_size < MIN_STEP_SAMPLES:
        raise RequestError(
            f"KTO learns nothing useful in batches of {recipe.per_device_train_batch_size}.",
            f"Set per_device_train_batch_size={MIN_STEP_SAMPLES} or more, or "
            "preference_method=dpo.",
        )
