"""The web server of the real bot: beside the sandbox's page, on Discord, with the real trainer; and
killed.
"""

import asyncio
import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path

import aiohttp
import pytest

from bot.app import open_app
from bot.demo_guild import SKERROW_SEED
from bot.settings import load_settings
from personas.home.adapters import verify_adapter
from personas.home.job_material import ShippedData
from personas.models.base_model import fingerprint, locate
from tests.bot.conftest import QUAY
from tests.bot.web.conftest import LITERAL, put_talk
from tests.fakes import until

SHIPPED = ShippedData.from_source_tree()
POST = "/finetune/start-training"
SERVER = """
import asyncio, sys
from pathlib import Path
from tests.bot.web.conftest import dashboard_in

async def serve():
    async with dashboard_in(Path(sys.argv[1])) as dashboard:
        dashboard.queue.start()
        print(dashboard.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(serve())
"""
DOCS = Path(__file__).parents[3] / "docs" / "rest.md"


@pytest.fixture
def settings(tmp_path, tiny_base):
    given = {"UNDERSTUDY_HOME": str(tmp_path / "home"), "BASE_MODEL": tiny_base.source}
    return load_settings(None, {**given, "WEB_PORT": "0", "TRAINER_CARD": "losses"})


async def posted(session, body, **headers):
    async with session.post(POST, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def asked(session, path, **headers):
    async with session.get(path, headers=headers) as answer:
        assert answer.status == 200
        return await answer.json()


@pytest.mark.slow  # a real trainer, as in the story of test_app
async def test_beside_the_page_the_literal_body_is_refused_and_a_local_set_ends_in_an_adapter(
    settings, tmp_path
):
    talk = put_talk(tmp_path / "talks")
    general = put_talk(tmp_path / "general", count=6)
    shipped = dataclasses.replace(SHIPPED, general=general.parent)
    body = {**LITERAL, "base_model": settings.base_model, "dataset_path": str(talk)}
    async with open_app(settings, shipped) as app, aiohttp.ClientSession(app.url) as session:
        assert app.url == app.sandbox.url and (await asked(session, "/healthz"))["status"] == "ok"
        status, refused = await posted(session, LITERAL)
        assert status == 422 and {error["field"] for error in refused["errors"]} == {
            "base_model",
            "dataset_path",
        }
        assert refused["would_work"]["dataset"] == "general-talk"
        assert app.services.store.jobs.page(1) == []

        status, made = await posted(session, body)
        assert status == 202, made
        assert (
            made["plan"]["rows_used"] == 24
            and made["plan"]["memory_bytes"] > 2**29
            and made["notes"] == []
        )
        await _page_is_as_before(session, app.sandbox)
        await until(
            lambda: app.services.store.jobs.get(made["job_id"]).state not in ("queued", "running"),
            90,
        )
        job = await asked(session, made["links"]["self"])
        await _run_is_shown(session, job)
        said = [
            m["content"]
            for channel in SKERROW_SEED.channels
            for m in app.sandbox.messages(channel.name)
        ]
        assert not [words for words in said if "train" in words.casefold()], (
            "it was asked for in no channel"
        )
    assert job["state"] == "done", job
    folder = settings.home / job["result"]["adapter"]
    manifest = verify_adapter(folder)
    assert (manifest.job_id, manifest.persona) == (made["job_id"], None)
    assert manifest.base_model_hash == fingerprint(locate(settings.base_model))
    assert (
        set(manifest.rights) == {"own-writing"}
        and manifest.hyperparameters["per_device_train_batch_size"] == 4
    )
    assert str(talk.parent) not in (folder / "datasheet.json").read_text()
    assert job["result"]["scorecard"] == manifest.metrics.model_dump(mode="json")


async def _run_is_shown(session, job):
    """What the real trainer has left is what the interface and the page tell."""
    result = (await asked(session, f"{job['links']['events']}?limit=100"))["events"]
    assert {"phase", "progress", "epoch", "scorecard", "done"} <= {one["event"] for one in result}
    async with session.get(f"/dashboard/training/{job['job_id']}") as page:
        html = await page.text()
        assert (
            page.status == 200
            and html.count('<figure class="chart">') == 5
            and "Its last lines" in html
        )
    async with session.get(f"/dashboard/training/{job['job_id']}/repeat") as page:
        assert 'name="set.learning_rate" value="0.0002"' in await page.text()


async def _page_is_as_before(session, sandbox):
    async with session.get("/") as page:
        assert page.status == 200 and "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert (await asked(session, "/page-api/state"))["guild"] == SKERROW_SEED.name
    async with session.get(
        "/api/v10/users/@me", headers={"Authorization": f"Bot {sandbox.token}"}
    ) as me:
        assert me.status == 200
    for headers in ({"Host": "example.org"}, {"Origin": "https://example.org"}):
        async with session.get("/page-api/state", headers=headers) as foreign:
            assert foreign.status == 403
    assert sandbox.messages(QUAY), "the personas have said their greetings"


async def _serving(home):
    """A process with store, queue and web server, in which no job ever ends; and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(home), stdout=asyncio.subprocess.PIPE, cwd=DOCS.parents[1]
    )
    return process, (await process.stdout.readline()).decode().strip()


async def test_a_job_that_was_answered_for_outlives_a_killed_bot(tmp_path):
    body = {"job_name": "oda-1", "persona": "oda"}
    key = {"Idempotency-Key": "once"}
    process, url = await _serving(tmp_path)
    async with aiohttp.ClientSession(url) as session:
        status, made = await posted(session, body, **key)
        process.kill()
        assert status == 202 and await process.wait() == -9
    process, url = await _serving(tmp_path)
    async with aiohttp.ClientSession(url) as session:
        job = await asked(session, made["links"]["self"])
        assert (job["request"], job["version"]) == (made["request"], "v1")
        assert (await posted(session, body, **key))[1]["job_id"] == made["job_id"]
        assert (await posted(session, {**body, "job_name": "oda-2"}, **key))[0] == 409
        assert len((await asked(session, "/finetune/jobs"))["jobs"]) == 1
    process.kill()
    await process.communicate()


TOKEN = "correct-horse-battery-staple"


async def test_opened_to_others_it_demands_the_token_and_the_guild_stays_on_this_machine(settings):
    to_others = settings.model_copy(
        update={"web_host": "0.0.0.0", "web_token": TOKEN, "web_names": ("bot.example.org",)}
    )
    async with open_app(to_others, SHIPPED) as app, aiohttp.ClientSession(app.url) as session:
        assert app.url.rpartition(":")[2] != app.sandbox.url.rpartition(":")[2]
        assert app.sandbox.url.startswith("http://127.0.0.1:")
        for host in ("bot.example.org", "192.168.1.5", "localhost"):
            assert (await asked(session, "/healthz", Host=host)) == {"status": "ok"}
            async with session.get("/finetune/jobs", headers={"Host": host}) as answer:
                assert answer.status == 401
            assert (
                await asked(session, "/finetune/jobs", Host=host, Authorization=f"Bearer {TOKEN}")
            )["jobs"] == []
        for path in (
            "/page-api/state", "/api/v10/users/@me", "/gateway", "/page/app.js",
        ):  # fmt: skip
            async with session.get(path, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
                assert answer.status == 404, "the guild is not served there"
        async with session.get(
            "/", allow_redirects=False, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            assert answer.headers["Location"] == "/dashboard"
        async with session.get(app.sandbox.url) as page:
            assert page.status == 200 and "Sandbox" in await page.text()


def curls():
    """The curl lines on training and jobs, in order: method, path, headers, body."""
    text = DOCS.read_text(encoding="utf-8").partition("\n## Problems\n")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    found = []
    for command in re.split(r"^(?=curl )", "".join(blocks), flags=re.MULTILINE)[1:]:
        words = iter(shlex.split(command.replace("\\\n", " "))[1:])
        method = "GET"
        url = ""
        headers = {}
        data = None
        for word in words:
            match word:
                case "-X":
                    method = next(words)
                case "-H":
                    name, _, value = next(words).partition(": ")
                    headers[name] = value
                case "-d":
                    data = next(words)
                case _:
                    assert word.startswith("http://127.0.0.1:8420/"), word
                    url = word.removeprefix("http://127.0.0.1:8420")
        found.append((method, url, headers, data))
    return found


async def test_the_lines_of_the_documentation_do_what_it_says(dashboard, monkeypatch):
    monkeypatch.chdir(DOCS.parents[1])
    lines = curls()
    job_id = ""
    statuses = []
    assert len(lines) == 6
    for method, path, headers, data in lines:
        status, body, _ = await dashboard.ask(
            method, path.replace("JOB", job_id), headers=headers, data=data
        )
        job_id = body.get("job_id", job_id)
        statuses.append(status)
        assert status < 400, body
    assert statuses == [200, 202, 202, 200, 200, 200]
    assert json.loads(lines[1][3])["hyperparameters"] == LITERAL["hyperparameters"]
    assert dashboard.store.jobs.get(job_id).state == "cancelled" and len(body["jobs"]) == 2
