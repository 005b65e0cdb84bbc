"""A server that the bot runs: started, watched, started again after a crash, and ended with the bot."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from personas.engine.remote import child_guard
from personas.engine.remote.child_guard import SIGNAL_EXIT_CODE
from personas.engine.remote.server_errors import VllmError
from personas.errors import ServerError
from personas.home.job_folder import limit_log

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
LOAD_TIMEOUT_S = 900.0
"""Time in which a server has to load its model: some gigabytes from a slow disk."""
POLL_INTERVAL_S = 0.2
END_TIMEOUT_S = 15.0
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
STEADY_S = 300.0
"""A server that has run for so long is started again at once after a crash."""
LAST_LINES = 12
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "ENGINE_KEY")


class ServerStartError(ServerError):
    """A server of the bot's own that does not start."""


class HealthClient(Protocol):
    """A client of a server, as far as its start goes."""

    async def check_health(self) -> None:
        """Raise `VllmError` unless the server has loaded its model."""


ClientOf = Callable[[str], HealthClient]
"""Makes the client of a server from its address."""


@dataclass(frozen=True)
class ServerCommand:
    """How a server is started.

    `arguments` makes its command for a port; `environ` is added to our environment without its
    secrets. `name` and `model` are for people, and `remedy` says what to do if it does not start.
    """

    name: str
    model: str
    arguments: Callable[[int], Sequence[str]] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    remedy: str = ""


class ServerProcess:
    """A server on loopback. `url` stays the same when it is started again."""

    error_type: ClassVar[type[ServerStartError]] = ServerStartError

    def __init__(self, command: ServerCommand, log_file: Path) -> None:
        self.crashes = 0
        self._command = command
        self._log_file = log_file
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._is_loading = False
        self._may_restart = asyncio.Event()
        self._may_restart.set()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def is_loading(self) -> bool:
        """The model is being loaded, for the first time or after a crash."""
        return self._is_loading

    @property
    def pid(self) -> int | None:
        """The process that guards the server, which is its child."""
        return self._process.pid if self._process else None

    async def start(self, client_of: ClientOf) -> None:
        """Start the server and wait until it has loaded its model. Raises `error_type`."""
        self._port = _free_port()
        await self._begin(client_of)

    async def restart(self, command: ServerCommand, client_of: ClientOf) -> None:
        """End the server, and start it with another command at the same address. Raises
        `error_type`; the server has ended then.
        """
        self._is_loading = True
        await self.stop()
        self._command = command
        await self._begin(client_of)

    def hold_restarts(self) -> None:
        """Leave the server ended if it crashes from now on, until `release_restarts`."""
        self._may_restart.clear()

    def release_restarts(self) -> None:
        """Start the server again after crashes, also if it has crashed meanwhile."""
        self._may_restart.set()

    async def stop(self) -> None:
        """End the server. May be called twice, also after a call that was cancelled."""
        if self._watch:
            self._watch.cancel()
            self._watch = None
        process = self._process
        if process is None:
            return
        assert process.stdin is not None  # it is a pipe
        process.stdin.close()  # the guard ends the server then
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            _kill_group(process.pid)
            await process.wait()
        self._process = None  # not before it has ended: the next call waits for it

    async def _begin(self, client_of: ClientOf) -> None:
        self.release_restarts()
        try:
            await self._run()
            await self._wait_until_loaded(client_of(self.url))
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._keep_running(client_of), name=self.url)

    async def _run(self) -> None:
        self._is_loading = True
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(limit_log, self._log_file)
        command = self._command.arguments(self._port)
        with self._log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                # -I: as a file, it must not find modules beside itself.
                sys.executable, "-I", child_guard.__file__, *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**_environ_without_secrets(), **self._command.environ},
                process_group=0,
            )  # fmt: skip

    async def _wait_until_loaded(self, client: HealthClient) -> None:
        process = self._process
        assert process is not None
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                while process.returncode is None:
                    with suppress(VllmError):
                        await client.check_health()
                        self._is_loading = False
                        return
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            reason = f"did not load {self._command.model} in {LOAD_TIMEOUT_S:.0f} s"
        else:
            ending = _ending(process.returncode)
            reason = f"ended while it started ({ending}): {await self._last_lines()}"
        self._is_loading = False
        advice = f"See {self._log_file}; {self._command.remedy}"
        raise self.error_type(f"{self._command.name} {reason}.", advice)

    async def _keep_running(self, client_of: ClientOf) -> None:
        """Start the server again whenever it ends, after growing pauses."""
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        has_loaded = True
        while True:
            process = self._process
            assert process is not None
            began = loop.time()
            code = await process.wait()
            _kill_group(process.pid)  # the server itself, if its guard was killed
            self.crashes += 1
            # Replies do not wait without end for one that crashes whenever it loads.
            self._is_loading = has_loaded
            if loop.time() - began > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            ended = f"{self._command.name} ended ({_ending(code)})"
            log.error(
                "%s and is started again in %.0f s: %s", ended, backoff_s, await self._last_lines()
            )
            await asyncio.sleep(backoff_s)
            await self._may_restart.wait()
            backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)
            has_loaded = False
            with suppress(ServerStartError):  # the next round logs it
                await self._run()
                await self._wait_until_loaded(client_of(self.url))
                has_loaded = True

    async def _last_lines(self) -> str:
        return await asyncio.to_thread(_last_lines, self._log_file)


def _ending(code: int) -> str:
    """Name an exit code: the guard's own signal, or that of its server, as shells number it."""
    number = -code if code < 0 else code - SIGNAL_EXIT_CODE
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit code {code}"


def _free_port() -> int:
    """Return a port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _environ_without_secrets() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.upper() for word in SECRET_WORDS)
    }


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _last_lines(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "there is no log"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:]) or "it wrote nothing"
