"""Prints which files and functions each way through the code enters: `python -m tools.walks`.

A way is what one message, command, button or program run does. Its entry sets a context variable;
counted are the functions of the project that run in that context, in any thread: what the way
itself does, and what it starts, but not what runs anyway, such as the engine's thread.
"""

import argparse
import asyncio
import contextvars
import functools
import inspect
import json
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar
from unittest import mock

from bot.app import open_app
from bot.chat.discord import ChatCog
from bot.demo import QUESTION, DemoSession
from bot.platform.discord_kit.transformers import FINETUNE
from bot.settings import load_settings
from bot.versions.discord import PromoteAnywayButton, PromoteButton
from personas.engine import Engine
from personas.engine.step import BatchGenerator
from personas.home.job_material import ShippedData
from personas.schemas.chat import ChatRequest, Turn
from trainer import run
from trainer.cli.main import main as run_trainer
from trainer.train.job import prepare_job

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bot", "personas", "sandbox", "trainer")
WAYS = ("message", "start", "promote", "train", "samples", "decode")
CHATS = 8
"""Chats of the decode step."""
PERSONA = "ballast"
TRAIN = ("train", "--persona", PERSONA, "--recipe", "quick", "--card", "losses")
T = TypeVar("T")
_ways: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("ways", default=())
"""A way may be a part of another: samples of train."""
_entered: dict[str, set[CodeType]] = defaultdict(set)


def _note_call(frame: FrameType, event: str, _: object) -> None:
    ways = _ways.get()
    if event != "call" or not ways:
        return
    caller = frame.f_back
    # What runs while a module is imported is no part of the way, nor is the body of a class.
    is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
    if is_function and caller and caller.f_code.co_flags & inspect.CO_OPTIMIZED:
        for way in ways:
            _entered[way].add(frame.f_code)


def _in_way(way: str, work: Callable[..., T]) -> Callable[..., T]:
    """Return the function as the entry of a way."""

    @functools.wraps(work)
    def entry(*arguments: Any, **options: Any) -> T:
        context = contextvars.copy_context()
        context.run(_ways.set, (*_ways.get(), way))
        return context.run(work, *arguments, **options)

    return entry


def _async_in_way(way: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return the coroutine function as the entry of a way."""

    @functools.wraps(work)
    async def entry(*arguments: Any, **options: Any) -> Any:
        token = _ways.set((*_ways.get(), way))
        try:
            return await work(*arguments, **options)
        finally:
            _ways.reset(token)

    return entry


class _Thread(threading.Thread):
    """A thread that belongs to the way in which it was started."""

    def start(self) -> None:
        context = contextvars.copy_context()
        run = self.run
        self.run = lambda: context.run(run)  # type: ignore[method-assign]
        super().start()


def _decode_of_all(step: Callable[[BatchGenerator], bool]) -> Callable[[BatchGenerator], bool]:
    decode = _in_way("decode", step)

    @functools.wraps(step)
    def entry(batch: BatchGenerator) -> bool:
        return decode(batch) if batch.running >= CHATS else step(batch)

    return entry


@contextmanager
def _entries() -> Iterator[None]:
    """Make the entries of the bot's ways set the way."""
    start = FINETUNE.get_command("start")
    with (
        mock.patch.object(ChatCog, "on_message", _async_in_way("message", ChatCog.on_message)),
        mock.patch.object(start, "_callback", _async_in_way("start", start._callback)),  # type: ignore[union-attr]
        mock.patch.object(
            PromoteButton, "pressed", _async_in_way("promote", PromoteButton.pressed)
        ),
        mock.patch.object(
            PromoteAnywayButton,
            "pressed",
            _async_in_way("promote", PromoteAnywayButton.pressed),
        ),
        mock.patch.object(BatchGenerator, "step", _decode_of_all(BatchGenerator.step)),
    ):
        yield


async def _reply(engine: Engine, number: int) -> None:
    request = ChatRequest(None, (Turn("Ada", f"Tell me of {number} boats."),))
    async for _ in engine.submit(request):
        pass


async def _walk_bot(home: Path, *, trains: bool) -> None:
    """Talk to a persona, and have eight chats at once; then train it, and promote the version."""
    settings = load_settings(
        None, {"UNDERSTUDY_HOME": str(home), "WEB_PORT": "0", "OWN_WORDS": "false"}
    )
    shipped = replace(ShippedData.from_source_tree(), adapters=None)
    async with open_app(settings, shipped) as app:
        session = DemoSession(app, 0.0)
        await session.ask(PERSONA, QUESTION)
        await asyncio.gather(*(_reply(app.services.engine, number) for number in range(CHATS)))
        if trains:
            await session.retrain(PERSONA)


def _walk_trainer(home: Path) -> None:
    """Train a persona in this process, from its job folder to the adapter."""
    words = ["python -m trainer", *TRAIN, "--home", str(home)]
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.object(run, "run_job", _in_way("train", run.run_job)),
        mock.patch("trainer.run.prepare_job", _in_way("samples", prepare_job)),
    ):
        run_trainer()


def _counts(way: str) -> dict[str, Any]:
    """Return the number of files and functions of the project that a way entered, and the files."""
    files = set()
    functions = set()
    for code in _entered[way]:
        path = Path(code.co_filename)
        is_ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
        # Neither a module's body nor a comprehension is a function.
        if is_ours and not code.co_name.startswith("<"):
            files.add(path.relative_to(ROOT).as_posix())
            functions.add((code.co_filename, code.co_firstlineno))
    return {"files": len(files), "functions": len(functions), "entered": sorted(files)}


def main() -> None:
    """Walk the ways, and print their counts."""
    parser = argparse.ArgumentParser(prog="python -m tools.walks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON, with the files entered")
    parser.add_argument("--way", choices=WAYS, nargs="+", default=WAYS, help="walk these alone")
    options = parser.parse_args()
    ways = set(options.way)
    sys.setprofile(_note_call)
    threading.setprofile(_note_call)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(threading, "Thread", _Thread),
        redirect_stdout(sys.stderr),  # what the session and the trainer say on the way
        _entries(),
    ):
        home = Path(folder)
        if {"message", "start", "promote", "decode"} & ways:
            asyncio.run(_walk_bot(home / "bot", trains=bool({"start", "promote"} & ways)))
        if {"train", "samples"} & ways:
            _walk_trainer(home / "trainer")
    sys.setprofile(None)
    counts = {way: _counts(way) for way in options.way}
    if options.json:
        print(json.dumps(counts, indent=2))
        return
    for way, count in counts.items():
        print(f"{way:8} {count['files']:4} files {count['functions']:5} functions")


if __name__ == "__main__":
    main()
