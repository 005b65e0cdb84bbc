"""When a persona answers, on its page: the same settings as `/persona answering`."""

import html
import re
import time

import pytest

from bot.answering.store import AnsweringSettings
from bot.store import Channel

PAGE = "/dashboard/personas/oda/answering"
GUILD, CHANNEL = 7, 70
PLACE = f"{GUILD}-{CHANNEL}"


@pytest.fixture
def lives_here(dashboard):
    """Oda lives in a channel."""
    channel = Channel(GUILD, CHANNEL, "oda", "everything", set_by=1, set_at=time.time())
    dashboard.store.channels.assign(channel)
    return dashboard


def form_of(page):
    """The page's form as a browser would send it."""
    form = page.split(f'action="{PAGE}">')[1].split("</form>")[0]
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name = re.search(r'name="([^"]+)"', tag)
        fields[name[1]] = html.unescape(re.search(r'value="([^"]*)"', tag)[1])
    chosen = re.search(r'value="(\w*)" selected', form)
    return {**fields, "quiet_mentions": chosen[1] if chosen else ""}


def stored(dashboard):
    return dashboard.store.answering.get(GUILD, CHANNEL)


async def test_a_channels_settings_are_shown_changed_and_reset(lives_here):
    dashboard = lives_here
    _, page, _ = await dashboard.page(PAGE)
    fields = form_of(page)
    assert fields["place"] == PLACE and not any(fields[name] for name in vars(AnsweringSettings()))
    filled = {"wait_s": "2", "reply_chance": "40", "quiet_hours": "22-7", "quiet_mentions": "yes"}
    status, _, headers = await dashboard.submit(PAGE, **{**fields, **filled})
    assert status == 303 and headers["Location"].endswith(f"place={PLACE}")
    assert stored(dashboard) == AnsweringSettings(2.0, 40, "22:00-07:00", True)
    _, page, _ = await dashboard.page(f"{PAGE}?place={PLACE}")
    assert "22:00-07:00 (UTC), also for mentions" in page
    assert form_of(page)["quiet_mentions"] == "yes" and form_of(page)["wait_s"] == "2"
    await dashboard.submit(PAGE, **{**form_of(page), "quiet_hours": ""})
    assert stored(dashboard) == AnsweringSettings(2.0, 40, None, True)
    await dashboard.submit(f"{PAGE}/reset", place=PLACE)
    assert stored(dashboard) == AnsweringSettings()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("wait_s", "11", "wait_s"),
        ("reply_chance", "half", "reply_chance"),
        ("quiet_hours", "always", "is no span of hours"),
        ("place", "7-71", "no channel 71"),
        ("place", "7-x", "no such channel"),
    ],
)
async def test_what_cannot_be_set_is_refused_beside_the_form(lives_here, field, value, words):
    _, page, _ = await lives_here.page(PAGE)
    status, refused, _ = await lives_here.submit(PAGE, **{**form_of(page), field: value})
    assert status in (404, 409, 422) and words in html.unescape(refused)
    assert stored(lives_here) == AnsweringSettings()


async def test_an_error_names_the_label_of_the_form(lives_here):
    _, page, _ = await lives_here.page(PAGE)
    fields = {**form_of(page), "wait_s": "1,500"}
    status, refused, _ = await lives_here.submit(PAGE, **fields)
    assert status == 422 and '<a href="#wait_s">Wait for further lines: ' in refused
    assert stored(lives_here) == AnsweringSettings()


async def test_a_number_may_have_a_decimal_comma(lives_here):
    _, page, _ = await lives_here.page(PAGE)
    fields = form_of(page) | {"wait_s": "1,5"}
    status, _, _ = await lives_here.submit(PAGE, **fields)
    assert status == 303 and stored(lives_here).wait_s == 1.5


async def test_a_field_that_a_moderator_changed_meanwhile_is_not_overwritten(lives_here):
    _, page, _ = await lives_here.page(PAGE)
    lives_here.services.answering.change(GUILD, CHANNEL, {"wait_s": 3.0, "reply_chance": 10})
    status, refused, _ = await lives_here.submit(PAGE, **{**form_of(page), "wait_s": "1"})
    assert status == 409 and "Somebody else has changed the wait" in refused
    assert stored(lives_here).wait_s == 3.0


async def test_a_persona_without_a_channel_has_none_to_set(dashboard):
    status, page, _ = await dashboard.page(PAGE)
    assert status == 200 and "lives in no channel" in page
