"""The latest plans that the page has shown, each at its own address."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.platform.web_kit.problems import Problem
from bot.training.training_plan import TrainingPlan
from personas.schemas.training import TrainingRequest

MAX_STORED_PLANS = 20


@dataclass(frozen=True)
class StoredPlan:
    """A plan with the form's fields, the body that they stand for, and the request that this is.

    `erasure_count` is the number of forget requests at that time.
    """

    given: Mapping[str, str]
    body: Mapping[str, Any]
    wanted: TrainingRequest
    plan: TrainingPlan
    erasure_count: int
    made_at: float = field(default_factory=time.time)


class PlanCache:
    """The last plans since the bot started."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, StoredPlan] = OrderedDict()

    def add(self, plan: StoredPlan) -> str:
        """Store a plan, dropping the oldest; returns its id."""
        id = secrets.token_hex(5)
        self._plans[id] = plan
        if len(self._plans) > MAX_STORED_PLANS:
            self._plans.popitem(last=False)
        return id

    def get(self, id: str, erasure_count: int) -> StoredPlan:
        """A plan by its id. Raises `Problem` if it has expired; plans from before a forget request
        are dropped.
        """
        for plan_id, plan in list(self._plans.items()):
            if plan.erasure_count != erasure_count:
                del self._plans[plan_id]
        if id not in self._plans:
            raise Problem("not-found", "This plan has expired.", "Plan it again below.")
        return self._plans[id]


PLAN_CACHE = web.AppKey("plans", PlanCache)
