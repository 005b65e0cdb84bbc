"""Servers that limit requests or refuse the account: they are asked when they say so, and everybody
is told at once.
"""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate
from itertools import pairwise

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from personas.engine.remote.openai_engine import OpenAIEngine
from personas.engine.remote.server_errors import ContentRefusedError, ReplicaError, VllmError
from personas.engine.retry_after import MAX_RETRY_AFTER_S, has_no_quota, parse_retry_after
from personas.errors import EngineBusyError, ServerError
from tests.personas.vllm_engine.conftest import FAST, answer, ask
from tests.personas.vllm_engine.test_openai_engine import sse
from tests.personas.vllm_engine.test_replicas import health_of, make_replicas
from tests.personas.vllm_engine.test_vllm_engine import until
from tests.personas.vllm_servers import recordings

NO_QUOTA = {
    "error": {
        "message": "You exceeded your current quota.",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
}
TOO_FAST = {
    "error": {
        "message": "Rate limit reached for requests.",
        "type": "requests",
        "code": "rate_limit_exceeded",
    }
}
NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"Retry-After": format_datetime(datetime.fromtimestamp(NOW + 5, UTC))}, 5.0),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "86400"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
    ],
)
def test_servers_say_when_to_ask_again(headers, seconds):
    assert parse_retry_after(headers, lambda: NOW) == seconds


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (429, NO_QUOTA, True),
        (402, {"error": {"message": "Insufficient Balance"}}, True),
        (400, {"error": {"code": "billing_hard_limit_reached"}}, True),
        (403, {"error": {"code": "billing_not_active"}}, True),
        (429, TOO_FAST, False),
        (429, "insufficient_quota", False),
        (500, {"error": {"code": ["insufficient_quota"]}}, False),
    ],
)
def test_an_account_without_quota_is_told_from_one_that_is_too_fast(status, body, wanted):
    assert has_no_quota(status, body) == wanted


class Gateway:
    """A server with OpenAI's API for one model, which answers replies with `refusal` while that is
    set.
    """

    def __init__(self) -> None:
        self.refusal: tuple[int, dict, dict] | None = None
        self.asked = 0
        self.free = asyncio.Event()
        self.free.set()

    async def reply(self, request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m"}]})
        if request.path != "/v1/chat/completions":
            return web.json_response({"error": "no such path"}, status=404)
        self.asked += 1
        await self.free.wait()
        if self.refusal:
            status, body, headers = self.refusal
            return web.json_response(body, status=status, headers=headers)
        said = {"choices": [{"delta": {"content": "Ada."}, "finish_reason": "stop"}]}
        return sse([said, recordings.DONE])


@pytest.fixture
async def gateway(open_engine):
    """The server, and a function that starts an engine over it."""
    found = Gateway()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.reply)
    async with TestServer(app) as server:

        async def start(**limits) -> OpenAIEngine:
            url = str(server.make_url("")).rstrip("/")
            return await open_engine(url, kind=OpenAIEngine, limits=replace(FAST, **limits))

        yield found, start


async def test_a_server_that_names_a_time_is_not_asked_before_it(gateway):
    server, start = gateway
    engine = await start(patience_s=5.0)
    server.refusal = (429, TOO_FAST, {"retry-after-ms": "400"})
    server.asked = 0
    replies = [asyncio.create_task(answer(engine, ask(str(n)))) for n in range(3)]
    await until(lambda: server.asked)
    began = time.monotonic()
    server.refusal = None
    assert await asyncio.gather(*replies) == ["Ada."] * 3  # they waited, because it is short
    assert time.monotonic() - began > 0.35 and server.asked <= 6


async def test_members_are_told_at_once_where_it_takes_longer(gateway):
    server, start = gateway
    engine = await start(patience_s=5.0)
    server.refusal = (429, TOO_FAST, {"Retry-After": "120"})
    server.asked = 0
    with pytest.raises(EngineBusyError, match=r"Try again in 1[12]\d seconds"):
        await answer(engine, ask())
    for _ in range(5):
        with pytest.raises(EngineBusyError) as raised:
            engine.submit(ask())
        assert 100 < raised.value.wait_s <= 121
    assert server.asked == 1


@pytest.mark.parametrize(
    "refusal",
    [
        (429, NO_QUOTA, {}),
        (403, {"error": {"code": "billing_not_active"}}, {}),
        (401, {"error": "Invalid key"}, {}),
    ],
)
async def test_an_account_that_is_refused_is_asked_seldom_and_the_operator_told_once(
    gateway, caplog, refusal
):
    caplog.set_level(logging.INFO)
    server, start = gateway
    engine = await start(misconfigured_s=0.1, max_refused_s=0.2)
    server.refusal = refusal
    server.asked = 0
    tries = 0
    began = time.monotonic()
    while time.monotonic() - began < 0.4:
        tries += 1
        with pytest.raises(ServerError) as raised:
            async with asyncio.timeout(2):
                await answer(engine, ask(str(tries)))
        assert "127.0.0.1" not in str(raised.value) and "System page" in raised.value.advice
        await asyncio.sleep(0.01)
    assert tries > 10 and server.asked <= 5  # at first, then after 0.1 s and each 0.2 s
    told = [record for record in caplog.records if "gets no replies" in record.getMessage()]
    assert len(told) == 1 and told[0].levelname == "ERROR"
    [problem] = engine.state().problems
    assert str(refusal[0]) in problem and "127.0.0.1" in problem

    server.refusal = None
    await until(lambda: engine.state().device == "1 of 1 servers")
    assert await answer(engine, ask("again")) == "Ada."
    assert not engine.state().problems and "replies again" in caplog.text


async def test_a_prompt_that_the_filter_refuses_fails_alone(gateway):
    server, start = gateway
    engine = await start()
    server.refusal = (403, {"error": {"message": "Your input was flagged"}}, {})
    with pytest.raises(ContentRefusedError, match="flagged"):
        await answer(engine, ask())
    server.refusal = None
    assert engine.state().device == "1 of 1 servers" and not engine.state().problems
    assert await answer(engine, ask("again")) == "Ada."


async def test_a_bot_without_quota_starts_and_one_with_a_wrong_key_does_not(gateway):
    server, start = gateway
    server.refusal = (429, NO_QUOTA, {})
    engine = await start(misconfigured_s=0.1)
    with pytest.raises(ServerError, match="refuses to compute any"):
        await answer(engine, ask())
    server.refusal = None
    await until(lambda: engine.state().device == "1 of 1 servers")
    assert await answer(engine, ask("again")) == "Ada."
    server.refusal = (401, {"error": "Invalid key"}, {})
    with pytest.raises(VllmError, match="does not accept ENGINE_KEY"):
        await start()


async def test_a_server_that_is_slow_to_answer_holds_no_start_while_another_is_ready(
    open_engine, gateway, servers
):
    server, start = gateway
    for one in servers:
        one.has_lora = one.takes_ids = one.has_tokenize = False
    slow = (await start()).urls[0]
    server.free.clear()
    options = {"kind": OpenAIEngine, "model": servers[0].base, "start_wait_s": 0.2}
    async with asyncio.timeout(5):
        engine = await open_engine(servers[0].url, slow, **options)
    assert engine.state().device == "1 of 2 servers" and await answer(engine, ask())
    server.free.set()
    await until(lambda: engine.state().device == "2 of 2 servers")


async def test_another_server_takes_what_one_refuses(open_engine, gateway, servers):
    server, start = gateway
    for one in servers:
        one.has_lora = one.takes_ids = False
        one.has_tokenize = False
    engine = await start()
    url = engine.urls[0]
    both = await open_engine(url, servers[0].url, kind=OpenAIEngine, model=servers[0].base)
    server.refusal = (429, NO_QUOTA, {})
    assert all([await answer(both, ask(str(n))) for n in range(6)])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": "0"},
        {"Retry-After": "-3"},
        {"retry-after-ms": "1"},
        {"Retry-After": formatdate(NOW - 90, usegmt=True)},
    ],
)
def test_a_busy_server_is_asked_ever_more_seldom(headers):
    now = [0.0]
    replicas = make_replicas(1)
    health = health_of(replicas, now)
    [replica] = replicas.all
    wait_s = parse_retry_after(headers, lambda: NOW)
    asked = []
    while now[0] < 120:
        replica.is_ready = True
        health.fail(replica, ReplicaError("limits requests", kind="busy", retry_after_s=wait_s))
        asked.append(now[0])
        now[0] = replica.retry_at
    assert (
        len(asked) < 16
    )  # it was asked 56 times in this time, and about 1000 times if it said "at once"
    longest_s = max(after - before for before, after in pairwise(asked))
    assert longest_s <= replicas.limits.max_busy_backoff_s


def test_a_first_refusal_of_the_account_does_not_wait_longer_after_other_failures():
    now = [0.0]
    replicas = make_replicas(1)
    health = health_of(replicas, now)
    [replica] = replicas.all
    waits = []
    for kind in (*["busy"] * 6, "quota", "busy", "quota", "failed", "quota"):
        replica.is_ready = True
        health.fail(replica, ReplicaError("it fails", kind=kind))
        if kind == "quota":
            waits.append(replica.retry_at - now[0])
        now[0] = replica.retry_at
    assert waits == pytest.approx([30.0, 60.0, 120.0])  # the first was 600
    health.succeed(replica)
    replica.is_ready = True
    health.fail(replica, ReplicaError("no quota", kind="quota"))
    assert replica.retry_at - now[0] == pytest.approx(30.0)


def test_replies_that_fail_together_count_once():
    replicas = make_replicas(1)
    health = health_of(replicas, [10.0])
    [replica] = replicas.all
    for _ in range(32):
        health.fail(replica, ReplicaError("limits requests", kind="busy"))
    assert replica.failures == 1 and replica.retry_at <= 10.0 + 2 * replicas.limits.backoff_s
