"""`Idempotency-Key`: once is once, also when the first request is still being worked on, or was cut
off.
"""

import asyncio
import time

import pytest
from aiohttp import web

from bot.platform.db.idempotency_keys import IDEMPOTENCY_KEY_LIFETIME_S
from bot.platform.web_kit.app_context import APP_CONTEXT
from bot.platform.web_kit.idempotency import RUNNING_KEYS, respond_once
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import read_json_object
from tests.fakes import until


class Counter:
    """A handler that counts how often it was asked, and waits while `free` is not set."""

    def __init__(self):
        self.asked, self.free = [], asyncio.Event()
        self.free.set()

    async def __call__(self, request):
        body = await read_json_object(request) if request.body_exists else {}
        self.asked.append(body)
        await self.free.wait()
        if body.get("refuse"):
            raise Problem("conflict", "No.")
        return web.json_response({"done": len(self.asked), **body}, status=201)


@pytest.fixture
async def ask(dashboard, aiohttp_client):
    """Asks a server whose one POST counts; `ask.counter` is its handler."""
    counter = Counter()
    app = web.Application()
    app[APP_CONTEXT], app[RUNNING_KEYS] = dashboard.front._context, set()

    async def handle(request):
        try:
            return await respond_once(request, counter)
        except Problem as problem:
            return web.json_response({"slug": problem.slug}, status=problem.status)

    app.router.add_post("/{name:.*}", handle)
    client = await aiohttp_client(app)

    async def asked(path="/personas/oda/rollback", key="k", **more):
        headers = {"Idempotency-Key": key} if key else {}
        async with client.post(path, headers=headers | more.pop("headers", {}), **more) as got:
            return got.status, await got.json()

    asked.counter = counter
    asked.store = dashboard.store
    return asked


async def test_the_same_key_and_request_are_done_once_and_answered_the_same(ask):
    first = await ask(json={"a": 1})
    assert first == (201, {"done": 1, "a": 1}) == await ask(json={"a": 1})
    assert len(ask.counter.asked) == 1
    assert (await ask(json={"a": 1}, key="other"))[1]["done"] == 2
    assert (await ask(json={"a": 1}, key=None))[1]["done"] == 3


@pytest.mark.parametrize(
    "other",
    [{"json": {"a": 2}}, {"json": {"a": 1}, "path": "/personas/oda/versions/v1/promote"}, {}],
)
async def test_the_same_key_with_another_request_is_a_conflict(ask, other):
    await ask(json={"a": 1})
    assert await ask(**other) == (409, {"slug": "key-used"}) and len(ask.counter.asked) == 1


async def test_what_was_refused_may_be_sent_again_under_the_same_key(ask):
    assert (await ask(json={"refuse": True}))[0] == 409
    assert (await ask(json={"a": 1}))[0] == 201


async def test_a_second_request_while_the_first_is_worked_on_is_asked_to_wait(ask):
    ask.counter.free.clear()
    first = asyncio.create_task(ask(json={"a": 1}))
    await until(lambda: ask.counter.asked)
    assert await ask(json={"a": 1}) == (409, {"slug": "conflict"})
    ask.counter.free.set()
    assert (
        (await first)[0] == 201
        and (await ask(json={"a": 1}))[0] == 201
        and len(ask.counter.asked) == 1
    )


async def test_what_was_cut_off_is_not_done_a_second_time_by_itself(ask):
    assert (await ask(json={"a": 1}))[0] == 201
    ask.store._connection.write(
        "update answered set status = null"
    )  # as after a kill in the middle
    assert await ask(json={"a": 1}) == (409, {"slug": "conflict"}) and len(ask.counter.asked) == 1


async def test_after_a_day_a_key_is_new(ask):
    await ask(json={"a": 1})
    ask.store._connection.write(
        "update answered set at = :at", at=time.time() - IDEMPOTENCY_KEY_LIFETIME_S - 1
    )
    assert (await ask(json={"a": 2}))[1]["done"] == 2


async def test_what_is_older_than_a_day_is_forgotten(ask):
    await ask(json={"a": 1})
    await ask(json={"a": 2}, key="later")
    ask.store._connection.write(
        "update answered set at = 1000.0 where at = (select min(at) from answered)"
    )
    ask.store.idempotency_keys.delete_expired(1001.0 + IDEMPOTENCY_KEY_LIFETIME_S)
    assert len(ask.store._connection.read("select * from answered")) == 1


async def test_a_key_that_can_be_none_is_refused(ask):
    for key in ["two words", "x" * 256, "ключ"]:
        status, body = await ask(key=key)
        assert (status, body["slug"]) == (400, "bad-header") and not ask.counter.asked, key


async def test_a_key_goes_with_json_only(ask):
    status, body = await ask(data=b"x", headers={"Content-Type": "application/octet-stream"})
    assert (status, body["slug"]) == (400, "bad-header")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/finetune/plan", "/dashboard/tokens"])
async def test_other_requests_are_answered_anew(ask, path):
    assert (await ask(path, json={}))[1]["done"] == 1
    assert (await ask(path, json={}))[1]["done"] == 2


async def test_of_a_request_no_more_than_a_hash_is_kept(ask):
    await ask(json={"refuse": False, "secret": "Rosalind"}, key="my-key")
    (row,) = ask.store._connection.read("select key, request from answered")
    assert len(row["key"]) == len(row["request"]) == 32 and b"my-key" not in row["key"]
