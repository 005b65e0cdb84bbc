"""Ray Jobs on loopback: answers as the real head did (recordings/jobs.json), and runs entrypoints
as processes here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import unused_port

from tests.bot.subprocess_trainer import STANDIN

RECORDINGS = Path(__file__).parent / "recordings" / "jobs.json"
STUB = """#!/bin/sh
# `python -m trainer run FOLDER …` as a worker has it: the stand-in trainer, whose events go to the folder, too.
[ "$1 $2" = "-m trainer" ] || exec {python} "$@"
[ "$FAKE_TRAINER" = course ] && events=/dev/null || events="$4/events.jsonl"
exec {python} {standin} "$FAKE_TRAINER" run "$4" "$@" >>"$events"
"""


def recorded(name: str) -> dict[str, Any]:
    """One answer of the real head: status, and `body` (JSON) or `text`."""
    return json.loads(RECORDINGS.read_text(encoding="utf-8"))["answers"][name]


@dataclass
class ReplayedJob:
    """A submitted job: the recorded answer that describes it now, and its process."""

    body: dict[str, Any]
    state: str = "pending"
    exit_code: int | None = None
    process: asyncio.subprocess.Process | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class ReplayedRay:
    """One cluster. `submitted` has all requests, `requests` what was asked for; `node` is the
    workers' environment.
    """

    def __init__(self, folder: Path, mode: str, token: str = "") -> None:
        self.jobs: dict[str, ReplayedJob] = {}
        self.submitted: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.has_workers = True
        self.token = token
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        stub = folder / "bin" / "python"
        stub.parent.mkdir()
        stub.write_text(STUB.format(python=sys.executable, standin=STANDIN))
        stub.chmod(0o755)
        path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
        root = str(STANDIN.parent.parent)
        self.node = {**os.environ, "PATH": path, "PYTHONPATH": root, "FAKE_TRAINER": mode}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Answer from now on, at the same port as before."""
        app = web.Application(middlewares=[self._authenticate])
        app.router.add_get("/api/version", self._version)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_get("/api/jobs/{id}", self._get)
        app.router.add_post("/api/jobs/{id}/stop", self._stop)
        app.router.add_delete("/api/jobs/{id}", self._delete)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Answer no more; processes go on."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def close(self) -> None:
        """Stop, and end all processes."""
        await self.stop()
        for job in self.jobs.values():
            await self._kill(job)

    async def replace_head(self) -> None:
        """Lose the head, and what it knew; the workers' processes end with their supervisors."""
        await self.close()
        self.jobs.clear()
        await self.start()

    async def lose_worker(self, submission_id: str) -> None:
        """Kill a job's worker node."""
        self.jobs[submission_id].state = "worker lost"
        await self._kill(self.jobs[submission_id])

    @property
    def states(self) -> dict[str, str]:
        """The state of each job, by the part of its id after the home's."""
        return {name.partition("-")[2]: job.state for name, job in self.jobs.items()}

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        given = request.headers.get("Authorization", "")
        if self.token and given != f"Bearer {self.token}":
            return await self._answer("wrong token" if given else "no token")
        return await handler(request)

    async def _answer(self, name: str, submission_id: str = "", **fields: Any) -> web.Response:
        answer = json.loads(json.dumps(recorded(name)).replace("<id>", submission_id))
        if "text" in answer:
            return web.Response(text=answer["text"], status=answer["status"])
        return web.json_response({**answer["body"], **fields}, status=answer["status"])

    async def _version(self, request: web.Request) -> web.Response:
        return await self._answer("version")

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["submission_id"]
        if name in self.jobs:
            return await self._answer("submitted twice", name)
        self.submitted.append(body)
        self.jobs[name] = ReplayedJob(body)
        if self.has_workers:
            await self._begin(self.jobs[name])
        return await self._answer("submitted", name)

    async def _begin(self, job: ReplayedJob) -> None:
        environ = {**self.node, **job.body["runtime_env"]["env_vars"]}
        job.process = await asyncio.create_subprocess_shell(
            job.body["entrypoint"], env=environ, start_new_session=True
        )
        job.state = "running"
        job.tasks.append(asyncio.create_task(self._wait(job)))

    async def _wait(self, job: ReplayedJob) -> None:
        assert job.process
        code = await job.process.wait()
        if job.state == "running":
            job.exit_code = code
            job.state = "succeeded" if code == 0 else "failed"
        elif job.state == "stopping":
            job.state = "stopped"

    async def _kill(self, job: ReplayedJob) -> None:
        if job.process and job.process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(job.process.pid, signal.SIGKILL)
            await job.process.wait()

    def _details(self, name: str) -> Any:
        job = self.jobs[name]
        state = "running" if job.state == "stopping" else job.state
        given = {"entrypoint": job.body["entrypoint"]}
        if state == "failed":
            given["driver_exit_code"] = job.exit_code
        return self._answer(state, name, **given)

    async def _get(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return await (self._details(name) if name in self.jobs else self._answer("unknown", name))

    async def _list(self, request: web.Request) -> web.Response:
        bodies = [json.loads((await self._details(name)).text or "") for name in self.jobs]
        return web.json_response([*bodies, recorded("driver")["body"]])

    async def _stop(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self.jobs:
            return await self._answer("unknown", name)
        job = self.jobs[name]
        if job.state == "running" and job.process:
            job.state = "stopping"
            job.process.terminate()
        return await self._answer("stop", name)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self.jobs:
            return await self._answer("unknown", name)
        if self.jobs[name].state in ("pending", "running", "stopping"):
            return await self._answer("deleted too early", name)
        del self.jobs[name]
        return await self._answer("deleted", name)
