"""The web server over real sockets, a real store and queue; only the trainer is a fake."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.compose import Dependencies, compose
from bot.personas.base_model_compat import IncompatibleVersions
from bot.personas.registry import PersonaRegistry
from bot.platform.web_kit.auth import Authenticator
from bot.services import PrivacyServices, Services
from bot.settings import Settings
from bot.store import Store
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.request_materials import check_request
from bot.training.training_plan import TrainingPlan
from bot.web_server import WebServer, run_server
from personas.home.job_material import ShippedData
from personas.lore.index import LoreIndex
from personas.schemas.training import TrainingRequest
from tests.bot.web.two_servers import TwoServers, two_servers
from tests.fake_engine import FakeEngine
from tests.fakes import PLAN, FakeClock, FakeTrainingBackend

LITERAL = {
    "job_name": "dialogue_v1",
    "base_model": "Qwen/Qwen2.5-3B-Instruct",
    "dataset_path": "data/oasst2",
    "task_type": "dialogue",
    "hyperparameters": {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-4,
    },
}
RIGHTS = '["{}"]\nright = "own-writing"\nstated_by = "Mina Vale"\nstated_on = 2026-11-20\nwhy = "Written for this."\n'


def put_talk(folder: Path, name: str = "talk.jsonl", count: int = 24, signed: bool = True) -> Path:
    """A small set of dialogues, with the right to it unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = ("Is the ferry late", "Who keeps the lamp", "What does rope cost", "Where is the pilot")
    talks = [
        [
            ("user", f"{asked[n % 4]} on day {n}, and why?"),
            ("assistant", f"Ask at gate {n}; they know more than I do."),
        ]
        for n in range(count)
    ]
    lines = [
        json.dumps({"messages": [{"role": role, "content": text} for role, text in talk]})
        for talk in talks
    ]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    if signed:
        (folder / "rights.toml").write_text(RIGHTS.format(name), encoding="utf-8")
    return folder / name


class Backend(FakeTrainingBackend):
    """Checks requests as the real one does, and plans as it is told."""

    def __init__(self, catalogue: DatasetCatalog) -> None:
        super().__init__()
        self.catalogue, self.planned, self.plans = catalogue, PLAN, list[TrainingRequest]()

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        super().check(request)
        check_request(self.catalogue, request, guild_id)

    async def plan(self, request: TrainingRequest, guild_id: int = 0) -> TrainingPlan:
        self.check(request, guild_id)
        self.plans.append(request)
        return self.planned


@dataclass
class DashboardClient:
    """The server, and what it works with. `ask` gives status, body and headers."""

    home: Path
    store: Store
    queue: JobQueue
    backend: Backend
    front: WebServer
    url: str
    session: aiohttp.ClientSession
    clock: FakeClock = field(default_factory=FakeClock)
    engine: FakeEngine = field(default_factory=FakeEngine)
    services: Services = field(kw_only=True)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        async with self.session.request(method, path, **more) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers

    async def page(self, path: str, **more: Any) -> tuple[int, str, Any]:
        """A page as a browser asks for it: status, HTML and headers; redirections are not
        followed.
        """
        headers = {"Accept": "text/html", **more.pop("headers", {})}
        async with self.session.get(path, headers=headers, allow_redirects=False, **more) as answer:
            text = await answer.text()
            assert "&amp;#39;" not in text and "&amp;#34;" not in text, "it is escaped twice"
            return answer.status, text, answer.headers

    async def submit(self, path: str, **fields: str) -> tuple[int, str, Any]:
        """A page's form sent as a browser does: status, text and headers; `Location` says where it
        leads.
        """
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        async with self.session.post(
            path, data=fields, headers=own, allow_redirects=False
        ) as answer:
            return answer.status, await answer.text(), answer.headers

    async def start(
        self, headers: dict[str, str] | None = None, **fields: Any
    ) -> tuple[int, Any, Any]:
        """Ask for a training; fields that are None are left out."""
        body = {
            "job_name": "harbour",
            "task_type": "dialogue",
            "dataset": "general-dialogue",
            **fields,
        }
        asked = {name: value for name, value in body.items() if value is not None}
        return await self.ask("POST", "/finetune/start-training", json=asked, headers=headers or {})


@asynccontextmanager
async def dashboard_in(
    home: Path,
    door: Authenticator | None = None,
    engine: Any = None,
    served_hash: str = "",
    **more: Any,
) -> AsyncIterator[DashboardClient]:
    """A dashboard over a home, which may hold an earlier life of it; with the fake engine if none
    is given. `more` are settings.
    """
    settings = Settings(home=home, **more)
    with Store.open(home / "understudy.sqlite") as store:
        shipped = ShippedData.from_source_tree()
        catalogue = DatasetCatalog(shipped, settings.base_model, home, store)
        backend = Backend(catalogue)
        clock = FakeClock()
        engine = engine or FakeEngine()
        lore = LoreIndex([])
        dependencies = Dependencies(
            store=store,
            personas=PersonaRegistry(shipped.cards, home),
            lore=lore,
            catalogue=catalogue,
            engine=engine,
            backend=backend,
            privacy=PrivacyServices(),
            clock=clock,
            incompatible_versions=IncompatibleVersions(served_hash=served_hash),
        )
        services = compose(settings, dependencies)
        queue = services.queue
        front = WebServer(door)
        front.open(services)
        jar = aiohttp.CookieJar(unsafe=True)  # it would take no cookies from an address
        async with (
            run_server(front, 0) as url,
            aiohttp.ClientSession(url, cookie_jar=jar) as session,
        ):
            yield DashboardClient(
                home, store, queue, backend, front, url, session, clock, engine, services=services
            )
        await queue.stop()
        lore.close()


@pytest.fixture
async def dashboard(tmp_path: Path) -> AsyncIterator[DashboardClient]:
    async with dashboard_in(tmp_path / "home") as made:
        yield made


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[TwoServers]:
    """A bot in two servers, and the operator's browser."""
    async with two_servers(tmp_path) as made:
        yield made
