"""Recorded answers of a real vLLM server: each fits its schema and gives nothing away."""

import copy
import json
import re

import aiohttp
import pytest
from pydantic import ValidationError

from personas.home.adapters import adapter_ref
from tests.personas.vllm_engine.server import VllmServer
from tests.personas.vllm_servers import recordings
from tests.personas.vllm_servers.record import Exchange, ask
from tests.personas.vllm_servers.vllm_process import API_KEY, BASE_NAME

EXPECTED = {
    "error-already-loaded": 400, "error-missing-adapter": 404, "error-load-no-folder": 404, "error-too-long": 400,
    "error-unload-unknown": 404, "unauthorized-wrong-key": 401, "text-load": 200, "models-adapter": 200,
    "stream-adapter": 200, "stream-resolved": 200, "tokenize": 200, "text-health": 200, "text-metrics": 200,
}  # fmt: skip
ANSWERED_BY_TEST_SERVER = (
    "text-health unauthorized-wrong-key unauthorized-no-key models-base tokenize "
    "error-missing-adapter text-load "
    "error-already-loaded error-load-no-folder error-load-no-weights error-load-rank "
    "models-adapter stream-base "
    "stream-adapter stream-resolved stream-logprobs stream-length-left broken-out-of-vocabulary "
    "error-too-long "
    "text-unload error-unload-unknown text-metrics"
).split()
"""In this order, because later ones rely on what earlier ones loaded."""
MAX_FILE_BYTES = 12_000
MAX_FOLDER_BYTES = 60_000
MACHINE_PATH = re.compile(r"/(?:tmp|home/(?!understudy)|root|work|Users|mnt)/")


@pytest.mark.parametrize("name", recordings.names())
def test_a_recording_fits_its_schema(name):
    recording = recordings.load(name)
    assert recording.server in (recordings.SERVER, recordings.LLAMA_CPP)
    recordings.validate(name, recording.response)


def test_each_answer_that_the_engine_relies_on_is_recorded():
    assert {name: recordings.load(name).response.status for name in EXPECTED} == EXPECTED


def test_recordings_are_small_and_name_no_machine():
    files = list(recordings.FOLDER.glob("*.json"))
    assert sum(file.stat().st_size for file in files) <= MAX_FOLDER_BYTES
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert len(text) <= MAX_FILE_BYTES and not MACHINE_PATH.search(text), file.name


def test_a_stream_delivers_each_token_once_and_its_usage_last():
    events = recordings.load("stream-adapter").response.events
    assert events[-1] == recordings.DONE and events[-2]["choices"] == []
    tokens = [token for event in events[:-2] for token in event["choices"][0]["token_ids"]]
    assert len(tokens) == events[-2]["usage"]["completion_tokens"]
    assert (
        events[0]["choices"][0]["prompt_token_ids"]
        == recordings.load("stream-adapter").request.json_["prompt"]
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("models-base", lambda body: body["data"][0].pop("root")),
        ("error-already-loaded", lambda body: body.update(error="loaded")),
        ("stream-base", lambda events: events[0]["choices"][0].update(token_ids="12")),
        ("stream-base", lambda events: events[0].pop("choices")),
        ("tokenize", lambda body: body.update(tokens=["a"])),
    ],
)
def test_an_answer_of_another_shape_is_noticed(name, change):
    response = copy.deepcopy(recordings.load(name).response)
    change(response.body if response.events is None else response.events)
    with pytest.raises(ValidationError):
        recordings.validate(name, response)


async def test_the_server_of_the_tests_answers_as_the_real_one(tmp_path, tiny_base, renderer):
    """Asks it every recorded request and compares status, errors, and the form of everything
    else.
    """
    for number, rank in ((1, 8), (2, 8), (3, 32)):
        folder = adapter_ref(tmp_path, "ada", f"v{number}").folder
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
        (folder / "adapter_model.safetensors").touch()
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "adapter_config.json").write_text('{"r": 8}')
    server = VllmServer(
        "/models/base", renderer.tokenizer, max_model_len=256, key=API_KEY, max_lora_rank=16, resolves=tmp_path,
        name=BASE_NAME,
    )  # fmt: skip
    await server.start()
    async with aiohttp.ClientSession() as session:
        for name in ANSWERED_BY_TEST_SERVER:
            real = recordings.load(name)
            body = json.loads(
                json.dumps(real.request.json_).replace("/home/understudy", str(tmp_path))
            )
            answer = await ask(
                session, server.url, Exchange(name, real.request.path, body, real.request.key)
            )
            recordings.validate(name, answer)
            assert answer.status == real.response.status, name
            if name.startswith(("error", "broken", "unauthorized")):
                assert (answer.body, answer.events) == (real.response.body, real.response.events), (
                    name
                )
            if name.startswith("stream"):
                assert forms(answer.events) == forms(real.response.events), name
    await server.stop()


def forms(events: list) -> tuple:
    """Return the fields of a stream's choices, its ends, and the number of its tokens."""
    choices = [
        event["choices"][0] for event in events if event != recordings.DONE and event["choices"]
    ]
    fields = {tuple(sorted(choice)) for choice in choices}
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return fields, ends, sum(len(choice["token_ids"]) for choice in choices), events[-1]
