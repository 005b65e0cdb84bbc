"""What becomes of preferences: from 300 on they are learned from, fewer only filter what is trained on anyway."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from personas.contracts import JobSpec
from personas.errors import RequestError
from personas.hyperparameters import PreferenceMethod
from personas.preferences import Preference
from trainer.material import preferences_of
from trainer.preference.judged import Judged
from trainer.recipe import Recipe

Given = TypeVar("Given", Preference, Judged)

LEAST = 300
"""Fewer preferences are hardly more than noise to KTO and DPO: there is no proven benefit below about a thousand."""
MOST_RATE = 5e-5
ROUNDING = 1e-9
LEAST_BATCH = 4
"""KTO estimates from the other samples of a batch how far the model has gone (arXiv 2402.01306, section 4.1)."""


@dataclass(frozen=True)
class Use:
    """Which preferences are used, and how. `given` counts all that there were, `of_members` who gave the used ones.

    `left_out` counts what went beyond a member's share, `alone` replies without another to compare with, which DPO
    cannot use, `again` those that the same member had given already.
    """

    method: PreferenceMethod
    share: float
    used: tuple[Preference, ...]
    given: int
    left_out: int
    alone: int
    again: int
    of_members: int

    @property
    def only_filters(self) -> bool:
        """Whether there are too few to learn from."""
        return len(self.used) < LEAST

    @property
    def words(self) -> str:
        """What is done, and why, for people."""
        told = f"Of {self.given:,} preferences {len(self.used):,} can be learned from{self._left_out}"
        if not self.only_filters:
            return f"{told}: {self.method.upper()} learns from these, which {_members(self.of_members)} gave."
        return (
            f"{told}, fewer than {LEAST}: they only filter. The persona is trained anew, as the version before was, "
            "without replies that were voted down and with those that were taught."
        )

    @property
    def _left_out(self) -> str:
        """Why not all of them can; empty where they can."""
        why = []
        if self.again:
            why.append(f"{self.again:,} had been given already by the same member")
        if self.left_out:
            why.append(f"{self.left_out:,} go beyond the {self.share:.0%} that preference_share lets one member give")
            if not self.used:
                why.append(f"which takes {math.ceil(1 / self.share - ROUNDING)} members at least")
        if self.alone:
            why.append(f"{self.alone:,} hold one reply alone, which DPO cannot use")
        return f" ({'; '.join(why)})" if why else ""


def use_of(preferences: Sequence[Preference], recipe: Recipe) -> Use:
    """What becomes of preferences, the oldest first, under a recipe."""
    method, share = recipe.preference_method, recipe.preference_share
    once = list({(one.by, one.prompt, one.chosen, one.rejected): one for one in preferences}.values())
    fitting = [one for one in once if one.is_pair or method == "kto"]
    used = within_share(fitting, share)
    return Use(
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
    """Whether a job is one of preferences that has too few to learn from. Raises `MaterialError`."""
    if spec.request.task_type != "preference":
        return False
    return use_of(preferences_of(folder, spec), recipe).only_filters


def within_share(preferences: Sequence[Preference], share: float) -> list[Preference]:
    """As many preferences as may be while no member's are a larger share of them; of each member the latest.

    None at all where there are fewer members than would fill it: of nine, one gives a ninth at least.
    """
    most = _most_of_each(Counter(one.by for one in preferences), share)
    return latest_of_each(preferences, most)


def latest_of_each(given: Sequence[Given], most: int) -> list[Given]:
    """At most so many of each who gave some, the latest, in their order."""
    seen: Counter[str] = Counter()
    kept = []
    for one in reversed(given):
        seen[one.by] += 1
        if seen[one.by] <= most:
            kept.append(one)
    return kept[::-1]


def _most_of_each(counts: Counter[str], share: float) -> int:
    """How many each may give at most."""
    for most in range(max(counts.values(), default=0), 0, -1):
        if most <= share * sum(min(count, most) for count in counts.values()) + ROUNDING:
            return most
    return 0


def notes_on(recipe: Recipe) -> tuple[str, ...]:
    """What in a recipe is hardly meant for preferences."""
    if recipe.learning_rate <= MOST_RATE:
        return ()
    return (
        f"A learning rate of {recipe.learning_rate:g} is far above what KTO and DPO take, 5e-7 to 5e-6: the voice may "
        "be lost.",
    )


def require_possible(recipe: Recipe) -> None:
    """Raise `RequestError` where a recipe cannot learn from preferences, naming what to set."""
    if recipe.preference_method == "kto" and recipe.per_device_train_batch_size < LEAST_BATCH:
        raise RequestError(
            f"KTO learns nothing useful in batches of {recipe.per_device_train_batch_size}.",
            f"Set per_device_train_batch_size={LEAST_BATCH} or more, or preference_method=dpo.",
        )


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count:,} members"
