"""Measures how fast this processor reads weights: that bounds the speed of one chat, since each token reads them
all.
"""

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from personas.home.atomic_files import write_private_file
from personas.models.loading import best_precision, load_torch

ROWS = 24_576
COLUMNS = 4_096
"""A matrix of 200 MB in 16 bits, larger than the caches of a processor."""
ROUNDS = 25
PAUSE_S = 0.02
"""Between the rounds: other programs leave the memory to itself now and then."""
MAX_AGE_S = 30 * 86_400
CACHE_NAME = "weight-read-speed.json"


@dataclass(frozen=True)
class WeightReadSpeed:
    """Bytes of weights per second in products with one token, in `precision`, on `processor`; `at`
    is in seconds since 1970.
    """

    bytes_per_s: float
    precision: str
    processor: str
    at: float


def measured_speed(home: Path) -> WeightReadSpeed:
    """Measure this processor and return its fastest measurement of the last month, because other
    programs slow some of them. Takes a second or two.
    """
    file = home / "cache" / CACHE_NAME
    speed = measure_speed()
    stored = _read(file)
    is_recent = stored and stored.at > speed.at - MAX_AGE_S
    if stored and is_recent and _is_faster(stored, speed):
        return stored
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)  # a command may be the first to need it
        file.parent.mkdir(exist_ok=True)
        write_private_file(file, json.dumps(asdict(speed)).encode())
    except OSError:  # it is measured again next time
        pass
    return speed


def measure_speed() -> WeightReadSpeed:
    """Measure products of a large matrix with a vector; the fastest of a few counts."""
    torch = load_torch()
    precision = best_precision()
    weights = torch.ones(ROWS, COLUMNS, dtype=getattr(torch, precision))
    token = torch.ones(1, COLUMNS, dtype=weights.dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            started = time.perf_counter()
            torch.nn.functional.linear(token, weights)
            seconds.append(time.perf_counter() - started)
            time.sleep(PAUSE_S)
    size = weights.numel() * weights.element_size()
    return WeightReadSpeed(size / min(seconds), precision, _processor(), time.time())


def _is_faster(one: WeightReadSpeed, other: WeightReadSpeed) -> bool:
    is_same = (one.processor, one.precision) == (other.processor, other.precision)
    return is_same and one.bytes_per_s >= other.bytes_per_s


def _processor() -> str:
    return f"{platform.node()} {platform.machine()}"


def _read(file: Path) -> WeightReadSpeed | None:
    try:
        return WeightReadSpeed(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
