"""Discord's limits for all processes together: requests in any second, invalid requests, identifies
by bucket.
"""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from bot.operations.shards import request_limiter
from bot.operations.shards.request_limiter import (
    IDENTIFIES,
    INVALID_REQUESTS,
    REQUESTS,
    RateBudget,
    RequestLimiter,
    Reservations,
)
from bot.operations.shards.shared_log import SqliteDatabase


@pytest.fixture
def file(tmp_path):
    return SqliteDatabase(tmp_path / "limits.sqlite")


class Clock:
    """Time that passes by a step at each look."""

    def __init__(self, step_s=0.0):
        self.now = 1_800_000_000.0
        self.step_s = step_s

    def __call__(self):
        self.now += self.step_s
        return self.now


@pytest.mark.parametrize("step_s", [0.0, 0.01, 0.1])
async def test_two_processes_together_stay_within_fifty_requests_a_second(file, step_s):
    clock = Clock(step_s)
    both = [Reservations(file, clock=clock) for _ in range(2)]

    async def requests(reservations):
        return [
            clock.now + max(await reservations.reserve("application", REQUESTS), 0)
            for _ in range(60)
        ]

    times = sorted([at for some in await asyncio.gather(*map(requests, both)) for at in some])
    assert max(sum(start <= at < start + 0.999 for at in times) for start in times) <= 50
    if not step_s:
        assert times[-1] - times[0] < 120 / 45 + 0.1  # they use what there is
    for one in both:
        await one.close()


async def test_the_first_requests_do_not_wait(file):
    reservations = Reservations(file, clock=Clock())
    waits = [await reservations.reserve("application", REQUESTS) for _ in range(8)]
    assert all(wait <= 0.001 for wait in waits[:5]) and waits[7] > 0.02
    assert await reservations.reserve("another", REQUESTS) <= 0
    await reservations.close()


async def test_shards_of_one_bucket_identify_five_seconds_apart(file):
    waited = []
    clock = Clock()
    reservations = [Reservations(file, clock=clock) for _ in range(2)]
    limiters = [
        RequestLimiter(one, lambda wait: waited.append(wait) or asyncio.sleep(0))
        for one in reservations
    ]
    for limiter in limiters:
        limiter.max_concurrency = 2
    await limiters[0].identify(0)
    await limiters[1].identify(1)
    assert sum(waited) < 0.001  # another bucket
    waited.clear()
    await limiters[1].identify(2)
    await limiters[0].identify(4)
    assert waited == [
        pytest.approx(IDENTIFIES.interval_s),
        pytest.approx(2 * IDENTIFIES.interval_s),
    ]
    for limiter in limiters:
        await limiter.close()


@pytest.mark.parametrize(
    ("status", "scope", "blocks"), [(403, "", True), (429, "shared", False), (200, "", False)]
)
async def test_after_too_many_invalid_responses_requests_wait(
    file, status, scope, blocks, monkeypatch, caplog
):
    assert INVALID_REQUESTS.burst + 600 / INVALID_REQUESTS.interval_s < 10_000
    monkeypatch.setattr(request_limiter, "INVALID_REQUESTS", RateBudget(30.0, burst=2))
    waited = []
    limiter = RequestLimiter(
        Reservations(file), lambda wait: waited.append(wait) or asyncio.sleep(0)
    )

    async def answer(request):
        return web.Response(status=status, headers={"X-RateLimit-Scope": scope})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/channels/1"
    async with aiohttp.ClientSession(
        trace_configs=[limiter.trace()], headers={"Authorization": "Bot x"}
    ) as http:
        for _ in range(4):
            await (await http.get(url)).read()
    assert bool(waited) == blocks and all(20 < wait < 31 for wait in waited[:1])
    assert ("Check the bot's permissions" in caplog.text) == blocks
    await runner.cleanup()
    await limiter.close()


async def test_while_requests_wait_edits_come_later(file):
    limiter = RequestLimiter(Reservations(file, clock=Clock()), lambda wait: asyncio.sleep(0))

    async def answer(request):
        return web.Response()

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(trace_configs=[limiter.trace()]) as http:
        await (await http.get(url + "/channels/1")).read()
        assert limiter.edit_stretch_s == 0
        for _ in range(60):
            await (await http.get(url + "/channels/1")).read()
        busy = limiter.edit_stretch_s
        assert 0.5 < busy <= 10
        for _ in range(3):
            await (await http.get(url + "/interactions/1/token/callback")).read()
        assert limiter.edit_stretch_s == busy  # these are not limited
    await runner.cleanup()
    await limiter.close()


async def test_without_the_shared_database_this_hosts_limit_remains(file, tmp_path):
    away = SqliteDatabase(tmp_path / "nowhere" / "limits.sqlite")
    reservations = Reservations(away, Reservations(file, clock=Clock()))
    waits = [await reservations.reserve("application", REQUESTS) for _ in range(7)]
    assert waits[0] <= 0 < waits[6]
    await reservations.close()
