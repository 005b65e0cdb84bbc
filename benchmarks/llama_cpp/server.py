"""A llama.cpp server for a measurement, and its figures for chats with an adapter each.

`python -m benchmarks.llama_cpp.server SPEC.json` prints them.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from personas.engine.remote.llamacpp_command import (
    LOOPBACK,
    LlamaOptions,
    LlamaProgram,
    local_command,
)

LOAD_TIMEOUT_S = 900.0
REQUEST_TIMEOUT_S = 1800.0
POLL_INTERVAL_S = 0.1
EVENT_PREFIX = b"data: "


class ServerEndedError(Exception):
    """The server has ended with an exit code; a negative one is that of the signal."""

    def __init__(self, code: int | None, log: str) -> None:
        super().__init__(f"llama-server ended with {code}: {log.strip()[-500:]}")
        self.code = code


class LlamaServer:
    """A server on loopback, started as the bot starts it, while the context lasts."""

    def __init__(
        self, program: str, options: LlamaOptions, threads: int, more: Sequence[str] = ()
    ) -> None:
        """`more` are further arguments."""
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            self.port: int = free.getsockname()[1]
        command = local_command(LlamaProgram((program,), program), options, self.port)
        self._command = [
            *command,
            "--threads",
            str(threads),
            "--threads-batch",
            str(threads),
            *more,
        ]
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115  closed on exit

    def __enter__(self) -> LlamaServer:
        """Start the server and wait until it has loaded. Raises `ServerEndedError`."""
        self.process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                error = ServerEndedError(self.process.poll(), self.log())
                self.__exit__(None, None, None)
                raise error
            time.sleep(POLL_INTERVAL_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server. Raises `ServerEndedError` where it has ended within a request."""
        code = self.process.poll()
        self.process.kill()
        self.process.wait()
        log = self.log()
        self._log.close()
        if code is not None and kind is not None and issubclass(kind, OSError):
            raise ServerEndedError(code, log) from error

    def log(self) -> str:
        """Return what the server has printed so far."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    @property
    def memory_bytes(self) -> int:
        """Resident memory, with the pages of the model's file that the server has read."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def complete(
    port: int, body: Mapping[str, Any], on_token: Callable[[], None] = lambda: None
) -> int:
    """Complete a prompt, and return the number of tokens. Raises `ConnectionError`."""
    request = json.dumps({**body, "stream": True})
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("POST", "/completion", request, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"llama-server refused a request: {response.read()[:500]!r}")
        tokens = 0
        for event in _events(response):
            if event["stop"]:
                tokens = event["tokens_predicted"]
            else:  # an event may be left out whose token ends within a character
                on_token()
        return tokens
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(EVENT_PREFIX):
            yield json.loads(line.removeprefix(EVENT_PREFIX))


def measure(
    server: LlamaServer, spec: Mapping[str, Any], chats: int, prompts: str
) -> dict[str, Any]:
    """Measure all chats at once, each in a slot with its adapter alone, on a thread that follows its
    stream.
    """
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    tokens = [0] * chats
    failures: list[BaseException] = []

    def run_chat(at: int) -> None:
        def count_token() -> None:
            last[at] = time.perf_counter() - start
            first.setdefault(at, last[at])

        # Each request names all adapters: one that it leaves out keeps its scale of the start.
        lora = [{"id": other, "scale": float(other == at)} for other in range(chats)]
        body = {
            "prompt": spec[prompts][at], "n_predict": spec["new_tokens"], "temperature": 0, "ignore_eos": True,
            "id_slot": at, "lora": lora, "cache_prompt": True,
        }  # fmt: skip
        try:
            tokens[at] = complete(server.port, body, count_token)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run_chat, args=(at,)) for at in range(chats)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if tokens != [spec["new_tokens"]] * chats:
        raise SystemExit(
            f"llama.cpp generated {tokens} tokens instead of {spec['new_tokens']} each"
        )
    token_s = [(last[at] - first[at]) / max(spec["new_tokens"] - 1, 1) for at in first]
    return {
        "tokens_per_s": sum(tokens) / max(last.values()),
        "ttft_s": sorted(first.values()),
        "token_s": sorted(token_s),
        "memory_bytes": server.memory_bytes,
    }


def main() -> int:
    """Measure all workloads, cold and with whole prompts cached."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    figures = {}
    for chats in spec["chats"]:
        adapters = tuple(Path(path) for path in spec["adapters"][:chats])
        options = LlamaOptions(Path(spec["model"]), adapters, chats, spec["context"])
        with LlamaServer(spec["server"], options, spec["threads"]) as server:
            measure(server, {**spec, "new_tokens": 4}, chats, "other_prompts")
            figures[f"{chats} cold"] = measure(server, spec, chats, "prompts")
            if spec.get("cached", True):
                figures[f"{chats} cached"] = measure(server, spec, chats, "prompts")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
