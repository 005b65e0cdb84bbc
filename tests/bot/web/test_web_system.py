"""What runs, for people and programs: the page, its events, `/system`, `/metrics`, and the doctor
in the background.
"""

import asyncio
import json
import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.operations.doctor import trainer_check
from bot.operations.doctor.cached_results import local_check_runner
from bot.operations.doctor.checks import BotCheck
from bot.operations.metrics import BotMetrics, percentiles
from bot.operations.web import pages as system_page
from bot.operations.web import system_state
from bot.platform.clock import BackgroundTask
from bot.settings import Settings
from bot.store import StoreError
from bot.training.store import NewTrainingJob
from personas.engine import RequestMetrics
from personas.schemas.training import TrainingRequest
from tests.fakes import until
from tests.full_disk import files_of_at_most

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def answered(first_s=0.2, whole_s=1.5):
    return RequestMetrics(first_s, whole_s, 100, 20, "stop")


async def text_of(dashboard, path, **headers):
    async with dashboard.session.get(path, headers={"Accept": "text/html", **headers}) as answer:
        return answer.status, await answer.text(), answer.headers


async def families(dashboard):
    status, text, headers = await text_of(dashboard, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(family, **labels):
    """The one sample with these labels; a counter's without `_created`."""
    (found,) = [
        it.value
        for it in family.samples
        if it.labels == labels and not it.name.endswith("_created")
    ]
    return found


async def test_what_servers_refuse_is_on_the_overview_and_the_system_page_until_it_has_passed(
    dashboard, monkeypatch
):
    problem = "https://llm.example has no quota left (429): You exceeded it. Add credit there."
    state = dashboard.engine.state()
    for rows, words in ((0, "no replies are computed"), (32, "some servers compute no replies")):
        monkeypatch.setattr(
            dashboard.engine,
            "state",
            lambda rows=rows: replace(state, rows=rows, problems=(problem,)),
        )
        _, overview, _ = await text_of(dashboard, "/dashboard")
        assert problem in overview and "A server computes no replies" in overview
        _, page, _ = await text_of(dashboard, "/dashboard/system")
        assert words in page
    monkeypatch.undo()
    assert problem not in (await text_of(dashboard, "/dashboard"))[1]


async def test_metrics_are_what_prometheus_reads(dashboard):
    watch = dashboard.services.metrics
    watch.reply(answered())
    watch.reply(RequestMetrics(None, 0.1, 0, 0, "failed"))
    request = TrainingRequest(job_name="j", persona="oda")
    dashboard.store.jobs.add(NewTrainingJob("a1", 0, 0, 0, request), 1.0)
    found = await families(dashboard)
    replies = found["understudy_replies"]
    assert {it.labels["finish"]: it.value for it in replies.samples} == {
        "stop": 1, "length": 0, "cancelled": 0, "failed": 1,
    }  # fmt: skip
    assert (
        value(found["understudy_tokens"], kind="reply") == 20
        and value(found["understudy_tokens"], kind="prompt") == 100
    )
    buckets = [
        it for it in found["understudy_reply_seconds"].samples if it.name.endswith("_bucket")
    ]
    assert {it.labels["le"]: it.value for it in buckets}["2.0"] == 1 and {
        it.labels["le"]: it.value for it in buckets
    }["1.0"] == 0
    assert (
        value(found["understudy_jobs"], state="queued") == 1
        and value(found["understudy_jobs"], state="failed") == 0
    )
    assert value(found["understudy_resident_memory_bytes"], process="bot") > 2**20
    assert (
        value(found["understudy_engine_rows"]) == 32
        and value(found["understudy_start_time_seconds"]) > 1.7e9
    )
    assert (
        value(found["understudy_build_info"], **found["understudy_build_info"].samples[0].labels)
        == 1
    )


async def test_names_follow_the_conventions_and_stand_in_the_documentation(dashboard):
    written = DOCS.read_text(encoding="utf-8")
    for name, family in (await families(dashboard)).items():
        assert re.fullmatch(r"understudy_[a-z_]+", name) and family.documentation
        assert not re.search(r"_(ms|milliseconds|mb|kb|percent)(_|$)", name), (
            "seconds, bytes and shares alone"
        )
        shown = f"{name}_total" if family.type == "counter" else name
        assert f"`{shown}`" in written, f"docs/metrics.md does not tell of {shown}"
    result = set(re.findall(r"^\| `(understudy_\w+)`", written, re.MULTILINE))
    there = {
        f"{name}_total" if it.type == "counter" else name
        for name, it in (await families(dashboard)).items()
    }
    only_sometimes = {it for it in result if re.search(r"gpu|connected|heartbeat|servers", it)}
    assert result - only_sometimes == there


async def test_programs_are_reported_the_state(dashboard):
    status, result, _ = await dashboard.ask("GET", "/system")
    assert (
        status == 200
        and result["processes"][0]["what"] == "bot"
        and result["engine"]["model"] == "a fake"
    )
    assert result["jobs"] == {"queued": 0, "running": 0, "done": 0, "failed": 0, "cancelled": 0}
    assert result["first_text"]["replies"] == 0 and result["first_text"]["p50"] is None
    assert {check["name"] for check in result["health"]} == {"replies", "disk"}


async def test_a_background_task_that_fails_is_shown_and_the_bot_degraded(dashboard):
    async def work():
        raise OSError(28, f"No space left in {dashboard.home}")

    async def wait():
        await asyncio.Event().wait()

    services = dashboard.services
    services.background.append(BackgroundTask("retention", work, wait, dashboard.clock))
    assert (await dashboard.ask("GET", "/healthz"))[1]["tasks"] == {"retention": "ok"}
    services.background[0].start()
    await until(lambda: services.background[0].error)
    status, health, _ = await dashboard.ask("GET", "/healthz")
    assert (status, health["status"]) == (200, "degraded")
    assert health["tasks"] == {"retention": "[Errno 28] No space left in UNDERSTUDY_HOME"}
    _, result, _ = await dashboard.ask("GET", "/system")
    (check,) = [check for check in result["health"] if check["name"] == "retention"]
    assert check["state"] == "warn" and "No space left in UNDERSTUDY_HOME" in check["found"]
    assert "No space left" in (await text_of(dashboard, "/dashboard/system"))[1]
    await services.background[0].stop()


async def test_a_home_that_takes_no_write_makes_the_bot_unhealthy_until_it_does(
    dashboard, monkeypatch
):
    probes, clock = [], SimpleNamespace(monotonic=lambda: 1000.0 + 3 * len(probes), time=time.time)
    monkeypatch.setattr(system_state, "time", clock)
    assert (await dashboard.ask("GET", "/healthz"))[0] == 200
    with files_of_at_most(0):
        with pytest.raises(StoreError):
            dashboard.store.guilds.record_left(1, 1.0)
        assert (await dashboard.ask("GET", "/healthz"))[0] == 200, "it was tried a moment ago"
        probes += [1, 1]
        status, problem, _ = await dashboard.ask("GET", "/healthz")
    assert (status, problem["type"]) == (503, "/problems/not-stored")
    assert "UNDERSTUDY_HOME: File too large" in problem["detail"]
    assert str(dashboard.home) not in json.dumps(problem) and "Free space" in problem["advice"]
    probes += [1, 1]
    assert (await dashboard.ask("GET", "/healthz"))[0] == 200
    assert not [path for path in dashboard.home.iterdir() if "tmp" in path.name]


async def test_the_page_tells_figures_warnings_permissions_and_escapes_them(dashboard):
    services = dashboard.services
    services.metrics.reply(answered(0.25, 2.0))
    with services.metrics.listening():
        logging.getLogger("bot.test").warning("a <script>alert(1)</script> in %s", services.home)
        logging.getLogger("bot.test").info("nobody has to see this")
    status, text, headers = await text_of(dashboard, "/dashboard/system")
    assert status == 200 and "script-src 'self'" in headers["Content-Security-Policy"]
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text
    assert (
        "UNDERSTUDY_HOME" in text
        and str(services.home) not in text
        and "nobody has to see" not in text
    )
    assert ">0.2 s<" in text.replace("0.3 s", "0.2 s") and ">2.0 s<" in text
    assert "Manage Webhooks" in text and "answer under a persona" in text


async def test_an_open_page_is_reported_again_and_again(dashboard, monkeypatch):
    monkeypatch.setattr(system_page, "REFRESH_INTERVAL_S", 0.05)
    async with dashboard.session.get("/dashboard/system/events") as answer:
        assert answer.content_type == "text/event-stream"
        events = []
        async for line in answer.content:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
                dashboard.services.metrics.reply(answered())
            if len(events) == 2:
                break
    assert events[0]["figures"]["replies"] == "0" and events[1]["figures"]["replies"] == "1"
    assert events[0]["rows"]["processes"][0][0] == "bot" and events[0]["asking"] is False


async def test_the_doctor_looks_when_asked_and_what_it_finds_is_shown(dashboard):
    go = asyncio.Event()
    asked = []

    async def ask(base_model):
        asked.append(base_model)
        await go.wait()
        return [BotCheck("torch", "warn", "slow <b>", "wait for it")]

    dashboard.services.metrics.findings.run_checks = ask
    _, text, _ = await text_of(dashboard, "/dashboard/system")
    assert (
        "has not checked this machine" in text and '<details class="card fold" id="doctor">' in text
    )
    for _ in range(2):
        own = {"Origin": dashboard.url, "Content-Type": "application/x-www-form-urlencoded"}
        async with dashboard.session.post(
            "/dashboard/system/doctor", headers=own, allow_redirects=False
        ) as answer:
            assert answer.status == 303 and answer.headers["Location"].startswith(
                "/dashboard/system"
            )
    _, text, _ = await text_of(dashboard, "/dashboard/system")
    assert "The doctor is checking" in text
    go.set()
    await until(lambda: not dashboard.services.metrics.findings.is_running)
    _, text, _ = await text_of(dashboard, "/dashboard/system")
    assert asked == ["embedded"] and "slow &lt;b&gt;" in text and "wait for it" in text
    assert '<details class="card fold" id="doctor" open>' in text and ">1 of 1 not ok, " in text


async def test_the_doctor_looks_at_home_and_port_too(tmp_path, monkeypatch):
    async def machine(base_model, environ):
        return [BotCheck("torch", "ok", f"computes {base_model}")]

    monkeypatch.setattr(trainer_check, "check_trainer", machine)
    tmp_path.chmod(0o755)
    found = await local_check_runner(Settings(home=tmp_path))("embedded")
    assert {"token", "home", "database", "port", "torch"} <= {check.name for check in found}
    (home,) = (check for check in found if check.name == "home")
    assert home.state == "warn" and "chmod 700" in home.remedy


def test_percentiles_are_values_that_were_measured():
    assert percentiles([]).p50 is None
    hundred = percentiles([float(n) for n in range(100, 0, -1)])
    assert (hundred.replies, hundred.p50, hundred.p90, hundred.p99) == (100, 50.0, 90.0, 99.0)
    assert percentiles([3.0]).p99 == 3.0


@pytest.mark.parametrize("finish", ["cancelled", "failed"])
def test_what_nobody_waited_for_is_counted_but_is_no_latency(finish):
    watch = BotMetrics()
    watch.reply(RequestMetrics(0.1, 0.2, 5, 1, finish))
    assert watch.whole_reply.replies == 0
    assert watch.registry.get_sample_value("understudy_replies_total", {"finish": finish}) == 1


def test_warnings_are_kept_with_what_caused_them_and_counted():
    watch = BotMetrics()
    with watch.listening():
        try:
            raise OSError("the disk is full")
        except OSError:
            logging.getLogger("bot.store").exception("nothing was written")
    logging.getLogger("bot.store").warning("after it nobody listens")
    (line,) = watch.warnings.lines
    assert line.words == "nothing was written (OSError: the disk is full)" and line.level == "ERROR"
    assert watch.registry.get_sample_value("understudy_log_lines_total", {"level": "error"}) == 1
