"""A persona from the dashboard's form: checked, previewed, created, in its channel."""

import aiohttp

from bot.chat.reply_service import ReplyService
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from tests.bot.conftest import OFFICE, QUAY
from tests.personas.cards import PIXEL, V2, as_json

PAGE = "/dashboard/new-persona"
MARLOW = {
    "name": "Marlow",
    "description": "You are Marlow, a retired lighthouse keeper.",
    "speech": "Slowly.",
    "said-1": "How was your day?",
    "reply-1": "Long.\nThe tide was late.",
    "said-2": "Can you come on Monday?",
    "reply-2": "Never on Mondays.",
    "first_mes": "Mind the step, {{user}}.",
    "place": "",
}
MIRA = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content


async def sent(dashboard, path=PAGE, file=b"", filename="face.png", **changed):
    form = aiohttp.FormData(quote_fields=False)
    for key, value in {**MARLOW, **changed}.items():
        form.add_field(key, value)
    form.add_field("file", file, filename=filename, content_type="application/octet-stream")
    own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    async with dashboard.session.post(
        path, data=form, headers=own, allow_redirects=False
    ) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_the_form_creates_a_persona_with_its_picture_and_says_what_next(dashboard):
    _, page, _ = await dashboard.page("/dashboard/personas")
    assert f'href="{PAGE}">New persona</a>' in page
    status, page, _ = await dashboard.page(PAGE)
    assert status == 200 and page.count("Somebody says") == 3
    status, text, headers = await sent(dashboard, file=PIXEL)
    assert status == 303 and headers["Location"] == "/dashboard/personas/marlow", text
    persona = dashboard.services.personas.get("marlow", 0)
    assert persona.avatar.read_bytes() == PIXEL and persona.system_prompt == ""
    assert persona.mes_example == (
        "<START>\n{{user}}: How was your day?\n{{char}}: Long. The tide was late.\n"
        "<START>\n{{user}}: Can you come on Monday?\n{{char}}: Never on Mondays."
    )
    _, page, _ = await dashboard.page("/dashboard/personas/marlow")
    plan = 'href="/dashboard/data/plan?persona=marlow&amp;lore_pairs=1"'
    from_card = 'href="/dashboard/data/plan?persona=marlow&amp;from_card=1">Train from the card</a>'
    assert "What next?" in page and from_card in page and plan not in page
    lore = {"name": "Tallow", "text": "Marlow feeds Tallow at six."}
    path = "/dashboard/personas/marlow/lore"
    assert (await dashboard.submit(path, **lore))[0] == 303
    _, page, _ = await dashboard.page("/dashboard/personas/marlow")
    assert plan in page and from_card in page and "of anybody. Or train them" in page
    _, page, _ = await dashboard.page("/dashboard/personas/ballast")
    assert "What next?" not in page
    status, page, _ = await sent(dashboard)
    assert status == 422 and "There is a persona Marlow already." in page
    assert "Mind the step, {{user}}." in page and "\nLong.\nThe tide was late.</textarea>" in page


async def test_a_refused_form_keeps_what_was_typed(dashboard):
    for changed, words in [
        ({"name": ""}, '<a href="#name">Name: Give them a name'),
        ({"name": "x" * 81}, "It has 81 characters; 80 is the most."),
        ({"name": "Clyde"}, "Discord allows no names"),
        ({"description": " "}, '<a href="#description">Who are they: Say in a sentence'),
        ({"reply-1": ""}, '<a href="#said-1">Examples: “How was your day?” has no answer.'),
        ({"said-2": ""}, "“Never on Mondays.” has no “You: …” before it."),
        ({"file": b"GIF7 no picture", "filename": "x.gif"}, "x.gif is not a picture. Choose a PNG"),
        ({"file": b"GIF7 no picture", "name": "@everyone"}, "Name: This name is reserved."),
        ({"file": b"{", "filename": "x.gif"}, "Picture or card: "),
        ({"place": "7/8"}, "The bot is in no server 7."),
        ({"place": "../etc"}, "There is no such place."),
    ]:
        status, page, _ = await sent(dashboard, **changed)
        assert status in (404, 422) and words in page, changed
        assert ("Never on Mondays." in page and "lighthouse" in page) or "description" in changed, (
            changed
        )
        assert dashboard.services.personas.of(0).keys() == {"ballast", "oda", "thrip"}, changed


async def test_a_card_fills_in_what_is_left_empty(dashboard):
    empty = dict.fromkeys(MARLOW, "")
    status, text, headers = await sent(dashboard, file=MIRA, filename="mira.png", **empty)
    assert (status, headers.get("Location")) == (303, "/dashboard/personas/mira"), text
    persona = dashboard.services.personas.get("mira", 0)
    assert persona.description and persona.avatar.read_bytes() == PIXEL
    assert dashboard.services.lore.passages_of("0/mira")


async def test_a_long_card_is_taken_as_it_is_but_what_is_typed_has_limits(dashboard):
    long = {
        "description": "{{char}} keeps the lighthouse. " + "The tide is late. " * 170,
        "first_mes": "Mind the step. " * 300,
        "mes_example": "<START>\n{{user}}: Who?\n{{char}}: Me.\n" * 220,
    }
    file = as_json({**V2, "data": {**V2["data"], **long}})
    empty = dict.fromkeys(MARLOW, "")
    typed = {**empty, "description": long["description"] + "More of it."}
    status, page, _ = await sent(dashboard, file=file, filename="mira.json", **typed)
    assert status == 422 and f"{len(long['description']):,} is the most." in page
    status, text, headers = await sent(dashboard, file=file, filename="mira.json", **empty)
    assert (status, headers.get("Location")) == (303, "/dashboard/personas/mira"), text
    persona = dashboard.services.personas.get("mira", 0)
    assert persona.first_mes == long["first_mes"].strip()
    status, page, _ = await sent(dashboard, **{"name": "Wick", "description": "x" * 3001})
    assert status == 422 and "It has 3,001 characters; 3,000 is the most." in page


async def test_the_script_checks_and_previews(dashboard):
    body = {
        "name": "Marlow",
        "description": "A keeper.",
        "examples": [{"said": "Hi", "reply": "Ahoy."}],
        "first_mes": "Mind the step, {{user}}.",
    }
    status, check, _ = await dashboard.ask("POST", f"{PAGE}/check", json=body)
    assert status == 200 and check["wrong"] == {} and check["first_line"] == "Mind the step, Guest."
    assert (
        check["prompt"] == "You are Marlow.\nA keeper.\nGuest: Hi\nMarlow: Ahoy."
        and check["tokens"] > 5
    )
    status, check, _ = await dashboard.ask("POST", f"{PAGE}/check", json={"name": "oda marrow"})
    assert status == 200 and set(check["wrong"]) == {"name", "description"}
    async with dashboard.session.post(f"{PAGE}/hello/events", json=body) as answer:
        text = await answer.text()
    assert "event: reply" in text and dashboard.engine.requests[-1].persona.name == "Marlow"
    assert dashboard.services.personas.get("marlow", 0) is None
    unknown = body | {"name": "Wick", "guild": "9" * 20}
    assert (await dashboard.ask("POST", f"{PAGE}/hello/events", json=unknown))[0] == 404


def filled_in(place, **changed):
    form = aiohttp.FormData(quote_fields=False)
    for key, value in {**MARLOW, "place": place, **changed}.items():
        form.add_field(key, value)
    form.add_field("file", b"", filename="")
    return form


async def test_the_form_puts_a_persona_into_a_channel_of_its_server(stage, monkeypatch):
    guild, room = stage.sandbox.guild_id, stage.sandbox.channel(OFFICE)["id"]
    place = f"{guild}/{room}"
    mark = stage.mark
    url = stage.sandbox.url
    own = {"Origin": url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}

    async def refused(*_):
        raise TimeoutError

    jar = aiohttp.CookieJar(unsafe=True)  # of an address without a name, too
    async with aiohttp.ClientSession(url, cookie_jar=jar) as http:
        async with http.get(PAGE) as answer:
            page = await answer.text()
        assert f"#{OFFICE}</option>" in page and f"#{QUAY} (in place of Ballast)" in page
        assert f'value="{place}" selected' in page and "#signal-tower" not in page
        async with http.post(PAGE, data=filled_in(place), headers=own) as answer:
            page = await answer.text()
        assert f"Marlow lives in #{OFFICE} now." in page and "It has said its first line." in page
        async with http.get(PAGE) as answer:
            page = await answer.text()
        assert f'value="{guild}" selected' in page, "nothing else is proposed"
        monkeypatch.setattr(ReplyService, "greet", refused)
        async with http.post(PAGE, data=filled_in(place, name="Wick"), headers=own) as answer:
            page = await answer.text()
        assert f"Wick lives in #{OFFICE} now." in page
        assert "Its first line could not be sent: " in page and "has said" not in page
        long = filled_in("", name="Otter", description="雾号" * 1400)
        async with http.post(PAGE, data=long, headers=own) as answer:
            page = await answer.text()
        assert "tokens of every prompt; at most " in page
    await stage.sees("Mind the step, Guest.", by="Marlow", since=mark)
    setting = stage.store.channels.get(int(guild), int(room))
    persona = stage.client.services.personas.get(setting.persona_id, int(guild))
    assert persona.name == "Wick"
    assert stage.client.services.personas.find("Marlow", 0) is None
