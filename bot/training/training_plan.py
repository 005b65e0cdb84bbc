"""The plan of a training run: what the trainer reports of it without training
(`trainer run --dry-run`).
"""

import asyncio
import json
import os
import signal
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ValidationError

from bot.platform.localisation import LocalisableText, gettext_lazy
from personas.errors import TrainingError
from personas.home.job_folder import fill_job_folder
from personas.home.job_material import SourceMaterial
from personas.home.teacher_setting import SMALLER_TEACHER_ADVICE
from personas.schemas.import_report import ImportReport
from personas.schemas.training import ServingPrecision, TrainingRequest
from personas.schemas.training_events import phase_label

PREVIEWS_FOLDER = "previews"
"""The home's folder for previews. What a killed bot leaves in it is deleted at the next start."""
PLAN_TIMEOUT_S = 300.0
MAX_CONTEXT_LINES = 4
MAX_CONTEXT_CHARS = 300
"""Shown part of the context before a reply: enough to see what it answers."""
MAX_HISTOGRAM_BINS = 12
MAX_ERROR_CHARS = 700
"""Characters of an error and of its advice: a Discord message takes 2,000."""


class RecipeEstimate(BaseModel):
    """Estimate of one recipe; `phases` are the seconds of each phase of a run, and `seconds` those
    of all. `memory` are the parts of the memory; `writing` is what a model takes beyond the training
    that writes replies before it. `basis` is the source of the speed, `warnings` are about unlikely
    settings.
    """

    recipe: str
    steps: int
    seconds: float
    phases: dict[str, float] = {}
    memory_bytes: int
    memory: dict[str, int] = {}
    basis: str
    warnings: tuple[str, ...] = ()

    @property
    def long_phases(self) -> dict[str, float]:
        """The seconds of each phase that takes one at least, by its label."""
        return {phase_label(name): each for name, each in self.phases.items() if each >= 1}

    @property
    def notes(self) -> tuple[str, ...]:
        """The warnings, in another language where they are marked for translation."""
        return tuple(map(LocalisableText, self.warnings))

    @property
    def memory_advice(self) -> str:
        """What helps where no settings make the run fit into memory."""
        if self.memory.get("writing"):
            return LocalisableText(SMALLER_TEACHER_ADVICE)
        return gettext_lazy("Close other programs, or choose a smaller base model.")


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
        bins_per_row = -(-len(self.counts) // MAX_HISTOGRAM_BINS) or 1
        edges = [*self.edges[:-1:bins_per_row], *self.edges[-1:]]
        rows: list[tuple[str, float]] = []
        for row, (low, high) in enumerate(pairwise(edges)):
            first = row * bins_per_row
            count = sum(self.counts[first : first + bins_per_row])
            rows.append((f"{low:,} to {high - 1:,}", float(count)))
        return rows


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


class AdapterCoverage(BaseModel):
    """The layers that get an adapter. `coverage` is their share of the parameters in the base
    model's blocks, `left_out` the shares of the other layers by name.
    """

    target_modules: tuple[str, ...]
    coverage: float
    left_out: dict[str, float] = {}


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
    adapter: AdapterCoverage | None = None
    longest_tokens: int = 0
    tokens_per_sample: TokenHistogram = TokenHistogram()
    truncation: Truncation | None = None
    masks: tuple[MaskPreview, ...] = ()
    lore_pairs: dict[str, int] = {}
    import_report: dict[str, list[dict[str, str]]] = {}

    @property
    def import_lines(self) -> list[str]:
        """Report of a card's import, a line for each part: taken as is, with another meaning, or
        left out.
        """
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
        return gettext_lazy(
            "Of {extracted:,} extracted and {synthesised:,} synthesised lore pairs, {used:,} are "
            "used: {share:.0%} of the replies.",
            extracted=extracted,
            synthesised=synthesised,
            used=used,
            share=share,
        )


async def plan_run(
    command: Sequence[str],
    home: Path,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    *,
    precision: ServingPrecision,
    environ: Mapping[str, str],
    card: str = "full",
) -> TrainingPlan:
    """Plan a run with a score card of this extent in a trainer process, with a temporary job
    folder. Raises `TrainingError` with the trainer's error.
    """
    with _preview_folder(home) as folder:
        await asyncio.to_thread(
            fill_job_folder,
            folder,
            home,
            job_id="preview",
            version="v0",
            request=request,
            materials=materials,
            precision=precision,
        )
        arguments = ["run", str(folder), "--dry-run", "--json", "--samples", "--card", card]
        arguments += ["--nice", "10"]
        # Temporary files may hold members' messages, too.
        code, output, errors = await _run_trainer(
            [*command, *arguments], {**environ, "TMPDIR": str(folder.parent)}
        )
    if code:
        raise _plan_error(code, output, errors)
    try:
        return TrainingPlan.model_validate_json(output)
    except ValidationError as error:
        raise TrainingError(
            gettext_lazy("The trainer's plan cannot be read."),
            gettext_lazy("Its version is not the bot's."),
        ) from error


@contextmanager
def _preview_folder(home: Path) -> Iterator[Path]:
    """A temporary job folder, inside the home since it holds members' messages."""
    (home / PREVIEWS_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home / PREVIEWS_FOLDER) as parent:
        folder = Path(parent) / "job"
        folder.mkdir()
        yield folder


def _plan_error(code: int, output: str, errors: str) -> TrainingError:
    """Build the error of a trainer that gave no plan: its own, or the last line of its log."""
    try:
        failure = json.loads(output)
        message, advice = shorten_error(str(failure["error"]), str(failure["advice"]))
    except (ValueError, LookupError, TypeError):
        last_line = errors.strip().rpartition("\n")[2]
        return TrainingError(last_line or f"The trainer gave no plan (exit code {code}).")
    return TrainingError(message, advice)


def shorten_error(message: str, advice: str) -> tuple[str, str]:
    """Shorten an error to fit a message; of a list of advice only the names are kept."""
    first, *items = advice.splitlines() or [""]
    if items:
        names = [item.strip().partition(":")[0] for item in items]
        first = f"{first} {', '.join(names)}."
    return (
        textwrap.shorten(message, MAX_ERROR_CHARS, placeholder=" …"),
        textwrap.shorten(first, MAX_ERROR_CHARS, placeholder=" …"),
    )


async def _run_trainer(command: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Return exit code, output and errors of a process that does not outlive this call."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=dict(environ),
        process_group=0,  # in the bot's session, where niceness counts
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
            gettext_lazy("The plan took too long."),
            gettext_lazy("Ask on the machine: python -m trainer plan."),
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
