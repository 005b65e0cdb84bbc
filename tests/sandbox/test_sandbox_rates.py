"""Rate limits: what is counted, what the headers say, and that the real client lives with them."""

import asyncio
import time

import pytest

from sandbox import Sandbox, patch_discord, traffic_log
from sandbox.network_conditions import GLOBAL_LIMIT, IDENTIFY_LIMIT, ROUTE_LIMITS


@pytest.fixture
def statuses():
    """The status of every answer."""
    seen: list[int] = []

    def note(what: traffic_log.HttpExchange | traffic_log.GatewayEvent) -> None:
        if isinstance(what, traffic_log.HttpExchange):
            seen.append(what.status)

    traffic_log.observers.append(note)
    yield seen
    traffic_log.observers.remove(note)


@pytest.fixture
async def sandbox(seed):
    """With windows so long that none ends by itself during a test."""
    made = Sandbox(seed, rate_window=60.0)
    await made.start()
    yield made
    await made.stop()


async def _webhook(sandbox, api) -> str:
    _, hook, _ = await api(
        "POST", f"/channels/{sandbox.channel('tavern')['id']}/webhooks", {"name": "Mask"}
    )
    return f"/webhooks/{hook['id']}/{hook['token']}"


def test_the_buckets_are_discords():
    assert {(rule.most, rule.window_s) for rule in ROUTE_LIMITS.values()} == {
        (5, 5.0),
        (5, 1.0),
        (5, 2.0),
    }
    assert (
        GLOBAL_LIMIT.most,
        GLOBAL_LIMIT.window_s,
        IDENTIFY_LIMIT.most,
        IDENTIFY_LIMIT.window_s,
    ) == (50, 1.0, 1, 5.0)


async def test_the_sixth_message_in_five_seconds_is_refused(sandbox, api):
    tavern, cellar = (
        f"/channels/{sandbox.channel(name)['id']}/messages" for name in ("tavern", "cellar")
    )
    for left in (4, 3, 2, 1, 0):
        status, _, headers = await api("POST", tavern, {"content": "x"})
        assert status == 200
        assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("5", str(left))
        assert 299 < float(headers["X-RateLimit-Reset-After"]) <= 300
        assert abs(float(headers["X-RateLimit-Reset"]) - time.time() - 300) < 1
    status, answer, refused = await api("POST", tavern, {"content": "x"})
    assert status == 429 and answer["global"] is False and 299 < answer["retry_after"] <= 300
    assert (
        refused["X-RateLimit-Scope"] == "user"
        and refused["Via"]
        and int(refused["Retry-After"]) == 300
    )
    assert refused["X-RateLimit-Bucket"] == headers["X-RateLimit-Bucket"]
    assert len(sandbox.messages("tavern")) == 5
    # Other channels and other routes have buckets of their own; time empties each.
    assert (await api("POST", cellar, {"content": "x"}))[0] == 200
    assert (await api("GET", tavern))[0] == 200
    sandbox.advance(300)
    assert (await api("POST", tavern, {"content": "x"}))[0] == 200


async def test_edits_and_deletions_are_counted_apart(sandbox, api):
    path = f"/channels/{sandbox.channel('tavern')['id']}/messages"
    ids = [(await api("POST", path, {"content": "x"}))[1]["id"] for _ in range(5)]
    sandbox.advance(300)
    ids += [(await api("POST", path, {"content": "x"}))[1]["id"]]
    edits = [(await api("PATCH", f"{path}/{one}", {"content": "y"}))[0] for one in ids]
    deletions = [(await api("DELETE", f"{path}/{one}"))[0] for one in ids]
    assert edits == [200] * 5 + [429] and deletions == [204] * 5 + [429]


async def test_a_webhook_has_its_own(sandbox, api):
    first = await _webhook(sandbox, api)
    second = await _webhook(sandbox, api)
    assert [(await api("POST", first, {"content": "x"}))[0] for _ in range(6)] == [204] * 5 + [429]
    assert (await api("POST", second, {"content": "x"}))[0] == 204


async def test_fifty_a_second_in_all_but_not_what_answers_members(sandbox, api):
    hook = await _webhook(sandbox, api)
    for number in range(49):
        status, _, _ = await api("GET", ("/users/@me", f"/guilds/{sandbox.guild_id}")[number % 2])
        assert status == 200
    status, answer, headers = await api("GET", "/users/@me")
    assert status == 429 and answer["global"] is True
    assert headers["X-RateLimit-Global"] == "true" and headers["X-RateLimit-Scope"] == "global"
    assert (await api("POST", hook, {"content": "x"}))[0] == 204
    assert (await api("POST", "/interactions/1/token/callback", {"type": 4}))[0] == 404


async def test_the_real_client_waits_and_loses_nothing(seed, new_probe, run, statuses):
    sandbox = Sandbox(seed, rate_window=0.02)
    client = new_probe()
    await sandbox.start()
    with patch_discord(sandbox):
        async with run(client, sandbox.token):
            began = time.monotonic()
            sent = await asyncio.gather(*(client.room().send(str(number)) for number in range(12)))
            assert time.monotonic() - began >= 0.2
            hook = await client.room().create_webhook(name="Mask")
            masked = await hook.send("0", wait=True)
            for number in range(8):
                await masked.edit(content=str(number))
            assert 429 not in statuses
            sandbox.rate_limit(2)
            await sent[0].edit(content="after two refusals")
            sandbox.rate_limit(1)
            await masked.edit(content="after one")
    assert statuses.count(429) == 3
    said = [message["content"] for message in sandbox.messages("tavern")]
    assert "after two refusals" in said and said[-1] == "after one" and len(said) == 13
    await sandbox.stop()
