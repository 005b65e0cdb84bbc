"""Playground runs: side-by-side replies and dialogues, in memory, with numbered events and their
JSON.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bot.chat.filtered_reply import FilteredReply, reply_error_text, stream_filtered_reply
from bot.chat.model_names import ChatModel
from bot.dialogue.dialogue import DIALOGUE_END_TEXTS, STOPPED_TEXT, Dialogue
from bot.openai_api.web.responses import lore_json, usage_json
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.sse import SseItem
from bot.safety.human_question import whole_answer
from bot.safety.reply_guard import WITHDRAWN
from bot.services import Services
from personas.schemas.chat import ChatReply, LoreHit, SamplingParams, Turn

RunKind = Literal["together", "duet"]
ReplyState = Literal["waiting", "writing", "done", "stopped", "failed"]
MAX_STORED_RUNS = 32
MAX_ACTIVE_RUNS = 4
DONE_TEXT = "done"
BROKEN_OFF_TEXT = "broken off"


def model_json(speaker: ChatModel) -> dict[str, Any]:
    persona = speaker.persona.id if speaker.persona else None
    return {"id": speaker.id, "name": speaker.name, "persona": persona, "version": speaker.version}


def reply_json(line: PlaygroundReply) -> dict[str, Any]:
    reply = line.reply
    fields = {
        "line": line.number,
        "speaker": model_json(line.speaker),
        "state": line.state,
        "text": line.text,
        "error": line.error or None,
        "lore": lore_json(line.lore),
    }
    if reply is None:
        return fields
    details = {
        "seed": reply.used_seed,
        "finish": reply.finish,
        "usage": usage_json(reply),
        "prompt": reply.prompt,
    }
    details |= {"shortened": reply.shortened, "repeated": reply.repeated}
    return {**fields, **details}


@dataclass
class PlaygroundReply:
    """A reply. `turns` is the conversation before it, from its speaker's view."""

    number: int
    speaker: ChatModel
    turns: tuple[Turn, ...]
    text: str = ""
    state: ReplyState = "waiting"
    lore: tuple[LoreHit, ...] = ()
    reply: ChatReply | None = None
    error: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in ("waiting", "writing")

    def talk(self) -> tuple[Turn, ...]:
        """The conversation including this reply."""
        if not self.text:
            return self.turns
        return (*self.turns, Turn(self.speaker.speaker_name, self.text, by_persona=True))


@dataclass
class PlaygroundRun:
    """A run's settings and its lines so far. `ended` is the reason for its end, empty while it
    runs.
    """

    kind: RunKind
    speakers: tuple[ChatModel, ...]
    prompt: str
    sampling: SamplingParams
    settings: dict[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    lines: list[PlaygroundReply] = field(default_factory=list)
    ended: str = ""
    _speeches: dict[int, FilteredReply] = field(default_factory=dict)
    _stopped: bool = False
    _log: list[tuple[str, Any]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def event_count(self) -> int:
        return len(self._log)

    async def events(self, after: int = 0) -> AsyncIterator[SseItem]:
        """Yield the events after a number, and new ones until the run ends."""
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
        """Cancel the replies; text generated so far stays."""
        self._stopped = True
        for speech in self._speeches.values():
            speech.cancel()

    async def speak(
        self, services: Services, speaker: ChatModel, turns: Sequence[Turn]
    ) -> PlaygroundReply:
        """Generate a reply; an error is stored in its line."""
        line = PlaygroundReply(len(self.lines), speaker, tuple(turns))
        self.lines.append(line)
        self._tell("line", {"line": line.number, "speaker": model_json(speaker)})
        try:
            await self._written(services, line)
        except Exception as error:  # reported in its line; the others go on
            line.state = "failed"
            line.error = reply_error_text(error)
        finally:
            self._speeches.pop(line.number, None)
        self._tell("done", reply_json(line))
        return line

    def end(self, why: str) -> None:
        self.ended = STOPPED_TEXT if self._stopped else why
        self._tell("end", {"why": self.ended})

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    async def _written(self, services: Services, line: PlaygroundReply) -> None:
        request = await services.request_builder.request_to_model(
            line.speaker, line.turns, self.sampling
        )
        line.lore = request.lore
        fixed = None
        if self.kind == "together" and line.speaker.persona:
            fixed = services.safety.uncounted_answer(line.turns[-1].text)
        fixed = fixed or self._answer_if_human(services, line)
        async with stream_filtered_reply(services.reply_guard, request, fixed=fixed) as speech:
            self._speeches[line.number] = speech
            if self._stopped:
                speech.cancel()
            async for piece in speech:
                line.state = "writing"
                if piece is WITHDRAWN:
                    line.text = ""
                    self._tell("withdrawn", {"line": line.number})
                    continue
                line.text = line.text + piece
                self._tell("piece", {"line": line.number, "text": piece})
            line.text = speech.text
            line.reply = speech.reply
            line.lore = speech.reply.lore
        line.state = "stopped" if line.reply.finish == "cancelled" else "done"

    def _answer_if_human(self, services: Services, line: PlaygroundReply) -> str | None:
        """Return the persona's line where the prompt, which the first lines answer, asks whether it
        is human.
        """
        if line.number >= len(self.speakers):
            return None
        now = services.time_zones.now(line.speaker.guild_id)
        return whole_answer(line.speaker.persona, self.prompt, now)

    def _tell(self, name: str, data: Any) -> None:
        self._log.append((name, data))
        self._news.set()
        self._news = asyncio.Event()


class PlaygroundRuns:
    """The latest runs and their tasks."""

    def __init__(self) -> None:
        self._runs: dict[str, PlaygroundRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, run_id: str) -> PlaygroundRun:
        """Find a run. Raises `Problem` if it no longer exists."""
        run = self.find(run_id)
        if run is None:
            raise Problem(
                "not-found",
                f"There is no run {run_id!r}; the latest {MAX_STORED_RUNS} are kept, until the bot "
                "ends.",
                "Begin another one.",
            )
        return run

    def find(self, run_id: str) -> PlaygroundRun | None:
        return self._runs.get(run_id)

    def start(self, run: PlaygroundRun, work: Coroutine[Any, Any, None]) -> PlaygroundRun:
        """Store a run and start it. Raises `Problem` when too many are active."""
        if len(self._tasks) >= MAX_ACTIVE_RUNS:
            work.close()
            raise Problem(
                "busy",
                f"{MAX_ACTIVE_RUNS} runs are being written.",
                "Stop one, or wait.",
                headers={"Retry-After": "5"},
            )
        self._runs[run.id] = run
        for old in [old for old in self._runs.values() if old.ended][
            : max(0, len(self._runs) - MAX_STORED_RUNS)
        ]:
            del self._runs[old.id]
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def run_side_by_side(
    services: Services, run: PlaygroundRun, talks: Sequence[Sequence[Turn]]
) -> None:
    """Have each speaker answer its own conversation, all at once."""
    try:
        await asyncio.gather(
            *(run.speak(services, *pair) for pair in zip(run.speakers, talks, strict=True))
        )
    finally:
        run.end(DONE_TEXT)


async def run_dialogue(services: Services, run: PlaygroundRun, duet: Dialogue) -> None:
    """Have two speakers take turns until their dialogue ends."""
    why: str = BROKEN_OFF_TEXT
    try:
        while not run.is_stopped:
            line = await run.speak(services, run.speakers[duet.next], duet.turns())
            if line.state == "failed":
                break
            if end := duet.take(line.text):
                why = DIALOGUE_END_TEXTS[end]
                break
    finally:
        run.end(why)
