"""A llama.cpp server that the bot runs: started, watched, started again after a crash, and ended."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from personas.engine.remote import child_guard
from personas.engine.remote.llamacpp_client import LlamaCppClient
from personas.engine.remote.llamacpp_command import (
    LOOPBACK,
    LlamaOptions,
    LlamaProgram,
    local_command,
)
from personas.engine.remote.server_errors import VllmError
from personas.errors import ServerError
from personas.home.job_folder import limit_log

log = logging.getLogger(__name__)
KEY_VARIABLE = "LLAMA_API_KEY"
LOAD_TIMEOUT_S = 900.0
"""Time in which a server has to load its model: some gigabytes from a slow disk."""
POLL_INTERVAL_S = 0.2
END_TIMEOUT_S = 15.0
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
STEADY_S = 300.0
"""A server that has run for so long is started again at once after a crash."""
LAST_LINES = 12
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "SHARED_DB", "ENGINE_KEY")
STARTED_ADVICE = "See {log}; LLAMA_SERVER names another llama-server."


ClientOf = Callable[[str], LlamaCppClient]
"""Makes the client of a server from its address."""


class LlamaServerError(ServerError):
    """A llama.cpp server that does not start."""


class LlamaServerProcess:
    """A server on loopback, which accepts `key`. `url` stays the same when it is started again."""

    def __init__(
        self, program: LlamaProgram, options: LlamaOptions, log_file: Path, key: str
    ) -> None:
        self.options = options
        self._key = key
        self.crashes = 0
        self._program = program
        self._log_file = log_file
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._is_loading = False

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
        """Start the server and wait until it has loaded its model. Raises `LlamaServerError`."""
        self._port = _free_port()
        try:
            await self._run()
            await self._wait_until_loaded(client_of(self.url))
        except BaseException:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._keep_running(client_of), name=self.url)

    async def stop(self) -> None:
        """End the server. May be called twice."""
        if self._watch:
            self._watch.cancel()
            self._watch = None
        process = self._process
        self._process = None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None  # it is a pipe
        process.stdin.close()  # the guard ends the server then
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            _kill_group(process.pid)
            await process.wait()

    async def _run(self) -> None:
        self._is_loading = True
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(limit_log, self._log_file)
        command = local_command(self._program, self.options, self._port)
        with self._log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                # -I: as a file, it must not find modules beside itself.
                sys.executable, "-I", child_guard.__file__, *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=_environ(self._key),
                process_group=0,
            )  # fmt: skip

    async def _wait_until_loaded(self, client: LlamaCppClient) -> None:
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
            reason = f"did not load {self.options.model.name} in {LOAD_TIMEOUT_S:.0f} s"
        else:
            reason = f"ended while it started ({process.returncode}): {await self._last_lines()}"
        self._is_loading = False
        raise LlamaServerError(
            f"{self._program.name} {reason}.", STARTED_ADVICE.format(log=self._log_file)
        )

    async def _keep_running(self, client_of: ClientOf) -> None:
        """Start the server again whenever it ends, after growing pauses."""
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            process = self._process
            assert process is not None
            began = loop.time()
            code = await process.wait()
            _kill_group(process.pid)  # the server itself, if its guard was killed
            self.crashes += 1
            self._is_loading = True
            if loop.time() - began > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            log.error(
                "the llama.cpp server ended (%s) and is started again in %.0f s: %s",
                code,
                backoff_s,
                await self._last_lines(),
            )
            await asyncio.sleep(backoff_s)
            backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)
            with suppress(LlamaServerError):  # the next round logs it
                await self._run()
                await self._wait_until_loaded(client_of(self.url))

    async def _last_lines(self) -> str:
        return await asyncio.to_thread(_last_lines, self._log_file)


def _free_port() -> int:
    """Return a port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _environ(key: str) -> Mapping[str, str]:
    """Return the server's environment: ours without secrets, and its key."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.upper() for word in SECRET_WORDS)
    }
    return {**kept, KEY_VARIABLE: key}


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
