"""A queue over a real store that can be killed and begun anew on the same file."""

from __future__ import annotations

import asyncio

from bot.store import Store
from bot.training.queue import JobQueue
from personas.schemas.training import TrainingRequest
from tests.fakes import FakeClock, FakeTrainingBackend, until


class TrainingHome:
    """A store, a fake backend and a queue; what the queue tells is kept in `changes`."""

    def __init__(self, folder):
        self.path = folder / "understudy.sqlite"
        self.clock = FakeClock()
        self.changes = []
        self.open()

    def open(self):
        self.store = Store.open(self.path)
        self.backend = FakeTrainingBackend()
        self.queue = JobQueue(self.store, self.backend, self.clock)
        self.queue.subscribe(self.changes.append)

    async def kill(self):
        """As far as the store can tell: nothing is said any more."""
        self.store.close()
        if worker := self.queue.worker._task:
            tasks = {worker, *(attempt.task for attempt in self.queue._attempts.values())}
            if card := self.queue._cards._task:
                tasks.add(card)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def crash_and_start(self):
        await self.kill()
        self.open()
        self.queue.start()

    def ask(self, persona="oda", guild=1, **more):
        self.clock.advance(1)
        fields = {"job_name": "j", "persona": persona, **more}
        return self.queue.enqueue(
            TrainingRequest(**fields), guild_id=guild, channel_id=2, requested_by=3
        ).job_id

    def ask_dialogue(self, name, guild=1):
        return self.ask(
            None, guild, job_name=name, task_type="dialogue", dataset="general-dialogue"
        )

    def state(self, job_id):
        return self.store.jobs.get(job_id).state

    async def running(self):
        await until(lambda: self.backend.busy)
        return self.backend.runs[-1]

    async def finish(self, outcome=None):
        started = self._started()
        self.clock.advance(60)
        self.backend.finish(outcome)
        await until(lambda: not self.backend.busy or self._started() > started)
        await asyncio.sleep(0)

    def _started(self):
        return len(self.backend.runs) + len(self.backend.cards)
