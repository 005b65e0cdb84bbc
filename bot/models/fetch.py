"""Fetching a base model: what it takes, its licence, and progress in words."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from personas.errors import BaseModelError, RequestError
from personas.home.model_fetch import ModelFiles, fetch_model, list_model_files, require_disk_space
from personas.models.catalogue import CatalogueModel, find_model
from personas.schemas.formatting import format_size

ModelFormat = Literal["best", "gguf", "safetensors"]
REPORT_INTERVAL_S = 0.5
RATE_WINDOW_S = 10.0


@dataclass(frozen=True)
class FetchPlan:
    """A base model to fetch: its files, what unpacking a GGUF file takes besides, and the licence by the
    catalogue, or as the hub states it.
    """

    model: CatalogueModel | None
    files: ModelFiles
    unpacked_bytes: int

    @property
    def licence(self) -> str:
        if self.model:
            return self.model.licence
        return self.files.licence or "none stated"

    @property
    def licence_url(self) -> str:
        if self.model:
            return self.model.licence_url
        from huggingface_hub import constants  # reads the environment when it is loaded

        return f"{constants.ENDPOINT}/{self.files.repository}"

    @property
    def title(self) -> str:
        return self.model.title if self.model else self.files.repository

    @property
    def lines(self) -> list[str]:
        """What a fetch takes, in words."""
        missing = self.files.missing_bytes
        size = f"{format_size(self.files.bytes)} to fetch"
        if missing < self.files.bytes:
            size = f"{format_size(missing)} of {format_size(self.files.bytes)} to fetch"
        lines = [f"{self.title}: {self.files.name}, {size}."]
        if self.unpacked_bytes:
            lines.append(
                f"Training unpacks the file once, into {format_size(self.unpacked_bytes)} of disk."
            )
        lines.append(f"Licence: {self.licence} ({self.licence_url}).")
        return lines


def plan_fetch(name: str) -> FetchPlan:
    """Ask the hub what a base model takes, and the disk whether it has room. Raises
    `BaseModelError`.
    """
    model = find_model(name)
    files = list_model_files(name)
    unpacked_bytes = 0
    if files.files[0].name.endswith(".gguf"):
        # Without the catalogue the size of the weights is not known; a file has a quarter of it.
        unpacked_bytes = model.weight_bytes if model else 4 * files.bytes
    require_disk_space(files, unpacked_bytes)
    return FetchPlan(model, files, unpacked_bytes)


def require_accepted(plan: FetchPlan, *, accepted: bool) -> None:
    """Raise `RequestError` unless the operator accepts the licence."""
    if not accepted:
        raise RequestError(
            f"{plan.title} is licensed under {plan.licence}.",
            f"Read it at {plan.licence_url}, and accept it to fetch the model.",
        )


async def run_fetch(plan: FetchPlan, say: Callable[[str], None]) -> None:
    """Fetch a model in a thread; `say` gets the progress on the event loop. Cancelling keeps what has
    arrived. Raises `BaseModelError`.
    """
    loop = asyncio.get_running_loop()
    stopping = threading.Event()
    progress = FetchProgress(plan.files.bytes)

    def report(done: int) -> None:
        if stopping.is_set():
            raise BaseModelError(
                "The fetch was cancelled.",
                "Fetch it again to continue.",
            )
        if text := progress.update(done, time.monotonic()):
            loop.call_soon_threadsafe(say, text)

    fetching = asyncio.ensure_future(asyncio.to_thread(fetch_model, plan.files, report))
    try:
        await asyncio.shield(fetching)
    except asyncio.CancelledError:
        stopping.set()
        with suppress(BaseModelError):
            await fetching
        raise


class FetchProgress:
    """Words on a fetch: bytes, rate and time left."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._marks: list[tuple[float, int]] = []
        self._said_at = float("-inf")

    def update(self, done: int, now: float) -> str:
        """Return the progress at a time in seconds; empty if it was said a moment ago."""
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_WINDOW_S:
            self._marks.pop(0)
        if now - self._said_at < REPORT_INTERVAL_S and done < self._total:
            return ""
        self._said_at = now
        size = f"{format_size(done)} of {format_size(self._total)}"
        started_at, started = self._marks[0]
        if done >= self._total or now <= started_at or done <= started:
            return size
        rate = (done - started) / (now - started_at)
        left_s = (self._total - done) / rate
        return f"{size}, {format_size(round(rate))}/s, {duration_text(left_s)} left"


def duration_text(seconds: float) -> str:
    """Return a time in its largest units."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{minutes // 60:.0f} h {minutes % 60:.0f} min"
