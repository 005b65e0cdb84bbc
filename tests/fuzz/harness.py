"""Runs a parser over many inputs in one process: what it accepts, refuses, and where it breaks its
promise.

A parser's promise: only its documented errors leave it, within a bound of time and memory, nothing
is written but in the folder that it is given, no program is started, no connection opened.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.fuzz.mutations import mutate

MAX_CPU_S = 2.0
MAX_GROWTH_BYTES = 200 * 2**20
INPUTS_PER_CLEANING = 100
WRITES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.utime",
    "shutil.rmtree", "shutil.move", "shutil.copyfile",
}  # fmt: skip
EFFECTS = {
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "socket.bind",
}


@dataclass(frozen=True)
class Seed:
    """A real input: its kind (`mutations.KINDS`), and its file name where the parser goes by
    that.
    """

    content: bytes
    kind: str = ""
    name: str = "input"


@dataclass(frozen=True)
class Parser:
    """Something that reads outside input; `read` gets the file and an empty folder that it may
    write to.
    """

    name: str
    make_seeds: Callable[[], Sequence[Seed]]
    read: Callable[[Path, Path], object]
    errors: tuple[type[Exception], ...]
    share: int = 1
    """Its part of all inputs: those that take longer get fewer."""
    change: Callable[[random.Random, Seed, Sequence[bytes]], bytes] = lambda rng, seed, others: (
        mutate(rng, seed.content, seed.kind, others)
    )

    @cached_property
    def seeds(self) -> Sequence[Seed]:
        return self.make_seeds()

    def input(self, seed: int, index: int) -> Seed:
        """Make input `index` of a run, always the same. The first ones are the seeds themselves."""
        if index < len(self.seeds):
            return self.seeds[index]
        rng = random.Random(zlib.crc32(self.name.encode()) << 64 | seed << 32 | index)
        chosen = rng.choice(self.seeds)
        others = [one.content for one in self.seeds]
        return Seed(self.change(rng, chosen, others), chosen.kind, chosen.name)


@dataclass
class Tally:
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    crashes: list[dict[str, object]] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        return {
            **vars(self),
            "seconds": round(self.seconds, 1),
            "slowest_s": round(self.slowest_s, 3),
        }


class HangError(BaseException):
    """The time is over; no parser catches this."""


class EffectError(BaseException):
    """A parser wrote elsewhere, started a program or opened a connection."""


class Watch:
    """Watches what the process does while a parser runs. Python keeps audit hooks for ever: there
    is one for all.
    """

    _allowed: str | None = None
    _installed = False
    found = ""

    @classmethod
    @contextmanager
    def over(cls, folder: Path) -> Iterator[None]:
        if not cls._installed:
            sys.addaudithook(cls._see)
            cls._installed = True
        cls._allowed = f"{folder}/"
        cls.found = ""
        try:
            yield
        finally:
            cls._allowed = None

    @classmethod
    def _see(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls._allowed is None:
            return
        if event == "open":
            path, mode, flags = arguments
            is_write = (
                flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else False
            )
            if not is_write and not set(mode or "") & set("wax+"):
                return
        elif event in WRITES:
            path = arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0]
        elif event in EFFECTS:
            path = str(arguments[0])
        else:
            return
        relative_to_folder = event in ("os.remove", "os.rmdir", "os.mkdir") and arguments[
            -1
        ] not in (None, -1)
        where = path if isinstance(path, int) else os.path.abspath(os.fsdecode(path) + "/x")  # noqa: PTH100
        inside = relative_to_folder or isinstance(where, int) or where.startswith(cls._allowed)
        if event in EFFECTS or not (inside or path == os.devnull):
            cls.found = f"{event} {path!r}"
            raise EffectError(cls.found)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `HangError` in the main thread after so much processor time."""

    def stop(*_: object) -> None:
        raise HangError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Fuzzer:
    """Feeds parsers with inputs, in a folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._tempdir = tempfile.tempdir

    def __enter__(self) -> Self:
        for name in ("tmp", "in"):
            (self._folder / name).mkdir(parents=True)
        tempfile.tempdir = str(self._folder / "tmp")
        logging.disable(logging.ERROR)  # lines for the operator about skipped files and odd servers
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # aiohttp's, of headers that it cannot parse
        return self

    def __exit__(self, *_: object) -> None:
        tempfile.tempdir = self._tempdir
        logging.disable(logging.NOTSET)

    def run(self, parser: Parser, first: int, count: int, tally: Tally) -> None:
        for index in range(first, first + count):
            if (index - first) % INPUTS_PER_CLEANING == 0:
                reset_peak_memory()
            self._try(parser, index, tally)

    def _try(self, parser: Parser, index: int, tally: Tally) -> None:
        made = parser.input(self._seed, index)
        file = self._folder / "in" / made.name
        out = self._folder / "out"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.content)
        out.mkdir()
        peak = peak_memory()
        began = time.process_time()
        fault = ""
        accepted = False
        try:
            with Watch.over(self._folder), limited(MAX_CPU_S):
                parser.read(file, out)
            accepted = True
        except parser.errors as error:
            fault = "" if str(error) else f"{type(error).__name__} says nothing"
        except (Exception, HangError, EffectError):
            fault = traceback.format_exc(limit=-12)
        took = time.process_time() - began
        if (growth := peak_memory() - peak) > MAX_GROWTH_BYTES:
            fault = fault or f"it took {growth // 2**20} MiB"
        fault = fault or Watch.found or self._clean(file, out)
        tally.inputs += 1
        tally.seconds, tally.slowest_s = tally.seconds + took, max(tally.slowest_s, took)
        if fault:
            tally.crashes.append({"seed": self._seed, "index": index, "fault": fault[-2_500:]})
            self._keep(parser, index, made)
        else:
            tally.accepted = tally.accepted + accepted
            tally.refused = tally.refused + (not accepted)

    def _clean(self, file: Path, out: Path) -> str:
        """Empty the folders; describe what a parser left outside of `out`."""
        shutil.rmtree(out)
        left = sorted(os.listdir(self._folder / "tmp"))  # noqa: PTH208
        if left:
            shutil.rmtree(self._folder / "tmp")
            (self._folder / "tmp").mkdir()
        file.unlink()
        return f"temporary files are left: {', '.join(left)}" if left else ""

    def _keep(self, parser: Parser, index: int, made: Seed) -> None:
        kept = (
            self._folder
            / "crashes"
            / f"{parser.name.replace(' ', '-')}-{index}-{Path(made.name).name}"
        )
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(made.content)
        for name in ("out", "in", "tmp"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for name in ("in", "tmp"):
            (self._folder / name).mkdir()


def peak_memory() -> int:
    """The most memory that the process has had, in bytes, since `reset_peak_memory`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory() -> None:
    with suppress(OSError):  # Linux alone can; elsewhere only the first excess is seen
        Path("/proc/self/clear_refs").write_text("5")
