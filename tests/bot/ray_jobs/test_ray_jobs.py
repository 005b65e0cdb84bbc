"""The client of Ray Jobs, on recorded answers, and the checks of a cluster that settings and doctor
make.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import jsonschema_rs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from bot.compose import create_backend
from bot.operations.doctor import server_checks
from bot.settings import SettingsError, load_settings
from bot.training.backends import ray_jobs
from bot.training.backends.job_folder_backend import take_over_nothing
from bot.training.backends.ray_backend import RayBackend
from bot.training.backends.ray_jobs import RayJobsClient, RayRefusedError, RayUnreachableError
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from personas.home.comparison_targets import NO_COMPARISON
from personas.home.job_material import ShippedData
from tests.bot.ray_jobs.replay import RECORDINGS, ReplayedRay
from tests.fake_engine import FakeEngine

RECORDED = json.loads(RECORDINGS.read_text(encoding="utf-8"))
KINDS = {
    "version": "VersionResponse",
    "submitted": "JobSubmitResponse",
    "stop": "JobStopResponse",
    "deleted": "JobDeleteResponse",
}


@pytest.fixture(autouse=True)
def delete_at_once(monkeypatch):
    monkeypatch.setattr(ray_jobs, "DELETE_DELAY_S", 0.0)


# --------------------------------------------------------------------------------------- recordings


@pytest.mark.parametrize(
    "name", [name for name, answer in RECORDED["answers"].items() if "body" in answer]
)
def test_a_recording_matches_rays_own_schema(name):
    schema = RECORDED["schemas"][KINDS.get(name, "JobDetails")]
    jsonschema_rs.validate(schema, RECORDED["answers"][name]["body"])
    broken = {**RECORDED["answers"][name]["body"]}
    broken.pop(schema["required"][0])
    assert not jsonschema_rs.is_valid(schema, broken)


def test_recordings_are_of_the_tested_release_and_name_no_machine():
    assert (
        RECORDED["ray_version"] == RECORDED["answers"]["version"]["body"]["ray_version"] == "2.60.0"
    )
    text = RECORDINGS.read_text(encoding="utf-8")
    assert not re.search(
        r"/(home|root|work|build|usr)/|site-packages|(?!127\.0\.0\.1)\b\d+\.\d+\.\d+\.\d+\b", text
    )


def test_the_client_understands_every_state_of_a_job():
    found = {}
    for name, answer in RECORDED["answers"].items():
        if name not in KINDS and "body" in answer:
            job = ray_jobs.RayJob.model_validate(answer["body"])
            found[name] = (job.status, job.error_type, job.driver_exit_code, job.has_ended)
    lost = found.pop("worker lost")
    assert (
        lost[0] == "FAILED"
        and lost[1] not in (None, "JOB_ENTRYPOINT_COMMAND_ERROR")
        and lost[2] is None
    )
    assert found == {
        "pending": ("PENDING", None, None, False),
        "start timeout": ("FAILED", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", None, True),
        "running": ("RUNNING", None, None, False),
        "stopped": ("STOPPED", None, None, True),
        "succeeded": ("SUCCEEDED", None, 0, True),
        "failed": ("FAILED", "JOB_ENTRYPOINT_COMMAND_ERROR", 1, True),
        "driver": ("SUCCEEDED", None, None, True),
    }


# ------------------------------------------------------------------------------------------- client


async def test_a_job_is_submitted_once_found_listed_stopped_and_deleted(tmp_path):
    ray = ReplayedRay(tmp_path, "polite", token="right")
    await ray.start()
    client = RayJobsClient(f"{ray.url}/", "right")
    try:
        for _ in range(2):
            await client.submit("home-j1-1", "sleep 60", cpus=1, gpus=0, environ={}, about="oda v1")
        await client.submit("other-j1-1", "true", cpus=1, gpus=0, environ={}, about="oda v1")
        assert len(ray.submitted) == 2
        assert [job.submission_id for job in await client.list("home-")] == ["home-j1-1"], (
            "no drivers, no other home's"
        )
        with pytest.raises(RayUnreachableError, match="non-terminal"):
            await client.delete("home-j1-1")
        await client.stop("home-j1-1")
        await ray.jobs["home-j1-1"].tasks[0]
        assert (await client.get("home-j1-1")).status == "STOPPED"
        await client.delete("home-j1-1")
        assert await client.get("home-j1-1") is None
        await client.stop("home-j1-1")  # unknown ones are left alone
        await client.delete("home-j1-1")
    finally:
        await ray.close()


@pytest.mark.parametrize(
    ("status", "text", "error", "words"),
    [
        (404, "404: Not Found", RayRefusedError, "refuses the request (404)"),
        (
            200,
            "<html>a login page",
            RayRefusedError,
            "does not answer as Ray 2.60 does: '<html>a login page'",
        ),
        (200, "[]", RayRefusedError, "does not answer as Ray 2.60 does"),
        (302, "", RayRefusedError, "no reason is given"),
        (
            500,
            "Traceback\nTypeError: Request failed with status code 400: no",
            RayRefusedError,
            "status code 400: no",
        ),
        (500, "No available agent to submit job.", RayUnreachableError, "No available agent"),
        (503, "x" * 9000, RayUnreachableError, "x" * 300 + "."),
    ],
)
async def test_other_answers_are_errors_that_say_what_to_do(status, text, error, words):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    async with TestServer(app) as server:
        with pytest.raises(error) as raised:
            await RayJobsClient(str(server.make_url(""))).get("j")
    assert (
        words in raised.value.message
        and "RAY_ADDRESS" in raised.value.advice
        and len(str(raised.value)) < 600
    )


def test_a_job_that_rays_memory_monitor_killed_says_so():
    message = (
        "Job supervisor actor died: …\nRefer to the documentation on how to address the out of "
        "memory issue: https://x"
    )
    job = ray_jobs.RayJob(submission_id="j", status="FAILED", message=message)
    assert job.reason == "its node ran out of memory"


async def test_nobody_at_the_address_is_unreachable():
    with pytest.raises(RayUnreachableError, match="does not answer"):
        await RayJobsClient(f"http://127.0.0.1:{unused_port()}").version()


@pytest.mark.parametrize(
    ("scheme", "words"), [("http", "nothing came within 0 s"), ("https", "SSL")]
)
async def test_a_server_that_hangs_or_speaks_no_tls_is_described(monkeypatch, scheme, words):
    monkeypatch.setattr(ray_jobs, "REQUEST_TIMEOUT_S", 0.3)
    is_closed = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if scheme == "https":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()  # until the client gives up
        writer.close()
        is_closed.set()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        with pytest.raises(RayUnreachableError, match=words) as raised:
            await RayJobsClient(
                f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ).version()
        await asyncio.wait_for(is_closed.wait(), 5)
        assert not re.search(r"ssl:default|\[Errno|TimeoutError", raised.value.message)


# --------------------------------------------------------------------------------- settings, wiring


@pytest.mark.parametrize("address", ["", "auto", "head:6379", "ray://head:10001", "http://"])
def test_an_address_that_is_not_the_dashboards_is_refused(address):
    assert load_settings(None, {"RAY_ADDRESS": address}).trainer == "local", (
        "other programs read this variable, too"
    )
    with pytest.raises(SettingsError, match=r"RAY_ADDRESS .*dashboard") as raised:
        load_settings(None, {"TRAINER": "Ray", "RAY_ADDRESS": address})
    assert "http://head:8265" in raised.value.advice


def test_other_settings_are_checked(tmp_path):
    ray = {"TRAINER": "ray", "RAY_ADDRESS": "http://head:8265", "UNDERSTUDY_HOME": str(tmp_path)}
    with pytest.raises(SettingsError, match="SHARED is '/no/such'"):
        load_settings(None, {**ray, "SHARED": "/no/such"})
    with pytest.raises(SettingsError) as raised:
        load_settings(
            None,
            {
                **ray,
                "TRAINER": "slurm",
                "TRAINER_SLOTS": "0",
                "TRAINER_GPUS": "-1",
                "RAY_AUTH_TOKEN": "a b",
            },
        )
    for words in (
        "TRAINER is 'slurm'",
        "1 to 64",
        "0 to 16",
        "RAY_AUTH_TOKEN is a value (not shown)",
    ):
        assert words in raised.value.message
    settings = load_settings(
        None, {**ray, "SHARED": str(tmp_path), "RAY_AUTH_TOKEN": "s3cret", "TRAINER_SLOTS": "4"}
    )
    assert (settings.trainer_slots, settings.trainer_gpus) == (4, 1) and "s3cret" not in repr(
        settings
    )


def test_the_setting_selects_the_backend_and_ray_is_loaded_for_it_alone(tmp_path):
    environ = {"UNDERSTUDY_HOME": str(tmp_path / "home"), "RAY_ADDRESS": "http://head:8265"}
    (tmp_path / "mnt").mkdir()
    (tmp_path / "home").mkdir()
    engine = FakeEngine()
    engine.precision = "float32"

    def backend(**more):
        settings = load_settings(None, {**environ, **more})
        catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", settings.home)
        return create_backend(
            settings, catalogue, engine, lambda job: NO_COMPARISON, take_over_nothing
        )

    assert isinstance(backend(), SubprocessBackend) and not (tmp_path / "home" / "jobs").exists()
    assert backend(MAX_REPLY_CANDIDATES="2")._environ["REPLY_CANDIDATES"] == "2", (
        "the card measures what is served"
    )
    on_ray = backend(
        TRAINER="ray", TRAINER_SLOTS="3", TRAINER_THREADS="2", SHARED=str(tmp_path / "mnt")
    )
    assert isinstance(on_ray, RayBackend) and on_ray.slots == 3
    assert (on_ray.attempts.resources.options, on_ray.attempts.resources.gpus) == (
        ("--threads", "2"),
        1,
    )
    assert on_ray.attempts.environ["REPLY_CANDIDATES"] == "4"
    assert (tmp_path / "home" / "jobs").is_symlink() and on_ray.hold("hold") is None


# ------------------------------------------------------------------------------------------- doctor


async def checked(tmp_path, **more):
    """Each check's state and text, on a cluster whose workers have this machine's files."""
    ray = ReplayedRay(tmp_path, "good", token="right")
    for name, value in more.pop("ray", {}).items():
        setattr(ray, name, value)
    ray.node |= more.pop("node", {})
    await ray.start()
    environ = {
        "TRAINER": "ray", "RAY_ADDRESS": ray.url, "RAY_AUTH_TOKEN": "right", "UNDERSTUDY_HOME": str(tmp_path), **more
    }  # fmt: skip
    try:
        checks = await server_checks.check_cluster(load_settings(None, environ))
        assert not [name for name in ray.jobs if ray.jobs[name].state != "pending"], (
            "the probe is deleted"
        )
        return [(check.name, check.state, f"{check.found}: {check.remedy}") for check in checks]
    finally:
        await ray.close()
        assert not list(tmp_path.glob(".doctor-*"))


async def test_the_doctor_asks_a_worker_for_the_folder_and_the_trainer(tmp_path):
    (version, worker) = await checked(tmp_path)
    assert version[:2] == ("ray", "ok") and "Ray 2.60.0 at http://127.0.0.1:" in version[2]
    assert (
        worker[:2] == ("ray worker", "ok") and f"sees {tmp_path} and has the trainer" in worker[2]
    )


async def test_the_doctor_finds_what_a_worker_lacks(tmp_path, monkeypatch):
    (_, worker) = await checked(tmp_path, node={"PYTHONPATH": "/nowhere", "PATH": "/usr/bin:/bin"})
    assert (
        worker[1] == "fail"
        and "cannot import the trainer" in worker[2]
        and "install Understudy" in worker[2]
    )
    monkeypatch.setattr(server_checks, "RAY_PROBE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(server_checks, "OLDEST_RAY", (2, 61))
    (tmp_path / "2").mkdir()
    version, worker = await checked(tmp_path / "2", ray={"has_workers": False})
    assert version[1] == "warn" and "upgrade the cluster" in version[2]
    assert worker[1] == "warn" and "1 CPU and 1 GPU" in worker[2]
    assert "`ray status`" in worker[2]


@pytest.mark.parametrize(
    ("code", "written", "words"),
    [
        (41, False, "does not see /mnt: mount it"),
        (42, False, "cannot write to /mnt: give its user"),
        (0, False, "another folder at /mnt: mount the same"),
        (7, True, "a short job failed"),
    ],
)
def test_each_end_of_the_probe_has_its_advice(code, written, words):
    status = "SUCCEEDED" if code == 0 else "FAILED"
    job = ray_jobs.RayJob(
        submission_id="j", status=status, driver_exit_code=code, message="x\nlast line\n"
    )
    check = server_checks._check_probe(job, Path("/mnt"), written, "1 CPU")
    assert check.state == "fail" and words in f"{check.found}: {check.remedy}"


async def test_a_cluster_that_refuses_is_reported(tmp_path):
    (only,) = await checked(tmp_path, RAY_AUTH_TOKEN="wrong")
    assert only[:2] == ("ray", "fail") and "RAY_AUTH_TOKEN" in only[2]
