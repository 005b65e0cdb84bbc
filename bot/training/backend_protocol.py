"""The seam between queue and trainer: what a backend does, and how a run ends."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bot.store import TrainingJob
from bot.training.training_plan import TrainingPlan
from personas.schemas.training import TrainingRequest
from personas.schemas.training_events import Epoch, PauseDemand, ScoreSummary, TrainerEvent

OnEvent = Callable[[TrainerEvent], None]


@dataclass(frozen=True)
class TrainingSucceeded:
    """The adapter is verified and installed. `seconds` is the run's duration."""

    adapter: Path
    seconds: float
    scorecard: ScoreSummary
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class TrainingFailed:
    """The run ended without an adapter. `can_resume`: once the cause is fixed, the job can be
    resumed.
    """

    error: str
    advice: str = ""
    can_resume: bool = False


@dataclass(frozen=True)
class TrainingInterrupted:
    """The run was stopped before its end and can be run again; `why` and `advice` are for when it
    cannot.
    """

    why: str = ""
    advice: str = ""


RunResult = TrainingSucceeded | TrainingFailed | TrainingInterrupted


class TrainingBackend(Protocol):
    """Backend that runs trainings."""

    slots: int
    """Number of runs at once."""
    trains_on_cpu: bool
    """Runs have no GPU, as far as is known before one begins."""

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise an `UnderstudyError` when the server's request could not be run here; changes
        nothing.
        """
        ...

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        """Plan a run; changes nothing. Raises an `UnderstudyError` where it could not be run."""
        ...

    async def run(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Train to the end. A job that was run before, even to the end, may be run again.

        A run of this attempt that still goes on, because the bot was restarted, is followed
        instead.
        """
        ...

    async def complete_card(self, job: TrainingJob, on_event: OnEvent) -> RunResult:
        """Measure the rest of a finished job's score card; the result has the complete one.

        What was measured before an interruption is kept.
        """
        ...

    def accept_written(self, job_id: str) -> None:
        """Let the next run of a job train on its written replies, which were read. Raises `OSError`."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job's run, if there is one; it ends as `TrainingInterrupted`. May be called
        twice.
        """
        ...

    def detach(self) -> None:
        """Leave all runs, because the bot ends: each `run` returns `TrainingInterrupted`.

        A trainer on this machine stops; one elsewhere goes on and is found again by the next `run`
        of its attempt.
        """
        ...

    def adopt(self, job_ids: Collection[str]) -> Collection[str]:
        """Return which of these jobs' runs may have outlived the bot; end all others that did.

        To be called once before `run`, with the jobs that were running when the bot ended.
        """
        ...

    def hold(self, demand: PauseDemand) -> None:
        """Pause or continue the runs while replies are generated; a paused run still makes
        progress.
        """
        ...
