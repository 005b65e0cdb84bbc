"""OpenAI's interface over sockets: what is asked means what, what is refused, and who gets what."""

import asyncio
import json

import pytest

from bot.store import InstalledVersion
from bot.training.store import NewTrainingJob
from personas.errors import AdapterError, PrefillError, ServerError
from personas.prompt.renderer import PromptTooLongError
from personas.schemas.chat import LoreHit
from personas.schemas.training import TrainingRequest
from tests.fakes import until
from tests.samples import SCORECARD

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Is the ferry late?"}]


def put_version(store, persona_id, version, live=False):
    """A version of a persona, as if it had been trained."""
    job_id = f"{persona_id}-{version}"
    store.jobs.add(
        NewTrainingJob(job_id, 0, 0, 0, TrainingRequest(job_name=version, persona=persona_id)), 1.0
    )
    store.versions.record_installed(
        InstalledVersion(persona_id, version, job_id, 1_800_000_000.0, SCORECARD)
    )
    if live:
        store.versions.promote(persona_id, version, 0, 1.0)


async def chat(dashboard, messages=HELLO, model="ballast", **more):
    status, body, _ = await dashboard.ask(
        "POST", CHAT, json={"model": model, "messages": messages, **more}
    )
    return status, body


async def streamed(dashboard, **more):
    """The chunks of a streamed reply, and how the stream ended."""
    body = {"model": "ballast", "messages": HELLO, "stream": True, **more}
    async with dashboard.session.post(CHAT, json=body) as answer:
        assert answer.status == 200 and answer.content_type == "text/event-stream"
        *events, last = [
            line[6:] for line in (await answer.text()).splitlines() if line.startswith("data: ")
        ]
    return [json.loads(event) for event in events], last


async def test_a_reply_says_who_made_it_and_what_it_took(dashboard):
    put_version(dashboard.store, "ballast", "v1", live=True)
    status, body = await chat(dashboard, seed=11, temperature=0.3, top_p=0.5, max_tokens=9, stop=["\n\n"], user="x",
                              presence_penalty=0, metadata={"a": "b"}, store=False)  # fmt: skip
    assert status == 200 and body["object"] == "chat.completion" and body["model"] == "ballast@v1"
    choice = body["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Ballast hears: Is the ferry late?",
        "refusal": None,
    }
    assert (choice["finish_reason"], choice["logprobs"], len(body["choices"])) == ("stop", None, 1)
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    assert "ballast@v1" in body["system_fingerprint"]
    assert body["understudy"] == {
        "ai_written": True,
        "persona": "ballast",
        "version": "v1",
        "lore": [],
        "seed": 11,
    }
    asked = dashboard.engine.requests[-1]
    dashboard.engine.reply_flags = {"lore": (LoreHit("room.md", "It had room", "x", 1.0),)}
    assert [hit["source"] for hit in (await chat(dashboard))[1]["understudy"]["lore"]] == [
        "room.md"
    ]
    assert asked.adapter.version == "v1" and asked.guild_id == 0
    sampling = asked.sampling
    assert (sampling.seed, sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (
        11,
        0.3,
        0.5,
        9,
    )
    assert sampling.stop == ("\n\n",) and sampling.speakers == ("Guest",)


async def test_a_seed_that_the_engine_did_not_use_is_not_told(dashboard):
    dashboard.engine.reply_flags = {"seeded": False}
    _, body = await chat(dashboard, seed=11)
    assert "seed" not in body["understudy"] and body["understudy"]["persona"] == "ballast"
    chunks, _ = await streamed(dashboard)
    assert not any("seed" in chunk.get("understudy", {}) for chunk in chunks)


async def test_a_stream_has_the_role_first_then_the_text_then_its_end(dashboard):
    chunks, last = await streamed(dashboard, stream_options={"include_usage": True})
    assert last == "[DONE]" and len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert (
        "".join(delta.get("content", "") for delta in deltas) == "Ballast hears: Is the ferry late?"
    )
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (
        len(chunks) - 2
    ) + ["stop"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 2
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[0]["understudy"]["version"] is None and chunks[-2]["understudy"]["seed"] == 7
    without, _ = await streamed(dashboard)
    assert (
        all("usage" not in chunk for chunk in without)
        and without[-1]["choices"][0]["finish_reason"] == "stop"
    )


async def test_links_are_left_out_at_once_and_in_pieces(dashboard):
    dashboard.engine.script = lambda _: ["See ht", "tps://bad.exam", "ple/x now", " or www", "."]
    _, body = await chat(dashboard)
    assert body["choices"][0]["message"]["content"] == "See (link left out) now or www."
    chunks, _ = await streamed(dashboard)
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == "See (link left out) now or www."


async def test_each_name_means_one_speaker(dashboard):
    put_version(dashboard.store, "ballast", "v1")
    put_version(dashboard.store, "ballast", "v2", live=True)
    for model, means in (("ballast", "v2"), ("Ballast", "v2"), ("ballast@live", "v2"), ("ballast@v1", "v1"),
                         ("ballast@base", None), ("base", None)):  # fmt: skip
        status, body = await chat(dashboard, model=model)
        adapter = dashboard.engine.requests[-1].adapter
        assert (
            status == 200
            and (adapter.version if adapter else None) == means == body["understudy"]["version"]
        )
    assert dashboard.engine.requests[-1].persona is None and body["model"] == "base"
    assert body["choices"][0]["message"]["content"] == "Nobody hears: Is the ferry late?"
    for model, says in (
        ("ballast@v9", "ballast@v2"),
        ("ballast@", "ballast@v2"),
        ("nobody", "oda"),
        ("base@v1", "ballast"),
    ):
        status, body = await chat(dashboard, model=model)
        assert (
            status == 404
            and body["error"]["code"] == "model_not_found"
            and body["error"]["param"] == "model"
        )
        assert says in body["error"]["message"]


async def test_models_are_the_personas_their_versions_and_the_base(dashboard):
    put_version(dashboard.store, "oda", "v1", live=True)
    _, body, _ = await dashboard.ask("GET", "/v1/models")
    ids = [model["id"] for model in body["data"]]
    assert body["object"] == "list" and len(ids) == len(set(ids))
    assert {"ballast", "oda", "oda@v1", "oda@base", "base"} <= set(ids) and ids[-1] == "base"
    for model_id in ids:
        status, one, _ = await dashboard.ask("GET", f"/v1/models/{model_id}")
        assert status == 200 and one["id"] == model_id and one["object"] == "model", one
    by_id = {model["id"]: model for model in body["data"]}
    assert by_id["oda"]["name"] == "Oda Marrow" and by_id["oda"]["understudy"]["version"] == "v1"
    assert by_id["oda@v1"]["created"] == 1_800_000_000 and by_id["oda@base"]["created"] == 0
    status, body, _ = await dashboard.ask("GET", "/v1/models/nobody")
    assert status == 404 and body["error"]["type"] == "invalid_request_error"


async def test_messages_become_turns_and_instructions(dashboard):
    await chat(dashboard, [
        {"role": "system", "content": "Speak of rain."},
        {"role": "user", "name": "Tobias  Reed\n", "content": "Hello"},
        {"role": "assistant", "content": "Well met."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]},
    ])  # fmt: skip
    asked = dashboard.engine.requests[-1]
    assert asked.instructions == "Speak of rain.\nBe brief."
    assert [(turn.name, turn.text, turn.by_persona) for turn in asked.turns] == [
        ("Tobias Reed", "Hello", False), ("Ballast", "Well met.", True), ("Guest", "And\nnow?", False),
    ]  # fmt: skip
    assert asked.sampling.speakers == ("Tobias Reed", "tobias", "Guest")


async def test_a_client_may_have_the_persona_go_on(dashboard):
    talk = [
        *HELLO,
        {"role": "assistant", "content": "It is"},
        {"role": "system", "content": "[Continue.]"},
    ]
    assert (await chat(dashboard, [{"role": "system", "content": "Rain."}, *talk]))[0] == 200
    asked = dashboard.engine.requests[-1]
    assert (
        asked.turns[-1].text == "[Continue.]"
        and not asked.turns[-1].by_persona
        and asked.instructions == "Rain."
    )
    for talk in ([{"role": "assistant", "content": "It is"}], [{"role": "system", "content": "x"}]):
        status, body = await chat(dashboard, talk)
        assert status == 400 and body["error"]["param"] == "messages", body


async def test_a_last_message_of_the_persona_s_is_continued(dashboard):
    dashboard.engine.script = lambda request: [" late", ", I fear."]
    for begun, more in (
        ([{"role": "assistant", "content": "It is"}], {}),
        ([{"role": "assistant", "content": "It is"}], {"continue_final_message": True, "add_generation_prompt": False}),
        ([{"role": "assistant", "content": "It is"}, {"role": "system", "content": "Be brief."}],
         {"continue_final_message": True}),
    ):  # fmt: skip
        _, body = await chat(dashboard, [*HELLO, *begun], **more)
        asked = dashboard.engine.requests[-1]
        assert (asked.prefill, asked.turns[-1].text) == ("It is", HELLO[0]["content"])
        assert (
            body["choices"][0]["message"]["content"] == " late, I fear."
        )  # a client adds it to what it has
        events, _ = await streamed(dashboard, messages=[*HELLO, *begun], **more)
        assert (
            "".join(one["choices"][0]["delta"].get("content", "") for one in events)
            == " late, I fear."
        )
    await chat(
        dashboard,
        [*HELLO, {"role": "assistant", "content": "It"}, {"role": "assistant", "content": "is"}],
    )
    assert dashboard.engine.requests[-1].prefill == "It\nis"
    for param, value in (("continue_final_message", True), ("add_generation_prompt", False)):
        status, body = await chat(dashboard, **{param: value})
        assert (status, body["error"]["param"]) == (400, param)
    dashboard.engine.failure = PrefillError(
        "The server would begin a new reply.", "End with a user's message."
    )
    status, body = await chat(dashboard, [*HELLO, {"role": "assistant", "content": "It is"}])
    assert (status, body["error"]["param"], body["error"]["code"]) == (
        400,
        "messages",
        "unsupported_value",
    )


async def test_no_value_is_the_usual_one(dashboard):
    for value in [-1, 0, None]:
        usual = dashboard.services.request_builder.sampling
        for fields in (
            {"max_tokens": value},
            {"max_completion_tokens": value},
            {"max_tokens": value, "stop": None},
        ):
            assert (await chat(dashboard, **fields))[0] == 200, value
            assert dashboard.engine.requests[-1].sampling.max_new_tokens == usual.max_new_tokens, (
                value
            )
        assert (await chat(dashboard, max_completion_tokens=value, max_tokens=5))[0] == 200, value
        assert dashboard.engine.requests[-1].sampling.max_new_tokens == 5, value
        assert (
            await chat(dashboard, seed=value, top_logprobs=None if value else value, logprobs=None)
        )[0] == 200, value
        seed = dashboard.engine.requests[-1].sampling.seed
        assert seed == (0 if value == 0 else None), "0 is a seed"


async def test_pictures_of_earlier_messages_are_left_out_and_a_note_says_so(dashboard):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    talk = [
        {
            "role": "system",
            "content": [{"type": "text", "text": "Be brief."}, {"type": "file", "file": {}}],
        },
        {"role": "user", "content": [{"type": "text", "text": "Look."}, picture]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "At what?"}, {"type": "text", "text": None}],
        },
        {"role": "user", "content": [picture]},
        {"role": "assistant", "content": "I see nothing."},
        *HELLO,
    ]
    status, body = await chat(dashboard, talk)
    asked = dashboard.engine.requests[-1]
    assert status == 200 and asked.instructions == "Be brief.\n[file]"
    assert [turn.text for turn in asked.turns] == [
        "Look.\n[picture]", "At what?\n", "[picture]", "I see nothing.", HELLO[0]["content"],
    ]  # fmt: skip
    [note] = body["understudy"]["notes"]
    assert "left out" in note
    events, _ = await streamed(dashboard, messages=talk)
    assert events[0]["understudy"]["notes"] == [note]
    assert "notes" not in (await chat(dashboard))[1]["understudy"]
    status, body = await chat(dashboard, talk[:4])
    assert (status, body["error"]["param"], body["error"]["code"]) == (
        400,
        "messages",
        "unsupported_value",
    )


async def test_of_a_long_talk_the_latest_is_looked_at_and_its_beginning_moves_in_blocks(dashboard):
    said = [{"role": ("user", "assistant")[n % 2], "content": f"line {n}"} for n in range(101)]
    await chat(dashboard, said)
    first = dashboard.engine.requests[-1].turns
    assert len(first) <= 32 and first[-1].text == "line 100"
    await chat(
        dashboard, [*said, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    )
    assert dashboard.engine.requests[-1].turns[0] == first[0]
    await chat(dashboard, [{"role": "user", "content": "x" * 20_000}, *said[:3], *HELLO])
    assert (
        dashboard.engine.requests[-1].turns[-1].text == HELLO[0]["content"]
        and len(dashboard.engine.requests[-1].turns) == 1
    )
    assert (await chat(dashboard, max_tokens=100_000))[0] == 200
    assert dashboard.engine.requests[-1].sampling.max_new_tokens == 1024, "half of the context"


async def test_what_cannot_be_done_is_refused_by_name(dashboard):
    for field, value in [
        ("n", 2),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "look"}}),
        ("function_call", {"name": "look"}),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["audio"]),
        ("top_logprobs", 3),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
    ]:
        status, body = await chat(dashboard, **{"messages": HELLO, field: value})
        assert (status, body["error"]["param"], body["error"]["code"]) == (
            400,
            field,
            "unsupported_value",
        ), field
        assert field in body["error"]["message"] and dashboard.engine.requests == [], field


async def test_tools_may_be_offered_as_clients_do_to_every_model(dashboard):
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    talk = [
        *HELLO,
        called,
        {"role": "tool", "tool_call_id": "1", "content": "12 °C"},
        {"role": "user", "content": "And?"},
    ]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    status, body = await chat(
        dashboard, talk, tools=tools, tool_choice="auto", parallel_tool_calls=True
    )
    assert status == 200 and body["choices"][0]["finish_reason"] == "stop"
    assert [turn.text for turn in dashboard.engine.requests[-1].turns] == [
        HELLO[0]["content"],
        "And?",
    ]


async def test_a_wrong_field_is_named(dashboard):
    for fields, param in [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"stop": 3}, "stop"),
        ({"stop": "a" * 257}, "stop"),
        ({"repetition_penalty": 1e-45}, "repetition_penalty"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"model": ""}, "model"),
    ]:
        status, body = await chat(dashboard, **{"model": "ballast", "messages": HELLO, **fields})
        error = body["error"]
        assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param), (
            fields
        )


async def test_every_error_below_v1_has_openais_shape(dashboard):
    for method, path, more, status in (
        ("GET", "/v1/nothing", {}, 404), ("GET", CHAT, {}, 405), ("POST", CHAT, {"data": "{"}, 415),
        ("POST", CHAT, {"data": "{", "headers": {"Content-Type": "application/json"}}, 400),
        ("GET", "/v1/models", {"headers": {"Host": "example.org"}}, 403),
        ("POST", CHAT, {"json": [], "headers": {"Origin": "https://example.org"}}, 403),
    ):  # fmt: skip
        found, body, headers = await dashboard.ask(method, path, **more)
        assert found == (400 if status == 415 else status) and set(body) == {"error"}, body
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert "Access-Control-Allow-Origin" not in headers
    dashboard.front.close()
    status, body, headers = await dashboard.ask("GET", "/v1/models")
    assert (status, body["error"]["type"]) == (503, "server_error") and headers["Retry-After"]


async def test_when_too_many_wait_the_client_is_reported_when_to_come_back(dashboard):
    dashboard.engine.full = True
    status, body, headers = await dashboard.ask(
        "POST", CHAT, json={"model": "oda", "messages": HELLO, "stream": True}
    )
    assert (status, body["error"]["type"], body["error"]["code"]) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert int(headers["Retry-After"]) > 0


async def test_a_version_that_cannot_be_loaded_is_never_replaced_by_another(dashboard):
    put_version(dashboard.store, "oda", "v1")
    dashboard.engine.failure = AdapterError(
        f"{dashboard.services.home}/models/v1 is damaged.", "Train another."
    )
    for stream in (False, True):
        status, body = await chat(dashboard, model="oda@v1", stream=stream)
        assert (
            status == 422
            and body["error"]["code"] == "model_unavailable"
            and "damaged" in body["error"]["message"]
        )
        assert "UNDERSTUDY_HOME/models/v1" in body["error"]["message"] and str(
            dashboard.services.home
        ) not in str(body)
    assert len(dashboard.engine.requests) == 2
    assert all(request.needs_adapter for request in dashboard.engine.requests)


async def test_a_server_that_fails_is_not_the_clients_fault(dashboard):
    what = f"http://gpu:8001 failed (500): {dashboard.services.home}/models is gone."
    dashboard.engine.failure = ServerError(what, "See the server's log.")
    for stream in (False, True):
        status, body = await chat(dashboard, model="oda", stream=stream)
        assert (status, body["error"]["type"]) == (502, "server_error")
        assert "gpu:8001 failed (500): UNDERSTUDY_HOME/models" in body["error"]["message"]


async def test_what_goes_wrong_in_the_middle_is_said_in_the_stream(dashboard):
    def script(_):
        yield "It is "
        raise PromptTooLongError("no room")

    dashboard.engine.script = script
    events, last = await streamed(dashboard)
    assert last == "[DONE]" and events[1]["choices"][0]["delta"]["content"] == "It is "
    assert events[-1]["error"]["code"] == "context_length_exceeded"
    status, body = await chat(dashboard)
    assert (status, body["error"]["code"], body["error"]["param"]) == (
        400,
        "context_length_exceeded",
        "messages",
    )


async def test_a_message_that_leaves_no_room_is_refused_and_not_cut(dashboard):
    status, body = await chat(dashboard, [{"role": "user", "content": "word " * 9_000}])
    assert (status, body["error"]["code"], dashboard.engine.requests) == (
        400,
        "context_length_exceeded",
        [],
    )
    assert "9001 tokens" in body["error"]["message"] or "9000 tokens" in body["error"]["message"]
    assert (await chat(dashboard, [{"role": "user", "content": "word " * 900}]))[0] == 200


async def test_instructions_without_end_are_refused_before_the_engine_reads_them(dashboard):
    status, body = await chat(dashboard, [{"role": "system", "content": "x" * 20_000}, *HELLO])
    assert (status, body["error"]["code"], dashboard.engine.requests) == (
        400,
        "context_length_exceeded",
        [],
    )


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_place(dashboard, stream):
    dashboard.engine.free.clear()
    made = []
    submit = dashboard.engine.submit
    dashboard.engine.submit = lambda request: made.append(submit(request)) or made[-1]
    body = {"model": "ballast", "messages": HELLO, "stream": stream}
    asking = asyncio.create_task(dashboard.session.post(CHAT, json=body))
    await until(lambda: made and dashboard.backend.held)
    if stream:
        answer = await asking
        answer.close()
    else:
        await asyncio.sleep(0.05)
        asking.cancel()
    await until(lambda: made[0]._cancelled.is_set(), 3)


async def test_token_probabilities_come_as_openai_has_them(dashboard):
    _, body = await chat(dashboard, logprobs=True, top_logprobs=1)
    content = body["choices"][0]["logprobs"]["content"]
    assert content[0] == {"token": "Ballast", "logprob": -0.5, "bytes": list(b"Ballast"),
                          "top_logprobs": [{"token": "tide", "logprob": -0.5, "bytes": list(b"tide")}]}  # fmt: skip
    _, body = await chat(dashboard, logprobs=True)
    assert body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    chunks, _ = await streamed(dashboard, logprobs=True, top_logprobs=2)
    assert len(chunks[-1]["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2
