"""Quality study: measures an adapter's replies under several sampling settings and seeds, and stores
a result for each.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from personas.errors import RequestError
from personas.home.atomic_files import lock_folder, write_private_file
from personas.models.base_model import RECOMMENDED_SAMPLING
from personas.schemas.chat import MAX_CANDIDATES, SamplingParams
from trainer.evaluate.generation.reply_tasks import ReplyValue

QUALITY_RESULTS_FOLDER = "results"
SERVED = "as served"
SAMPLING_TYPES: dict[str, Any] = {
    setting.name: type(setting.default)
    for setting in fields(SamplingParams)
    if type(setting.default) in (int, float)
}
"""Types of the settings of sampling that are numbers."""
SAMPLING_RANGES = {
    **RECOMMENDED_SAMPLING,
    "max_new_tokens": (1, 4096),
    "candidates": (1, MAX_CANDIDATES),
}
"""Settings of sampling that a study varies, with the least and the largest value."""
ENDED = "end by themselves"
MeasurePoint = Callable[["QualityPoint"], "QualityResult"]


@dataclass(frozen=True)
class QualityPoint:
    """Sampling settings, as written, and a seed."""

    settings: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.settings},seed={self.seed}"

    def sampling(self, served: SamplingParams) -> SamplingParams:
        """The settings over those that the bot serves with. Raises `RequestError` for unknown
        ones.
        """
        return replace(served, **parse_sampling(self.settings))


@dataclass(frozen=True)
class QualityResult:
    """The values of a point's replies by measure, with ceilings and floors as means, and the
    seconds it took.

    `key` is the SHA-256 of all that they depend on besides: the adapter, data, lore, other voices,
    evaluation files and defaults. `tokens` is the mean length of replies to held-out prompts.
    """

    key: str
    settings: str
    seed: int
    seconds: float
    values: dict[str, list[ReplyValue]]
    ceiling: dict[str, float] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    tokens: float = 0.0


STORED_RESULT = TypeAdapter(QualityResult)


def parse_sampling(text: str) -> dict[str, Any]:
    """Parse `name=value,name=value`; `SERVED` changes nothing. Raises `RequestError`."""
    settings: dict[str, Any] = {}
    if text == SERVED:
        return settings
    for pair in text.split(","):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name in settings:
            raise RequestError(
                f"{text!r} sets {name} twice.", "Give --try once for each value to compare."
            )
        try:
            settings[name] = SAMPLING_TYPES[name](value)
            least, largest = SAMPLING_RANGES[name]
            is_possible = least <= settings[name] <= largest
        except (KeyError, ValueError):
            is_possible = False
        if not is_possible:
            ranges = [f"{key} from {low} to {high}" for key, (low, high) in SAMPLING_RANGES.items()]
            raise RequestError(
                f"{pair!r} is no setting of sampling, or out of its range.",
                f"Write NAME=VALUE: {', '.join(ranges)}.",
            )
    return settings


def quality_points(tried: Sequence[str], runs: int) -> list[QualityPoint]:
    """Return all points, the first seed of each first. Raises `RequestError` for settings that
    cannot be tried.
    """
    combinations = {SERVED: None}  # a dict keeps the order and drops repetitions
    for text in tried:
        pairs = sorted(parse_sampling(text).items())
        written = ",".join(f"{name}={value:g}" for name, value in pairs)
        combinations[written or SERVED] = None
    points = []
    # Seed by seed, so that a study which is stopped has compared all settings.
    for seed in range(runs):
        points += [QualityPoint(settings, seed) for settings in combinations]
    return points


@contextmanager
def lock_study(out: Path) -> Iterator[None]:
    """Create the folder of a study and keep it to this process. Raises `RequestError` if another
    one has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out) as is_free:
        if not is_free:
            raise RequestError(
                f"Another process measures in {out}.", "Wait for it, or name another --out."
            )
        yield


def run_quality_study(
    out: Path,
    points: Sequence[QualityPoint],
    key: str,
    measure: MeasurePoint,
    report: Callable[[str], None],
) -> list[QualityResult]:
    """Measure the points that `out` has no result of; return all results. Raises `UnderstudyError`,
    `OSError`.

    Results with another `key` are refused. Those of other settings, by earlier studies with the
    same key, come last.
    """
    results: list[QualityResult] = []
    spent: list[float] = []
    for number, point in enumerate(points, 1):
        result = read_quality_result(out, point)
        if result is None:
            time_left = ""
            if spent:
                minutes = fmean(spent) * (len(points) - number + 1) / 60
                time_left = f", about {minutes:.0f} min left"
            report(f"{number} of {len(points)}: {point.name}{time_left}")
            result = measure(point)
            spent.append(result.seconds)
            file = out / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(file, json.dumps(asdict(result)).encode() + b"\n")
        if result.key != key:
            raise RequestError(
                f"{out} has a study of another adapter, or of other data or defaults.",
                "Name another --out.",
            )
        results.append(result)
    requested = {point.settings for point in points}
    for point in _stored_points(out):
        if point.settings in requested:
            continue
        try:
            result = read_quality_result(out, point)
        except RequestError as error:
            report(f"{error.message} It is left out.")
            continue
        if result and result.key == key:
            results.append(result)
    return results


def _stored_points(out: Path) -> list[QualityPoint]:
    """List the points that have a file, by name; other files, such as copies, are no results."""
    points = []
    for file in sorted((out / QUALITY_RESULTS_FOLDER).glob("*,seed=*.json")):
        settings, _, seed = file.stem.rpartition(",seed=")
        if seed.isascii() and seed.isdecimal():
            points.append(QualityPoint(settings, int(seed)))
    return points


def read_quality_result(out: Path, point: QualityPoint) -> QualityResult | None:
    """Read a point's stored result; None if it was not measured. Raises `RequestError` if it is no
    such result.
    """
    file = out / QUALITY_RESULTS_FOLDER / f"{point.name}.json"
    try:
        result = STORED_RESULT.validate_json(file.read_bytes())
        values: list[float] = []
        for replies in result.values.values():
            values += [reply.value for reply in replies]
        if QualityPoint(result.settings, result.seed) != point:
            raise ValueError("it has other settings or another seed than its name")
        if not values or not all(map(math.isfinite, (*values, result.seconds, result.tokens))):
            raise ValueError("it has no values, or some that are no numbers")
        return result
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        cause: object = error
        if isinstance(error, ValidationError):
            cause = error.errors()[0]["msg"]
        raise RequestError(
            f"{file} is damaged: {cause}.", "Remove it, and it is measured again."
        ) from error
