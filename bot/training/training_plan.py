"""The plan of a training run (`trainer run --dry-run`) and its text; and the limits of a run."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from bot.settings import Settings
from bot.training.status_text import format_duration
from personas.errors import RunLimitError, TrainingError
from personas.home.job_folder import fill_job_folder
from personas.home.job_material import SourceMaterial
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.import_report import ImportReport
from personas.schemas.training import ServingPrecision, TrainingRequest
from personas.schemas.training_events import Estimate, Progress, TrainerEvent

PREVIEWS_FOLDER = "previews"
"""The home's folder for previews. What a killed bot leaves in it is deleted at the next start."""
PLAN_TIMEOUT_S = 300.0
MAX_SHOWN_REASONS = 6
MAX_REPORT_LINE_CHARS = 200
"""Characters of a line of the import's report: a Discord message takes 2,000."""
MAX_CONTEXT_LINES, MAX_CONTEXT_CHARS = 4, 300
"""Shown part of the context before a reply: enough to see what it answers."""
MAX_HISTOGRAM_BINS = 12
MAX_ERROR_CHARS = 700
"""Characters of an error and of its advice: a Discord message takes 2,000."""
MIN_WALL_S, WALL_FACTOR = 6 * 3600.0, 20.0
"""A run may take this many times its estimate: pauses for replies and the score card take time,
too.
"""
ETA_FACTOR, ETA_AFTER_S = 1.5, 600.0
"""After some time, a run that needs this many times what it may take is ended."""
MEMORY_FACTOR = 3
MEMORY_SLACK_BYTES = 4 * 2**30
RESUME_ADVICE = "Resume the job: it goes on from its last checkpoint."


class RecipeEstimate(BaseModel):
    """Estimate of one recipe; `basis` is the source of the speed, `warnings` are about unlikely
    settings.
    """

    recipe: str
    steps: int
    seconds: float
    memory_bytes: int
    basis: str
    warnings: tuple[str, ...] = ()


class MemoryOption(BaseModel):
    """A way to run the same with less memory: the hyperparameters to `set`."""

    set: dict[str, bool | int | str]
    memory_bytes: int


class TokenHistogram(BaseModel):
    """Lengths: quantiles and a histogram; `counts[i]` is for `edges[i]` up to, not including,
    `edges[i + 1]`.
    """

    min: int = 0
    median: int = 0
    p95: int = 0
    max: int = 0
    edges: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def rows(self) -> list[tuple[str, float]]:
        """The histogram for a chart, in at most `MAX_HISTOGRAM_BINS` bins of equal width."""
        every = -(-len(self.counts) // MAX_HISTOGRAM_BINS) or 1
        edges = [*self.edges[:-1:every], *self.edges[-1:]]
        counts = [
            sum(self.counts[first : first + every]) for first in range(0, len(self.counts), every)
        ]
        pairs = zip(edges, edges[1:], counts, strict=False)
        return [(f"{low:,} to {high - 1:,}", float(count)) for low, high, count in pairs]


class Truncation(BaseModel):
    """Truncation at `max_length` tokens: samples that lose their oldest turns, and replies that fit
    in none.
    """

    max_length: int
    history_trimmed: int
    too_long: int


class MaskPreview(BaseModel):
    """A sample as the model sees it: `parts` in order, each with whether it is learned."""

    parts: tuple[tuple[str, bool], ...]
    tokens: int
    trained_tokens: int

    @property
    def long_before(self) -> str:
        """The beginning of a sample except the last lines before the learned part: card, examples,
        older turns.
        """
        text, is_learned = self.parts[0] if self.parts else ("", True)
        if is_learned:
            return ""
        shown = "".join(text.splitlines(keepends=True)[-MAX_CONTEXT_LINES:])[-MAX_CONTEXT_CHARS:]
        return text.removesuffix(shown)

    @property
    def long_before_tokens(self) -> int:
        """Estimate its tokens by its share of the letters."""
        letters = sum(len(text) for text, is_learned in self.parts if not is_learned)
        return round((self.tokens - self.trained_tokens) * len(self.long_before) / max(letters, 1))

    @property
    def shown_parts(self) -> tuple[tuple[str, bool], ...]:
        """The parts after `long_before`."""
        first, *others = self.parts or (("", False),)
        return ((first[0].removeprefix(self.long_before), first[1]), *others)


class TrainingPlan(BaseModel):
    """The trainer's plan of a run, without the fields that the bot ignores; `rows` are records of
    the material.

    `lighter` are ways to run it with less memory, smallest change first; `masks` are a few samples.
    """

    samples: dict[str, int]
    tokens: int
    rows: int
    rows_used: int
    dropped: dict[str, int]
    recipes: tuple[RecipeEstimate, ...]
    lighter: tuple[MemoryOption, ...] = ()
    sources: dict[str, int] = {}
    longest_tokens: int = 0
    tokens_per_sample: TokenHistogram = TokenHistogram()
    truncation: Truncation | None = None
    masks: tuple[MaskPreview, ...] = ()
    lore_pairs: dict[str, int] = {}
    import_report: dict[str, list[dict[str, str]]] = {}

    @property
    def import_lines(self) -> list[str]:
        """What was taken as is, what with another meaning, and what was not, a line each."""
        return ImportReport.from_json(self.import_report).lines()

    @property
    def lore_pairs_text(self) -> str:
        """The number of lore pairs, and their share of all samples; empty if none were
        requested.
        """
        if not self.lore_pairs:
            return ""
        extracted, synthesised, used, samples = self.lore_pairs.values()
        share = samples / max(sum(self.samples.values()), 1)
        there = f"{extracted:,} extracted and {synthesised:,} synthesised"
        return f"Of {there} lore pairs, {used:,} are used: {share:.0%} of the replies."


async def plan_run(
    command: Sequence[str],
    environ: Mapping[str, str],
    home: Path,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
) -> TrainingPlan:
    """Plan a run in a trainer process, with a temporary job folder. Raises `TrainingError` with the
    trainer's error.
    """
    with _preview_folder(home) as folder:
        await asyncio.to_thread(
            fill_job_folder, folder, home, "preview", "v0", request, materials, precision
        )
        arguments = ["run", str(folder), "--dry-run", "--json", "--samples", "--nice", "10"]
        code, output, errors = await _run_trainer(
            [*command, *arguments], {**environ, "TMPDIR": str(folder.parent)}
        )
    if code:
        raise _parse_failure(output) or TrainingError(
            errors.strip().rpartition("\n")[2] or f"The trainer gave no plan (exit code {code})."
        )
    try:
        return TrainingPlan.model_validate(json.loads(output))
    except (ValueError, ValidationError) as error:
        raise TrainingError(
            "The trainer's plan cannot be read.", "Its version is not the bot's."
        ) from error


@contextmanager
def _preview_folder(home: Path) -> Iterator[Path]:
    """A temporary job folder, inside the home since it holds members' messages."""
    (home / PREVIEWS_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / PREVIEWS_FOLDER) as parent:
        folder = Path(parent) / "job"
        folder.mkdir()
        yield folder


def shorten_error(message: str, advice: str) -> tuple[str, str]:
    """Shorten an error to fit a message; of a list of advice only the names are kept."""
    first, *items = advice.splitlines() or [""]
    if items:
        first = f"{first} {', '.join(line.strip().partition(':')[0] for line in items)}."
    shorten = partial(textwrap.shorten, width=MAX_ERROR_CHARS, placeholder=" …")
    return shorten(message), shorten(first)


def _parse_failure(output: str) -> TrainingError | None:
    try:
        failure = json.loads(output)
        return TrainingError(*shorten_error(str(failure["error"]), str(failure["advice"])))
    except (ValueError, LookupError, TypeError):
        return None


async def _run_trainer(command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Return exit code, output and errors of a process that does not outlive this call."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=dict(environ),
        process_group=0,
    )
    try:
        async with asyncio.timeout(PLAN_TIMEOUT_S):
            output, errors = await process.communicate()
        return (
            process.returncode or 0,
            output.decode(errors="replace"),
            errors.decode(errors="replace"),
        )
    except TimeoutError:
        raise TrainingError(
            "The plan took too long.", "Ask on the machine: python -m trainer plan."
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@dataclass(frozen=True)
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
            settings.trainer_stall_minutes * 60,
            settings.trainer_max_hours * 3600,
            settings.trainer_operator_max_hours * 3600 or float("inf"),
            settings.trainer_max_memory_gib * 2**30,
        )


def evaluation_environ(settings: Settings) -> dict[str, str]:
    """The settings of replies that a run reads from its environment, so that it measures them as
    they are served.
    """
    candidates = min(settings.reply_candidates, settings.max_reply_candidates)
    sampling = {name.upper(): str(value) for name, value in settings.sampling.items()}
    return {"LORE_ENCODER": settings.lore_encoder, "REPLY_CANDIDATES": str(candidates), **sampling}


class RunWatch:
    """Compares an attempt of a run with its limits. `now` returns seconds and does not jump."""

    def __init__(
        self, limits: RunLimits, guild_id: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._now = now
        self._most_s = limits.operator_s if guild_id == OPERATOR_GUILD_ID else limits.guild_s
        self._began = self._heard_at = now()
        self._estimate: Estimate | None = None
        self._eta_s = 0.0
        self._was_memory_low = False

    def note(self, event: TrainerEvent) -> None:
        """Take note of an event."""
        self._heard_at = self._now()
        if isinstance(event, Estimate):
            self._estimate = event
        elif isinstance(event, Progress):
            self._eta_s = event.eta_s

    def require_time(self) -> None:
        """Raise `RunLimitError` if the run is silent, or takes too long."""
        limits = self._limits
        took_s = self._now() - self._began
        silent_s = self._now() - self._heard_at
        if silent_s > limits.stall_s:
            raise RunLimitError(
                f"The trainer was ended: it reported nothing for {format_duration(silent_s)}.",
                f"{RESUME_ADVICE} The limit is TRAINER_STALL_MINUTES. If other programs keep the "
                "cores busy, set a "
                "lower TRAINER_NICE.",
            )
        if took_s > ETA_AFTER_S and self._eta_s > ETA_FACTOR * self._most_s:
            raise RunLimitError(
                f"The training was ended: it would take {format_duration(self._eta_s)} more, and "
                "may take "
                f"{format_duration(self._most_s)}.",
                "Start one with a smaller num_train_epochs or max_steps, or less data. The limit "
                "is TRAINER_MAX_HOURS.",
            )
        estimated_s = (
            max(MIN_WALL_S, WALL_FACTOR * self._estimate.seconds)
            if self._estimate
            else float("inf")
        )
        if took_s > min(self._most_s, estimated_s):
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
        if (free := shutil.disk_usage(home).free) < limits.free_disk_bytes:
            raise RunLimitError(
                f"The training was ended: only {free / 2**20:.0f} MiB of the disk are free.",
                f"Free disk space under {home}, then resume the job.",
            )
        estimated = self._estimate.memory_bytes if self._estimate else 0
        most = limits.memory_bytes or (
            MEMORY_FACTOR * estimated + MEMORY_SLACK_BYTES if estimated else 0
        )
        is_low = psutil.virtual_memory().available < limits.free_memory_bytes
        if (most and held_bytes > most) or (is_low and self._was_memory_low):
            limit = (
                f"its limit is {most / 2**30:.1f} GiB"
                if not is_low
                else "hardly any of the machine's is free"
            )
            raise RunLimitError(
                f"The training was ended: it held {held_bytes / 2**30:.1f} GiB of memory, and "
                f"{limit}.",
                "Close other programs, or start one with a smaller per_device_train_batch_size or "
                "max_length. The "
                "limit is TRAINER_MAX_MEMORY_GIB.",
            )
        self._was_memory_low = is_low


def plan_text(
    plan: TrainingPlan, recipe: str, place: int, is_training: bool, conflict: str = ""
) -> str:
    """Describe a plan; `place` 1 is next in the queue, `conflict` is why it could not be queued
    now.
    """
    train = plan.samples["train"]
    heldout = plan.samples["eval"]
    lines = [
        f"**{train:,}** replies to learn from, {heldout:,} held out; {plan.tokens:,} tokens.",
        f"{plan.rows_used:,} of {plan.rows:,} records are used.",
        *filter(None, [plan.lore_pairs_text]),
        *(
            f"- {rows:,}: {reason}"
            for reason, rows in list(plan.dropped.items())[:MAX_SHOWN_REASONS]
        ),
        *(
            textwrap.shorten(line, MAX_REPORT_LINE_CHARS, placeholder=" …")
            for line in plan.import_lines[:MAX_SHOWN_REASONS]
        ),
    ]
    for estimate in (it for it in plan.recipes if it.recipe == recipe):
        memory = f"{estimate.memory_bytes / 2**30:.1f} GiB of memory"
        lines.append(
            f"`{recipe}`: {estimate.steps:,} steps, about {format_duration(estimate.seconds)}, "
            f"{memory}."
        )
        lines.append(
            f"-# estimated from {estimate.basis}; the score card takes as long again at most, or a "
            "few minutes"
        )
        lines += [f"⚠️ {warning}" for warning in estimate.warnings[:MAX_SHOWN_REASONS]]
    if conflict:
        return "\n".join(
            [*lines, f"It could not be started now: {conflict} Nothing has been queued."]
        )
    behind = " after the running one" if is_training else ""
    lines.append(
        f"Started now, it would be number {place} in the queue{behind}. Nothing has been queued."
    )
    return "\n".join(lines)
