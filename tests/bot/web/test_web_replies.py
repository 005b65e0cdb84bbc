"""How and when a persona replies, on its page."""

import html
import re
import time

import pytest

from bot.guild_settings.definitions import ANSWERING, GENERATION
from bot.guild_settings.store import SettingScope
from bot.store import Channel

PAGE = "/dashboard/personas/oda/replies"
GUILD, CHANNEL = 7, 70


@pytest.fixture
def lives_here(dashboard):
    """Oda lives in a channel."""
    channel = Channel(GUILD, CHANNEL, "oda", "everything", set_by=1, set_at=time.time())
    dashboard.store.channels.assign(channel)
    return dashboard


def stored(dashboard, guild_id=0, channel_id=0):
    persona = "" if channel_id else "oda"
    return dashboard.store.settings.get(SettingScope(guild_id, channel_id, persona))


async def test_values_are_set_for_each_place_and_the_most_specific_holds(lives_here):
    dashboard = lives_here
    places = [(0, 0), (GUILD, 0), (GUILD, CHANNEL)]
    for number, (guild_id, channel_id) in enumerate(places, start=1):
        fields = {"place": f"{guild_id}-{channel_id}", "max_new_tokens": str(100 * number)}
        assert (await dashboard.submit(PAGE, **fields))[0] == 303
    for number, (place, source) in enumerate(
        zip(places, ("everywhere", "persona", "channel"), strict=True), start=1
    ):
        held = dashboard.services.generation.in_channel("oda", *place).values["max_new_tokens"]
        assert (held.value, type(held.value), held.source) == (100 * number, int, source)
    _, page, _ = await dashboard.page(PAGE)
    assert 'max="512"' in page and f"place={GUILD}-{CHANNEL}" in page


async def test_replies_over_http_and_previews_have_the_personas_own(dashboard):
    own = {"max_new_tokens": 77, "temperature": 0.1, "context_tokens": 1024}
    dashboard.services.guild_settings.change(GENERATION, SettingScope(0, persona_id="oda"), own)
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


async def test_what_cannot_be_set_is_refused_and_changes_nothing(lives_here):
    for fields, status, words in [
        ({"max_new_tokens": "600"}, 409, "NEW_TOKENS_LIMIT"),
        ({"max_new_tokens": "5000"}, 422, "max_new_tokens"),
        ({"max_new_tokens": "0"}, 422, "max_new_tokens"),
        ({"context_tokens": "4096"}, 409, "the engine's context"),
        ({"temperature": "3"}, 422, "a number from 0 to 2"),
        ({"max_new_tokens": "many"}, 422, "max_new_tokens"),
        ({"place": "1-0", "temperature": "1"}, 404, "no server 1"),
        ({"place": f"{GUILD}-71", "top_p": "0.5"}, 404, "no channel 71"),
        ({"place": f"0-{CHANNEL}", "top_p": "0.5"}, 404, "no channel 70"),
        ({"place": f"{'9' * 19}-1", "top_p": "0.5"}, 404, "no server or channel"),
    ]:
        refused_status, page, _ = await lives_here.submit(PAGE, **fields)
        assert refused_status == status, fields
        assert words in html.unescape(page), fields
        assert lives_here.store.settings.all() == [], fields


def form_of(page):
    """The page's form as a browser would send it."""
    fields = {}
    form = page.split(f'action="{PAGE}">')[1]
    for tag in re.findall(r"<input[^>]*>", form.split("</form>")[0]):
        name = re.search(r'name="([^"]+)"', tag)
        if name:
            fields[name[1]] = html.unescape(re.search(r'value="([^"]*)"', tag)[1])
    chosen = re.search(r'value="(\w+)" selected', form)
    return {**fields, "quiet_mentions": chosen[1]} if chosen else fields


async def test_the_page_shows_what_holds_and_why_and_changes_a_place(lives_here):
    dashboard = lives_here
    key = f"{GUILD}-{CHANNEL}"
    status, page, _ = await dashboard.page(f"{PAGE}?place={key}")
    assert status == 200 and "Now 120 tokens (the default)" in page
    fields = form_of(page)
    assert fields["place"] == key and fields["max_new_tokens"] == ""
    status, _, headers = await dashboard.submit(PAGE, **{**fields, "max_new_tokens": "250"})
    assert status == 303 and headers["Location"].endswith(f"place={key}")
    assert stored(dashboard, GUILD, CHANNEL) == {"max_new_tokens": 250}
    _, page, _ = await dashboard.page(f"{PAGE}?place={key}")
    assert "set for this channel" in page and form_of(page)["max_new_tokens"] == "250"
    status, _, _ = await dashboard.submit(PAGE, **form_of(page))
    assert status == 303, "nothing was changed"
    await dashboard.submit(PAGE, **{**form_of(page), "max_new_tokens": "", "top_p": "0.5"})
    assert stored(dashboard, GUILD, CHANNEL) == {"top_p": 0.5}
    status, _, _ = await dashboard.submit(f"{PAGE}/reset", place=key)
    assert status == 303 and dashboard.store.settings.all() == []
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
    assert status == 422 and stored(dashboard) == {}
    scope = SettingScope(0, persona_id="oda")
    dashboard.services.guild_settings.change(GENERATION, scope, {"max_new_tokens": 300})
    status, page, _ = await dashboard.submit(PAGE, **{**fields, "max_new_tokens": "200"})
    assert status == 409 and "it is 300 tokens now" in html.unescape(page)
    assert stored(dashboard) == {"max_new_tokens": 300}
    status, _, _ = await dashboard.submit(PAGE, **{**fields, "top_p": "0.5"})
    assert status == 303 and stored(dashboard) == {"max_new_tokens": 300, "top_p": 0.5}


# --------------------------------------------------------------------------------- when it answers


async def test_when_it_answers_is_set_for_a_channel_alone(lives_here):
    dashboard = lives_here
    _, page, _ = await dashboard.page(PAGE)
    assert not any(key in form_of(page) for key in ANSWERING.keys)
    here = f"{PAGE}?place={GUILD}-{CHANNEL}"
    _, page, _ = await dashboard.page(here)
    filled = {"wait_s": "1,5", "reply_chance": "40", "quiet_hours": "22-7", "quiet_mentions": "yes"}
    status, _, _ = await dashboard.submit(PAGE, **{**form_of(page), **filled})
    assert status == 303
    kept = {"wait_s": 1.5, "reply_chance": 40, "quiet_mentions": True}
    assert stored(dashboard, GUILD, CHANNEL) == {**kept, "quiet_hours": "22:00-07:00"}
    _, page, _ = await dashboard.page(here)
    assert "Now 22:00-07:00 in this server&#39;s time zone (set for this channel)" in page
    assert form_of(page)["quiet_mentions"] == "yes" and form_of(page)["wait_s"] == "1.5"
    await dashboard.submit(PAGE, **{**form_of(page), "quiet_hours": ""})
    assert stored(dashboard, GUILD, CHANNEL) == kept


async def test_what_a_field_cannot_have_is_refused_beside_it(lives_here):
    for field, value, words in [
        ("wait_s", "11", "Wait for further lines: Write a number from 0 to 10."),
        ("wait_s", "1,500", "Wait for further lines: "),
        ("reply_chance", "half", "Reply chance: Write a whole number from 0 to 100."),
        ("quiet_hours", "always", "is no span of hours"),
        ("quiet_mentions", "perhaps", "Choose yes or no."),
    ]:
        _, page, _ = await lives_here.page(f"{PAGE}?place={GUILD}-{CHANNEL}")
        typed = {**form_of(page), "reply_chance": "30", field: value}
        status, refused, _ = await lives_here.submit(PAGE, **typed)
        assert status in (409, 422) and words in html.unescape(refused), value
        assert not stored(lives_here, GUILD, CHANNEL), "nor is the other field set"
