"""Adapters on the replicas: loaded, unloaded, and brought up to date after a restart."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from personas.engine.effect_probe import CacheLeakError, EffectError
from personas.engine.remote.replica import Replica
from personas.engine.remote.server_errors import AdapterNotServedError, ReplicaError
from personas.engine.remote.vllm_client import VllmClient
from personas.errors import AdapterError
from personas.home.atomic_files import write_private_file
from personas.schemas.chat import AdapterRef

log = logging.getLogger(__name__)


class ReplicaAdapters:
    """Loads adapters on replicas and unloads them, and brings those up to date that were away. Used
    on the event loop.

    The servers read adapters from `home`, which they see under `server_home` if that is not empty.
    """

    def __init__(
        self,
        verify: Callable[[AdapterRef], None],
        probe: Callable[[VllmClient, AdapterRef], Awaitable[None]],
        home: Path,
        server_home: str,
    ) -> None:
        """`verify` checks an adapter's files before a server loads them, `probe` its effect there.
        Both raise `AdapterError`.
        """
        self._verify = verify
        self._probe = probe
        self._home = home
        self._server_home = server_home
        self._wanted: dict[str, AdapterRef] = {}
        self._dropped: set[str] = set()
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}
        # By address and adapter's name: the error of one that does not show its effect there, or
        # None.
        self._probed: dict[tuple[str, str], AdapterError | None] = {}

    def path(self, folder: Path) -> str:
        """Return a folder's path on the servers. Raises `AdapterNotServedError` if they do not see
        it.
        """
        if not self._server_home:
            return str(folder.absolute())
        try:
            return str(PurePosixPath(self._server_home) / folder.relative_to(self._home).as_posix())
        except ValueError:
            raise AdapterNotServedError(
                f"The adapter in {folder} is outside UNDERSTUDY_HOME, so the vLLM servers do not "
                "see it.",
                "Install it in the home.",
            ) from None

    async def load(self, replicas: Sequence[Replica], adapter: AdapterRef) -> None:
        """Load an adapter on replicas, and from now on also on those that return. Raises
        `AdapterError`.
        """
        if not replicas:
            raise ReplicaError("No vLLM server can be reached now.", "Try again once one is back.")
        loads = [self.ensure(replica, adapter) for replica in replicas]
        results = await asyncio.gather(*loads, return_exceptions=True)
        errors = [error for error in results if error]
        # A server that is away loads it later; a server that refuses it would refuse it again.
        refused = [error for error in errors if not isinstance(error, ReplicaError)]
        if refused or len(errors) == len(replicas):
            raise (refused or errors)[0]
        self._wanted[adapter.name] = adapter

    async def ensure(self, replica: Replica, adapter: AdapterRef) -> None:
        """Load an adapter unless the replica has it, and have it show its effect. Raises
        `AdapterError`.
        """
        path = self.path(adapter.folder)
        key = (replica.url, adapter.name)
        if error := self._probed.get(key):
            raise AdapterNotServedError(error.message, error.advice)
        if replica.adapters.get(adapter.name) == path and key in self._probed:
            return
        if key not in self._loads:
            task = self._loads[key] = asyncio.create_task(self._load(replica, adapter, path))
            task.add_done_callback(partial(self._end_load, key))
        await asyncio.shield(self._loads[key])  # others wait for it, too

    async def _load(self, replica: Replica, adapter: AdapterRef, path: str) -> None:
        await asyncio.to_thread(self._verify, adapter)
        self._dropped.discard(adapter.name)
        replica.adapters.pop(adapter.name, None)
        await self._load_probed(replica.client, adapter, path)
        replica.adapters[adapter.name] = path

    async def _load_probed(self, client: VllmClient, adapter: AdapterRef, path: str) -> None:
        """Load an adapter, and unload it unless it shows its effect: another server may serve it.
        Raises `AdapterNotServedError`.
        """
        key = (client.url, adapter.name)
        await client.load_adapter(adapter.name, path)
        try:
            await self._probe(client, adapter)
        except (EffectError, CacheLeakError) as error:
            self._probed[key] = error
            await client.unload_adapter(adapter.name)
            raise AdapterNotServedError(error.message, error.advice) from error
        self._probed[key] = None

    def other_on(self, url: str, adapter: AdapterRef) -> AdapterRef | None:
        """Return another adapter that a server has, the one loaded last; None without any."""
        for other in reversed(self._wanted.values()):
            key = (url, other.name)
            if other.name != adapter.name and key in self._probed and not self._probed[key]:
                return other
        return None

    def _end_load(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._loads[key]
        if not task.cancelled() and (error := task.exception()):
            log.info("an adapter was not loaded: %s", error)  # raised where it is needed

    def forget(self, adapter: AdapterRef) -> None:
        """Have replicas that return not load an adapter, and unload it if they have it."""
        self._wanted.pop(adapter.name, None)
        self._dropped.add(adapter.name)

    async def unload(self, replica: Replica, name: str) -> None:
        replica.adapters.pop(name, None)
        self._probed.pop((replica.url, name), None)
        await replica.client.unload_adapter(name)

    async def update(
        self, client: VllmClient, loaded: Mapping[str, str], prefers: Callable[[str, str], bool]
    ) -> dict[str, str]:
        """Unload adapters that were dropped while a server was away, and load those that were
        loaded elsewhere; returns its adapters.

        `prefers` says whether an adapter, by name, is to be loaded on a server, by address, before
        it is used.
        """
        adapters = dict(loaded)
        # It may have been started anew: those that it has are probed before their next reply.
        for key in [key for key in self._probed if key[0] == client.url]:
            del self._probed[key]
        for name in self._dropped & adapters.keys():
            await client.unload_adapter(name)
            del adapters[name]
        for name, adapter in list(self._wanted.items()):
            if not prefers(name, client.url):
                continue
            try:
                path = self.path(adapter.folder)
                await self._load_probed(client, adapter, path)
                adapters[name] = path
            except AdapterNotServedError as error:
                adapters.pop(name, None)
                log.error("%s", error)
        return adapters


class RestartNotices:
    """Servers to restart: vLLM keeps the weights of unloaded adapters in memory (vllm-project/vllm
    issue 54839).

    The file outlives the bot; a notice is removed once the server has been started again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, dict[str, float]]:
        """Return, by address, the names of the dropped adapters, and when they were dropped
        (seconds since 1970).
        """
        try:
            notices = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return notices if isinstance(notices, dict) else {}

    def add(self, url: str, name: str) -> None:
        log.warning("%s keeps the weights of %s in memory until it is restarted", url, name)
        notices = self.read()
        notices.setdefault(url, {})[name] = time.time()
        write_private_file(self._file, json.dumps(notices).encode())

    def clear(self, url: str, started_at: float) -> None:
        """Remove a server's notices of adapters that were dropped before it started."""
        notices = self.read()
        if url not in notices:
            return
        later = {name: at for name, at in notices.pop(url).items() if at > started_at}
        if later:
            notices[url] = later
        write_private_file(self._file, json.dumps(notices).encode())
