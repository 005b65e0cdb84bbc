"""Meters of a graphics card: its utilisation, and the kernels and synchronisations of a step."""

import subprocess  # nosec B404  # nvidia-smi, which the driver brings
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

UTILISATION_COMMAND = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu",
    "--format=csv,noheader,nounits",
    "--loop-ms=100",
)
COPIES = ("Memcpy", "Memset")
"""Beginnings of the names of what a card does beside kernels."""
WAITING_OPERATORS = ("aten::_local_scalar_dense", "aten::nonzero")
"""Operators that wait for the card; without one, they are counted in the place of the waits."""


def synchronise() -> None:
    """Wait until the card has computed everything."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    """Begin a new peak of the card's memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def memory_peaks() -> dict[str, int]:
    """Return the card's peaks in bytes: what tensors took since `reset_peak`, and what torch
    reserved.
    """
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_allocated_bytes": int(torch.cuda.max_memory_allocated()),
        "peak_reserved_bytes": int(torch.cuda.max_memory_reserved()),
    }


class UtilisationMeter:
    """Reads the share of time in which the card computes (NVML's figure) ten times a second."""

    def __init__(self) -> None:
        self._values: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start reading; without `nvidia-smi`, nothing is read."""
        if not torch.cuda.is_available():
            return
        card = f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}"
        with suppress(OSError):
            self._process = subprocess.Popen(  # nosec B603
                [*UTILISATION_COMMAND, card],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """End `nvidia-smi`."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def percent(self, start: float, end: float) -> float | None:
        """Return the mean between two times of `time.perf_counter`; None if nothing was read."""
        values = [value for at, value in list(self._values) if start <= at <= end]
        return sum(values) / len(values) if values else None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            with suppress(ValueError):  # such as "[N/A]"
                self._values.append((time.perf_counter(), float(line)))


@dataclass(frozen=True)
class StepCounts:
    """Counts of a profiled piece of work; `kernel_s` is the time of its kernels in seconds."""

    operators: int
    kernels: int
    copies: int
    launches: int
    synchronisations: int
    kernel_s: float


class StepProfiler:
    """Counts what the card does between `start` and `stop`."""

    def __init__(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)

    def start(self) -> None:
        """Begin to count."""
        synchronise()
        self._profile.start()

    def stop(self) -> StepCounts:
        """Wait for the card, and return the counts."""
        synchronise()
        self._profile.stop()
        assert self._profile.profiler is not None
        results = self._profile.profiler.kineto_results
        assert results is not None
        # Not the profiler's `events()`: it makes objects and a tree of millions of events, which
        # takes minutes.
        return count_events(results.events())


def count_events(events: Iterable[Any]) -> StepCounts:
    """Count the profiler's events (`torch._C._autograd._KinetoEvent`)."""
    counts: Counter[str] = Counter()
    kernel_ns = 0
    for event in events:
        if event.is_user_annotation():
            continue
        name = event.name()
        if event.device_type().name != "CUDA":
            counts[_host_kind(name)] += 1
        elif name.startswith(COPIES):
            counts["copy"] += 1
        else:
            counts["kernel"] += 1
            kernel_ns += event.duration_ns()
    waits = counts["wait"] - 1  # the one at the end
    if not torch.cuda.is_available():
        waits = counts["waiting operator"]
    return StepCounts(
        operators=counts["operator"] + counts["waiting operator"],
        kernels=counts["kernel"],
        copies=counts["copy"],
        launches=counts["launch"],
        synchronisations=waits,
        kernel_s=kernel_ns / 1e9,
    )


def _host_kind(name: str) -> str:
    if name in WAITING_OPERATORS:
        return "waiting operator"
    if name.startswith("aten::"):
        return "operator"
    if "Synchronize" in name or name == "cudaMemcpy":
        return "wait"
    return "launch" if "Launch" in name else ""


def compilations() -> dict[str, float]:
    """Return how many graphs torch.compile made in this process, and its seconds."""
    from torch._dynamo.utils import compilation_time_metrics, counters

    seconds = sum(compilation_time_metrics.get("entire_frame_compile", ()))
    return {"compiled_graphs": counters["stats"]["unique_graphs"], "compile_s": seconds}
