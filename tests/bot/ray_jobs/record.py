"""Records the answers of a real Ray head into recordings/jobs.json: `python -m
tests.bot.ray_jobs.record`.

The schema is that of Ray's own classes, so a recording that does not match it was not made by this
release.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from typing import Any

import aiohttp

from tests.bot.ray_jobs.cluster import ENVIRONMENT, TOKEN, RayCluster, node_environment, ray_cluster
from tests.bot.ray_jobs.replay import RECORDINGS

JOB_PREFIX = "recorded-job-"
START_TIMEOUT_S = 30
SCHEMA_PROGRAM = """
import json
from ray.dashboard.modules.job import common, pydantic_models
from ray.dashboard.modules.version import VersionResponse
from pydantic import TypeAdapter
kinds = (pydantic_models.JobDetails, common.JobSubmitResponse, common.JobStopResponse, common.JobDeleteResponse)
print(json.dumps({kind.__name__: TypeAdapter(kind).json_schema() for kind in (*kinds, VersionResponse)}))
"""
DRIVER_PROGRAM = "import ray; ray.init(address='{address}', log_to_driver=False); ray.shutdown()"
SCRUBBED = (
    (re.compile(r'File "[^"]*/site-packages/'), 'File "'),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:0"),
    (re.compile(r"\b[0-9a-f]{40,56}\b"), "0" * 40),
    (re.compile(r"session_[\d_-]+"), "session_0"),
    (re.compile(r"(pid=|worker_pid: |actor_id: |ip: )[\w.]+"), r"\g<1>0"),
    (re.compile(r"/tmp/ray-\w+"), "/tmp/ray"),
    (re.compile(rf"{JOB_PREFIX}\d+"), "<id>"),
)
TIMES = {"start_time": 1795348800000, "end_time": 1795348801000}


class Recorder:
    """Asks the head, and keeps the answers."""

    def __init__(self, cluster: RayCluster) -> None:
        self.cluster = cluster
        self.answers = {}
        self.number = 0

    @property
    def path(self) -> str:
        """The address of the current job."""
        return f"/api/jobs/{JOB_PREFIX}{self.number}"

    async def ask(
        self, name: str, method: str, path: str, body: Any = None, token: str | None = TOKEN
    ) -> Any:
        """Send a request, and record its answer under a name; one without is not recorded."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.request(
            method, self.cluster.address + path, json=body, headers=headers
        ) as answer:
            text = await answer.text()
            status = answer.status
        is_json = status == 200
        if name:
            self.answers[name] = {"status": status, **self._scrub(text, is_json=is_json)}
        return json.loads(text) if is_json else text

    def _scrub(self, text: str, *, is_json: bool) -> dict[str, Any]:
        for pattern, replacement in SCRUBBED:
            text = pattern.sub(replacement, text)
        if not is_json:
            return {"text": text}
        body = json.loads(text)
        return {"body": {**body, **{key: time for key, time in TIMES.items() if body.get(key)}}}

    async def submit(self, entrypoint: str, *, gpus: int = 0, name: str = "") -> None:
        body = {
            "submission_id": f"{JOB_PREFIX}{self.number}",
            "entrypoint": entrypoint,
            "entrypoint_num_cpus": 1,
            "entrypoint_num_gpus": gpus,
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "20"}},
            "metadata": {"job_name": "oda v1"},
        }
        await self.ask(name, "POST", "/api/jobs/", body)

    async def state(self, name: str, *states: str) -> None:
        """Wait for a status, and record the answer that has it."""
        async with asyncio.timeout(120):
            while (await self.ask(name, "GET", self.path))["status"] not in states:  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def forget(self, name: str = "") -> None:
        await self.ask(name, "DELETE", self.path)
        if name != "deleted too early":
            self.number += 1


async def record(cluster: RayCluster) -> dict[str, Any]:
    """Go through all that a job can become."""
    ask = Recorder(cluster)
    await ask.ask("version", "GET", "/api/version")
    await ask.ask("no token", "GET", "/api/jobs/", token=None)
    await ask.ask("wrong token", "GET", "/api/jobs/", token="f" * 32)
    await ask.ask("unknown", "GET", ask.path)
    await ask.submit("true", gpus=1, name="submitted")
    await ask.submit("true", name="submitted twice")
    await ask.state("pending", "PENDING")
    await ask.state("start timeout", "FAILED")
    await ask.forget("deleted")
    await ask.submit("sleep 60")
    await ask.state("running", "RUNNING")
    await ask.forget("deleted too early")
    await ask.ask("stop", "POST", f"{ask.path}/stop")
    await ask.state("stopped", "STOPPED")
    await ask.forget()
    for name, entrypoint in (("succeeded", "true"), ("failed", "echo last line; exit 1")):
        await ask.submit(entrypoint)
        await ask.state(name, "SUCCEEDED", "FAILED")
        await ask.forget()
    await ask.submit("sleep 60")
    await ask.state("running", "RUNNING")
    for worker in cluster.workers:
        worker.kill()
    await ask.state("worker lost", "FAILED")
    driver = DRIVER_PROGRAM.format(address=f"127.0.0.1:{cluster.gcs_port}")
    command = [ENVIRONMENT / "bin" / "python", "-c", driver]
    await asyncio.to_thread(
        subprocess.run, command, env=node_environment(), check=True, capture_output=True
    )
    drivers = [it for it in await ask.ask("", "GET", "/api/jobs/") if it["type"] == "DRIVER"]
    found = drivers[0] | {key: time for key, time in TIMES.items() if drivers[0].get(key)}
    found |= {"entrypoint": "python -c …", "metadata": {}}
    found["driver_info"] = {**found["driver_info"], "node_ip_address": "127.0.0.1"}
    return {**ask.answers, "driver": {"status": 200, "body": found}}


def main() -> int:
    os.environ["RAY_JOB_START_TIMEOUT_SECONDS"] = str(START_TIMEOUT_S)
    with ray_cluster(workers=1) as cluster:
        asyncio.run(cluster.ready())
        answers = asyncio.run(record(cluster))
    program = [ENVIRONMENT / "bin" / "python", "-c", SCHEMA_PROGRAM]
    schemas = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    recorded = {
        "ray_version": answers["version"]["body"]["ray_version"],
        "schemas": schemas,
        "answers": answers,
    }
    RECORDINGS.write_text(
        json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
