"""The chat engine over a vLLM server that the bot runs on this machine: `ENGINE=vllm` without
addresses.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import psutil

from personas.engine import EngineState
from personas.engine.remote.replica_adapters import ReplicaAdapters
from personas.engine.remote.server_checks import PICTURES_ARE_SEEN, ServerCheck
from personas.engine.remote.server_errors import VllmError
from personas.engine.remote.server_process import (
    ServerCommand,
    ServerProcess,
    ServerStartError,
)
from personas.engine.remote.vllm_client import VllmClient
from personas.engine.remote.vllm_command import (
    VllmOptions,
    VllmProgram,
    rank_option,
    server_command,
)
from personas.engine.remote.vllm_engine import VllmEngine
from personas.engine.remote.vllm_memory import VllmMemory, place_on_card
from personas.errors import NoMemoryError
from personas.home.adapters import largest_rank
from personas.models.base_model import has_vision_encoder
from personas.models.graphics_cards import Gpu, list_gpus
from personas.models.serving_model import Device
from personas.schemas.training import ServingPrecision

log = logging.getLogger(__name__)
LOG_FILE = "logs/vllm.log"
PROCESSOR_KV_SHARE = 0.25
"""Share of the machine's free memory for keys and values where a processor computes."""
DRAIN_POLL_S = 0.1
SLEEP_TIMEOUT_S = 120.0
"""Gigabytes go to main memory, and come back from it."""
GIB = 2**30
CARD_ADVICE = "Free memory of the card, choose a smaller BASE_MODEL, or leave ENGINE out."


class LocalVllmClient(VllmClient):
    """Calls the bot's own server, which was started with its sleep mode."""

    async def sleep(self) -> None:
        """Have the server give the card's memory back: weights go to main memory, keys and values
        are dropped (vLLM's level 1).
        """
        await self._expect_ok("/sleep?level=1")

    async def wake_up(self) -> None:
        """Have the server take the card's memory again."""
        await self._expect_ok("/wake_up")

    async def _expect_ok(self, path: str) -> None:
        answer = await self._call("POST", path, timeout_s=SLEEP_TIMEOUT_S)
        if answer.status != 200:
            raise self._status_error(answer)


@dataclass
class LocalVllmEngine(VllmEngine):
    """Generates replies on a vLLM server of its own, which is ended with the bot.

    On a card it takes what weights, adapters and keys and values need, and leaves the rest to
    trainings. `device` is where it computes. `cards` lists this machine's graphics cards.
    """

    program: VllmProgram | None = None
    cards: Callable[[], Sequence[Gpu]] = list_gpus
    device: Device = field(default="cpu", init=False)
    _server: ServerProcess | None = field(default=None, init=False)
    _options: VllmOptions = field(init=False)
    _memory: VllmMemory = field(init=False)
    _swept_at: float = field(default=0.0, init=False)

    async def start(self) -> None:
        """Start the server. Raises `BaseModelError`, `NoMemoryError`, `ServerStartError` and
        `VllmError`.
        """
        self._swept_at = time.monotonic()
        await super().start()

    async def inspect(self) -> list[ServerCheck]:
        """Check all that the server needs; it is not started."""
        assert self.program is not None  # the caller names it
        name = self.program.name
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="renderer")
        self._adapters = ReplicaAdapters(
            self._verify, self._probe_effect, self.home, self.server_home
        )
        try:
            await self._in_thread(self._read_files)
            await asyncio.to_thread(self._choose_options)
        except NoMemoryError as error:
            return [ServerCheck(name, "model", "fail", found=error.message, remedy=error.advice)]
        finally:
            self._executor.shutdown(wait=False)
        served = f"{name} will serve {self.base.name} {self._place_text()}"
        ranks = f"rank {self._options.rank} and below"
        checks = [
            ServerCheck(name, "model", "ok", served),
            ServerCheck(name, "adapters", "ok", ranks),
        ]
        if self.vision != "off" and has_vision_encoder(self.base):
            checks.append(ServerCheck(name, "prompts", "ok", PICTURES_ARE_SEEN))
        return checks

    def state(self) -> EngineState:
        return replace(super().state(), device=f"vLLM {self._place_text()}")

    @property
    def _served_precision(self) -> ServingPrecision:
        return "nf4" if self._options.packs else self.precision

    async def close(self) -> None:
        await super().close()
        if self._server:
            await self._server.stop()

    # ---------------------------------------------------------------------------- the card's memory

    async def sleep(self) -> None:
        """Give the card's memory back once the running replies have ended; no request may come
        until `wake_up`. A server that cannot sleep is ended.
        """
        assert self._server is not None  # it has been started
        self._prefixes.clear()  # a server that sleeps can compute none
        while self._is_computing:  # noqa: ASYNC110  each reply ends at its own time
            await asyncio.sleep(DRAIN_POLL_S)
        self._server.hold_restarts()  # one that was started again would take the memory
        try:
            await self._own_client.sleep()
        except VllmError as error:
            log.error("vLLM does not sleep, and is ended until the card is free: %s", error)
            await self._server.stop()
        self.device = "cpu"

    async def wake_up(self) -> None:
        """Take the card's memory again; a server that cannot is started again, in the memory that is
        free. Raises `NoMemoryError` and `ServerStartError`.
        """
        assert self._server is not None  # it has been started
        try:
            await self._own_client.wake_up()
            self._server.release_restarts()
        except VllmError as error:
            log.error("vLLM does not wake up, and is started again: %s", error)
            await self._server.stop()  # it may hold a part of the memory
            self._place(packs=self.precision == "nf4")
            await self._server.restart(self._command(), self._create_client)
        self.device = "cuda"
        await self._check_now()

    @property
    def _is_computing(self) -> bool:
        return bool(self._streams) or any(replica.leases for replica in self._replicas.all)

    def packing_frees(self) -> int:
        """Bytes of the card that become free where the weights are packed to NF4; 0 if they are."""
        if self.device == "cpu" or self._options.packs:
            return 0
        return self._memory.freed_by_packing(self._held_bytes())

    async def repack(self, *, packs: bool, reserved_bytes: int = 0) -> None:
        """Start the server again, with weights in NF4 or in 16 bits, such that so many bytes of the
        card stay free. Replies wait meanwhile, and go on after the text that they have.

        Raises `NoMemoryError`, and changes nothing then, and `ServerStartError`.
        """
        assert self._server is not None  # it has been started
        before = self._options
        self._place(packs=packs, held_bytes=self._held_bytes(), reserved_bytes=reserved_bytes)
        try:
            await self._server.restart(self._command(), self._create_client)
        except ServerStartError:
            log.error("vLLM is started again as it was")
            self._options = before
            await self._server.restart(self._command(), self._create_client)
            raise
        await self._check_now()

    async def _check_now(self) -> None:
        """Give the server replies and adapters at once: its next check may be a minute away."""
        await self._health.probe(self._replicas.all[0])

    def _held_bytes(self) -> int:
        card = self._card()
        share = self._options.card_share or 0.0
        return round(share * card.memory_bytes) if card else 0

    @property
    def _own_client(self) -> LocalVllmClient:
        client = self._replicas.all[0].client
        assert isinstance(client, LocalVllmClient)
        return client

    # ----------------------------------------------------------------------------------- the server

    async def _open(self) -> list[VllmClient]:
        self.key = secrets.token_urlsafe(24)
        await super()._open()
        try:
            await asyncio.to_thread(self._choose_options)
            log.info("starting vLLM %s …", self._place_text())
            self._server = ServerProcess(self._command(), self.home / LOG_FILE)
            await self._server.start(self._create_client)
        except BaseException:
            await self._session.close()
            self._executor.shutdown(wait=False)
            raise
        self.urls = (self._server.url,)
        return [self._create_client(self._server.url)]

    def _create_client(self, url: str) -> VllmClient:
        client = LocalVllmClient(url, self._session)
        client.advice = f"The bot starts it again; see {self.home / LOG_FILE}."
        return client

    def _command(self) -> ServerCommand:
        assert self.program is not None  # the caller names it
        return server_command(self.program, self._options, self.home, self.key)

    def _choose_options(self) -> None:
        """Choose the server's options by the machine. Raises `NoMemoryError`."""
        self._options = VllmOptions(
            model=self.base.source,
            rows=self.limits.rows,
            adapters=self.limits.adapters,
            rank=rank_option(largest_rank(self.home)),
            context_tokens=self._wanted.tokens,
            kv_bytes=0,
        )
        self._memory = VllmMemory.of(self.base, self._layers, self._options)
        card = self._card()
        if card is None:
            room = PROCESSOR_KV_SHARE * psutil.virtual_memory().available
            self._options = replace(self._options, kv_bytes=min(self._memory.kv_bytes, round(room)))
            return
        self.device = "cuda"
        self._place(packs=self.precision == "nf4")

    def _place(self, *, packs: bool, held_bytes: int = 0, reserved_bytes: int = 0) -> None:
        """Choose the server's place in what is free on the card or held by it, less what is
        reserved. Raises `NoMemoryError`, and changes nothing then.
        """
        card = self._card()
        assert card is not None  # the caller knows that there is one
        free_bytes = card.free_bytes + held_bytes - reserved_bytes
        place = place_on_card(card, self._memory, free_bytes=free_bytes, packs=packs)
        if place is None:
            need = self._memory.least(packs=True)
            raise NoMemoryError(
                f"{self.base.name} needs {need / GIB:.1f} GiB of the card even in NF4; "
                f"{max(0, free_bytes) / GIB:.1f} GiB are free.",
                CARD_ADVICE,
            )
        self._options = replace(self._options, card_share=place.share, packs=place.packs)

    def _card(self) -> Gpu | None:
        return next(iter(self.cards()), None)

    def _place_text(self) -> str:
        share = self._options.card_share
        if share is None:
            return "on the processor"
        weights = "weights in NF4" if self._options.packs else "weights in 16 bits"
        return f"on the card, {share:.0%} of its memory, {weights}"

    def _sweep(self) -> None:
        now = time.monotonic()
        if self._server and self._server.is_loading:
            # The time in which the model is loaded does not count as waiting.
            for seq in self._scheduler.queue:
                seq.queued_at += now - self._swept_at
        self._swept_at = now
        super()._sweep()
