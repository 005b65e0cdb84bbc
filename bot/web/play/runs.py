"""Runs of the playground: replies side by side, and duets. They live in memory, for as long as the bot runs.

A run tells what happens as numbered events, from the first on: whoever comes late, or comes back, misses nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bot.duet import ENDED, Duet
from bot.house import House
from bot.speakers import Speaker, request_to
from bot.speech import Speech, speaking, words_of
from bot.web.events import Item
from bot.web.play.shapes import line_json, speaker_json
from bot.web.problems import Problem
from personas.contracts import LoreHit, Reply, Sampling, Turn

MOST_KEPT, MOST_RUNNING = 32, 4
Kind = Literal["together", "duet"]
State = Literal["waiting", "writing", "done", "stopped", "failed"]


@dataclass
class Line:
    """One reply. `turns` is the talk that it answers, as its speaker sees it."""

    number: int
    speaker: Speaker
    turns: tuple[Turn, ...]
    text: str = ""
    state: State = "waiting"
    lore: tuple[LoreHit, ...] = ()
    reply: Reply | None = None
    error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self.state in ("waiting", "writing")

    def talk(self) -> tuple[Turn, ...]:
        """The talk with this reply in it."""
        name = self.speaker.persona.name if self.speaker.persona else ""
        return (*self.turns, Turn(name, self.text, by_persona=True)) if self.text else self.turns


@dataclass
class Run:
    """What was asked for, and what has come of it so far. `ended` says in words why, once it has."""

    kind: Kind
    speakers: tuple[Speaker, ...]
    prompt: str
    sampling: Sampling
    settings: dict[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    at: float = field(default_factory=time.time)
    lines: list[Line] = field(default_factory=list)
    ended: str = ""
    _speeches: dict[int, Speech] = field(default_factory=dict)
    _stopped: bool = False
    _log: list[tuple[str, Any]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def told(self) -> int:
        """The number of the latest event."""
        return len(self._log)

    async def events(self, after: int = 0) -> AsyncIterator[Item]:
        """What happened after an event, and what happens, until the run has ended."""
        at = max(0, after)
        while True:
            news = self._news
            for name, data in self._log[at:]:
                at += 1
                yield str(at), name, data
            if self.ended and at >= len(self._log):
                return
            await news.wait()

    def stop(self) -> None:
        """Stop what is being written; what there is stays."""
        self._stopped = True
        for speech in self._speeches.values():
            speech.cancel()

    async def speak(self, house: House, speaker: Speaker, turns: Sequence[Turn]) -> Line:
        """Have somebody answer. What goes wrong is in the line."""
        line = Line(len(self.lines), speaker, tuple(turns))
        self.lines.append(line)
        self._tell("line", {"line": line.number, "speaker": speaker_json(speaker)})
        try:
            await self._written(house, line)
        except Exception as error:  # told in its place; the others go on
            line.state, line.error = "failed", words_of(error)
        finally:
            self._speeches.pop(line.number, None)
        self._tell("done", line_json(line))
        return line

    def end(self, why: str) -> None:
        """Nothing more comes."""
        self.ended = "stopped" if self._stopped else why
        self._tell("end", {"why": self.ended})

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped it."""
        return self._stopped

    async def _written(self, house: House, line: Line) -> None:
        request = request_to(house.conversations, line.speaker, line.turns, self.sampling)
        line.lore = request.lore
        async with speaking(house, request) as speech:
            self._speeches[line.number] = speech
            if self._stopped:
                speech.cancel()
            async for piece in speech:
                line.state, line.text = "writing", line.text + piece
                self._tell("piece", {"line": line.number, "text": piece})
            line.text, line.reply = speech.text, speech.reply
        line.state = "stopped" if line.reply.finish == "cancelled" else "done"

    def _tell(self, name: str, data: Any) -> None:
        self._log.append((name, data))
        self._news.set()
        self._news = asyncio.Event()


class Runs:
    """The latest runs, and the tasks that make them."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, run_id: str) -> Run:
        """A run. Raises `Problem` for one that is no longer kept."""
        run = self.find(run_id)
        if run is None:
            kept = f"the latest {MOST_KEPT} are kept, until the bot ends"
            raise Problem("not-found", f"There is no run {run_id!r}; {kept}.", "Begin another one.")
        return run

    def find(self, run_id: str) -> Run | None:
        """A run, if it is still kept."""
        return self._runs.get(run_id)

    def latest(self) -> list[Run]:
        """All that are kept, the newest first."""
        return list(reversed(self._runs.values()))

    def start(self, run: Run, work: Coroutine[Any, Any, None]) -> Run:
        """Keep a run and make it. Raises `Problem` when as many run as may at once."""
        if len(self._tasks) >= MOST_RUNNING:
            work.close()
            raise Problem("busy", f"{MOST_RUNNING} runs are being written.", "Stop one, or wait.",
                          headers={"Retry-After": "5"})  # fmt: skip
        self._runs[run.id] = run
        for old in [old for old in self._runs.values() if old.ended][: max(0, len(self._runs) - MOST_KEPT)]:
            del self._runs[old.id]
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def close(self) -> None:
        """Stop all that run."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def answer_together(house: House, run: Run, talks: Sequence[Sequence[Turn]]) -> None:
    """Each speaker answers its own talk, all at once."""
    try:
        await asyncio.gather(*(run.speak(house, *one) for one in zip(run.speakers, talks, strict=True)))
    finally:
        run.end("done")


async def talk_together(house: House, run: Run, duet: Duet) -> None:
    """Two speakers take turns until their duet ends."""
    why = "broken off"
    try:
        while not run.is_stopped:
            line = await run.speak(house, run.speakers[duet.next], duet.turns())
            if line.state == "failed":
                break
            if end := duet.take(line.text):
                why = ENDED[end]
                break
    finally:
        run.end(why)
