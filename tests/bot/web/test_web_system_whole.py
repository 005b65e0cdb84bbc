"""The figures of the real bot: a reply that was made is counted, timed, and its adapter is told
of.
"""

import logging
import re

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.app import open_app
from bot.demo_guild import MEMBER
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from tests.bot.conftest import QUAY
from tests.fakes import until


@pytest.fixture
def settings(tmp_path, tiny_base):
    given = {
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
    }
    return load_settings(None, {**given, "MAX_NEW_TOKENS": "8"})


@pytest.mark.slow
async def test_a_reply_is_counted_and_timed(settings, tiny_base):
    async with (
        open_app(settings, ShippedData.from_source_tree()) as app,
        aiohttp.ClientSession(app.url) as session,
    ):
        await app.sandbox.member(MEMBER).say(QUAY, "is the ferry late?")
        watch = app.services.metrics
        await until(lambda: watch.whole_reply.replies == 1, 30)
        async with session.get("/metrics") as answer:
            found = {it.name: it for it in text_string_to_metric_families(await answer.text())}
        async with session.get("/system") as answer:
            state = await answer.json()
        async with session.get("/dashboard/system", headers={"Accept": "text/html"}) as answer:
            page = await answer.text()
    counts = {it.labels["finish"]: it.value for it in found["understudy_replies"].samples}
    assert counts["failed"] == counts["cancelled"] == 0 and counts["stop"] + counts["length"] == 1
    (connected,) = found["understudy_connected"].samples
    assert connected.value == 1 and found["understudy_servers"].samples[0].value == 1
    assert state["engine"]["model"] == tiny_base.name and state["engine"]["device"] == "cpu"
    assert state["whole_reply"]["p50"] > 0 and state["connection"]["is_ready"]
    assert {check["state"] for check in state["health"] if check["name"] != "disk"} == {"ok"}
    assert re.search(r'data-figure="replies">1<', page) and "the guild on this machine" in page
    assert watch.warnings not in logging.getLogger().handlers, "it listens no longer"
