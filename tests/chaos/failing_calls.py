"""Fails each outside call of a reply 1 to 20 times in a row, and checks that no text that was
generated is lost.

`python -m tests.chaos.failing_calls` tries every call, fault and number; docs/design.md lists what
each may cost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import discord

from bot.chat import delivery, held_events, streaming_reply
from bot.platform.db.database import DatabaseConnection
from bot.store import StoreError
from personas.errors import UnderstudyError
from personas.schemas.chat import ChatRequest
from sandbox.interactions import CallbackType
from tests.bot.conftest import QUAY, Stage, on_stage
from tests.chaos.bot_process import _HastyAsyncio
from tests.chaos.outcome import Outcome
from tests.fake_engine import FakeEngine, FakeReplyStream
from tests.fakes import until

MAX_TIMES = 20
FAULTS = "error_before", "error_after", "cut_before", "cut_after", "limited", "blocked"
WORDS = 420
"""Words of a reply, which fills two messages."""
HASTE = 500.0
"""Pauses after errors are shorter by this factor."""
ACKNOWLEDGE_TIMEOUT_S = 0.5
SETTLE_TIMEOUT_S = 20.0
FOLLOW_UP_S = 0.05
MAX_WRITES = 8
"""Writes of the database in one reply, at most."""
MAX_PIECES = 3
"""Pieces of a reply after which the engine fails, at most."""

CALLS = {
    "webhook: list": "GET /channels/{channel_id}/webhooks",
    "webhook: create": "POST /channels/{channel_id}/webhooks",
    "webhook: picture": "PATCH /webhooks/{webhook_id}/{token}",
    "send": "POST /webhooks/{webhook_id}/{token}",
    "edit": "PATCH /webhooks/{webhook_id}/{token}/messages/{message_id}",
    "send as the bot": "POST /channels/{channel_id}/messages",
    "edit as the bot": "PATCH /channels/{channel_id}/messages/{message_id}",
}
"""Calls by which a reply is shown."""
RESPONSE = "POST /interactions/{interaction_id}/{token}/callback"
FOLLOW_UPS = CALLS["edit"], CALLS["send"]
"""The edit of a response, and a further message."""


class EngineFailedError(UnderstudyError):
    """The engine fails because it was told to."""


class BreakingEngine(FakeEngine):
    """An engine whose replies fail after so many pieces, while it is told to."""

    pieces: int | None = None

    def submit(self, request: ChatRequest) -> FakeReplyStream:
        stream = super().submit(request)
        return stream if self.pieces is None else BreakingStream(self, request)


class BreakingStream(FakeReplyStream):
    async def __aiter__(self) -> AsyncIterator[str]:
        assert isinstance(self._engine, BreakingEngine)
        given = 0
        async for piece in super().__aiter__():
            if given == self._engine.pieces:
                break
            given += 1
            yield piece
            await asyncio.sleep(0)
        raise EngineFailedError("The model fell over.", "Ask again.")


def script(request: ChatRequest) -> list[str]:
    """Repeat the question, and then enough for a second message."""
    return [f"I hear: {request.turns[-1].text}. ", *(["word " * 60] * (WORDS // 60))]


@dataclass
class Trial:
    """One question under one fault: `what` names them."""

    stage: Stage
    outcome: Outcome
    number: int
    what: str

    @property
    def question(self) -> str:
        return f"question {self.number}"

    def lost(self, why: str) -> None:
        self.outcome.lost.append(f"{self.what}: {why}")

    async def settle(self) -> None:
        """Wait until every reply has ended and shows its end."""
        service = self.stage.client.services.reply_service
        try:
            await until(
                lambda: (
                    not (
                        service.tasks
                        or len(service.events)
                        or self.stage.store.replies.unfinished()
                    )
                ),
                SETTLE_TIMEOUT_S,
            )
        except TimeoutError:
            self.lost(f"has not ended: {self.stage.store.replies.unfinished()}")

    def check_whole(self, event_id: int) -> None:
        """The reply is there once, and whole: on Discord, in the history, and in its row."""
        reply = self.stage.store.replies.get(event_id)
        if reply is None or reply.state != "done" or reply.end_note is not None:
            self.lost(f"the row is {reply}")
            return
        shown = {int(one["id"]): one["content"] for one in self.stage.sandbox.messages(QUAY)}
        texts = [shown.get(part, "") for part in reply.parts]
        whole = " ".join(texts)
        stored = self.stage.store.messages.text_of(reply.parts[0]) or ""
        for place, text in (("shown", whole), ("stored", stored)):
            if text.count(f"I hear: {self.question}.") != 1 or text.count("word") != WORDS:
                self.lost(f"{place}: {text[:80]!r}, {text.count('word')} words")
        if "-# AI-written" not in texts[-1]:
            self.lost(f"the end is {texts[-1][-80:]!r}")

    def check_rest(self) -> None:
        """No other message of the bot is there: no copy, no placeholder, no error."""
        known = {
            row["message_id"]
            for row in self.stage.store._connection.read("select message_id from reply_parts")
        }
        for message in self.stage.sandbox.messages(QUAY):
            is_own = message["author"].get("bot") and not message.get("interaction_metadata")
            if (
                is_own
                and int(message["id"]) not in known
                and "persona lives here" not in message["content"]
            ):
                self.outcome.doubled.append(f"{self.what}: {message['content'][:80]!r}")
            if (
                message["content"].strip() in ("…", "**Ballast:** …")
                or "went wrong" in message["content"]
            ):
                self.lost(f"is left: {message['content'][:80]!r}")


@contextmanager
def hasty() -> Iterator[None]:
    """Shorten all pauses, ours and discord.py's, and edit at each piece."""
    with (
        mock.patch("tests.chaos.bot_process.HASTE", HASTE),
        mock.patch.object(discord.http, "asyncio", _HastyAsyncio()),
        mock.patch.object(discord.webhook.async_, "asyncio", _HastyAsyncio()),
        mock.patch.multiple(
            delivery, RETRY_PAUSES_S=(0.002, 0.002), RETRY_PAUSE_S=0.0, FIRST_PAUSE_S=0.002
        ),
        mock.patch.multiple(delivery, MAX_PAUSE_S=0.01, retry_after_s=lambda error: 0.0),
        mock.patch.multiple(held_events, RETRY_DELAY_S=0.005, MAX_RETRY_DELAY_S=0.01),
        mock.patch.multiple(streaming_reply, FIRST_EDIT_DELAY_S=0.0, EDIT_INTERVAL_S=0.0),
        mock.patch("sandbox.interactions.ACKNOWLEDGE_TIMEOUT_S", ACKNOWLEDGE_TIMEOUT_S),
    ):
        yield


@asynccontextmanager
async def stage_of_failures() -> AsyncIterator[Stage]:
    """A bot with short pauses in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="understudy-chaos-") as home, hasty():
        async with on_stage(Path(home), engine=BreakingEngine(script)) as stage:
            yield stage


# --------------------------------------------------------------------------------- calls to Discord


async def ask(trial: Trial) -> None:
    """Ask, and check the reply."""
    said = await trial.stage.member.say(QUAY, trial.question)
    await until(lambda: trial.stage.store.replies.get(int(said["id"])))
    await trial.settle()
    trial.check_whole(int(said["id"]))
    trial.check_rest()


async def fail_call(trial: Trial, route: str, fault: str, times: int) -> None:
    """A call of a reply in a channel fails; where the bot may not manage webhooks, it speaks
    itself.
    """
    stage = trial.stage
    as_bot = "as the bot" in trial.what
    if as_bot or "webhook" in trial.what:  # the bot knows none
        channel = stage.client.get_channel(int(stage.sandbox.channel(QUAY)["id"]))
        stage.client.services.reply_service.senders.forget(channel)
    stage.sandbox.set_permission("MANAGE_WEBHOOKS", not as_bot)
    stage.sandbox.fail_requests(route, fault, times)
    await ask(trial)
    stage.sandbox.fail_requests(route, fault, 0)
    stage.sandbox.set_permission("MANAGE_WEBHOOKS", True)


async def fail_response(trial: Trial, fault: str, times: int) -> None:
    """A question by `/chat` is answered whole, or it leaves no trace."""
    trial.stage.sandbox.fail_requests(RESPONSE, fault, times)
    await trial.stage.member.slash(QUAY, "chat", message=trial.question)
    trial.stage.sandbox.fail_requests(RESPONSE, fault, 0)
    service = trial.stage.client.services.reply_service
    await until(lambda: not trial.stage.client.services.reply_service.tasks)
    await trial.settle()
    sql = (
        "select event_id from replies where trigger_seq in (select seq from messages where text = "
        ":text)"
    )
    event_id = service.store._connection.value(int, sql, text=trial.question)
    quotes = [
        one
        for one in trial.stage.sandbox.messages(QUAY)
        if one["content"].endswith(f"** {trial.question}")
    ]
    if event_id:
        trial.check_whole(event_id)
        if len(quotes) != 1:
            trial.outcome.doubled.append(f"{trial.what}: the question is there {len(quotes)} times")
    elif service.store._connection.value(
        int, "select count(*) from messages where text = :t", t=trial.question
    ):
        trial.lost("refused, but the question is in the history")
    trial.check_rest()


async def fail_follow_up(trial: Trial, fault: str, times: int) -> None:
    """A command's change is made, and nobody reads that it went wrong."""
    stage = trial.stage
    mark = trial.stage.mark
    for route in FOLLOW_UPS:
        stage.sandbox.fail_requests(route, fault, times)
    answer = await stage.member.slash(QUAY, "privacy opt-out")
    await until(lambda: stage.store.people.decision(int(stage.member.id)))
    await asyncio.sleep(FOLLOW_UP_S)
    for route in FOLLOW_UPS:
        stage.sandbox.fail_requests(route, fault, 0)
    if answer.type != CallbackType.THINKING:
        trial.lost(f"the command was answered by {answer.type}")
    told = [
        one["content"]
        for kind, one in stage.sandbox.events[mark:]
        if kind == "message" and "content" in one
    ]
    if any("went wrong" in text for text in told):
        trial.lost("went wrong is said of a change that was made")


# ------------------------------------------------------------------------------ database and engine


async def fail_writes(trial: Trial, first: int, times: int) -> None:
    """The database takes no write from the `first` one of a reply on, so many times in a row."""
    writing = DatabaseConnection._writing
    hits = itertools.count()

    @contextmanager
    def disturbed(connection: DatabaseConnection) -> Iterator[None]:
        if first <= next(hits) < first + times:
            raise StoreError("The database is locked.")
        with writing(connection):
            yield

    with mock.patch.object(DatabaseConnection, "_writing", disturbed):
        await ask(trial)


async def fail_engine(trial: Trial, pieces: int) -> None:
    """What the engine generated before it failed stays, with a note below, and later prompts have
    it.
    """
    stage = trial.stage
    assert isinstance(stage.engine, BreakingEngine)
    stage.engine.pieces = pieces
    said = await stage.member.say(QUAY, trial.question)
    await until(lambda: stage.store.replies.get(int(said["id"])))
    await trial.settle()
    stage.engine.pieces = None
    reply = stage.store.replies.get(int(said["id"]))
    assert reply is not None
    whole = "".join(script(stage.engine.requests[-1])[:pieces]).strip()
    shown = {int(one["id"]): one["content"] for one in stage.sandbox.messages(QUAY)}
    text, _, note = "\n".join(shown.get(part, "") for part in reply.parts).partition("-# ")
    if text.split() != whole.split() or "The model fell over" not in note:
        trial.lost(f"{pieces} pieces: shown are {text[:60]!r} and {note!r}")
    if (stage.store.messages.text_of(reply.parts[0]) or "").split() != whole.split():
        trial.lost(f"{pieces} pieces: what is shown is not in the history")
    trial.check_rest()


Case = Callable[[Trial], Any]


def cases(faults: Sequence[str], times: Sequence[int]) -> Iterator[tuple[str, Case]]:
    """Yield each trial with its name."""
    for fault, count in itertools.product(faults, times):
        for call, route in CALLS.items():
            yield (
                f"{call}, {fault} x {count}",
                lambda trial, r=route, f=fault, n=count: fail_call(trial, r, f, n),
            )
        yield (
            f"response, {fault} x {count}",
            lambda trial, f=fault, n=count: fail_response(trial, f, n),
        )
        yield (
            f"follow-up, {fault} x {count}",
            lambda trial, f=fault, n=count: fail_follow_up(trial, f, n),
        )
    for first, count in itertools.product(range(MAX_WRITES), times):
        yield (
            f"store from write {first} on x {count}",
            lambda trial, w=first, n=count: fail_writes(trial, w, n),
        )
    for pieces in range(MAX_PIECES + 1):
        yield f"engine after {pieces} pieces", lambda trial, n=pieces: fail_engine(trial, n)


async def run_cases(chosen: Sequence[tuple[str, Case]]) -> Outcome:
    """Run trials one after the other, in one life of the bot."""
    outcome = Outcome()
    async with stage_of_failures() as stage:
        for number, (what, case) in enumerate(chosen):
            outcome.tried += 1
            outcome.faults[what.partition(",")[0].partition(" from")[0].partition(" after")[0]] += 1
            try:
                await case(Trial(stage, outcome, number, what))
            except TimeoutError:
                outcome.lost.append(f"{what}: timed out")
    return outcome


async def run(seeds: int, first: int) -> Outcome:
    """Try so many of all trials, spread evenly, from the `first` on."""
    every = list(cases(FAULTS, range(1, MAX_TIMES + 1)))
    step = max(1, len(every) // seeds)
    return await run_cases(every[first % step :: step])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=100_000, help="number of trials (default: all)"
    )
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    outcome = asyncio.run(run(args.seeds, args.first))
    print(dict(outcome.faults))
    print(outcome, f"· {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
