"""llama.cpp servers that the bot runs: one, and a second one for the time in which adapters change."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from personas.engine.remote.llamacpp_client import LlamaCppClient
from personas.engine.remote.llamacpp_memory import ServerMemory
from personas.engine.remote.llamacpp_process import LlamaServerError, LlamaServerProcess
from personas.engine.remote.llamacpp_replicas import LlamaCppReplicas
from personas.engine.remote.replica import Replica
from personas.engine.remote.replica_health import ReplicaHealth, cancel_tasks

log = logging.getLogger(__name__)
READY_POLL_S = 0.1
READY_TIMEOUT_S = 60.0


class LlamaServers:
    """Exchanges the server for one with other adapters: llama.cpp loads them at its start only
    (ggml-org/llama.cpp issue 22061). No reply is lost. Used on the event loop.

    `launch` makes a process that serves LoRA files, `memory` says whether there is room for one
    more.
    """

    def __init__(
        self,
        first: LlamaServerProcess,
        launch: Callable[[Sequence[Path]], LlamaServerProcess],
        memory: Callable[[Sequence[Path]], ServerMemory],
        *,
        create_client: Callable[[str], LlamaCppClient],
        replicas: LlamaCppReplicas,
        health: ReplicaHealth,
    ) -> None:
        self._current = first
        self._launch = launch
        self._memory = memory
        self._create_client = create_client
        self._replicas = replicas
        self._health = health
        self._lock = asyncio.Lock()
        self._is_restarting = False
        self._old: set[LlamaServerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def files(self) -> tuple[Path, ...]:
        """The LoRA files that the server has."""
        return self._current.options.adapters

    @property
    def is_loading(self) -> bool:
        """Replies wait for a server that loads its model: their waiting time stands still."""
        return self._is_restarting or self._current.is_loading

    async def switch(self, files: Callable[[], Sequence[Path]]) -> None:
        """Serve other LoRA files: by a second server while the first one finishes its replies where
        memory allows, else by a restart between two replies.

        `files` is asked once it is this call's turn, so that calls that wait get one switch.
        Raises `LlamaServerError`, and serves those before then.
        """
        async with self._lock:
            wanted = tuple(files())
            if set(wanted) != set(self.files):
                await self._exchange(wanted)

    async def renew(self) -> None:
        """Serve the same files by a new server, which has nothing of earlier prompts in memory."""
        async with self._lock:
            await self._exchange(self.files)

    async def wait_until_ready(self) -> None:
        """Wait until the server takes requests: after a crash, it is started again. Returns when it
        still takes none after `READY_TIMEOUT_S` without loading.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self.is_loading or time.monotonic() < deadline:
            replica = self._replica_of(self._current)
            if replica and replica.is_ready:
                return
            await asyncio.sleep(READY_POLL_S)

    async def close(self) -> None:
        """End all servers at once."""
        await cancel_tasks(self._tasks)
        await asyncio.gather(*(process.stop() for process in {self._current, *self._old}))

    async def _exchange(self, files: Sequence[Path]) -> None:
        memory = await asyncio.to_thread(self._memory, files)
        if memory.has_room:
            try:
                await self._start_beside(files)
                return
            except LlamaServerError as error:  # a GPU's memory, for one, is not counted
                log.warning("no second server starts beside the first: %s", error)
        await self._restart(files)

    async def _start_beside(self, files: Sequence[Path]) -> None:
        log.info("starting a second llama.cpp server with %d adapters", len(files))
        old = self._current
        old_replica = self._replica_of(old)
        await self._serve(self._launch(files))
        self._old.add(old)
        if old_replica:
            self._replicas.retire(old_replica)
        task = asyncio.create_task(self._end_old(old, old_replica))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _restart(self, files: Sequence[Path]) -> None:
        log.info("restarting the llama.cpp server with %d adapters", len(files))
        before = self.files
        self._is_restarting = True
        try:
            old = self._current
            old_replica = self._replica_of(old)
            if old_replica:
                self._replicas.retire(old_replica)
            await self._end_old(old, old_replica)
            try:
                await self._serve(self._launch(files))
            except LlamaServerError:
                log.error("the llama.cpp server is started again with its earlier adapters")
                await self._serve(self._launch(before))
                raise
        finally:
            self._is_restarting = False

    async def _serve(self, process: LlamaServerProcess) -> None:
        """Start a process and give it replies. Raises `LlamaServerError`, and ends it then."""
        await process.start(self._create_client)
        replica = Replica(self._create_client(process.url))
        self._replicas.add(replica)
        await self._health.watch(replica)
        if not replica.is_ready:
            error = replica.error
            await self._forget(replica)
            await process.stop()
            raise LlamaServerError(f"The llama.cpp server is not used: {error}")
        self._current = process

    async def _end_old(self, process: LlamaServerProcess, replica: Replica | None) -> None:
        """Let a server finish its replies, then end it."""
        if replica:
            while replica.leases:
                await self._replicas.wait_for_release()
            await self._forget(replica)
        await process.stop()
        self._old.discard(process)

    async def _forget(self, replica: Replica) -> None:
        await self._health.unwatch(replica)
        self._replicas.remove(replica)

    def _replica_of(self, process: LlamaServerProcess) -> Replica | None:
        return next((each for each in self._replicas.all if each.url == process.url), None)
