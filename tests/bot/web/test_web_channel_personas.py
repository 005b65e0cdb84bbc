"""Pages and the API name all personas of a channel, and mark its default."""

import time

import pytest

from bot.store import Channel

GUILD, CHANNEL = 7, 70


@pytest.fixture
def shared(dashboard):
    """Three personas live in a channel, Oda as its default."""
    channel = Channel(GUILD, CHANNEL, "oda", "everything", set_by=1, set_at=time.time())
    dashboard.store.channels.assign(channel, ["thrip", "ballast"])
    return dashboard


async def test_each_persona_has_the_channel_with_the_others_beside_it(shared):
    _, oda, _ = await shared.ask("GET", "/personas/oda")
    (channel,) = oda["channels"]
    assert channel["answers"] == "answers everything"
    assert channel["beside"] == "as the default beside Sir Aurelio Thrip and Ballast"
    _, listed, _ = await shared.ask("GET", "/personas")
    by_id = {persona["id"]: persona["channels"] for persona in listed["personas"]}
    (channel,) = by_id["ballast"]
    assert channel["answers"] == "answers when it is called"
    assert channel["beside"] == "beside Oda Marrow (the default) and Sir Aurelio Thrip"
    assert len(by_id["thrip"]) == 1


async def test_pages_name_them(shared):
    for path in ["/dashboard", "/dashboard/personas"]:
        _, page, _ = await shared.page(path)
        assert page.count("as the default beside Sir Aurelio Thrip and Ballast") == 1, path
        assert page.count("beside Oda Marrow (the default) and Sir Aurelio Thrip") == 1, path
        assert page.count("beside Oda Marrow (the default) and Ballast") == 1, path


async def test_settings_of_the_channel_are_on_the_pages_of_all(shared):
    for persona in ("oda", "thrip"):
        _, page, _ = await shared.page(f"/dashboard/personas/{persona}/replies")
        assert f"{GUILD}-{CHANNEL}" in page and "for all personas of it" in page
        place = f"{GUILD}-{CHANNEL}"
        status, _, _ = await shared.page(f"/dashboard/personas/{persona}/replies?place={place}")
        assert status == 200


async def test_a_persona_alone_has_nobody_beside_it(dashboard):
    channel = Channel(GUILD, CHANNEL, "oda", "mentions", set_by=1, set_at=time.time())
    dashboard.store.channels.assign(channel)
    _, oda, _ = await dashboard.ask("GET", "/personas/oda")
    (channel,) = oda["channels"]
    assert (channel["answers"], channel["beside"]) == ("answers when it is mentioned", "")
