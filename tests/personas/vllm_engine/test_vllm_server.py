"""The server of these tests answers what a real one was recorded to answer: status, form and text
of errors.
"""

import json
import re

import aiohttp
import pytest

from tests.personas.vllm_engine.server import VllmServer
from tests.personas.vllm_servers import recordings
from tests.personas.vllm_servers.recordings import RecordedResponse

REPLAYED = (
    "broken-out-of-vocabulary", "error-already-loaded", "error-load-no-folder", "error-load-no-weights",
    "error-load-rank", "error-load-without-lora", "error-missing-adapter", "error-too-long", "error-unload-unknown",
    "models-adapter", "models-base", "stream-adapter", "stream-base", "stream-highest-token", "stream-length-left",
    "stream-logprobs",
    "stream-resolved", "text-health", "text-load", "text-metrics", "text-unload", "tokenize", "unauthorized-no-key",
    "unauthorized-wrong-key", "unknown-path-load",
)  # fmt: skip
RANKS = {"v1": 8, "v2": 8, "v3": 32}
KEYS = {"right": "a-key", "wrong": "another", "none": ""}


@pytest.fixture
async def server(renderer, version, home, tmp_path):
    """A server as the recorded ones were started, over a home with the same versions."""
    for number in (1, 2, 3):
        version(number, RANKS[f"v{number}"])
    (home / "probe").mkdir()
    (home / "probe" / "adapter_config.json").write_text(json.dumps({"r": 8}))
    server = VllmServer(
        "/models/base", renderer.tokenizer, 256, KEYS["right"], name="base", max_lora_rank=16
    )
    server.resolves = home
    yield server
    await server.stop()


async def replay(server: VllmServer, name: str, home: str) -> RecordedResponse:
    """Send a recorded request to the server."""
    request = recordings.load(name).request
    body = json.loads(json.dumps(request.json_).replace("/home/understudy", home))
    headers = {"Authorization": f"Bearer {KEYS[request.key]}"} if KEYS[request.key] else {}
    async with (
        aiohttp.ClientSession(server.url, headers=headers) as session,
        session.request(request.method, request.path, json=body) as response,
    ):
        text = await response.text()
        kind = response.content_type
    if kind == "text/event-stream":
        data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        events = [item if item == recordings.DONE else json.loads(item) for item in data]
        return RecordedResponse(status=response.status, content_type=kind, events=events)
    answer = json.loads(text) if kind == "application/json" else text
    return RecordedResponse(status=response.status, content_type=kind, body=answer)


def error_of(response: RecordedResponse) -> dict:
    """Return an error without what differs between servers: numbers, and what follows the first
    sentence.
    """
    [found] = [
        body["error"] for body in (response.events or [response.body]) if body != recordings.DONE
    ]
    return {**found, "message": re.sub(r"\d+", "N", found["message"]).partition(". ")[0]}


@pytest.mark.parametrize("name", REPLAYED)
async def test_it_answers_as_the_recorded_server_did(server, home, name):
    recorded = recordings.load(name).response
    server.allows_updates = name != "unknown-path-load"
    server.has_lora = name != "error-load-without-lora"
    await server.start()
    if name in ("error-already-loaded", "models-adapter", "stream-adapter", "text-unload"):
        await replay(server, "text-load", str(home))
    answer = await replay(server, name, str(home))
    recordings.validate(name, answer)
    assert answer.status == recorded.status
    if name.startswith(("error", "broken")):
        assert error_of(answer) == error_of(recorded)
    elif name.startswith("stream"):
        assert [len(event) for event in answer.events[:1]] == [
            len(event) for event in recorded.events[:1]
        ]
        choices = [event["choices"][0] for event in (answer.events[0], recorded.events[0])]
        assert (
            choices[0].keys() == choices[1].keys()
            and choices[0]["prompt_token_ids"] == choices[1]["prompt_token_ids"]
        )
        assert answer.events[-2]["usage"].keys() == recorded.events[-2]["usage"].keys()
    elif isinstance(recorded.body, dict):
        assert answer.body.keys() == recorded.body.keys()
