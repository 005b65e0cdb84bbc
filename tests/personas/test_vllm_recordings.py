"""Recorded answers of a real vLLM server: each fits its schema and gives nothing away."""

import copy
import re

import pytest
from pydantic import ValidationError

from tests.personas.vllm_servers import recordings

EXPECTED = {
    "error-already-loaded": 400, "error-missing-adapter": 404, "error-load-no-folder": 404, "error-too-long": 400,
    "error-unload-unknown": 404, "unauthorized-wrong-key": 401, "text-load": 200, "models-adapter": 200,
    "stream-adapter": 200, "stream-resolved": 200, "tokenize": 200, "text-health": 200, "text-metrics": 200,
}  # fmt: skip
MAX_FILE_BYTES, MAX_FOLDER_BYTES = 12_000, 60_000
MACHINE_PATH = re.compile(r"/(?:tmp|home/(?!understudy)|root|work|Users|mnt)/")


@pytest.mark.parametrize("name", recordings.names())
def test_a_recording_fits_its_schema(name):
    recording = recordings.load(name)
    assert recording.server == recordings.SERVER
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
    assert events[0]["choices"][0]["prompt_token_ids"] == recordings.load("stream-adapter").request.json_["prompt"]


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
