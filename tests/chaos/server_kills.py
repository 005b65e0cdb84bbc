"""Kills the llama.cpp server under a bot whose three personas speak with tuned voices, and promotes a
version meanwhile.

`python -m tests.chaos.server_kills --seconds 600` prints what was asked, lost, doubled and orphaned.
The model has two layers, and each version recites a sentence of its own words
(`tests.reciting_voices`): a reply is whole if it is the sentence of its version.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bot.demo_guild import CHANNEL_PERSONAS, MODERATOR, SKERROW_SEED
from bot.platform.db.database import Row
from bot.store import HOME_DATABASE, Store
from personas.engine.remote.llamacpp_command import LlamaProgram, NoLlamaServerError
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_tokenizer
from sandbox import MemberSeed, Sandbox
from tests.bot.version_rows import install
from tests.chaos.bot_process import BotProcesses
from tests.chaos.conversation import Conversation, report, wait_for
from tests.chaos.outcome import Outcome
from tests.real_llama import find_llama_program, setting_of

if TYPE_CHECKING:
    from tests.reciting_voices import Voice

SECONDS_PER_SEED = 2
SEEDS_PER_ROUND = 300
"""A round of ten minutes."""
MEMBERS = 8
VOICES = [("ballast", "v1"), ("oda", "v1"), ("thrip", "v1"), ("ballast", "v2")]
FIRST_KILL, PROMOTION, SECOND_KILL = 0.25, 0.5, 0.75
"""Parts of the time after which each of them happens."""
PAUSE_S = 0.3
"""Average pause of a member between a reply and the next message."""
POLL_S = 0.1
REPLY_TIMEOUT_S = 60.0
START_TIMEOUT_S = 120.0
MAX_NEW_TOKENS = 48
CONTEXT_TOKENS = 1024
FOOTER = "\n-# "


@dataclass(frozen=True)
class Town:
    """What the personas are served with: a model's folder, its GGUF file, a home with the versions,
    and their sentences.
    """

    base: str
    gguf: Path
    home: Path
    sentences: Mapping[Voice, str]
    program: LlamaProgram

    def environ(self) -> dict[str, str]:
        """Return the bot's settings."""
        return {
            "ENGINE": "llamacpp",
            "ENGINE_MODEL": str(self.gguf),
            "LLAMA_SERVER": setting_of(self.program),
            "MAX_NEW_TOKENS": str(MAX_NEW_TOKENS),
            "CONTEXT_TOKENS": str(CONTEXT_TOKENS),
        }


@contextmanager
def open_town(program: LlamaProgram) -> Iterator[Town]:
    """Make a model and a version for each voice."""
    # They import torch.
    from personas.models.loading import load_model
    from personas.prompt.renderer import Renderer
    from tests import reciting_voices
    from trainer.export.gguf_model import write_model

    folder = Path(tempfile.mkdtemp(prefix="understudy-chaos-voices-"))
    try:
        renderer = Renderer(load_tokenizer(locate(EMBEDDED)))
        base = reciting_voices.make_reciting_base(folder / "base", renderer.tokenizer)
        gguf = folder / "base.gguf"
        write_model(gguf, load_model(base, "float32"), renderer, quantise="f16", name="base")
        sentences = reciting_voices.choose_sentences(renderer.tokenizer, VOICES)
        home = folder / "home"
        reciting_voices.make_reciting_versions(home, base, renderer, sentences)
        yield Town(base.source, gguf, home, sentences, program)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Voices:
    """The replies of one run, word by word."""

    sentences: Mapping[Voice, str]
    replies: int = 0
    words: int = 0
    foreign_words: int = 0
    wrong: list[str] = field(default_factory=list)

    def hear(self, voice: Voice, text: str) -> None:
        """Compare a reply with the sentence of its version."""
        expected = self.sentences.get(voice, "").split()
        words = text.split()
        foreign = [word for word in words if word not in expected]
        self.replies += 1
        self.words += len(words)
        self.foreign_words += len(foreign)
        if words != expected:
            self.wrong.append(f"{' '.join(voice)}, {len(foreign)} foreign words: {text!r}")

    def __str__(self) -> str:
        return (
            f"{self.replies} replies of {self.words} words, {self.foreign_words} in another's voice"
        )


class TownTalk(Conversation):
    """Members who talk to three personas; each waits for its reply."""

    def __init__(self, town: Town, home: Path, sandbox: Sandbox, seed: int) -> None:
        processes = BotProcesses(has_model=True)
        super().__init__(home, sandbox, processes, seed, town.base, channels=CHANNEL_PERSONAS)
        self.voices = Voices(town.sentences)
        self.asked: dict[int, float] = {}
        self.promoted_at = float("inf")

    async def prepare(self) -> None:
        await super().prepare()
        with Store.open(self.home / HOME_DATABASE) as store:
            for persona, version in VOICES:
                assert install(store, persona) == version
                if version == "v1":
                    store.versions.promote(persona, version, by=7, at=1.0)

    async def talk_as(self, name: str) -> None:
        """Ask, wait for the reply, and ask again, for ever."""
        member = self.sandbox.member(name)
        while True:
            channel = self.random.choice(list(self.channels))
            asked_at = time.time()
            message = await member.say(channel, f"question {len(self.asked)}")
            event_id = int(message["id"])
            self.asked[event_id] = asked_at
            try:
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    while not self.has_ended(event_id):  # noqa: ASYNC110  the bot is elsewhere
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                self.outcome.lost.append(f"{event_id} got no reply in {REPLY_TIMEOUT_S:.0f} s")
            await asyncio.sleep(self.random.uniform(0, 2 * PAUSE_S))

    def has_ended(self, event_id: int) -> bool:
        rows = self.rows(f"select state from replies where event_id = {event_id}")
        return bool(rows) and rows[0]["state"] not in ("waiting", "streaming")

    async def kill_server(self, process: BaseProcess) -> None:
        """Kill the server while replies are on it."""
        sql = "select event_id from replies where state = 'streaming'"
        await wait_for(lambda: self.rows(sql), REPLY_TIMEOUT_S)
        running = servers(process)
        for server in running:
            server.kill()
        self.outcome.faults["server kills"] += len(running)

    async def promote(self) -> None:
        """Promote the second version of a persona; replies that are asked for later have it."""
        persona, version = VOICES[-1]
        channel = next(name for name, owner in self.channels.items() if owner == persona)
        moderator = self.sandbox.member(MODERATOR)
        await moderator.slash(channel, "finetune promote", version=version)
        await wait_for(
            lambda: self.rows(f"select 1 from promotions where version = '{version}'"),
            START_TIMEOUT_S,
        )
        self.promoted_at = time.time()
        self.outcome.faults["promotions"] += len(
            self.rows(f"select 1 from promotions where version = '{version}'")
        )

    def _check_reply(self, row: Row, texts: list[str]) -> None:
        super()._check_reply(row, texts)
        if len(texts) > 1:
            self.outcome.doubled.append(f"reply {row['event_id']}: {texts}")
        for text in texts:
            spoken, _, below = text.partition(FOOTER)
            footer = below.partition("\n")[0]
            version = next((part for part in footer.split(" · ") if part in ("v1", "v2")), "")
            expected = "v1" if row["persona_id"] != "ballast" else version
            if self.asked.get(row["event_id"], 0.0) > self.promoted_at:
                expected = "v2" if row["persona_id"] == "ballast" else "v1"
            if version != expected:
                self.voices.wrong.append(f"{row['event_id']} has the version {version!r}: {footer}")
            self.voices.hear((row["persona_id"], version), spoken)

    def _check_jobs(self) -> None:
        """Nothing is trained: the versions are there from the start."""

    def check(self) -> None:
        super().check()
        answered = {row["event_id"] for row in self.rows("select event_id from replies")}
        self.outcome.lost += [f"the message {one}" for one in self.asked.keys() - answered]
        self.outcome.lost += self.voices.wrong
        self.outcome.tried = len(self.asked)


def servers(process: BaseProcess) -> list[psutil.Process]:
    """The llama.cpp servers of a bot: the children of the processes that guard them."""
    assert process.pid
    guards = [
        child
        for child in psutil.Process(process.pid).children()
        if any("child_guard" in part for part in child.cmdline())
    ]
    return [server for guard in guards for server in guard.children()]


async def run_for(seconds: float, seed: int, town: Town) -> tuple[Outcome, Voices]:
    """Let members talk for so long, while the server is killed twice and a version is promoted."""
    extra = [MemberSeed(f"Guest {number}") for number in range(MEMBERS)]
    guild = replace(SKERROW_SEED, members=(*SKERROW_SEED.members, *extra))
    sandbox = Sandbox(guild, None, rate_window=0.0001)
    home = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    shutil.copytree(town.home, home, dirs_exist_ok=True)
    await sandbox.start()
    try:
        talk = TownTalk(town, home, sandbox, seed)
        await talk.prepare()
        process = talk.start_bot(environ=town.environ())
        await wait_for(lambda: talk.is_connected or not process.is_alive(), START_TIMEOUT_S)
        talking = [asyncio.create_task(talk.talk_as(member.name)) for member in extra]
        await asyncio.sleep(seconds * FIRST_KILL)
        await talk.kill_server(process)
        await asyncio.sleep(seconds * (PROMOTION - FIRST_KILL))
        await talk.promote()
        await asyncio.sleep(seconds * (SECOND_KILL - PROMOTION))
        await talk.kill_server(process)
        await asyncio.sleep(seconds * (1 - SECOND_KILL))
        await _end(talking)
        await talk.settle(process)
        await talk.stop_bot(process)
        talk.check()
        return report(talk, seed), talk.voices
    finally:
        await sandbox.stop()
        shutil.rmtree(home, ignore_errors=True)


async def run(seeds: int, first: int) -> Outcome:
    """Run for two seconds a seed, in rounds of at most ten minutes."""
    outcome = Outcome()
    try:
        program = find_llama_program()
    except NoLlamaServerError as error:
        print(f"no llama.cpp server is killed: {error}", file=sys.stderr, flush=True)
        return outcome
    with open_town(program) as town:
        for begin in range(0, seeds, SEEDS_PER_ROUND):
            number = min(SEEDS_PER_ROUND, seeds - begin)
            one, voices = await run_for(number * SECONDS_PER_SEED, first + begin, town)
            outcome += one
            print(voices, file=sys.stderr, flush=True)
    return outcome


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open_town(find_llama_program()) as town:
        outcome, voices = asyncio.run(run_for(args.seconds, args.seed, town))
    print(dict(outcome.faults), voices)
    print(outcome)


if __name__ == "__main__":
    main()
