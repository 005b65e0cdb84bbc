"""A real Ray cluster of processes on this machine: an environment of its own, a head, workers, and
how to lose them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from aiohttp.test_utils import unused_port

from bot.training.backends.ray_jobs import RayJobsClient, RayUnreachableError

ROOT = Path(__file__).parents[3]
RAY = "ray[default]==2.60.0"
ENVIRONMENT = Path(os.environ.get("UNDERSTUDY_SCALE_ENV") or ROOT / "build") / "ray"
TOKEN = "0123456789abcdef0123456789abcdef"
START_TIMEOUT_S = 240.0
OBJECT_STORE_BYTES = 100 * 2**20


def ensure_environment() -> Path:
    """Return the `ray` command of an environment of its own, which is made once (79 MB from the
    package index).
    """
    ready = ENVIRONMENT / f".ready-{RAY}"
    if not ready.exists():
        print(f"installing {RAY} in {ENVIRONMENT} (once) …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [
            ENVIRONMENT / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, RAY], check=True)
        ready.touch()
    return ENVIRONMENT / "bin" / "ray"


def node_environment() -> dict[str, str]:
    """The environment of a node: `python` is the one of these tests, which has the trainer; it has
    secrets, too.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    quick = {
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAY_") or "TIMEOUT" in name
    }
    return {
        **kept,
        **ray,
        **quick,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@dataclass
class Node:
    """The processes of one node: `ray start --block` and all below it."""

    process: subprocess.Popen[bytes]

    @property
    def family(self) -> list[psutil.Process]:
        """All its processes, those of jobs too."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def signal(self, number: signal.Signals, *, but_trainers: bool = False) -> list[psutil.Process]:
        """Send a signal to all its processes at once. Returns them."""
        family = self.family
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if not (but_trainers and "trainer" in one.cmdline()):
                    one.send_signal(number)
        return family

    def kill(self, *, but_trainers: bool = False) -> None:
        """Lose the node, as a machine that loses power; `but_trainers`: its raylet alone, which
        ends them.
        """
        self.signal(signal.SIGKILL, but_trainers=but_trainers)
        self.process.wait()


@dataclass
class RayCluster:
    """A head without CPUs, and workers with one each."""

    ray: Path
    folder: Path
    gcs_port: int = field(default_factory=unused_port)
    dashboard_port: int = field(default_factory=unused_port)
    head: Node | None = None
    workers: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def client(self) -> RayJobsClient:
        return RayJobsClient(self.address, TOKEN)

    def start_head(self) -> None:
        """Start a head that knows nothing of an earlier one, at the same ports."""
        options = [
            f"--port={self.gcs_port}",
            f"--dashboard-port={self.dashboard_port}",
            f"--temp-dir={self.folder}",
        ]
        self.head = self._start("--head", "--num-cpus=0", "--include-dashboard=true", *options)

    def start_worker(self) -> Node:
        """Start a worker node, with one CPU."""
        worker = self._start(f"--address=127.0.0.1:{self.gcs_port}", "--num-cpus=1")
        self.workers.append(worker)
        return worker

    def _start(self, *options: str) -> Node:
        # 127.0.0.1 on all nodes: they are processes of one machine, told apart by their ports.
        command = [
            self.ray,
            "start",
            "--block",
            "--node-ip-address=127.0.0.1",
            "--disable-usage-stats",
        ]
        store = f"--object-store-memory={OBJECT_STORE_BYTES}"
        with (self.folder / "nodes.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, store, *options],
                env=node_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Node(process)

    async def ready(self) -> None:
        """Wait until all workers have joined and a job runs on one. Raises `TimeoutError`."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while await self._alive() < len(self.workers):
                for node in [node for node in self.workers if node.process.poll() is not None]:
                    self.workers.remove(node)  # Ray gives up after 30 s, which a busy machine takes
                    self.start_worker()
                await asyncio.sleep(1.0)
            name = f"ready-{time.monotonic_ns()}"
            while True:
                with contextlib.suppress(RayUnreachableError):
                    await self.client.submit(name, "true", cpus=1, gpus=0, environ={}, about=name)
                    while not ((job := await self.client.get(name)) and job.has_ended):  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
                    assert job.status == "SUCCEEDED", job
                    return
                await asyncio.sleep(0.5)

    async def _alive(self) -> int:
        """Count the workers that the head knows."""
        url = f"{self.address}/api/v0/nodes"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, KeyError, TypeError):
            timeout = aiohttp.ClientTimeout(total=10)
            async with aiohttp.request("GET", url, headers=headers, timeout=timeout) as answer:
                nodes = (await answer.json())["data"]["result"]["result"]
                return sum(node["state"] == "ALIVE" and not node["is_head_node"] for node in nodes)
        return 0

    def stop(self) -> None:
        """End all processes of the cluster."""
        for node in [*self.workers, *([self.head] if self.head else [])]:
            node.signal(signal.SIGCONT)
            node.kill()
        self.workers.clear()
        self.head = None


@contextlib.contextmanager
def ray_cluster(workers: int = 2) -> Iterator[RayCluster]:
    """Run a cluster inside the block, with its files in a short temporary folder: sockets have
    short names.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    cluster = RayCluster(ensure_environment(), folder)
    try:
        cluster.start_head()
        time.sleep(3.0)  # the workers look for it once, for some seconds
        for _ in range(workers):
            cluster.start_worker()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
