"""`dataset openai`: what is sent and what it costs, and OpenAI's API as documented, replayed on
loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.job_create_params import JobCreateParams
from pydantic import TypeAdapter

from personas.errors import MaterialError, RequestError, UnderstudyError
from personas.home.rights import is_published
from trainer.cli.dataset_command import run_openai_job
from trainer.cli.main import build_parser
from trainer.export.openai_job import (
    EVENTS_PER_PAGE,
    OpenAIClient,
    api_base_url,
    describe_submission,
    read_submission,
)

KEY = "sk-test-0123456789"
MODEL = "gpt-4.1-mini-2025-04-14"


def line(number: int, right: str = "own-writing", tokens: int = 1000) -> str:
    messages = [
        {"role": "system", "content": "You are Ada."},
        {"role": "user", "content": f"Guest: clock {number}? 你好"},
        {"role": "assistant", "content": "It is late."},
    ]
    return json.dumps(
        {"messages": messages, "right": right, "tokens": tokens, "source": "log.json"}
    )


def data_set(folder: Path, *rights: str, heldout: int = 2) -> Path:
    """Makes a data set's folder, as far as an upload reads it, with a sample of each right."""
    folder.mkdir()
    (folder / "stats.json").write_text("{}")
    (folder / "train.jsonl").write_text(
        "".join(f"{line(n, right)}\n" for n, right in enumerate(rights))
    )
    (folder / "eval.jsonl").write_text("".join(f"{line(90 + n)}\n" for n in range(heldout)))
    return folder


@pytest.fixture
def built(tmp_path):
    return data_set(
        tmp_path / "built", *["own-writing"] * 8, *["licensed:CC0"] * 4, "form", "discord-api"
    )


class Replay:
    """OpenAI's files and fine-tuning jobs: each answer has the documented shape, checked by
    OpenAI's own types.
    """

    def __init__(self, statuses=("validating_files", "running", "succeeded"), events=3):
        self.statuses = list(statuses)
        self.event_count = events
        self.files: dict[str, bytes] = {}
        self.jobs: list[dict] = []
        self.deleted: list[str] = []
        self.faults: list[tuple[str, int, dict, dict]] = []
        self.requests: list[str] = []
        self.at_fault_create = False

    def fail(self, path: str, status: int, error: dict | None = None, **headers: str) -> None:
        """Lets the next request to a path fail."""
        self.faults.append(
            (
                path,
                status,
                error or {"message": "The server had an error.", "type": "server_error"},
                headers,
            )
        )

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._check])
        app.router.add_post("/v1/files", self._upload)
        app.router.add_delete("/v1/files/{id}", self._delete)
        app.router.add_post("/v1/fine_tuning/jobs", self._create)
        app.router.add_get("/v1/fine_tuning/jobs", self._list)
        app.router.add_get("/v1/fine_tuning/jobs/{id}", self._job)
        app.router.add_post("/v1/fine_tuning/jobs/{id}/cancel", self._cancel)
        app.router.add_get("/v1/fine_tuning/jobs/{id}/events", self._events)
        return app

    @web.middleware
    async def _check(self, request, handler):
        self.requests.append(f"{request.method} {request.path.removeprefix('/v1')}")
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            wrong = request.headers.get("Authorization", "").removeprefix("Bearer ")
            error = {
                "message": f"Incorrect API key provided: {wrong}.",
                "code": "invalid_api_key",
                "param": None,
            }
            return web.json_response({"error": error}, status=401)
        if self.faults and request.path.removeprefix("/v1") == self.faults[0][0]:
            _, status, error, headers = self.faults.pop(0)
            if self.at_fault_create and request.method == "POST":
                await handler(request)
            await request.read()
            return web.json_response({"error": error}, status=status, headers=headers)
        return await handler(request)

    async def _upload(self, request):
        form = await request.post()
        assert form["purpose"] == "fine-tune"
        file = f"file-{len(self.files) + 1}"
        content = form["file"].file.read()
        self.files[file] = content
        answer = {"id": file, "object": "file", "bytes": len(content), "created_at": 1, "purpose": "fine-tune",
                  "filename": form["file"].filename, "status": "processed"}  # fmt: skip
        return web.json_response(FileObject.model_validate(answer).model_dump(mode="json"))

    async def _delete(self, request):
        self.deleted.append(request.match_info["id"])
        return web.json_response(
            {"id": request.match_info["id"], "object": "file", "deleted": True}
        )

    async def _create(self, request):
        body = TypeAdapter(JobCreateParams).validate_python(await request.json(), extra="forbid")
        job = {
            "id": f"ftjob-{len(self.jobs) + 1}", "object": "fine_tuning.job", "created_at": 2, "model": body["model"],
            "organization_id": "org-1", "result_files": ["file-result"], "seed": 1, "status": self.statuses[0],
            "hyperparameters": body["method"]["supervised"]["hyperparameters"], "trained_tokens": None,
            "training_file": body["training_file"], "validation_file": body.get("validation_file"),
            "fine_tuned_model": None, "error": None, "suffix": body.get("suffix"),
        }  # fmt: skip
        assert body["training_file"] in self.files
        self.jobs.append(job)
        return self._answer(job)

    def _answer(self, job):
        return web.json_response(FineTuningJob.model_validate(job).model_dump(mode="json"))

    async def _list(self, request):
        return web.json_response({"object": "list", "data": self.jobs[::-1], "has_more": False})

    async def _job(self, request):
        job = next((job for job in self.jobs if job["id"] == request.match_info["id"]), None)
        if job is None:
            error = {
                "message": f"Could not find fine tune: {request.match_info['id']}",
                "code": "fine_tune_not_found",
            }
            return web.json_response({"error": error}, status=404)
        job["status"] = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if job["status"] == "succeeded":
            job |= {"fine_tuned_model": f"ft:{job['model']}:org::9", "trained_tokens": 36_000}
        if job["status"] == "failed":
            job["error"] = {
                "code": "exceeded_quota",
                "message": "The file has a fault in line 3.",
                "param": None,
            }
        return self._answer(job)

    async def _cancel(self, request):
        self.statuses = ["cancelled"]
        return await self._job(request)

    async def _events(self, request):
        """Answers newest first, in pages; `after` goes back in time."""
        ids = list(range(self.event_count, 0, -1))
        if after := request.query.get("after"):
            ids = ids[ids.index(int(after.removeprefix("ftevent-"))) + 1 :]
        page = ids[: int(request.query["limit"])]
        events = [
            {"id": f"ftevent-{n}", "object": "fine_tuning.job.event", "created_at": n, "level": "info",
             "type": "message", "message": f"Step {n}: training loss=0.5", "data": None}
            for n in page
        ]  # fmt: skip
        events = [
            FineTuningJobEvent.model_validate(event).model_dump(mode="json") for event in events
        ]
        return web.json_response(
            {"object": "list", "data": events, "has_more": len(page) < len(ids)}
        )


@pytest.fixture
async def replay(aiohttp_server, monkeypatch, tmp_path):
    replay = Replay()
    server = await aiohttp_server(replay.app())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", str(server.make_url("/v1")))
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    return replay


async def command(*words: object) -> int:
    """Runs `dataset openai`, in a thread because it has an event loop of its own."""
    options = build_parser().parse_args(["dataset", "openai", *map(str, words)])
    return await asyncio.to_thread(run_openai_job, options)


def client(slept: list[float]) -> OpenAIClient:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return OpenAIClient(os.environ, sleep)


# ------------------------------------------------------------------------ what leaves, and the cost


def test_only_own_writing_and_what_is_licensed_may_leave_and_the_rest_is_named(built):
    rights = ("own-writing", "licensed:MIT", "form", "data-package", "discord-api", "")
    assert [right for right in rights if is_published(right)] == ["own-writing", "licensed:MIT"]
    submission = read_submission(built, MODEL, 3, None)
    assert len(submission.training.lines) == 12 and submission.training.left_out == {
        "form": 1,
        "discord-api": 1,
    }
    assert submission.cost == pytest.approx(12_000 * 3 * 5.0 / 1e6), "held-out samples cost nothing"
    said = "\n".join(describe_submission(submission, "https://api.openai.com/v1", is_listed=True))
    for fact in ("https://api.openai.com/v1: 12 samples", "2 to validate", "system message"):
        assert fact in said
    assert re.search("left out: (discord-api 1, form 1|form 1, discord-api 1)", said)
    assert "$0.18 = 12,000 tokens × 3 epochs × $5" in said and "September 2025" in said


def test_a_price_is_the_tables_or_ones_own_and_never_guessed(built):
    price = {
        model: read_submission(built, model, 1, None).price
        for model in ("gpt-4.1-nano", f"ft:{MODEL}:me::1", "gpt-4o-2024-08-06")
    }
    assert price == {"gpt-4.1-nano": 1.5, f"ft:{MODEL}:me::1": 5.0, "gpt-4o-2024-08-06": 25.0}
    with pytest.raises(RequestError, match=r"price of .*gpt-4o-huge"):
        read_submission(built, "gpt-4o-huge", 1, None)
    assert read_submission(built, "gpt-4o-huge", 2, 7.5).cost == pytest.approx(
        12_000 * 2 * 7.5 / 1e6
    )


def test_what_cannot_be_sent_is_refused_before_anything_is(tmp_path, built):
    few = data_set(tmp_path / "few", *["own-writing"] * 9, *["form"] * 30)
    with pytest.raises(
        RequestError,
        match=r"9 training samples .*form 30 .*OpenAI needs 10",
    ):
        read_submission(few, MODEL, 3, None)
    with pytest.raises(RequestError, match="contains no data set"):
        read_submission(tmp_path, MODEL, 3, None)
    (built / "train.jsonl").write_text("{\n")
    with pytest.raises(MaterialError, match=r"train\.jsonl, line 1 "):
        read_submission(built, MODEL, 3, None)


def test_a_key_never_travels_in_clear():
    assert api_base_url({}) == "https://api.openai.com/v1"
    assert api_base_url({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1/"}) == "http://127.0.0.1:1/v1"
    with pytest.raises(RequestError, match="begins with https"):
        api_base_url({"OPENAI_BASE_URL": "http://example.org/v1"})
    with pytest.raises(RequestError, match="no OPENAI_API_KEY"):
        OpenAIClient({})


# ------------------------------------------------------------------------------------------ the job


async def test_files_go_up_a_job_is_created_and_followed_to_its_model(
    built, replay, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr("trainer.export.openai_job.OpenAIClient.follow.__defaults__", (0.0,))
    (built / "people.json").write_text(
        "{"
    )  # who is in it is unknown: the export counts as everybody's
    assert await command(built, "--model", MODEL, "--epochs", 2, "--suffix", "ada", "--yes") == 0
    out = capsys.readouterr().out
    assert "uploaded train.jsonl: file-1" in out and "job ftjob-1: validating_files" in out
    steps = [row for row in out.splitlines() if row.startswith("Step ")]
    assert [row.split(":")[0] for row in steps] == ["Step 1", "Step 2", "Step 3"], (
        "each once, oldest first"
    )
    assert f"ft:{MODEL}:org::9: trained on 36,000 tokens" in out and "--delete-files ftjob-1" in out
    sent = [json.loads(row) for row in replay.files["file-1"].splitlines()]
    assert (
        len(sent) == 12 and {*sent[0]} == {"messages"} and "你好" in replay.files["file-1"].decode()
    )
    (job,) = replay.jobs
    assert (job["training_file"], job["validation_file"]) == ("file-1", "file-2")
    assert job["hyperparameters"]["n_epochs"] == 2 and len(replay.files["file-2"].splitlines()) == 2
    begun, logged = (tmp_path / "home" / "exports.jsonl").read_text().splitlines()
    assert (
        json.loads(begun)["state"] == "begun"
        and json.loads(begun)["transfer"] == json.loads(logged)["transfer"]
    )
    assert json.loads(logged)["path"].endswith("/v1 ftjob-1") and json.loads(logged)["people"] == [
        "*"
    ]


async def test_nothing_is_sent_for_an_estimate_or_without_an_answer(
    built, replay, capsys, monkeypatch
):
    assert await command(built, "--model", MODEL, "--estimate") == 0
    assert "cost: about $0.18" in capsys.readouterr().out
    with pytest.raises(RequestError, match="nobody could be asked"):
        await command(built, "--model", MODEL)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "no")
    with pytest.raises(RequestError, match="Nothing was sent"):
        await command(built, "--model", MODEL)
    assert replay.requests == []


async def test_events_are_read_from_all_pages(replay):
    replay.event_count = 2 * EVENTS_PER_PAGE + 5
    replay.jobs.append({"id": "ftjob-1"})
    async with client([]) as api:
        seen: set[str] = set()
        first = await api.new_events("ftjob-1", seen)
        assert [event["created_at"] for event in first] == list(range(1, replay.event_count + 1))
        replay.event_count += 2
        asked = len(replay.requests)
        assert [event["created_at"] for event in await api.new_events("ftjob-1", seen)] == [
            206,
            207,
        ]
        assert len(replay.requests) == asked + 1, "pages that are known are not read again"


async def test_a_followed_job_is_cancelled_or_fails_with_openais_reason(built, replay, capsys):
    assert await command(built, "--model", MODEL, "--yes", "--no-follow", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["id"] == "ftjob-1" and "uploaded" in captured.err
    assert await command("--cancel", "ftjob-1") == 0
    assert "ftjob-1 has been cancelled" in capsys.readouterr().out
    assert await command("--follow", "ftjob-1") == 1
    replay.statuses = ["failed"]
    assert await command("--follow", "ftjob-1") == 1
    assert "ftjob-1 has failed: The file has a fault" in capsys.readouterr().out
    assert await command("--delete-files", "ftjob-1") == 0
    assert replay.deleted == ["file-1", "file-2", "file-result"]
    with pytest.raises(UnderstudyError, match=r"404: .*ftjob-7"):
        await command("--follow", "ftjob-7")


async def test_busy_servers_are_asked_again_as_late_as_they_say(built, replay):
    replay.fail(
        "/files",
        429,
        {"message": "Rate limit reached", "code": "rate_limit_exceeded"},
        **{"Retry-After": "7"},
    )
    replay.fail("/files", 503)
    slept: list[float] = []
    async with client(slept) as api:
        assert (
            await api.upload("train.jsonl", read_submission(built, MODEL, 1, None).training)
            == "file-1"
        )
        assert slept == [7.0, 2.0] and len(replay.files["file-1"].splitlines()) == 12
        for _ in range(6):
            replay.fail("/fine_tuning/jobs/ftjob-1", 500)
        with pytest.raises(UnderstudyError, match=r"500: .*tried 6 times"):
            await api.job("ftjob-1")


async def test_a_job_that_was_created_behind_an_error_is_not_created_twice(built, replay):
    submission = read_submission(built, MODEL, 1, None)
    replay.at_fault_create = True
    replay.fail("/fine_tuning/jobs", 502)
    async with client([]) as api:
        file = await api.upload("train.jsonl", submission.training)
        job = await api.create_job(submission, [file], "")
        assert job["id"] == "ftjob-1" and len(replay.jobs) == 1
        replay.at_fault_create = False
        replay.fail("/fine_tuning/jobs", 502)
        second = await api.upload("train.jsonl", submission.training)
        assert (await api.create_job(submission, [second], ""))["id"] == "ftjob-2" and len(
            replay.jobs
        ) == 2


async def test_refusals_that_stay_are_told_at_once_and_leave_no_files_there(
    built, replay, monkeypatch, capsys
):
    replay.fail(
        "/fine_tuning/jobs",
        429,
        {"message": "You exceeded your quota", "code": "insufficient_quota"},
    )
    with pytest.raises(UnderstudyError, match=r"exceeded your quota.*billing"):
        await command(built, "--model", MODEL, "--yes")
    assert (
        replay.deleted == ["file-1", "file-2"]
        and replay.requests.count("POST /fine_tuning/jobs") == 1
    )
    assert "deleted file-1 at OpenAI" in capsys.readouterr().out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(UnderstudyError, match=r"401: .*: …") as refused:
        await command("--follow", "ftjob-1")
    assert "sk-wrong" not in str(refused.value) and "Check OPENAI_API_KEY" in str(refused.value)


async def test_other_servers_are_recognised(aiohttp_server, monkeypatch):
    async def page(request):
        return web.Response(text="<html>Welcome</html>")

    app = web.Application()
    app.router.add_get("/v1/fine_tuning/jobs/x", page)
    server = await aiohttp_server(app)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", str(server.make_url("/v1")))
    async with client([]) as api:
        with pytest.raises(UnderstudyError, match="not answer as OpenAI"):
            await api.job("x")


async def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_it(built, replay):
    replay.statuses = ["running"]
    words = ("dataset", "openai", built, "--model", MODEL, "--yes")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trainer", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    said = ""
    while "Step 3" not in said:
        said += (await asyncio.wait_for(process.stdout.readline(), 120)).decode()
    process.send_signal(signal.SIGINT)
    rest, errors = await process.communicate()
    assert process.returncode == 130, errors
    assert "python -m trainer dataset openai --follow ftjob-1" in rest.decode()
    assert (
        "Traceback" not in errors.decode()
        and replay.jobs[0]["status"] == "running"
        and not replay.deleted
    )
