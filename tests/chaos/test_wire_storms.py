"""Whatever happens between bot and Discord, each reply is there once and has an end."""

import asyncio

import aiohttp
import pytest

from bot.demo_guild import MEMBER, SKERROW_SEED
from sandbox import FaultRates, Sandbox
from tests.bot.conftest import QUAY
from tests.chaos.wire_storms import run


@pytest.mark.parametrize(("first", "seeds"), [(1, 3), pytest.param(4, 17, marks=pytest.mark.slow)])
async def test_disturbed_requests_and_events_lose_double_and_leave_nothing(first, seeds):
    outcome = await run(seeds=seeds, first=first)
    assert outcome.tried == seeds and outcome.is_clean, outcome


class TestTheFaultsThemselves:
    """The effect of each fault on a client."""

    @pytest.fixture
    async def sandbox(self):
        made = Sandbox(SKERROW_SEED, rate_window=0.001)
        await made.start()
        yield made
        await made.stop()

    async def post(self, sandbox: Sandbox) -> int | str:
        channel = sandbox.channel(QUAY)["id"]
        url = f"{sandbox.url}/api/v10/channels/{channel}/messages"
        token = {"Authorization": f"Bot {sandbox.token}"}
        async with aiohttp.ClientSession() as session:
            try:
                async with session.post(url, json={"content": "hello"}, headers=token) as response:
                    return response.status
            except aiohttp.ClientError as error:
                return type(error).__name__

    @pytest.mark.parametrize(
        ("kind", "answers", "posted"),
        [
            ("error_before", {500, 502, 503, 504}, 0),
            ("error_after", {500, 502, 503, 504}, 1),
            ("cut_before", {"ServerDisconnectedError", "ClientOSError"}, 0),
            ("cut_after", {"ServerDisconnectedError", "ClientOSError"}, 1),
            ("limited", {429}, 0),
            ("limited_globally", {429}, 0),
            ("slow", {200}, 1),
        ],
    )
    async def test_a_request_fails_before_or_after_its_effect(self, sandbox, kind, answers, posted):
        sandbox.disturb(FaultRates(**{kind: 1.0}))
        assert await self.post(sandbox) in answers
        sandbox.disturb()
        assert len(sandbox.messages(QUAY)) == posted
        assert await self.post(sandbox) == 200

    async def test_the_same_seed_gives_the_same_faults(self, sandbox):
        async def answers(seed: int) -> list[int | str]:
            sandbox.disturb(FaultRates.storm(0.5), seed)
            return [await self.post(sandbox) for _ in range(12)]

        first = await answers(1)
        again = await answers(1)
        other = await answers(2)
        assert first == again != other

    async def test_events_come_twice_late_again_or_after_a_resume(self, sandbox):
        seen = {}
        for kind in ("duplicated", "reordered", "replayed", "dropped", "session_lost"):
            seen[kind] = await self._numbers(sandbox, kind)
        assert seen["duplicated"].count(seen["duplicated"][0]) == 2
        assert (
            seen["reordered"] == sorted(seen["reordered"], reverse=True)[:2]
            or len(seen["reordered"]) == 2
        )
        assert len(seen["replayed"]) >= 3
        assert seen["dropped"] == seen["session_lost"] == []

    async def _numbers(self, sandbox: Sandbox, kind: str) -> list[int]:
        """The numbers of the events that a new client gets for two messages."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{sandbox.url}/gateway") as socket,
        ):
            await socket.receive_json()
            identify = {"token": sandbox.token, "intents": 1 << 9, "properties": {}}
            await socket.send_json({"op": 2, "d": identify})
            await socket.receive_json()
            sandbox.disturb(FaultRates(**{kind: 1.0}))
            for text in ("one", "two"):
                await sandbox.member(MEMBER).say(QUAY, text)
            sandbox.disturb()
            numbers = []
            while True:
                try:
                    frame = await asyncio.wait_for(socket.receive(), 0.3)
                except TimeoutError:
                    return numbers
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    return numbers
                event = frame.json()
                if event["t"] == "MESSAGE_CREATE":
                    numbers.append(event["s"])


def test_rates_are_shares():
    with pytest.raises(ValueError, match="not between 0 and 1: slow"):
        FaultRates(slow=2.0)
