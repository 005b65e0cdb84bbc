"""The last plans, so that each has an address: what the form said, and what the trainer said of it.

They hold samples as people wrote them, so they stay in memory, and none outlives somebody's being forgotten.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.preview import Plan
from bot.web.problems import Problem
from personas.contracts import TrainingRequest

MOST_KEPT = 20


@dataclass(frozen=True)
class KeptPlan:
    """A plan with the form's fields, the body that they stand for, and the request that this is.

    `forgettings` counts those that had been asked for by then.
    """

    given: Mapping[str, str]
    body: Mapping[str, Any]
    wanted: TrainingRequest
    plan: Plan
    forgettings: int
    made_at: float = field(default_factory=time.time)


class Plans:
    """The last plans since the bot started."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, KeptPlan] = OrderedDict()

    def keep(self, made: KeptPlan) -> str:
        """Keep a plan, the oldest no longer; gives its id."""
        id = secrets.token_hex(5)
        self._plans[id] = made
        if len(self._plans) > MOST_KEPT:
            self._plans.popitem(last=False)
        return id

    def get(self, id: str, forgettings: int) -> KeptPlan:
        """A plan by its id. Raises `Problem` where it is gone; those before the last forgetting go."""
        for known in [known for known, kept in self._plans.items() if kept.forgettings != forgettings]:
            del self._plans[known]
        if id not in self._plans:
            why = f"This plan is gone: the last {MOST_KEPT} are kept, until the bot ends or somebody is forgotten."
            raise Problem("not-found", why, "Plan it again below.")
        return self._plans[id]
