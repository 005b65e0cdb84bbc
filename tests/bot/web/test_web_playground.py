"""The playground over sockets: what is asked for by its forms, and what is told of it as it happens."""

import asyncio
import json
import re

import pytest

from personas.schemas.chat import LoreHit
from tests.bot.web.test_web_openai import put_version
from tests.fakes import until

PROMPT = "Is the ferry late?"
PLAY = "/dashboard/play"


async def begin(dashboard, models=("ballast", "oda"), **more):
    """Send the form; gives the status, and the run or the page that refuses it."""
    fields = [(name, str(value)) for name, value in ({"prompt": PROMPT} | more).items()]
    fields += [("with", name) for name in models]
    own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    async with dashboard.session.post(
        PLAY, data=fields, headers=own, allow_redirects=False
    ) as answer:
        page = answer.headers.get("Location", "")
        text = await answer.text()
        return answer.status, {"page": page, "id": page.rpartition("=")[2], "text": text}


async def events_of(dashboard, run, after=None, headers=None):
    """The events of a run until it ends: number, name, data."""
    query = {} if after is None else {"after": str(after)}
    async with dashboard.session.get(
        f"{PLAY}/runs/{run['id']}/events", params=query, headers=headers or {}
    ) as answer:
        assert answer.status == 200 and answer.content_type == "text/event-stream"
        text = await answer.text()
    found = re.findall(r"id: (\d+)\nevent: (\w+)\ndata: (.*)\n", text)
    return [(int(number), name, json.loads(data)) for number, name, data in found]


async def ended(dashboard, run):
    """The run's lines in their order, and why it ended, as its events tell."""
    events = await events_of(dashboard, run)
    lines = [data for _, name, data in events if name == "done"]
    return {
        **run,
        "lines": sorted(lines, key=lambda line: line["line"]),
        "ended": events[-1][2]["why"],
    }


async def stop(dashboard, run):
    status, _, headers = await dashboard.submit(f"{PLAY}/runs/{run['id']}/stop")
    assert (status, headers["Location"]) == (303, run["page"])


@pytest.mark.parametrize(
    ("models", "speakers", "names"),
    [
        (("ballast", "ballast@base"), ["ballast@v1", "ballast@base"], ["Ballast", "Ballast"]),
        (("oda", "base"), ["oda@base", "base"], ["Oda Marrow", "Nobody"]),
    ],
)
async def test_all_answer_the_same_prompt_from_the_same_seed(dashboard, models, speakers, names):
    put_version(dashboard.store, "ballast", "v1", live=True)
    status, run = await begin(dashboard, models, temperature=0.4, top_k=9, min_p=0.1)
    assert status == 303
    done = await ended(dashboard, run)
    assert [line["speaker"]["id"] for line in done["lines"]] == speakers
    assert [line["text"].split(" hears")[0] for line in done["lines"]] == names
    assert len({line["seed"] for line in done["lines"]}) == 1 and done["ended"] == "done"
    assert all(request.needs_adapter for request in dashboard.engine.requests)
    samplings = [request.sampling for request in dashboard.engine.requests]
    assert {(one.temperature, one.top_k, one.min_p) for one in samplings} == {(0.4, 9, 0.1)}
    assert all(line["prompt"] == f"<|user|>{PROMPT}" for line in done["lines"])


async def test_a_seed_that_the_engine_did_not_use_stands_beside_no_reply(dashboard):
    dashboard.engine.reply_flags = {"seeded": False}
    _, run = await begin(dashboard, ("oda",), seed=51)
    [line] = (await ended(dashboard, run))["lines"]
    assert line["seed"] is None and line["state"] == "done"
    _, page, _ = await dashboard.page(run["page"])
    assert "seed 51" not in page and "seed None" not in page


async def test_what_happens_is_reported_from_the_first_event_on_and_from_any(dashboard):
    _, run = await begin(dashboard)
    result = await events_of(dashboard, run)
    assert [number for number, _, _ in result] == list(range(1, len(result) + 1))
    assert [name for _, name, _ in result][-1] == "end"
    for at in (0, 1):
        pieces = [
            data["text"] for _, name, data in result if name == "piece" and data["line"] == at
        ]
        [done] = [data for _, name, data in result if name == "done" and data["line"] == at]
        assert "".join(pieces) == done["text"] and done["state"] == "done"
    assert await events_of(dashboard, run, after=3) == result[3:]
    assert await events_of(dashboard, run, after=1, headers={"Last-Event-ID": "5"}) == result[5:]
    assert await events_of(dashboard, run, after=10_000) == []


async def test_who_comes_in_the_middle_receives_the_rest_as_it_is_made(dashboard):
    dashboard.engine.free.clear()
    _, run = await begin(dashboard, ["oda"])
    hearing = asyncio.create_task(events_of(dashboard, run, after=2))
    await asyncio.sleep(0.05)
    assert not hearing.done()
    dashboard.engine.free.set()
    result = await asyncio.wait_for(hearing, 3)
    assert [name for _, name, _ in result] == ["piece", "done", "end"]
    assert result[0][2]["text"] == f"hears: {PROMPT}"


async def test_stop_leaves_what_there_is(dashboard):
    dashboard.engine.free.clear()
    _, run = await begin(dashboard)
    await until(lambda: len(dashboard.engine.requests) == 2)
    await stop(dashboard, run)
    done = await ended(dashboard, run)
    assert done["ended"] == "stopped"
    assert [line["state"] for line in done["lines"]] == ["stopped"] * 2
    assert done["lines"][0]["text"] == "Ballast" and done["lines"][0]["finish"] == "cancelled"


async def test_a_talk_goes_on_with_the_speakers_it_had(dashboard):
    put_version(dashboard.store, "ballast", "v1", live=True)
    first = await ended(dashboard, (await begin(dashboard))[1])
    put_version(dashboard.store, "ballast", "v2", live=True)
    status, again = await begin(dashboard, models=(), prompt="And tomorrow?", after=first["id"])
    assert status == 303
    await ended(dashboard, again)
    ballast, oda = dashboard.engine.requests[-2:]
    assert ballast.adapter.version == "v1"
    assert [(turn.name, turn.text, turn.by_persona) for turn in ballast.turns] == [
        ("Guest", PROMPT, False), ("Ballast", f"Ballast hears: {PROMPT}", True), ("Guest", "And tomorrow?", False),
    ]  # fmt: skip
    assert oda.turns[1].text == f"Oda Marrow hears: {PROMPT}"


async def test_one_that_fails_keeps_the_others_from_nothing(dashboard):
    def script(request):
        if request.persona.id == "oda":
            raise ValueError("a slip of ours")
        return ["Fine."]

    dashboard.engine.script = script
    done = await ended(dashboard, (await begin(dashboard))[1])
    ballast, oda = done["lines"]
    assert (ballast["state"], oda["state"]) == ("done", "failed")
    assert "in the log under" in oda["error"] and "slip" not in oda["error"]
    dashboard.engine.full = True
    done = await ended(dashboard, (await begin(dashboard))[1])
    assert all("9 replies are waiting" in line["error"] for line in done["lines"])


async def test_what_cannot_be_is_refused(dashboard):
    for more in [
        {"models": []},
        {"models": ["nobody"]},
        {"models": ["oda"] * 3},
        {"prompt": "  "},
        {"temperature": 3},
        {"top_p": 0},
        {"max_new_tokens": 5000},
        {"max_new_tokens": 1025},
        {"seed": -1},
    ]:
        assert (await begin(dashboard, **more))[0] == 422, more
        assert dashboard.engine.requests == [], more


async def test_runs_that_are_not_there_and_runs_that_still_run(dashboard):
    for method, path in (("GET", "?run=x"), ("GET", "/runs/x/events"), ("POST", "/runs/x/stop")):
        assert (await dashboard.ask(method, f"{PLAY}{path}"))[0] == 404
    assert (await begin(dashboard, models=(), after="x"))[0] == 404
    dashboard.engine.free.clear()
    runs = [(await begin(dashboard, ["oda"]))[1] for _ in range(4)]
    assert (await begin(dashboard, ["oda"]))[0] == 503
    assert (await begin(dashboard, models=(), after=runs[0]["id"]))[0] == 409
    dashboard.engine.free.set()
    for run in runs:
        await ended(dashboard, run)
    assert (await begin(dashboard, ["oda"]))[0] == 303


async def test_the_latest_runs_are_kept(dashboard):
    made = [
        await ended(dashboard, (await begin(dashboard, ["oda"], prompt=f"number {n}"))[1])
        for n in range(34)
    ]
    for run, status in ((made[1], 404), (made[2], 200)):
        assert (await dashboard.page(run["page"]))[0] == status


# -------------------------------------------------------------------------------------------- duets


def counted():
    count = iter(range(1000))
    words = "rope bell lamp soup tide crane goose ferry mast gull coal chain".split()
    return lambda request: [f"{request.persona.name} says ", f"{words[next(count) % 12]}."]


async def test_a_duet_takes_turns_and_ends(dashboard):
    dashboard.engine.script = counted()
    status, run = await begin(dashboard, duet="true", turns=4)
    assert status == 303
    done = await ended(dashboard, run)
    assert [line["speaker"]["persona"] for line in done["lines"]] == ["ballast", "oda"] * 2
    assert done["ended"] == "all turns taken"
    assert [turn.name for turn in dashboard.engine.requests[3].turns] == [
        "Guest",
        "Ballast",
        "Oda Marrow",
        "Ballast",
    ]


async def test_a_duet_ends_when_it_goes_round_is_stopped_or_cannot_go_on(dashboard):
    dashboard.engine.script = lambda _: ["Soup, and soup."]
    done = await ended(dashboard, (await begin(dashboard, duet="true", turns=20))[1])
    assert done["ended"] == "it began to repeat itself" and len(done["lines"]) == 2
    dashboard.engine.full = True
    done = await ended(dashboard, (await begin(dashboard, duet="true"))[1])
    assert done["ended"] == "broken off" and done["lines"][0]["state"] == "failed"
    dashboard.engine.full, dashboard.engine.script = False, counted()
    dashboard.engine.free.clear()
    _, run = await begin(dashboard, duet="true")
    await until(
        lambda: dashboard.engine.requests and dashboard.engine.requests[-1].persona.id == "ballast"
    )
    await stop(dashboard, run)
    assert (await ended(dashboard, run))["ended"] == "stopped"


async def test_a_persona_may_talk_with_another_version_of_itself_but_not_with_nobody(dashboard):
    put_version(dashboard.store, "oda", "v1")
    dashboard.engine.script = counted()
    done = await ended(
        dashboard, (await begin(dashboard, ("oda@v1", "oda@base"), duet="true", turns=2))[1]
    )
    assert [line["speaker"]["version"] for line in done["lines"]] == ["v1", None]
    for models in (("oda", "base"), ("oda",), ("oda", "thrip", "ballast")):
        assert (await begin(dashboard, models, duet="true"))[0] == 422
    assert (await begin(dashboard, duet="true", turns=21))[0] == 422


# -------------------------------------------------------------------------------------------- pages


async def test_the_form_does_it_all_without_a_script(dashboard):
    put_version(dashboard.store, "ballast", "v1", live=True)
    _, text, _ = await dashboard.page(f"{PLAY}?with=ballast@v1&with=oda@base&temperature=0.3")
    assert re.findall(r'value="([^"]*)" selected', text) == ["ballast@v1", "oda@base"]
    assert 'value="0.3"' in text and "Ballast, live (v1)" in text and "checked" not in text
    lore = (LoreHit("room.md", "It had room", "x", 1.0),)
    dashboard.engine.reply_flags = {"repeated": True, "shortened": True, "lore": lore}
    _, run = await begin(dashboard, prompt="Is it <b>late</b>?", seed=5)
    await ended(dashboard, run)
    _, text, _ = await dashboard.page(run["page"])
    assert "Ballast hears: Is it &lt;b&gt;late&lt;/b&gt;?" in text and "<b>late" not in text
    for shown in ("AI-written · v1", "seed 5", "Ended: done.", "room.md", "its middle was left out",
                  "ended at a repetition", "Oda Marrow hears"):  # fmt: skip
        assert shown in text, shown
    assert "refresh" not in text
    link = re.search(r'href="(/dashboard/play\?[^"]*)">New conversation', text)[1]
    assert link == f"{PLAY}?with=ballast%40v1&amp;with=oda%40base&amp;seed=5"
    status, _, headers = await dashboard.submit(PLAY, after=run["id"], prompt="And now?")
    assert status == 303 and headers["Location"] != run["page"]


async def test_a_page_of_a_run_that_is_being_written(dashboard):
    dashboard.engine.free.clear()
    _, run = await begin(dashboard, ["oda"])
    await until(lambda: dashboard.engine.requests)
    await asyncio.sleep(0.05)
    _, text, _ = await dashboard.page(run["page"])
    assert "generating" in text and "Oda Marrow" in text
    assert '<noscript><meta http-equiv="refresh"' in text and 'data-after="2"' in text
    await stop(dashboard, run)
    await ended(dashboard, run)
    assert "Ended: stopped." in (await dashboard.page(run["page"]))[1]


async def test_a_duet_on_the_page(dashboard):
    dashboard.engine.script = counted()
    _, run = await begin(dashboard, duet="true", turns=3)
    await ended(dashboard, run)
    _, text, _ = await dashboard.page(run["page"])
    assert text.count("<h3>Ballast") == 2 and text.count("<h3>Oda Marrow") == 1
    assert "all turns taken" in text and 'name="prompt"' not in text
    link = re.search(r'href="([^"]*)">New conversation', text)[1].replace("&amp;", "&")
    _, text, _ = await dashboard.page(link)
    assert 'name="turns"' in text and 'value="3"' in text and " checked" in text


async def test_a_form_that_cannot_be_is_answered_with_a_page_that_says_why(dashboard):
    status, refused = await begin(dashboard, ["nobody"])
    text = refused["text"]
    assert status == 422 and "There is no persona" in text and f">\n{PROMPT}</textarea>" in text
    assert "<title>Error: Playground" in text and '<a href="#models">Who answers: ' in text
    assert re.search(r'id="models"[^>]* aria-describedby="models-error"', text)
    _, refused = await begin(dashboard, ["oda"], prompt=" ", temperature=9, seed=5, turns=99)
    text = refused["text"]
    assert '<a href="#prompt">Your message: must be words, at most 8000 characters</a>' in text
    assert '<a href="#temperature">Temperature: must be a number from 0 to 2</a>' in text
    assert '<a href="#turns">Turns: must be a whole number' in text
    assert re.search(r'id="temperature"[^>]*value="9"[^>]*temperature-error" aria-invalid', text)
    assert 'value="5"' in text and 'value="oda" selected' in text and "`errors`" not in text


async def test_a_talk_that_cannot_go_on_keeps_what_was_said(dashboard):
    _, run = await begin(dashboard, ("oda",))
    await ended(dashboard, run)
    after = {"after": run["id"], "prompt": "And now?"}
    status, text, _ = await dashboard.submit(PLAY, **after, seed="-1")
    assert status == 422 and "Oda Marrow hears" in text and ">\nAnd now?</textarea>" in text
    assert '<a href="#seed">' in text and "<title>Error: Playground: Oda Marrow" in text
    dashboard.engine.free.clear()
    _, run = await begin(dashboard, ("oda",))
    status, text, _ = await dashboard.submit(PLAY, **after | {"after": run["id"]})
    assert status == 409 and ">\nAnd now?</textarea>" in text and "refresh" not in text
    status, text, _ = await dashboard.submit(PLAY, **after | {"after": "gone"})
    assert status == 404 and ">\nAnd now?</textarea>" in text and "no longer" not in text
