"""The running bot's forgettings: one after another, in the background, whoever asks; taken up again after a restart.

A member asks with `/privacy forget`. The operator asks with `python -m bot privacy forget`, which leaves a file in
`<home>/forget/` for the bot that runs.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from bot.house import HouseBot
from bot.privacy.consent import Consents
from bot.privacy.forget import Forgetter
from bot.privacy.live import LiveBot
from bot.privacy.receipt import Receipt, Scope
from personas.contracts import Contract

log = logging.getLogger(__name__)

REQUESTS = "forget"
"""The folder in the home in which the operator's requests are left."""
POLL_S = 2.0
AGAIN_S = 30.0
"""How long to wait after a step that failed, because the disk is full for instance."""

Tell = Callable[[Receipt], Awaitable[None]]


class AskedFor(Contract):
    """A request of the operator: an id, and names under which the person is known."""

    user_id: Annotated[int, Field(ge=0)]
    names: tuple[str, ...] = ()


class Forgettings:
    """What the cog hands people's requests to."""

    def __init__(self, bot: HouseBot) -> None:
        self._bot = bot
        self._tell: dict[int, Tell] = {}
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def forgetter(self) -> Forgetter:
        """Forgets in this home, with the bot around it."""
        house = self._bot.house
        consents = Consents(house.home, house.store, house.keeping.permission)
        return Forgetter(
            house.home,
            house.store,
            consents,
            time.time,
            LiveBot(self._bot),
            house.conversations.personas.every_name(),
            house.keeping.leave_sandbox,
        )

    def start(self) -> None:
        """Begin with what was left over."""
        self._worker = asyncio.create_task(self._work(), name="forgetting")

    async def stop(self) -> None:
        """Let go; what is not done goes on at the next start."""
        if self._worker:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None

    def is_underway(self, user_id: int) -> bool:
        """Whether somebody is being forgotten now."""
        forgetter = self.forgetter
        person = forgetter.keyed(str(user_id))
        return any(row.person == person and row.step != "follow" for row in forgetter.store.forgettings.unfinished())

    def ask(self, user_id: int, names: Iterable[str], scope: Scope, tell: Tell) -> None:
        """Have somebody forgotten, or withdrawn what was trained on them. Once this returns, it happens.

        `tell` is called at the end, unless the bot was started anew meanwhile. Raises `UnderstudyError`.
        """
        forgetter = self.forgetter
        row = forgetter.begin(forgetter.traces(user_id, names), scope=scope)
        self._tell[row.seq] = tell
        self._let_go(user_id)

    def _let_go(self, user_id: int) -> None:
        house = self._bot.house
        house.answerer.hush_replies(to=user_id)
        house.duets.stop_asked_by(user_id)
        for channel_id in [key for key, asked in house.unanswered.items() if asked.author_id == user_id]:
            del house.unanswered[channel_id]
        self._wake.set()

    # ------------------------------------------------------------------------------------------ in the background

    async def _work(self) -> None:
        await self._bot.wait_until_ready()
        while True:
            self._wake.clear()
            try:
                self._take_requests()
                await self._work_off()
            except Exception:  # it stays in the store and is tried again
                log.exception("a forgetting could not go on; it is tried again")
                await asyncio.sleep(AGAIN_S)
            try:
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            except TimeoutError:
                continue

    async def _work_off(self) -> None:
        for row in self._bot.house.store.forgettings.unfinished():
            receipt = await self.forgetter.run(row)
            if tell := self._tell.pop(row.seq, None):
                await tell(receipt)

    def _take_requests(self) -> None:
        for file in sorted((self._bot.house.home / REQUESTS).glob("*.json")):
            try:
                asked = AskedFor.model_validate_json(file.read_bytes())
            except ValidationError:
                log.error("%s is no request to forget somebody", file.name)
            else:
                forgetter = self.forgetter
                forgetter.begin(forgetter.traces(asked.user_id, sure_names=asked.names))
                self._let_go(asked.user_id)
            file.unlink()


def leave_request(home: Path, asked: AskedFor) -> Path:
    """Leave a request for the bot that runs on this home; the file is gone once it was taken. Raises `OSError`."""
    folder = home / REQUESTS
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{secrets.token_hex(8)}.json"
    aside = file.with_suffix(".part")
    aside.touch(mode=0o600)
    aside.write_text(asked.model_dump_json(), encoding="utf-8")
    aside.replace(file)
    return file
