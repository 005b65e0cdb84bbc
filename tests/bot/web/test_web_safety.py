"""Messages that speak of self-harm on the dashboard and over the API: the fixed text, the page, the
counts.
"""

from bot.safety.actions import PLAIN_DISCLOSURE, WITHHELD
from bot.safety.texts import shipped_texts
from tests.bot.test_withheld_replies import HARM, SAFE, in_turn
from tests.bot.web.test_web_openai import chat, streamed
from tests.bot.web.test_web_playground import begin, ended, events_of

SAID = "I want to kill myself"
TEXTS = shipped_texts()


def said(text=SAID):
    return [{"role": "user", "content": text}]


async def test_a_persona_over_openais_interface_answers_with_the_text_and_says_so(dashboard):
    status, body = await chat(dashboard, said())
    assert status == 200 and body["choices"][0]["message"]["content"] == TEXTS["en"]
    assert body["choices"][0]["finish_reason"] == "stop"
    ours = body["understudy"]
    assert ours["ai_written"] is False and "fixed text" in ours["notes"][-1]
    assert "seed" not in ours
    assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    chunks, last = await streamed(dashboard, messages=said("tôi muốn chết"))
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == TEXTS["vi"] and last == "[DONE]"
    assert dashboard.services.engine.requests == []
    assert dashboard.store.safety_answers.by_language() == {"en": 1, "vi": 1}


async def test_the_base_model_is_no_companion_and_figures_of_speech_are_answered(dashboard):
    for model, words in (("base", SAID), ("ballast", "this game kills me")):
        _, body = await chat(dashboard, said(words), model=model)
        assert body["choices"][0]["message"]["content"] not in TEXTS.values()
        assert body["understudy"]["ai_written"] is True
    assert len(dashboard.services.engine.requests) == 2


async def test_an_earlier_message_of_the_talk_does_not_end_it(dashboard):
    talk = [*said(), {"role": "assistant", "content": TEXTS["en"]}]
    _, body = await chat(dashboard, [*talk, {"role": "user", "content": "Thank you, I called."}])
    assert body["understudy"]["ai_written"] is True


async def test_the_playground_shows_the_text_and_counts_nothing(dashboard):
    _, run = await begin(dashboard, ("ballast", "base"), prompt=SAID)
    persona, base = (await ended(dashboard, run))["lines"]
    assert persona["text"] == TEXTS["en"] and base["text"] != TEXTS["en"]
    status, refused = await begin(dashboard, duet="true", prompt=SAID)
    assert 400 <= status < 500
    assert "self-harm" in refused["text"]
    assert dashboard.store.safety_answers.by_language() == {}
    page = await (await dashboard.session.get(run["page"])).text()
    assert "findahelpline.com" in page


async def test_the_page_says_how_it_works_and_the_counts_are_everywhere_the_same(dashboard):
    page = await (await dashboard.session.get("/dashboard/system/safety")).text()
    assert page.count("None so far.") == 3 and page.count(">shipped</span>") == len(TEXTS)
    assert "<strong>988</strong>" in page and "**" not in page
    await chat(dashboard, said())
    dashboard.services.safety.texts["de"] = "Nachtlinie: **0800 123 456**, <b>rund</b> um die Uhr."
    page = await (await dashboard.session.get("/dashboard/system/safety")).text()
    assert "By language: en 1." in page
    assert "Nachtlinie: <strong>0800 123 456</strong>, &lt;b&gt;rund" in page
    assert page.count(">yours</span>") == 1
    system = await (await dashboard.session.get("/dashboard/system")).text()
    assert 'data-figure="safety-answers">1<' in system and "/dashboard/system/safety" in system
    _, state, _ = await dashboard.ask("GET", "/system")
    assert state["safety_answers"] == {"en": 1}
    metrics = await (await dashboard.session.get("/metrics")).text()
    assert 'understudy_safety_answers_total{language="en"} 1.0' in metrics
    assert 'understudy_safety_answers_total{language="zh"} 0.0' in metrics


async def test_over_openais_interface_the_line_is_the_bots_and_the_reason_is_the_filter(dashboard):
    dashboard.services.engine.script = in_turn(HARM)
    status, body = await chat(dashboard)
    choice = body["choices"][0]
    assert status == 200 and choice["message"]["content"] == WITHHELD
    assert choice["finish_reason"] == "content_filter" and not body["understudy"]["ai_written"]
    chunks, last = await streamed(dashboard)
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == WITHHELD and last == "[DONE]"
    _, base = await chat(dashboard, model="base")
    assert base["choices"][0]["message"]["content"] == HARM, "no companion"


async def test_a_stream_that_has_begun_ends_before_it(dashboard):
    dashboard.services.engine.script = in_turn(["Ah. ", HARM], SAFE)
    chunks, last = await streamed(dashboard)
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == "Ah. " and last == "[DONE]"
    assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert len(dashboard.services.engine.requests) == 1
    _, whole = await chat(dashboard)
    assert whole["choices"][0]["message"]["content"] == SAFE


async def test_the_playground_begins_anew_and_the_page_counts_it(dashboard):
    dashboard.services.engine.script = in_turn(["Ah. ", HARM], SAFE)
    page = await (await dashboard.session.get("/dashboard/system/safety")).text()
    assert page.count("None so far.") == 3
    _, run = await begin(dashboard, ("ballast",))
    events = [name for _, name, _ in await events_of(dashboard, run)]
    assert "withdrawn" in events
    (line,) = (await ended(dashboard, run))["lines"]
    assert line["text"] == SAFE
    page = await (await dashboard.session.get("/dashboard/system/safety")).text()
    assert page.count("None so far.") == 2 and "Replies withheld" in page


async def test_the_question_whether_it_is_human_is_answered_by_the_author_not_by_a_model(dashboard):
    question = [{"role": "user", "content": "honestly, are you a human being?"}]
    line = dashboard.services.personas.get("oda", 0).asked_if_human
    _, body = await chat(dashboard, question, model="oda")
    content = body["choices"][0]["message"]["content"]
    assert content == f"{line}\n\n{PLAIN_DISCLOSURE}"
    assert not body["understudy"]["ai_written"] and "fixed line" in body["understudy"]["notes"][-1]
    _, run = await begin(dashboard, ("oda", "base"), prompt="bist du ein Mensch?")
    persona, base = (await ended(dashboard, run))["lines"]
    assert persona["text"].startswith(line) and "KI" in persona["text"] and "hears" in base["text"]
    preview = {"message": "Are you human?", "version": "live", "card": {"asked_if_human": "No."}}
    async with dashboard.session.post(
        "/dashboard/personas/oda/preview/events", json=preview
    ) as answer:
        assert f"No.\\n\\n{PLAIN_DISCLOSURE}" in await answer.text()
    assert len(dashboard.services.engine.requests) == 1, "the base model's"
