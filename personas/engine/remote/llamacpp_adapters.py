"""Versions on llama.cpp servers: LoRA files that a server has from its start, and their effect."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from personas.engine.effect_probe import CacheLeakError, EffectError
from personas.engine.remote.llamacpp_replicas import LlamaCppReplicas
from personas.engine.remote.replica import Replica
from personas.engine.remote.replica_adapters import ReplicaAdapters
from personas.engine.remote.server_errors import AdapterNotServedError
from personas.engine.remote.vllm_client import VllmClient
from personas.home.atomic_files import write_private_file
from personas.schemas.chat import AdapterRef

WANTED_FILE = "cache/llamacpp_adapters.json"


class LlamaCppAdapters(ReplicaAdapters):
    """Answers whether a server has an adapter, and has it show its effect before its first reply.
    `replicas` is set once the servers are known.
    """

    replicas: LlamaCppReplicas

    def __init__(
        self, show: Callable[[VllmClient, AdapterRef], Awaitable[None]], home: Path
    ) -> None:
        """`show` has a server show an adapter's effect. Raises `EffectError`."""
        super().__init__(lambda adapter: None, show, home, "")
        self._show = show
        self._shown: set[tuple[str, str]] = set()  # addresses, and adapters' names
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def load(self, replicas: Sequence[Replica], adapter: AdapterRef) -> None:
        """Have servers that have an adapter show its effect. Raises `AdapterNotServedError`."""
        for replica in replicas:
            await self.ensure(replica, adapter)

    async def ensure(self, replica: Replica, adapter: AdapterRef) -> None:
        """Require that a server has an adapter and its effect. Raises `AdapterNotServedError`."""
        key = (replica.url, adapter.name)
        if not self.replicas.has_adapter(replica, adapter.name):
            raise AdapterNotServedError(f"{replica.url} does not have {adapter.name}.")
        async with self._locks.setdefault(key, asyncio.Lock()):  # others wait for its result
            if key in self._shown:
                return
            try:
                await self._show(replica.client, adapter)
            except (EffectError, CacheLeakError) as error:
                raise AdapterNotServedError(error.message, error.advice) from error
            self._shown.add(key)

    async def unload(self, replica: Replica, name: str) -> None:
        """Forget what a server showed; it has its adapters until it ends."""
        self._shown.discard((replica.url, name))

    async def update(
        self, client: VllmClient, loaded: Mapping[str, str], prefers: Callable[[str, str], bool]
    ) -> dict[str, str]:
        self._shown = {key for key in self._shown if key[0] != client.url}
        return dict(loaded)


@dataclass
class WantedAdapters:
    """The adapters that a server of the bot is started with, those used last at the end. They are
    stored, so that the next start has them at once.
    """

    home: Path
    limit: int
    adapters: dict[str, AdapterRef] = field(default_factory=dict)

    def use(self, adapter: AdapterRef) -> None:
        """Want an adapter; beyond the limit, the one that was not used for longest is left out."""
        is_new = adapter.name not in self.adapters
        self.adapters.pop(adapter.name, None)
        self.adapters[adapter.name] = adapter
        while len(self.adapters) > self.limit:
            del self.adapters[next(iter(self.adapters))]
        if is_new:
            self._write()

    def drop(self, name: str) -> None:
        if self.adapters.pop(name, None):
            self._write()

    def read(self) -> None:
        """Read those of the last start whose folders are still there."""
        try:
            stored = json.loads((self.home / WANTED_FILE).read_bytes())
            listed = [
                AdapterRef(str(entry["persona"]), str(entry["version"]), Path(entry["folder"]))
                for entry in stored
            ]
        except (OSError, ValueError, LookupError, TypeError):
            return
        for adapter in listed[-self.limit :]:
            if adapter.folder.is_dir():
                self.adapters[adapter.name] = adapter

    def _write(self) -> None:
        stored = [
            {"persona": ref.persona_id, "version": ref.version, "folder": str(ref.folder)}
            for ref in self.adapters.values()
        ]
        (self.home / WANTED_FILE).parent.mkdir(parents=True, exist_ok=True)
        write_private_file(self.home / WANTED_FILE, json.dumps(stored).encode())
