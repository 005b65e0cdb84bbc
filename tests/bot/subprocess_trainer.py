"""What the supervisor of the trainer works with: a home, a small source tree, and a stand-in
trainer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bot.store import Store
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.store import NewTrainingJob
from personas.home.job_material import ShippedData
from personas.schemas.training import TrainingRequest
from tests.fakes import FakeClock

ROOT = Path(__file__).parent.parent.parent
STANDIN = ROOT / "tests" / "fake_trainer.py"
RIGHTS = '["{}"]\nright = "own-writing"\nstated_by = "me"\nstated_on = 2026-11-20\nwhy = "mine"\n'


def ship(root):
    """A source tree with one persona."""
    shipped = ShippedData.of(root, cards=root / "cards")
    for folder in (*vars(shipped).values(), shipped.lore / "oda", shipped.lore / "_world"):
        folder.mkdir(parents=True, exist_ok=True)
    (shipped.cards / "oda.toml").write_text('id = "oda"\nname = "Oda"\n')
    (shipped.logs / "oda.json").write_text("{}" * 1000)
    (shipped.logs / "rights.toml").write_text(RIGHTS.format("oda.json"))
    (shipped.general / "chat.jsonl").write_text("{}")
    (shipped.general / "rights.toml").write_text(RIGHTS.format("chat.jsonl"))
    (shipped.lore / "oda" / "soup.md").write_text("# Soup\nNever ask.")
    (shipped.lore / "_world" / "tides.md").write_text("# Tides\nTwice a day.")
    (shipped.recipes / "demo-cpu.toml").touch()
    return shipped


class Workshop:
    """A home, a store and what ships, for backends of every mode."""

    def __init__(self, folder):
        self.home = folder / "home"
        self.shipped = ship(folder / "source")
        self.store = Store.open(self.home / "understudy.sqlite")
        self.clock = FakeClock()
        self.events = []

    def backend(self, mode, environ=os.environ, clock=None, **more):
        return SubprocessBackend(
            self.home,
            DatasetCatalog(self.shipped, "embedded", self.home),
            clock or self.clock,
            threads=2,
            nice=5,
            serving_precision="float32",
            environ=environ,
            command=(sys.executable, str(STANDIN), mode),
            **more,
        )

    def job(self, job_id="j1", **fields):
        request = TrainingRequest(**{"job_name": "manners", "persona": "oda", **fields})
        return self.store.jobs.add(NewTrainingJob(job_id, 1, 2, 3, request), 1.0)

    def folder(self, job_id="j1"):
        return self.home / "jobs" / job_id

    async def run(self, mode, job=None, **more):
        return await self.backend(mode, **more).run(job or self.job(), self.events.append)
