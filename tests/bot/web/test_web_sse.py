"""Server-sent events: order, pings, an end; whoever goes away is noticed."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from bot.platform.web_kit.app_context import APP_CONTEXT, AppContext
from bot.platform.web_kit.sse import encode_event, stream_events
from personas.errors import UnderstudyError
from tests.fakes import until


class Telling:
    """A server with one stream, which tells what is put into `items`."""

    def __init__(self, ping_s: float) -> None:
        self.items: asyncio.Queue[tuple[str, str, object] | None] = asyncio.Queue()
        self.ping_s, self.closed, self.tenant = (
            ping_s,
            asyncio.Event(),
            AppContext(cast(Any, SimpleNamespace(home=None))),
        )

    async def follow(self, after):
        try:
            if after:
                yield after, "again", {"after": after}
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()

    async def handler(self, request):
        return await stream_events(
            request, self.follow(request.headers.get("Last-Event-ID")), ping_s=self.ping_s
        )


@pytest.fixture
async def telling(aiohttp_client):
    made = Telling(ping_s=0.05)
    app = web.Application()
    app[APP_CONTEXT] = made.tenant
    app.router.add_get("/", made.handler)  # with HEAD
    made.client = await aiohttp_client(app)
    return made


async def test_events_come_in_order_and_the_stream_ends_with_them(telling):
    for number in (1, 2):
        telling.items.put_nowait((str(number), "step", {"loss": number, "name": "Ödon\n<b>"}))
    telling.items.put_nowait(None)
    async with telling.client.get("/") as answer:
        assert (
            answer.content_type == "text/event-stream"
            and answer.headers["Cache-Control"] == "no-store"
        )
        text = await answer.text()
    assert text.startswith("retry: 2000\n\n")
    assert text.split("\n\n")[1:3] == [
        f'id: {n}\nevent: step\ndata: {{"loss": {n}, "name": "Ödon\\n<b>"}}' for n in (1, 2)
    ]
    assert telling.closed.is_set()


async def test_in_silence_it_says_that_it_is_still_there(telling):
    async with telling.client.get("/") as answer:
        await answer.content.readuntil(b": still here\n\n")
        telling.items.put_nowait(("9", "step", 1))
        assert b"id: 9" in await answer.content.readuntil(b"id: 9\n")


async def test_whoever_comes_back_says_what_came_last(telling):
    async with telling.client.get("/", headers={"Last-Event-ID": "7"}) as answer:
        assert b'"after": "7"' in await answer.content.readuntil(b"}\n")


async def test_whoever_goes_away_is_noticed_and_what_was_made_for_them_ends(telling):
    answer = await telling.client.get("/")
    answer.close()
    await asyncio.wait_for(telling.closed.wait(), 3)


async def test_when_the_bot_ends_so_do_the_streams(telling):
    async with telling.client.get("/") as answer:
        telling.tenant.services = None
        await asyncio.wait_for(answer.read(), 3)
    await until(telling.closed.is_set, 1)


async def test_an_error_in_the_middle_is_reported_as_the_last_event(telling, caplog):
    full = UnderstudyError("The disk is full.", "Free some.")
    for error, words in ((full, '"advice": "Free some."'), (KeyError("x"), "log has")):
        telling.items.put_nowait(("1", "step", 1))
        telling.items.put_nowait(error)
        async with telling.client.get("/") as answer:
            last = (await answer.text()).strip().rpartition("\n\n")[2]
        assert last.startswith("event: problem\n") and words in last
    assert "KeyError" in caplog.text


async def test_asked_for_its_headers_alone_it_does_not_begin(telling):
    async with telling.client.head("/") as answer:
        assert answer.status == 200 and answer.content_type == "text/event-stream"


def test_an_id_or_a_name_cannot_begin_another_line():
    assert encode_event(("1\ndata: x", "a\r\nb", {})) == b"id: 1 data: x\nevent: a  b\ndata: {}\n\n"
    assert encode_event(("", "", [1])) == b"data: [1]\n\n"
