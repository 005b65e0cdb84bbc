"""The public fakes of the bot's seams, and what goes with them. Nothing here stands in for what a
test is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from bot.store import TrainingJob
from bot.training.backend_protocol import OnEvent, RunResult, TrainingInterrupted, TrainingSucceeded
from bot.training.training_plan import AdapterCoverage, RecipeEstimate, TrainingPlan
from personas.errors import UnderstudyError
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import PauseDemand
from tests.samples import SCORECARD

__all__ = ["SCORECARD", "FakeClock", "FakeTrainingBackend", "until"]

PLAN = TrainingPlan(
    samples={"train": 120, "eval": 20},
    tokens=50_000,
    rows=300,
    rows_used=280,
    dropped={"too long": 12, "near duplicate": 8},
    adapter=AdapterCoverage(target_modules=("q_proj", "v_proj"), coverage=0.9876),
    recipes=(
        RecipeEstimate(
            recipe="demo-cpu",
            steps=30,
            seconds=125.0,
            memory_bytes=4 * 2**30,
            basis="an earlier run",
        ),
    ),
)


class FakeClock:
    """Time that passes when told: a sleeper wakes once `advance` has gone far enough."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds since 1970."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until so much time was told to pass."""
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + seconds, woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        return sum(not woken.done() for _, woken in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        for until_s, woken in self._sleepers:
            if until_s <= self._now and not woken.done():
                woken.set_result(None)


class FakeTrainingBackend:
    """A backend that trains nothing: each run waits for `finish`. `held` has each call of `hold`,
    in order.
    """

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.trains_on_cpu = False
        self.refusal: UnderstudyError | None = None
        self.runs: list[TrainingJob] = []
        self.cards: list[TrainingJob] = []
        self.planned: list[TrainingRequest] = []
        self.result = PLAN
        self.held: list[PauseDemand] = []
        self.accepted: list[str] = []
        self.outliving: set[str] = set()
        self._on_event: OnEvent | None = None
        self._ends: dict[str, asyncio.Future[RunResult]] = {}

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Refuse as told in `refusal`."""
        if self.refusal:
            raise self.refusal

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """The plan in `result`, for everyone."""
        self.check(request)
        self.planned.append(request)
        return self.result

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Note the job and wait."""
        self.runs.append(job)
        self._on_event = on_event
        self._ends[job.job_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._ends[job.job_id]
        finally:
            del self._ends[job.job_id]

    async def complete_card(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Note the job in `cards`, and wait as for a run."""
        self.cards.append(job)
        self._on_event = on_event
        self._ends[job.job_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._ends[job.job_id]
        finally:
            del self._ends[job.job_id]

    def accept_written(self, job_id: str) -> None:
        """Note it in `accepted`."""
        self.accepted.append(job_id)

    def cancel(self, job_id: str) -> None:
        """End a run as interrupted."""
        if (end := self._ends.get(job_id)) and not end.done():
            end.set_result(TrainingInterrupted())

    def detach(self) -> None:
        """End all runs as interrupted."""
        for job_id in self._ends:
            self.cancel(job_id)

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """Those in `outliving`."""
        return [job_id for job_id in job_ids if job_id in self.outliving]

    def hold(self, demand: PauseDemand) -> None:
        """Note it."""
        self.held.append(demand)

    @property
    def busy(self) -> bool:
        """Whether a run waits for its end."""
        return bool(self._ends)

    @property
    def on_event(self) -> OnEvent:
        """What the latest run reports to."""
        assert self._on_event is not None
        return self._on_event

    def finish(self, outcome: RunResult | Exception | None = None) -> None:
        """End the latest run that waits, by default well."""
        end = list(self._ends.values())[-1]
        if isinstance(outcome, Exception):
            end.set_exception(outcome)
        else:
            end.set_result(outcome or TrainingSucceeded(Path("adapter"), 60.0, SCORECARD))


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return when the condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  what is waited for is outside this loop as often as in it
            await asyncio.sleep(0.005)
