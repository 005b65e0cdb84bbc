"""What the command line, the page and the API do with base models: the table, fetching, and serving another."""

import asyncio
import time
from pathlib import Path
from typing import Any

from bot.data.jobs import DataJob, DataJobRunner
from bot.models.engine_advice import PresentEngine, advise_engine
from bot.models.fetch import FetchPlan, ModelFormat, plan_fetch, require_accepted, run_fetch
from bot.models.offer import ModelOffer
from bot.models.shown_offer import ShownOffer, show_failure, show_job, show_plan
from bot.models.switch import (
    SwitchPlan,
    find_local_name,
    plan_switch,
    use_model,
)
from bot.models.table import ModelTable, build_table
from bot.personas.base_model_compat import VersionKey
from bot.platform.errors import redact_paths
from bot.settings import SettingsError
from bot.training.guild_turns import QueueConflictError
from personas.errors import BaseModelError
from personas.home.hub_download import measure_rate
from personas.models.catalogue import find_model

TABLE_MAX_AGE_S = 60.0


def fetched_name(name: str, table: ModelTable, wanted: ModelFormat) -> str:
    """Return what to fetch for a name: for one of the catalogue its best form here, or the one that is
    wanted. Raises `BaseModelError`.
    """
    model = find_model(name)
    if model is None or (wanted == "best" and name in (model.id, model.gguf)):
        if wanted == "gguf" and ":" not in name:
            raise BaseModelError(
                f"{name} is not in the catalogue, so its GGUF file is not known.",
                "Name it: owner/name:Q4_K_M",
            )
        return name
    if wanted == "safetensors":
        return model.id
    if wanted == "gguf" and not model.gguf:
        raise BaseModelError(
            f"No GGUF file of {model.title} can be a base model here.",
            f"Fetch its safetensors: {model.id}",
        )
    return model.gguf if wanted == "gguf" else table.fit_of(model).base_model


class ModelActions:
    """The base models of a running bot. Methods raise `UnderstudyError`s."""

    def __init__(
        self,
        home: Path,
        jobs: DataJobRunner,
        *,
        base_model: str,
        engine: PresentEngine,
        env_file: Path | None,
    ) -> None:
        """`env_file` has the bot's settings; None for a bot without one."""
        self._home = home
        self._jobs = jobs
        self._base_model = base_model
        self._engine = engine
        self._env_file = env_file
        self.offer = ModelOffer(home, base_model)
        self._table: ModelTable | None = None
        self._table_at = float("-inf")
        self._building = asyncio.Lock()
        self._line_bytes_per_s: float | None = None

    async def table(self) -> ModelTable:
        """Return the table, which is a minute old at most."""
        async with self._building:
            if self._table is None or time.monotonic() - self._table_at > TABLE_MAX_AGE_S:
                self._table = await build_table(self._home, self._base_model)
                self._table_at = time.monotonic()
            return self._table

    @property
    def recommended_title(self) -> str:
        """The title of the model that the table recommends; empty for none, and before there is a
        table.
        """
        recommended = self._table.recommended if self._table else None
        return recommended.model.title if recommended else ""

    async def plan_fetch(self, name: str, wanted: ModelFormat = "best") -> FetchPlan:
        """Ask the hub and the disk what a fetch takes."""
        table = await self.table()
        return await asyncio.to_thread(plan_fetch, fetched_name(name, table, wanted))

    async def fetch(self, name: str, *, accepted: bool, wanted: ModelFormat = "best") -> DataJob:
        """Start to fetch a model, whose licence was accepted. Raises `QueueConflictError` while it is
        being fetched.
        """
        plan = await self.plan_fetch(name, wanted)
        require_accepted(plan, accepted=accepted)

        async def work(job: DataJob) -> dict[str, Any]:
            await run_fetch(plan, job.say)
            return {"base_model": plan.files.name}

        return self._jobs.start_work(self._home, "model", subject=name, work=work)

    async def look_for_offer(self) -> bool:
        """Look for a model to offer at a first start; True if it is to be said on the terminal."""
        return await self.offer.look(self.table)

    async def dismiss_offer(self) -> None:
        await self.offer.decline()

    async def shown_offer(self, models_path: str) -> ShownOffer:
        """Return the offer for the local guild's page, or how its fetch goes; empty without one. Asks
        the hub, and the first time how fast it sends.
        """
        fit = self.offer.fit or await self.offer.find(self.table)
        if fit is None:
            return ShownOffer()
        job = self._jobs.latest("model", fit.model.name)
        if job and (job.is_open or job.state == "failed"):
            return show_job(job, fit.model)
        try:
            plan = await self.plan_fetch(fit.model.name)
        except BaseModelError as error:  # no room on the disk, or the hub does not answer any more
            return ShownOffer(redact_paths(str(error), self._home))
        if plan.files.missing_bytes and self._line_bytes_per_s is None:
            largest = max(plan.files.files, key=lambda file: file.bytes)
            self._line_bytes_per_s = await asyncio.to_thread(measure_rate, largest)
        return show_plan(plan, models_path, self._line_bytes_per_s)

    async def accept_offer(self, models_path: str) -> ShownOffer:
        """Fetch the model of the offer, whose licence was accepted, or its rest; returns how it goes."""
        fit = self.offer.fit or await self.offer.find(self.table)
        if fit is None:
            return ShownOffer()
        try:
            await self.fetch(fit.model.name, accepted=True)
        except QueueConflictError:  # it is being fetched
            pass
        except BaseModelError as error:
            return show_failure(fit.model, redact_paths(str(error), self._home))
        return await self.shown_offer(models_path)

    def fetched(self) -> list[DataJob]:
        """Fetches that are done since the bot started."""
        return [job for job in self._jobs.done("model") if job.result]

    def fetches(self) -> list[DataJob]:
        """Fetches that wait or run, and the failed ones."""
        running = [job for job in self._jobs.open() if job.kind == "model"]
        return running + self._jobs.failed("model")

    async def plan_switch(self, name: str, live: list[VersionKey]) -> SwitchPlan:
        """Say what becomes of each persona's live version with another base model."""
        table = await self.table()
        here = await asyncio.to_thread(find_local_name, name, table)
        engine = await asyncio.to_thread(advise_engine, here, table, self._engine)
        return await asyncio.to_thread(
            plan_switch, self._home, here, previous=self._base_model, live=live, engine=engine
        )

    async def use(self, name: str, live: list[VersionKey]) -> tuple[SwitchPlan, list[str]]:
        """Write BASE_MODEL, and ENGINE where another one serves it best here, into the file with
        settings; returns what changes, and what to do next.
        """
        if self._env_file is None:
            raise SettingsError(
                "This bot has no file with settings.",
                "Set BASE_MODEL where its settings are.",
            )
        plan = await self.plan_switch(name, live)
        return plan, await asyncio.to_thread(use_model, plan, self._env_file)
