"""The plan of a training run: asks `trainer run --dry-run` and puts the answer into text."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bot.training.status_text import format_duration
from personas.errors import TrainingError
from personas.home.job_folder import fill_job_folder
from personas.home.job_material import SourceMaterial
from personas.schemas.training import ServingPrecision, TrainingRequest

PREVIEWS_FOLDER = "previews"
"""The folder in the home in which previews work. What is left in it after `kill -9` goes when the bot starts."""
PLAN_TIMEOUT_S = 300.0
MAX_SHOWN_REASONS = 6
MAX_CONTEXT_LINES, MAX_CONTEXT_CHARS = 4, 300  # shown context of a sample: enough to see what is answered
MAX_HISTOGRAM_BINS = 12
MAX_ERROR_CHARS = 700  # characters of an error and of its advice: a message of Discord's takes 2000


class RecipeEstimate(BaseModel):
    """Estimate of one recipe; `basis` says where the speed is known from, `warnings` what is hardly meant."""

    recipe: str
    steps: int
    seconds: float
    memory_bytes: int
    basis: str
    warnings: tuple[str, ...] = ()


class MemoryOption(BaseModel):
    """A way to run the same with less memory: what to `set` of the hyperparameters."""

    set: dict[str, bool | int | str]
    memory_bytes: int


class TokenHistogram(BaseModel):
    """Lengths: quantiles and a histogram; `counts[i]` are from `edges[i]` up to, not including, `edges[i + 1]`."""

    min: int = 0
    median: int = 0
    p95: int = 0
    max: int = 0
    edges: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def rows(self) -> list[tuple[str, float]]:
        """The histogram for a chart, in at most `MAX_HISTOGRAM_BINS` bins of the same width."""
        every = -(-len(self.counts) // MAX_HISTOGRAM_BINS) or 1
        edges = [*self.edges[:-1:every], *self.edges[-1:]]
        counts = [sum(self.counts[first : first + every]) for first in range(0, len(self.counts), every)]
        pairs = zip(edges, edges[1:], counts, strict=False)
        return [(f"{low:,} to {high - 1:,}", float(count)) for low, high, count in pairs]


class Truncation(BaseModel):
    """Truncation at `max_length` tokens: samples that lose their oldest turns, and replies that make none."""

    max_length: int
    history_trimmed: int
    too_long: int


class MaskPreview(BaseModel):
    """A sample as the model is shown it: `parts` in order, each with whether it is learned."""

    parts: tuple[tuple[str, bool], ...]
    tokens: int
    trained_tokens: int

    @property
    def long_before(self) -> str:
        """The beginning of a sample, but for the last lines before what is learned: card, examples, older turns."""
        text, is_learned = self.parts[0] if self.parts else ("", True)
        if is_learned:
            return ""
        shown = "".join(text.splitlines(keepends=True)[-MAX_CONTEXT_LINES:])[-MAX_CONTEXT_CHARS:]
        return text.removesuffix(shown)

    @property
    def long_before_tokens(self) -> int:
        """About how many tokens that has, by its share of the letters."""
        letters = sum(len(text) for text, is_learned in self.parts if not is_learned)
        return round((self.tokens - self.trained_tokens) * len(self.long_before) / max(letters, 1))

    @property
    def shown_parts(self) -> tuple[tuple[str, bool], ...]:
        """The remaining files, in order."""
        first, *others = self.parts or (("", False),)
        return ((first[0].removeprefix(self.long_before), first[1]), *others)


class TrainingPlan(BaseModel):
    """The trainer's plan of a run; `rows` are records of the material. It says more than is read here.

    `lighter` are ways to run it with less memory, from the one that changes least; `masks` are a few samples.
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


async def plan_run(
    command: Sequence[str],
    environ: Mapping[str, str],
    home: Path,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
) -> TrainingPlan:
    """Ask the trainer, a process of its own, over a job folder that goes at the end.

    Raises `TrainingError` with the trainer's words when it could not be run.
    """
    with _preview_folder(home) as folder:
        await asyncio.to_thread(fill_job_folder, folder, home, "preview", "v0", request, materials, precision)
        words = ["run", str(folder), "--dry-run", "--json", "--samples", "--nice", "10"]
        code, output, errors = await _run_trainer([*command, *words], {**environ, "TMPDIR": str(folder.parent)})
    if code:
        raise _parse_failure(output) or TrainingError(
            errors.strip().rpartition("\n")[2] or f"The trainer gave no plan (exit code {code})."
        )
    try:
        return TrainingPlan.model_validate(json.loads(output))
    except (ValueError, ValidationError) as error:
        raise TrainingError("The trainer's plan cannot be read.", "Its version is not the bot's.") from error


@contextmanager
def _preview_folder(home: Path) -> Iterator[Path]:
    """An empty folder for a job, gone at the end. It holds people's words, so it is in the home."""
    (home / PREVIEWS_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / PREVIEWS_FOLDER) as aside:
        folder = Path(aside) / "job"
        folder.mkdir()
        yield folder


def shorten_error(message: str, advice: str) -> tuple[str, str]:
    """An error as it fits a message: its beginning, which says of what it speaks; of a list of advice the names."""
    first, *listed = advice.splitlines() or [""]
    if listed:
        first = f"{first} {', '.join(line.strip().partition(':')[0] for line in listed)}."
    cut = partial(textwrap.shorten, width=MAX_ERROR_CHARS, placeholder=" …")
    return cut(message), cut(first)


def _parse_failure(output: str) -> TrainingError | None:
    """The error that a trainer tells on its standard output."""
    try:
        told = json.loads(output)
        return TrainingError(*shorten_error(str(told["error"]), str(told["advice"])))
    except (ValueError, LookupError, TypeError):
        return None


async def _run_trainer(command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a process that does not outlive this call."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=dict(environ), process_group=0
    )
    try:
        async with asyncio.timeout(PLAN_TIMEOUT_S):
            output, errors = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")
    except TimeoutError:
        raise TrainingError("The plan took too long.", "Ask on the machine: python -m trainer plan.") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def plan_text(plan: TrainingPlan, recipe: str, place: int, is_training: bool, conflict: str = "") -> str:
    """A plan for a moderator; `place` 1 is next in the queue, `conflict` why it could not be queued now."""
    samples: Mapping[str, Any] = plan.samples
    lines = [
        f"**{samples['train']:,}** replies to learn from, {samples['eval']:,} held out; {plan.tokens:,} tokens.",
        f"{plan.rows_used:,} of {plan.rows:,} records are used.",
        *(f"- {rows:,}: {reason}" for reason, rows in list(plan.dropped.items())[:MAX_SHOWN_REASONS]),
    ]
    for found in plan.recipes:
        if found.recipe == recipe:
            memory = f"{found.memory_bytes / 2**30:.1f} GiB of memory"
            lines.append(f"`{recipe}`: {found.steps:,} steps, about {format_duration(found.seconds)}, {memory}.")
            lines.append(f"-# estimated from {found.basis}; its score card then takes as long again at most")
            lines += [f"⚠️ {warning}" for warning in found.warnings[:MAX_SHOWN_REASONS]]
    if conflict:
        return "\n".join([*lines, f"It could not be started now: {conflict} Nothing has been queued."])
    behind = " after the one that trains now" if is_training else ""
    lines.append(f"Started now it would be number {place} in the queue{behind}. Nothing has been queued.")
    return "\n".join(lines)
