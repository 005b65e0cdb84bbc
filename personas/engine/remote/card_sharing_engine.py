"""A vLLM engine that leaves the card to a training: its server sleeps meanwhile, and another engine
generates the replies on the processor.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field

from personas.engine import Engine, EngineState, ReplyStream
from personas.engine.remote.local_vllm_engine import LocalVllmEngine
from personas.engine.remote.replica_health import cancel_tasks
from personas.errors import UnderstudyError
from personas.models.serving_model import Device
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, Turn
from personas.schemas.training import ServingPrecision

log = logging.getLogger(__name__)
DRAIN_POLL_S = 0.1
RETURN_INTERVAL_S = 60.0
"""Interval in which a server that could not take the card's memory again tries to."""


@dataclass
class CardSharingEngine:
    """Generates replies with `server`, and with a new engine of `create_spare` while the card is
    needed.
    """

    server: LocalVllmEngine
    create_spare: Callable[[], Engine]
    precision: ServingPrecision = field(init=False)
    _spare: Engine | None = field(default=None, init=False)
    _loads: int = field(default=0, init=False)
    """Adapters that are being loaded on the server."""
    _return: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.precision = self.server.precision

    @property
    def fingerprint(self) -> str:
        return self.server.fingerprint

    @property
    def context_tokens(self) -> int:
        return self._active.context_tokens

    @property
    def sampling_fields(self) -> Set[str]:
        return self._active.sampling_fields

    @property
    def device(self) -> Device:
        """Where replies are computed."""
        return "cpu" if self._spare else self.server.device

    @property
    def packing_frees_bytes(self) -> int:
        """Bytes of the card that become free where the server's weights are packed to NF4."""
        return 0 if self._spare else self.server.packing_frees()

    async def start(self) -> None:
        await self.server.start()

    def submit(self, request: ChatRequest) -> ReplyStream:
        return self._active.submit(request)

    async def load(self, adapter: AdapterRef) -> None:
        """Load an adapter; the server loads one that was promoted while it sleeps with its next
        reply. Raises `AdapterError`.
        """
        if self._spare:
            await self._spare.load(adapter)
            return
        self._loads += 1
        try:
            await self.server.load(adapter)
        finally:
            self._loads -= 1

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        self._active.prepare(
            persona,
            adapter,
            talk=talk,
            max_new_tokens=max_new_tokens,
            context_tokens=context_tokens,
        )

    async def drop(self, adapter: AdapterRef) -> None:
        if self._spare:
            await self._spare.drop(adapter)
        await self.server.drop(adapter)

    async def clear_prefix_cache(self) -> None:
        if self._spare:
            await self._spare.clear_prefix_cache()
        await self.server.clear_prefix_cache()

    def state(self) -> EngineState:
        return self._active.state()

    async def move(self, device: Device, *, packs: bool = False, reserved_bytes: int = 0) -> None:
        """Compute on the processor while the server sleeps, or on the card, with weights in NF4 if
        `packs`, such that `reserved_bytes` of the card stay free.

        Raises `UnderstudyError`, and changes nothing then; a server that should return to the card
        tries again later. Call it from one task at a time.
        """
        await self._end_return()
        if device == "cpu":
            await self._leave_card()
        elif self._spare:
            await self._return_to_card()
        else:
            await self.server.repack(packs=packs, reserved_bytes=reserved_bytes)

    async def close(self) -> None:
        await self._end_return()
        if self._spare:
            await self._spare.close()
        await self.server.close()

    @property
    def _active(self) -> Engine:
        return self._spare or self.server

    async def _leave_card(self) -> None:
        if self._spare:
            return
        spare = self.create_spare()
        await spare.start()
        self._spare = spare  # new requests go to it from now on
        while self._loads:  # noqa: ASYNC110  their effect is measured on the server
            await asyncio.sleep(DRAIN_POLL_S)
        await self.server.sleep()

    async def _return_to_card(self) -> None:
        try:
            await self._wake_server()
        except UnderstudyError:
            self._return = asyncio.create_task(self._return_later())
            raise

    async def _wake_server(self) -> None:
        await self.server.wake_up()
        spare = self._spare
        self._spare = None
        assert spare is not None  # the caller has checked it
        await _close_drained(spare)

    async def _return_later(self) -> None:
        """Try to return to the card until that succeeds."""
        while self._spare:
            await asyncio.sleep(RETURN_INTERVAL_S)
            try:
                await self._wake_server()
            except UnderstudyError as error:
                log.warning("replies are still generated on the processor: %s", error)
            else:
                log.info("replies are generated on the card again")

    async def _end_return(self) -> None:
        if self._return is None:
            return
        if self._spare:
            await cancel_tasks([self._return])
        else:  # it is back, and the last replies of the spare engine end
            await self._return
        self._return = None


async def _close_drained(engine: Engine) -> None:
    """Close an engine once its replies have ended."""
    while (state := engine.state()).running or state.waiting:  # noqa: ASYNC110  as replies end
        await asyncio.sleep(DRAIN_POLL_S)
    with suppress(UnderstudyError):
        await engine.close()
