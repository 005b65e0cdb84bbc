"""Limits of a run: time, silence, memory and disk."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bot.settings import Settings
from bot.training.status_text import format_duration
from personas.errors import RunLimitError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE
from personas.schemas.training_events import (
    Estimate,
    Phase,
    Progress,
    RunPosition,
    TrainerEvent,
)

# Pauses for replies and the score card take time, too, and estimates are rough.
MIN_WALL_S = 6 * 3600.0
WALL_FACTOR = 20.0
"""A run may take this many times its estimate, but always `MIN_WALL_S`."""
ETA_FACTOR = 1.5
ETA_AFTER_S = 600.0
"""After some time, a run that needs this many times what it may take is ended."""
MEMORY_FACTOR = 3
MEMORY_SLACK_BYTES = 4 * 2**30
RESUME_ADVICE = "Resume the job: it goes on from its last checkpoint."


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of each attempt of a run, by a clock that does not jump.

    `stall_s` is the longest time without an event. `guild_s` is the duration of runs requested on a
    server, `operator_s` of all others. `memory_bytes` limits the trainer's memory, 0 does by its
    estimate; the rest of the machine keeps `free_memory_bytes`, and the home's disk
    `free_disk_bytes`.
    """

    stall_s: float = 3600.0
    guild_s: float = 24 * 3600.0
    operator_s: float = float("inf")
    memory_bytes: int = 0
    free_memory_bytes: int = 200 * 2**20
    free_disk_bytes: int = 200 * 2**20

    @classmethod
    def of(cls, settings: Settings) -> "RunLimits":
        """Return the limits that the settings describe."""
        return cls(
            stall_s=settings.trainer_stall_minutes * 60,
            guild_s=settings.trainer_max_hours * 3600,
            operator_s=settings.trainer_operator_max_hours * 3600 or float("inf"),
            memory_bytes=settings.trainer_max_memory_gib * 2**30,
        )


class RunWatch:
    """Compares an attempt of a run with its limits. `now` returns seconds and does not jump."""

    def __init__(
        self, limits: RunLimits, guild_id: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._now = now
        self._max_s = limits.operator_s if guild_id == OPERATOR_GUILD_ID else limits.guild_s
        self._began = now()
        self._heard_at = self._began
        self._estimate: Estimate | None = None
        self._eta_s = 0.0
        self._was_memory_low = False
        self._is_writing_replies = False

    def note(self, event: TrainerEvent) -> None:
        """Take note of an event."""
        self._heard_at = self._now()
        if isinstance(event, Estimate):
            self._estimate = event
        elif isinstance(event, Progress):
            self._eta_s = event.eta_s
        if isinstance(event, RunPosition):
            self._is_writing_replies = isinstance(event, Phase) and event.name == "writing replies"

    def require_time(self) -> None:
        """Raise `RunLimitError` if the run is silent, or takes too long."""
        silent_s = self._now() - self._heard_at
        if silent_s > self._limits.stall_s:
            raise RunLimitError(
                f"The trainer was ended: it reported nothing for {format_duration(silent_s)}.",
                f"{RESUME_ADVICE} The limit is TRAINER_STALL_MINUTES. If other programs keep the "
                "cores busy, set a lower TRAINER_NICE.",
            )
        took_s = self._now() - self._began
        if took_s > ETA_AFTER_S and self._eta_s > ETA_FACTOR * self._max_s:
            raise RunLimitError(
                f"The training was ended: it would take {format_duration(self._eta_s)} more, and "
                f"may take {format_duration(self._max_s)}.",
                "Start one with a smaller num_train_epochs or max_steps, or less data. The limit "
                "is TRAINER_MAX_HOURS.",
            )
        max_s = self._max_s
        if self._estimate:
            max_s = min(max_s, max(MIN_WALL_S, WALL_FACTOR * self._estimate.seconds))
        if took_s > max_s:
            raise RunLimitError(
                f"The training was ended after {format_duration(took_s)}, the longest time at a "
                "stretch.",
                f"{RESUME_ADVICE} The limit is TRAINER_MAX_HOURS, and {WALL_FACTOR:.0f} times the "
                "estimated time.",
            )

    def require_resources(self, home: Path, held_bytes: int) -> None:
        """Raise `RunLimitError` if memory or disk runs out. `held_bytes` is the memory of the
        trainer's processes.
        """
        limits = self._limits
        free_bytes = shutil.disk_usage(home).free
        if free_bytes < limits.free_disk_bytes:
            raise RunLimitError(
                f"The training was ended: only {free_bytes / 2**20:.0f} MiB of the disk are free.",
                f"Free disk space under {home}, then resume the job.",
            )
        max_bytes = self._max_memory_bytes()
        is_low = psutil.virtual_memory().available < limits.free_memory_bytes
        is_too_large = bool(max_bytes) and held_bytes > max_bytes
        # A single low reading may be a moment's peak of another program.
        if is_too_large or (is_low and self._was_memory_low):
            reason = f"its limit is {max_bytes / 2**30:.1f} GiB"
            if is_low:
                reason = "hardly any of the machine's is free"
            raise RunLimitError(
                f"The training was ended: it held {held_bytes / 2**30:.1f} GiB of memory, and "
                f"{reason}.",
                f"{self._memory_advice()} The limit is TRAINER_MAX_MEMORY_GIB.",
            )
        self._was_memory_low = is_low

    def _memory_advice(self) -> str:
        if self._is_writing_replies:
            return SMALLER_TEACHER_ADVICE
        return (
            "Close other programs, or start one with a smaller per_device_train_batch_size or "
            "max_length."
        )

    def _max_memory_bytes(self) -> int:
        """The limit of the trainer's memory; 0 for none while there is no estimate."""
        if self._limits.memory_bytes:
            return self._limits.memory_bytes
        if self._estimate and self._estimate.memory_bytes:
            return MEMORY_FACTOR * self._estimate.memory_bytes + MEMORY_SLACK_BYTES
        return 0
