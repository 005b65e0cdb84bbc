"""Length, sampling and context of replies over HTTP and on a persona's page."""

import html
import re
import time

import pytest

from bot.generation.store import GenerationScope, GenerationSettings
from bot.store import Channel

PATH = "/personas/oda/generation"
PAGE = "/dashboard/personas/oda/replies"
GUILD, CHANNEL = 7, 70
FIELDS = ("max_new_tokens", "temperature", "top_p", "context_tokens")


@pytest.fixture
def lives_here(dashboard):
    """Oda lives in a channel."""
    channel = Channel(GUILD, CHANNEL, "oda", "everything", set_by=1, set_at=time.time())
    dashboard.store.channels.assign(channel)
    return dashboard


def stored(dashboard, guild_id=0, channel_id=0):
    persona = "" if channel_id else "oda"
    return dashboard.store.generation.get(GenerationScope(guild_id, channel_id, persona))


async def test_values_are_set_for_each_place_and_the_most_specific_holds(lives_here):
    dashboard = lives_here
    places = [{}, {"guild": str(GUILD)}, {"guild": str(GUILD), "channel": str(CHANNEL)}]
    for number, place in enumerate(places, start=1):
        body = {**place, "max_new_tokens": 100 * number}
        status, result, _ = await dashboard.ask("PATCH", PATH, json=body)
        assert status == 200 and result["holds"]["max_new_tokens"]["value"] == 100 * number
    for number, (place, source) in enumerate(
        zip(places, ("everywhere", "persona", "channel"), strict=True), start=1
    ):
        _, result, _ = await dashboard.ask("GET", PATH, params=place)
        assert result["holds"]["max_new_tokens"] == {"value": 100 * number, "source": source}
    listed = [
        (one["guild"], one["channel"], one["settings"]["max_new_tokens"])
        for one in result["places"]
    ]
    assert listed == [("0", None, 100), (str(GUILD), None, 200), (str(GUILD), str(CHANNEL), 300)]
    assert result["bounds"]["max_new_tokens"] == {
        "low": 1, "high": 512, "reason": "the operator's NEW_TOKENS_LIMIT",
    }  # fmt: skip
    status, result, _ = await dashboard.ask("PATCH", PATH, json={"max_new_tokens": None})
    assert status == 200 and stored(dashboard) == GenerationSettings()
    status, result, _ = await dashboard.ask("DELETE", PATH, params=places[2])
    assert status == 200 and result["holds"]["max_new_tokens"]["source"] == "persona"
    status, refused, _ = await dashboard.ask("DELETE", PATH, params=places[2])
    assert status == 409 and "Nothing is set" in refused["detail"]


async def test_the_german_heading_fits_all_servers(dashboard):
    _, page, _ = await dashboard.page(PAGE, headers={"Accept-Language": "de"})
    assert ">Antworten: alle Server</h2>" in page


async def test_counts_of_tokens_are_integers(dashboard):
    body = {"max_new_tokens": 100, "context_tokens": 1024}
    _, result, _ = await dashboard.ask("PATCH", PATH, json=body)
    for name in body:
        numbers = [result["holds"][name]["value"], result["bounds"][name]["low"]]
        numbers += [result["bounds"][name]["high"], result["places"][0]["settings"][name]]
        assert {type(number) for number in numbers} == {int}


async def test_replies_over_http_and_previews_have_the_personas_own(dashboard):
    await dashboard.ask(
        "PATCH", PATH, json={"max_new_tokens": 77, "temperature": 0.1, "context_tokens": 1024}
    )
    said = {"model": "oda", "messages": [{"role": "user", "content": "hello"}]}
    assert (await dashboard.ask("POST", "/v1/chat/completions", json=said))[0] == 200
    request = dashboard.engine.requests[-1]
    assert (request.sampling.max_new_tokens, request.sampling.temperature) == (77, 0.1)
    assert request.context_tokens == 1024
    own = {**said, "temperature": 1, "max_tokens": 30}
    assert (await dashboard.ask("POST", "/v1/chat/completions", json=own))[0] == 200
    request = dashboard.engine.requests[-1]
    assert (request.sampling.max_new_tokens, request.sampling.temperature) == (30, 1)
    other = {**said, "model": "ballast"}
    assert (await dashboard.ask("POST", "/v1/chat/completions", json=other))[0] == 200
    assert dashboard.engine.requests[-1].sampling.max_new_tokens == 120


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"max_new_tokens": 600}, 409, "NEW_TOKENS_LIMIT"),
        ({"max_new_tokens": 5000}, 409, "from 1 to 512"),
        ({"max_new_tokens": 0}, 422, "max_new_tokens"),
        ({"context_tokens": 4096}, 409, "the engine's context"),
        ({"temperature": 3}, 422, "'a number from 0 to 2'"),
        ({"temprature": 1}, 422, "temprature"),
        ({"max_new_tokens": "many"}, 422, "max_new_tokens"),
        ({}, 409, "Nothing was given"),
        ({"guild": "1", "temperature": 1}, 404, "no server 1"),
        ({"guild": str(GUILD), "channel": "71", "top_p": 0.5}, 404, "no channel 71"),
        ({"channel": str(CHANNEL), "top_p": 0.5}, 404, "no channel 70"),
    ],
)
async def test_what_cannot_be_set_is_refused_and_changes_nothing(lives_here, body, status, words):
    refused_status, refused, _ = await lives_here.ask("PATCH", PATH, json=body)
    assert refused_status == status
    assert words in str(refused)
    assert lives_here.store.generation.all() == []


async def test_a_strange_place_in_the_query_is_refused(dashboard):
    status, refused, _ = await dashboard.ask("GET", PATH, params={"guild": "seven"})
    assert status == 422 and "guild is no id" in refused["detail"]
    status, refused, _ = await dashboard.ask("GET", PATH, params={"guild": "9" * 20})
    assert status == 404 and "no server or channel" in refused["detail"]
    status, _, _ = await dashboard.page(f"{PAGE}?place={'9' * 19}-1")
    assert status == 404


def form_of(page):
    """The page's form as a browser would send it."""
    fields = {}
    form = page.split(f'action="{PAGE}">')[1]
    for tag in re.findall(r"<input[^>]*>", form.split("</form>")[0]):
        name = re.search(r'name="([^"]+)"', tag)
        if name:
            fields[name[1]] = html.unescape(re.search(r'value="([^"]*)"', tag)[1])
    return fields


async def test_the_page_shows_what_holds_and_why_and_changes_a_place(lives_here):
    dashboard = lives_here
    key = f"{GUILD}-{CHANNEL}"
    status, page, _ = await dashboard.page(f"{PAGE}?place={key}")
    assert status == 200 and "Now 120 tokens (the default)" in page
    fields = form_of(page)
    assert fields["place"] == key and fields["max_new_tokens"] == ""
    status, _, headers = await dashboard.submit(PAGE, **{**fields, "max_new_tokens": "250"})
    assert status == 303 and headers["Location"].endswith(f"place={key}")
    assert stored(dashboard, GUILD, CHANNEL) == GenerationSettings(250)
    _, page, _ = await dashboard.page(f"{PAGE}?place={key}")
    assert "set for this channel" in page and form_of(page)["max_new_tokens"] == "250"
    status, _, _ = await dashboard.submit(PAGE, **form_of(page))
    assert status == 303, "nothing was changed"
    await dashboard.submit(PAGE, **{**form_of(page), "max_new_tokens": "", "top_p": "0.5"})
    assert stored(dashboard, GUILD, CHANNEL) == GenerationSettings(top_p=0.5)
    status, _, _ = await dashboard.submit(f"{PAGE}/reset", place=key)
    assert status == 303 and dashboard.store.generation.all() == []
    status, page, _ = await dashboard.submit(f"{PAGE}/reset", place=key)
    assert status == 409 and "Nothing is set here." in page


async def test_the_page_keeps_what_was_typed_and_refuses_what_somebody_else_has_changed(dashboard):
    _, page, _ = await dashboard.page(PAGE)
    fields = form_of(page)
    status, page, _ = await dashboard.submit(PAGE, **{**fields, "max_new_tokens": "0"})
    assert status == 422 and 'value="0"' in page and "max_new_tokens-error" in page
    status, page, _ = await dashboard.submit(PAGE, **{**fields, "max_new_tokens": "600"})
    assert status == 409 and "NEW_TOKENS_LIMIT" in html.unescape(page)
    status, page, _ = await dashboard.submit(PAGE, **{**fields, "temperature": "warm"})
    assert status == 422 and stored(dashboard) == GenerationSettings()
    await dashboard.ask("PATCH", PATH, json={"max_new_tokens": 300})
    status, page, _ = await dashboard.submit(PAGE, **{**fields, "max_new_tokens": "200"})
    assert status == 409 and "it is 300 now" in html.unescape(page)
    assert stored(dashboard) == GenerationSettings(300)
    status, _, _ = await dashboard.submit(PAGE, **{**fields, "top_p": "0.5"})
    assert status == 303 and stored(dashboard) == GenerationSettings(300, top_p=0.5)
