"""The offer of a larger model at a first start: made once a hub answers, never waited for, and never fetched
unasked.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from bot.models.table import ModelTable
from personas.home.atomic_files import write_private_file
from personas.models.base_model import EMBEDDED
from personas.models.hub_snapshot import find_hub_error
from personas.models.model_fit import ModelFit

log = logging.getLogger(__name__)
FILE_NAME = "model-offer.json"


class ModelOffer:
    """Finds the model to offer, in the background. `fit` is None until there is one."""

    def __init__(self, home: Path, base_model: str) -> None:
        self._file = home / "cache" / FILE_NAME
        self._base_model = base_model
        self.fit: ModelFit | None = None
        self.reason = ""

    async def look(self, build: Callable[[], Awaitable[ModelTable]]) -> bool:
        """Find a model to offer; True if there is one that was not offered before."""
        if await self.find(build) is None:
            return False
        is_new = await asyncio.to_thread(self._stored_state) == ""
        if is_new:
            await asyncio.to_thread(self._store_state, "offered")
        return is_new

    async def find(self, build: Callable[[], Awaitable[ModelTable]]) -> ModelFit | None:
        """Find a model to offer.

        There is none without a network, with another base model than the bundled one, and once the
        operator has declined.
        """
        if (
            self._base_model != EMBEDDED
            or await asyncio.to_thread(self._stored_state) == "declined"
        ):
            return None
        if await asyncio.to_thread(find_hub_error):
            return None
        table = await build()
        self.fit, self.reason = table.recommended, table.reason
        return self.fit

    async def decline(self) -> None:
        """Offer nothing any more."""
        self.fit = None
        await asyncio.to_thread(self._store_state, "declined")

    @property
    def lines(self) -> list[str]:
        """The offer for a terminal; empty without one."""
        if self.fit is None:
            return []
        name = self.fit.model.name
        return [
            f"A larger model fits this machine: {self.fit.model.title} ({self.fit.model.licence}), "
            f"{self.reason}.",
            "The bundled one answers meanwhile, and nothing is fetched unless you ask for it:",
            f"  python -m bot models fetch {name}      or the page Models of the dashboard",
        ]

    def _stored_state(self) -> str:
        try:
            return str(json.loads(self._file.read_bytes())["state"])
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    def _store_state(self, state: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_private_file(self._file, json.dumps({"state": state}).encode())
        except OSError as error:
            log.warning("the offer of a model cannot be noted: %s", error)
