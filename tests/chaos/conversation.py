"""A home, a sandbox and its members through many lives of the bot, and what must hold
afterwards.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bot.demo_guild import MEMBER, MODERATOR, SKERROW_SEED
from bot.guild_settings.definitions import WAIT_S
from bot.moderation.limits import ReplyLimits
from bot.moderation.store import Block
from bot.platform.db.database import Row, open_read_only
from bot.privacy.texts import TEXTS
from bot.store import ALL_PERSONAS, HOME_DATABASE, Channel, Store
from sandbox import Sandbox, SandboxRefusal, message_text
from sandbox.interactions import CallbackType
from sandbox.member_client import InteractionResponse
from sandbox.message_components import all_components
from tests.bot.set_settings import set_limits
from tests.chaos.answers import AnswerCheck
from tests.chaos.bot_process import LONG_REPLY_WORDS, BotProcesses
from tests.chaos.message_kinds import BLOCKED, NAMES, WAITS, Sent, Traffic
from tests.chaos.outcome import Outcome

CHANNELS = {"weighbridge-quay": "ballast", "the-damp-lantern": "oda", "drowned-stage": "thrip"}
FACE = "oda"
"""The persona that is the bot itself, in every second conversation."""
LIMITS = (ReplyLimits(), ReplyLimits(), ReplyLimits(per_day=30), ReplyLimits(cooldown_s=1))
"""The limits of replies to a member; a moderator has none."""
SETTLE_TIMEOUT_S = 90.0
QUIET_POLLS = 8
UNSETTLED = """select (select count(*) from replies where state in ('waiting', 'streaming') or end_note is not null)
    + (select count(*) from jobs where state in ('queued', 'running') or not announced) as number"""
OPTED_IN = ("opt_in_done", "opt_in_already")
OPTED_OUT = ("opt_out_done",)
QUEUED = re.compile(r"Queued as `(\w+)`")


class Conversation:
    """One home and one sandbox."""

    def __init__(
        self,
        home: Path,
        sandbox: Sandbox,
        processes: BotProcesses,
        seed: int,
        base: str = "",
        channels: Mapping[str, str] = CHANNELS,
    ) -> None:
        """`base` is the folder of a real base model; `channels` are those with a persona."""
        draws = random.Random(f"{seed} rules")
        self.has_face = draws.random() < 0.5
        self.limits = draws.choice(LIMITS)
        self.home = home
        self.sandbox = sandbox
        self._processes = processes
        self.base = base
        self.channels = channels
        self.random = random.Random(seed)
        self.outcome = Outcome()
        self.traffic = Traffic(sandbox, channels, self.random, self.has_face)
        self.answers = AnswerCheck(self.traffic, self.limits, self.rows)
        self.actions = [self.vote, self.train, self.decide, self.tell]
        self.was_killed = False
        """Events that the bot had received, but not stored, are gone: Discord sends a new session
        none of them.
        """
        self._queued: set[str] = set()
        self._consent: bool | None = None
        self._votes: dict[str, bool | None] = {}  # by button; None where a press was not confirmed
        self._lore: set[str] = set()

    async def prepare(self) -> None:
        """Create the database, and give the channels their personas."""
        with Store.open(self.home / HOME_DATABASE) as store:
            for name, persona in self.channels.items():
                place = self.sandbox.guild_id, int(self.sandbox.channel(name)["id"])
                further = [other for other in NAMES if other != persona]
                channel = Channel(*place, persona, "everything", 1, time.time())
                store.channels.assign(channel, further)
            if self.has_face:
                store.faces.choose(self.sandbox.guild_id, FACE)

    async def set_rules(self) -> None:
        """Block a member, limit the replies to others, and have replies wait for further lines."""
        guild_id = self.sandbox.guild_id
        blocked_id = int(self.sandbox.member(BLOCKED).id)
        with Store.open(self.home / HOME_DATABASE) as store:
            block = Block(guild_id, blocked_id, ALL_PERSONAS, blocked_by=1, at=1.0)
            store.blocks.add(block)
            set_limits(store, guild_id, self.limits)
            for name, wait_s in WAITS.items():
                channel_id = int(self.sandbox.channel(name)["id"])
                WAIT_S.write(store, wait_s, guild_id, channel_id=channel_id)

    def start_bot(
        self, plan: str = "", trace: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> BaseProcess:
        """Start the bot with a failpoint plan; `environ` has further settings."""
        return self._processes.start(
            self.home,
            self.sandbox.url,
            self.sandbox.token,
            plan,
            trace,
            base=self.base,
            environ=environ,
        )

    async def stop_bot(self, process: BaseProcess) -> None:
        process.terminate()
        await asyncio.to_thread(process.join, 60)
        if process.exitcode != 0:
            self.outcome.lost.append(f"the bot ended with exit code {process.exitcode}")

    @property
    def is_connected(self) -> bool:
        """The bot's gateway session is open."""
        return bool(self.sandbox.controls()["connected"])

    # -------------------------------------------------------------------------------------- members

    async def talk(self) -> None:
        """Say, vote on and delete messages for ever."""
        while True:
            name = self.random.choice(list(self.channels))
            saying = asyncio.ensure_future(self.say(name))
            try:
                await asyncio.shield(saying)
            finally:
                # All that it sends is compared, also where the bot dies between two of its steps.
                await saying
            await asyncio.sleep(self.random.uniform(0.02, 0.2))
            with suppress(SandboxRefusal, TimeoutError, LookupError):
                async with asyncio.timeout(
                    0.5
                ):  # not wait_for, which loses cancellations before Python 3.12
                    await self.random.choice(self.actions)(name)

    async def say(self, channel: str = "", kind: str = "") -> list[Sent]:
        """Send a message of any kind, by default in any channel."""
        return await self.traffic.say(channel or self.random.choice(list(self.channels)), kind)

    async def call_while_away(self) -> None:
        """Send mentions to a bot that is not there, and note what it owes when it comes back."""
        for channel in self.channels:
            if self.random.random() < 0.5:
                await self.say(channel, "mention")
        self.answers.note_owed()

    async def vote(self, channel: str) -> None:
        ended = [
            one
            for one in self.sandbox.messages(channel)[-6:]
            if "vote+1:" in str(one["components"])
        ]
        if not ended:
            return
        message = self.random.choice(ended)
        button = next(one for one in _buttons(message) if one.startswith("vote+1:"))
        voted, self._votes[button] = self._votes.get(button, False), None
        answer = await self.sandbox.member(MEMBER).click(message, button)
        if answer.type == CallbackType.UPDATE and voted is not None:
            self._votes[button] = not voted

    async def train(self, channel: str) -> None:
        moderator = self.sandbox.member(MODERATOR)
        short = {"epochs": 1.0, "settings": "max_steps=2"} if self.base else {}
        answer = await moderator.slash(
            channel, "finetune start", persona=self.channels[channel], **short
        )
        if found := QUEUED.search(answer.text):
            self._queued.add(found[1])

    async def decide(self, channel: str) -> None:
        """Opt in or out; what the bot has confirmed must be stored."""
        member = self.sandbox.member(MEMBER)
        wanted = self.random.random() < 0.5
        self._consent = None
        answer = await member.slash(channel, "privacy opt-in" if wanted else "privacy opt-out")
        if wanted and answer.message and answer.message["components"]:
            answer = await member.click(answer.message, "I agree")
        await _confirmed(answer, [TEXTS[key][:20] for key in (OPTED_IN if wanted else OPTED_OUT)])
        self._consent = wanted

    async def tell(self, channel: str) -> None:
        """Give a persona lore; what the bot has confirmed must be stored."""
        moderator = self.sandbox.member(MODERATOR)
        title = f"lore {self.random.getrandbits(40)}"
        form = await moderator.slash(channel, "persona lore add", persona=self.channels[channel])
        answer = await moderator.submit(form, title=title, text="The ferry is late.")
        await _confirmed(answer, ["knows `"])
        self._lore.add(title)

    # ----------------------------------------------------------------------------------- invariants

    async def settle(self, process: BaseProcess, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Wait until every reply has ended, and no further one has begun for a while: messages that
        came while the bot was away are answered one after the other.
        """
        quiet = 0
        try:
            async with asyncio.timeout(timeout_s):
                while process.is_alive() and quiet < QUIET_POLLS:
                    quiet = 0 if self.rows(UNSETTLED)[0]["number"] else quiet + 1
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.outcome.lost.append(f"replies did not end within {timeout_s:.0f} s")

    def rows(self, sql: str) -> list[Row]:
        db = open_read_only(self.home / HOME_DATABASE)
        try:
            return db.read(sql)
        finally:
            db.close()

    def check(self) -> None:
        """Compare the database with what members see."""
        owner = {
            row["message_id"]: row["event_id"] for row in self.rows("select * from reply_parts")
        }
        speakers = {
            row["event_id"]: NAMES[row["persona_id"]]
            for row in self.rows("select event_id, persona_id from replies")
        }
        visible: dict[int, list[str]] = defaultdict(list)
        bot_id = str(self.sandbox.bot_id)
        for channel in self.channels:
            for message in self.sandbox.messages(channel):
                event_id = owner.get(int(message["id"]))
                speaker = message["author"]["username"]
                if message.get("webhook_id") and message["application_id"] != bot_id:
                    continue  # a proxy's copy
                if not message.get("webhook_id"):
                    if not self._is_of_face(message, is_part=event_id is not None):
                        continue  # a member's, or an error that the bot reports
                    speaker = NAMES[FACE]
                if event_id:
                    visible[event_id].append(message["content"])
                    if speaker != speakers.get(event_id):
                        self.outcome.orphans.append(
                            f"{speaker} speaks for {speakers.get(event_id)} in reply {event_id}"
                        )
                else:
                    self.outcome.orphans.append(
                        f"{message['id']}: {message['content'][:60]!r} {_buttons(message)}"
                    )
            self.outcome.orphans += [
                f"the webhook {hook['id']}" for hook in self._own_webhooks(channel)[1:]
            ]
        self.answers.check(self.outcome, is_all_owed=not self.was_killed)
        for row in self.answers.replies:
            self._check_reply(row, visible[row["event_id"]])
        self._check_jobs()
        known = {
            row["discord_message_id"]
            for row in self.rows("select discord_message_id from messages")
        }
        stored = {int(row["id"]) for row in self.rows("select id from gone where kind = 'message'")}
        deleted = self.traffic.deleted & stored if self.was_killed else self.traffic.deleted
        self.outcome.doubled += [
            f"the deleted message {one} is there again" for one in known & deleted
        ]
        self._check_votes()
        lore = [file.read_text() for file in self.home.rglob("*.md")]
        found = {title: sum(f"# {title}\n" in text for text in lore) for title in self._lore}
        self.outcome.lost += [f"the lore {title}" for title, times in found.items() if not times]
        self.outcome.doubled += [f"the lore {title}" for title, times in found.items() if times > 1]

    def _own_webhooks(self, channel: str) -> list[dict[str, Any]]:
        bot_id = str(self.sandbox.bot_id)
        return [hook for hook in self.sandbox.webhooks(channel) if hook["user"]["id"] == bot_id]

    def _is_of_face(self, message: dict[str, Any], *, is_part: bool) -> bool:
        """Tell what the persona that is the bot replies from what the bot says else: by the store, or
        by the buttons of replies.
        """
        is_bots = message["author"]["id"] == str(self.sandbox.bot_id)
        is_reply = any(re.match(r"(stop|reply):", button) for button in _buttons(message))
        return self.has_face and is_bots and (is_part or is_reply)

    def _check_votes(self) -> None:
        stored = Counter(row["event_id"] for row in self.rows("select event_id from votes"))
        replies = {row["event_id"] for row in self.rows("select event_id from replies")}
        for button, voted in self._votes.items():
            event_id = int(button.partition(":")[2])
            if voted is not None and event_id in replies and stored[event_id] != voted:
                wrong = self.outcome.lost if voted else self.outcome.doubled
                wrong.append(f"the vote on {event_id} is stored {stored[event_id]} times")

    def _check_jobs(self) -> None:
        jobs = {row["job_id"]: row["state"] for row in self.rows("select job_id, state from jobs")}
        ended = ("done", "failed")  # after three killed attempts
        self.outcome.lost += [
            f"the job {one}: {jobs.get(one)}" for one in self._queued if jobs.get(one) not in ended
        ]
        sent = [
            message_text(message).removeprefix("### ")
            for name in self.channels
            for message in self.sandbox.messages(name)
        ]
        for job_id in jobs:
            results = sum(
                text.startswith(("Trained", "Failed")) and f"`{job_id}`" in text for text in sent
            )
            if results != 1:
                (self.outcome.doubled if results else self.outcome.lost).append(
                    f"the job {job_id}: {results} results"
                )
        if self._consent is not None:
            stored = self.rows(
                f"select opted_in from consents where user_id = {self.sandbox.member(MEMBER).id}"
            )
            if [bool(row["opted_in"]) for row in stored] != [self._consent]:
                self.outcome.lost.append(f"the consent {self._consent} is {stored}")

    def _check_reply(self, row: Row, texts: list[str]) -> None:
        what = f"reply {row['event_id']} ({row['state']}): {[text[:40] for text in texts]}"
        if row["state"] in ("waiting", "streaming") or (texts and "-# " not in texts[-1]):
            self.outcome.lost.append(what)
        elif row["state"] == "done" and self.base:
            if not texts and row["event_id"] not in self.traffic.deleted:
                self.outcome.lost.append(what)
        elif row["state"] == "done":
            self.answers.check_heard(self.outcome, row, " ".join(texts))
            whole = " ".join(texts)
            if "…" in whole or not ("Aye." in whole or whole.count("word") == LONG_REPLY_WORDS):
                self.outcome.lost.append(what)
            elif whole.count("I hear:") != 1:
                self.outcome.doubled.append(what)


async def _confirmed(answer: InteractionResponse, texts: Sequence[str]) -> None:
    """Wait until an answer has one of these texts."""
    while not any(text in answer.text for text in texts):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def wait_for(is_so: Callable[[], object], timeout_s: float) -> None:
    """Wait until something is so, but no longer."""
    deadline = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < deadline:  # noqa: ASYNC110  other processes are waited for
        await asyncio.sleep(0.02)


def report(talk: Conversation, seed: int) -> Outcome:
    """Print a conversation that is not as it should be, and keep its home."""
    if not talk.outcome.is_clean:
        kept = Path(tempfile.mkdtemp(prefix=f"understudy-chaos-seed-{seed}-"))
        shutil.copytree(talk.home, kept, dirs_exist_ok=True)
        print(f"seed {seed}, see {kept}:", talk.outcome, flush=True)
    return talk.outcome


def _buttons(message: dict[str, Any]) -> list[str]:
    items = all_components(message["components"])
    return [item["custom_id"] for item in items if "custom_id" in item]


@asynccontextmanager
async def conversation(seed: int, base: str = "") -> AsyncIterator[Conversation]:
    """Create a home, a sandbox and its members; `base` is the folder of a real base model."""
    home = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    sandbox = Sandbox(SKERROW_SEED, None, rate_window=0.0001)
    await sandbox.start()
    try:
        made = Conversation(home, sandbox, BotProcesses(has_model=bool(base)), seed, base)
        await made.prepare()
        await made.set_rules()
        yield made
    finally:
        await sandbox.stop()
        shutil.rmtree(home, ignore_errors=True)
