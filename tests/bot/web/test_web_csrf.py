"""Who is answered, and what everybody else hears."""

import asyncio
import json
import re
from pathlib import Path

from aiohttp import web

from bot.platform.web_kit.problems import PROBLEMS
from bot.web_server import WebServer, run_server

POST = "/finetune/start-training"


async def test_a_name_that_resolves_to_this_machine_is_not_answered(dashboard):
    for host in [
        "bot.example.org",
        "127.0.0.1.example.org",
        "localhost..:80",
        "0.0.0.0",
        "169.254.1.1",
    ]:
        for path in ["/healthz", "/finetune/jobs", "/nowhere"]:
            status, body, _ = await dashboard.ask("GET", path, headers={"Host": host})
            assert status == 403 and body["type"] == "/problems/not-from-here", (host, path)


async def test_this_machines_own_names_are(dashboard):
    for host in [
        "localhost",
        "127.0.0.1:1",
        "[::1]:8420",
        "localhost:8420",
        "LOCALHOST:8420",
        "localhost.:80",
        "127.0.0.2",
    ]:
        assert (await dashboard.ask("GET", "/healthz", headers={"Host": host}))[0] == 200, host


async def test_two_hosts_or_none_are_refused(dashboard):
    port = int(dashboard.url.rpartition(":")[2])
    for hosts in ("", "Host: localhost\r\nHost: example.org\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /healthz HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.. 40[03]", await reader.read())
        writer.close()


async def test_an_address_that_is_too_long_is_reported_as_everything_else_is(dashboard, caplog):
    status, body, _ = await dashboard.ask("GET", f"/finetune/jobs?after={'x' * 20_000}")
    assert status == 414 and body["type"] == "/problems/address-too-long"
    status, text, headers = await dashboard.page(f"/dashboard/personas?ask={'x' * 20_000}")
    assert (
        status == 414
        and "The address is too long" in text
        and headers["Content-Type"].startswith("text/html")
    )
    async with dashboard.session.get(f"/dashboard?{'x' * 70_000}") as answer:
        assert answer.status == 400
    assert not caplog.records, "nobody reads a traceback for what somebody else has sent"


async def test_a_page_may_be_asked_for_by_the_name_in_capitals(dashboard):
    own = {
        "Host": "LocalHost:8420",
        "Origin": "http://localhost:8420",
        "Sec-Fetch-Site": "same-origin",
    }
    assert (await dashboard.start(own))[0] == 202


FOREIGN = [
    {"Origin": "https://example.org"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://example.org"},
]


async def test_another_sites_page_starts_nothing(dashboard):
    for headers in FOREIGN:
        status, body, _ = await dashboard.start(headers)
        assert status == 403 and "from another site" in body["detail"], headers
        job = dashboard.store.jobs.page(1)
        assert job == [] and dashboard.backend.plans == [], headers


async def test_what_a_form_can_send_is_not_read(dashboard):
    for type_ in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
    ]:
        body = json.dumps({"job_name": "a", "task_type": "dialogue", "dataset": "general-dialogue"})
        status, said, _ = await dashboard.ask(
            "POST", POST, data=body, headers={"Content-Type": type_}
        )
        assert status == 415 and said["title"] == "Only JSON is accepted", type_
        assert dashboard.store.jobs.page(1) == [], type_


async def test_own_pages_and_links_are_answered(dashboard):
    own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin"}
    assert (await dashboard.start(own))[0] == 202
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await dashboard.ask("GET", "/finetune/jobs", headers=followed))[0] == 200
    fetched = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (await dashboard.ask("GET", "/finetune/jobs", headers=fetched))[0] == 403


async def test_no_answer_is_for_another_origin_to_read_or_show(dashboard):
    for path in ("/healthz", "/nowhere", "/problems/busy"):
        _, _, headers = await dashboard.ask("GET", path, headers={})
        assert "Access-Control-Allow-Origin" not in headers
        assert (
            headers["X-Content-Type-Options"] == "nosniff"
            and headers["Cache-Control"] == "no-store"
        )
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert (await dashboard.ask("OPTIONS", POST))[0] == 405


async def test_unknown_routes_and_methods_are_problems(dashboard):
    status, body, headers = await dashboard.ask("GET", "/nowhere/at/all")
    assert status == 404 and headers["Content-Type"] == "application/problem+json"
    assert (
        body["type"] == "/problems/not-found"
        and body["status"] == 404
        and body["instance"] == "/nowhere/at/all"
    )
    assert "/openapi.json" in body["advice"]
    status, body, headers = await dashboard.ask("GET", POST)
    assert status == 405 and headers["Allow"] == "POST" and body["title"] == "Method not allowed"
    for form, page in (
        ("/dashboard/training/j1/cancel", "/dashboard/training/j1"),
        ("/dashboard/personas/oda/replies/reset", "/dashboard/personas/oda/replies"),
        ("/dashboard/models/dismiss", "/dashboard/models"),
    ):
        status, _, headers = await dashboard.page(form)
        assert (status, headers["Location"]) == (303, page), "an address of a form is reloaded"


async def test_a_slash_at_the_end_of_a_page_is_left_out(dashboard):
    for typed, page in (
        ("/dashboard/", "/dashboard"),
        ("/dashboard/personas/oda//", "/dashboard/personas/oda"),
        ("/dashboard/training/?persona=oda", "/dashboard/training?persona=oda"),
    ):
        status, _, headers = await dashboard.page(typed)
        assert (status, headers["Location"]) == (303, page)
    for missing in ("/dashboard/nowhere/", "/dashboard//example.org/", "/dashboardy/"):
        status, _, headers = await dashboard.page(missing)
        assert status == 404 and "Location" not in headers
    assert (await dashboard.ask("GET", "/finetune/jobs/"))[0] == 404
    assert (await dashboard.submit("/dashboard/personas/"))[0] == 404, "a form would be lost"


async def test_each_type_of_problem_says_what_it_is(dashboard):
    for slug, (status, title) in PROBLEMS.items():
        assert (await dashboard.ask("GET", f"/problems/{slug}"))[1] == {
            "type": f"/problems/{slug}", "status": status, "title": title,
        }  # fmt: skip
    assert (await dashboard.ask("GET", "/problems/none-of-them"))[0] == 404


async def test_well(dashboard):
    await dashboard.start()
    assert (await dashboard.ask("GET", "/healthz"))[1] == {
        "status": "ok",
        "jobs": {"queued": 1, "running": 0},
        "tasks": {},
    }


async def test_a_fault_inside_is_a_code_that_stands_in_the_log(dashboard, monkeypatch, caplog):
    monkeypatch.setattr(dashboard.queue, "position", lambda job_id: Path(job_id) / 1)
    status, body, _ = await dashboard.start()
    assert status == 500 and "PosixPath" not in str(body)
    code = re.search(r"under (\w+)\.", body["advice"])[1]
    assert code in caplog.text and "unsupported operand" in caplog.text


async def test_it_listens_on_loopback_alone():
    async with run_server(WebServer(), 0) as url:
        assert url.startswith("http://127.0.0.1:")


async def test_routes_of_the_application_it_is_mounted_in_are_not_touched(dashboard):
    async def theirs(request):
        raise web.HTTPGone(text="theirs")

    app = web.Application()
    app.router.add_get("/theirs", theirs)
    WebServer().mount(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with dashboard.session.get(f"{url}/theirs", headers={"Host": "example.org"}) as answer:
        assert (
            answer.status == 410
            and await answer.text() == "theirs"
            and "Cache-Control" not in answer.headers
        )
    await runner.cleanup()
