"""Failpoints: named calls at which a plan kills the process or makes the call fail.

`install` wraps the calls in a process under test; production code has no failpoints and pays
nothing for them. Each call counts twice, before and after its effect. A plan is text, so that
whoever starts the process can choose it:

    kill@17                     SIGKILL at the 17th hit of any point
    kill@3:discord.*            at the third hit of a point of this name
    ENOSPC@5:file.*             the fifth hit raises this error
    EIO@5+:store.*              the fifth and every later one
    ENOMEM@9:engine.step        the engine's ninth step has no memory
"""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import discord
from discord.webhook.async_ import AsyncWebhookAdapter

from bot.platform.db.database import DatabaseConnection, StoreError
from bot.training.queue import JobQueue
from tests.fake_engine import FakeEngine, FakeReplyStream

WRITES = ("insert", "update", "delete", "replace")


@dataclass(frozen=True)
class Plan:
    """`action` is `kill`, `none` or the name of an errno; it is done at hit `number`, and later
    ones if `lasting`.
    """

    action: str = "none"
    number: int = 0
    lasting: bool = False
    points: str = "*"

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Read a plan; empty text does nothing. Raises ValueError."""
        if not text:
            return cls()
        action, _, rest = text.partition("@")
        number, _, points = rest.partition(":")
        if action != "kill" and not hasattr(errno, action):
            raise ValueError(f"{action!r} is neither kill nor the name of an errno")
        return cls(action, int(number.removesuffix("+")), number.endswith("+"), points or "*")

    def applies(self, number: int) -> bool:
        return 0 < self.number <= number if self.lasting else 0 < self.number == number


class Failpoints:
    """Counts hits, and does what the plan says; `trace` gets a line per hit, the last one names the
    killed point.
    """

    def __init__(self, plan: Plan, trace: Path | None = None) -> None:
        self.plan = plan
        self.hits = 0
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if trace else None

    def hit(self, point: str) -> None:
        """Count a hit. Raises the plan's error, or never returns."""
        if not fnmatchcase(point, self.plan.points):
            return
        self.hits += 1
        if self._trace is not None:
            os.write(self._trace, f"{point}\n".encode())
        if not self.plan.applies(self.hits):
            return
        if self.plan.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise self._error(point)

    def _error(self, point: str) -> Exception:
        number = getattr(errno, self.plan.action)
        if number == errno.ENOMEM:
            return MemoryError()
        if point.startswith("store."):
            return StoreError(
                f"The database cannot be used: {os.strerror(number)}.", "Free disk space."
            )
        return OSError(number, os.strerror(number))

    # ------------------------------------------------------------------------------------- wrapping

    def wrap(self, owner: Any, name: str, point: str | Callable[..., str | None]) -> None:
        """Hit `point` before and after a function, coroutine function or context manager; None for
        other calls.
        """
        inner = getattr(owner, name)

        def named(*args: Any, **kwargs: Any) -> str | None:
            return point if isinstance(point, str) else point(*args, **kwargs)

        if inspect.iscoroutinefunction(inner):

            @functools.wraps(inner)
            async def call(*args: Any, **kwargs: Any) -> Any:
                at = named(*args, **kwargs)
                self.hit(f"{at}:before")
                result = await inner(*args, **kwargs)
                self.hit(f"{at}:after")
                return result
        else:

            @functools.wraps(inner)
            def call(*args: Any, **kwargs: Any) -> Any:
                at = named(*args, **kwargs)
                if at is None:
                    return inner(*args, **kwargs)
                self.hit(f"{at}:before")
                result = inner(*args, **kwargs)
                if isinstance(result, AbstractContextManager) and at.startswith("store."):
                    return self._around(result, at)
                self.hit(f"{at}:after")
                return result

        setattr(owner, name, call)

    @contextmanager
    def _around(self, block: AbstractContextManager[Any], point: str) -> Any:
        with block as value:
            yield value
            self.hit(f"{point}:commit")
        self.hit(f"{point}:after")


def install(plan: str, trace: Path | None = None) -> Failpoints:
    """Wrap the writes of the store and of files, requests to Discord, and hand-overs of engine and
    trainer.
    """
    points = Failpoints(Plan.parse(plan), trace)
    for name in ("write", "insert", "atomic"):
        points.wrap(DatabaseConnection, name, f"store.{name}")
    points.wrap(DatabaseConnection, "read", lambda self, sql, **values: _write_name(sql))
    for name in ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir"):
        points.wrap(os, name, f"file.{name}")
    points.wrap(discord.http.HTTPClient, "request", lambda self, route, **more: _route_name(route))
    points.wrap(AsyncWebhookAdapter, "request", lambda self, route, **more: _route_name(route))
    points.wrap(FakeEngine, "submit", "engine.submit")
    points.wrap(JobQueue, "_store_event", "trainer.event")
    _wrap_stream(points)
    return points


def install_in_engine(points: Failpoints) -> None:
    """Wrap the real engine's hand-overs and steps, too."""
    from personas.engine.llm_engine import LLMEngine
    from personas.engine.reply_stream import QueuedReplyStream
    from personas.engine.step import BatchGenerator  # imports torch

    points.wrap(LLMEngine, "submit", "engine.submit")
    points.wrap(QueuedReplyStream, "push", "engine.push")
    points.wrap(BatchGenerator, "_run", "engine.step")


def _write_name(sql: str) -> str | None:
    verb = sql.lstrip().partition(" ")[0].lower()
    return f"store.{verb}" if verb in WRITES else None


def _route_name(route: Any) -> str:
    path = "/".join(part for part in route.path.split("/") if not part.startswith("{"))
    return f"discord.{route.method} {path}"


def _wrap_stream(points: Failpoints) -> None:
    inner = FakeReplyStream.__aiter__

    async def pieces(self: FakeReplyStream) -> Any:
        async for piece in inner(self):
            points.hit("engine.piece")
            yield piece
            await asyncio.sleep(0)

    FakeReplyStream.__aiter__ = pieces  # type: ignore[method-assign]
