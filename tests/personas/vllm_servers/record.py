"""Records the answers of a real vLLM server: `python -m tests.personas.vllm_servers.record --python
PATH/bin/python`.

With `--llama-cpp PATH/bin/python --gguf FILE`, those of llama.cpp's server (the package xllamacpp)
instead, over the bundled model as GGUF. Writes recordings/*.json again. Paths of this machine,
times and random ids are replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from personas.engine.remote.openai_client import ServedByOpenAI
from personas.engine.remote.server_checks import PROBE_TEXT
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona, SamplingParams, Turn
from tests.personas.vllm_servers import recordings
from tests.personas.vllm_servers.recordings import RecordedResponse, Recording
from tests.personas.vllm_servers.vllm_process import (
    API_KEY,
    BASE_NAME,
    LORA_OPTIONS,
    VllmProcess,
    find_free_port,
)
from tests.personas.vllm_servers.workspace import TinyWorkspace, make_workspace

CONTEXT_TOKENS = 256
OPTIONS = (
    "--dtype",
    "float32",
    "--max-model-len",
    str(CONTEXT_TOKENS),
    "--enforce-eager",
    "--max-num-seqs",
    "8",
)
KEYS = {
    "right": {"Authorization": f"Bearer {API_KEY}"},
    "wrong": {"Authorization": "Bearer wrong"},
    "none": {},
}
KEPT_METRICS = re.compile(
    r"^(?:# \w+ )?vllm:(?:num_requests_running|num_requests_waiting)\b.*$", re.MULTILINE
)
LLAMA_CPP_SOURCE = """
import sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port, settings.n_ctx, settings.n_parallel = sys.argv[1], int(sys.argv[2]), 2048, 1
server = xllamacpp.Server(settings)
sys.stdin.read()
"""
RANDOM_ID = re.compile(r"^chatcmpl-\w+$")
LIST_OF_NUMBERS = re.compile(r"\[\s+(-?\d+(?:,\s+-?\d+)*)\s+\]")


@dataclass(frozen=True)
class Exchange:
    """A request to record under a name (see `recordings.SCHEMAS`)."""

    name: str
    path: str
    body: dict[str, Any] | None = None
    key: str = "right"


def completion(prompt: list[int], model: str = BASE_NAME, **changes: Any) -> dict[str, Any]:
    """Return the body of a streamed completion, with every sampling setting that vLLM would take
    from the model.
    """
    body = {
        "model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0, "seed": 7, "stop_token_ids": [2], "ignore_eos": True, "cache_salt": "epoch-1",
        "stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True,
    }  # fmt: skip
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def exchanges(space: TinyWorkspace) -> list[Exchange]:
    """List all requests in order; later ones rely on what earlier ones loaded."""
    first, second, wide = (
        space.version(number, rank) for number, rank in ((1, 8), (2, 8), (3, 32))
    )
    prompt = list(
        space.renderer.prompt(
            Persona("ada", "Ada", description="You are Ada."), [Turn("Bo", "hello")]
        ).ids
    )
    long = (prompt * CONTEXT_TOKENS)[: CONTEXT_TOKENS + 1]
    load = "/v1/load_lora_adapter"
    unload = "/v1/unload_lora_adapter"
    complete = "/v1/completions"
    name = first.name
    folder = str(first.folder)
    highest = len(space.renderer.tokenizer) - 1
    probe = space.home / "probe"
    probe.mkdir()
    shutil.copy(first.folder / "adapter_config.json", probe)
    return [
        Exchange("text-health", "/health", key="none"),
        Exchange("version", "/version", key="none"),
        Exchange("unauthorized-wrong-key", "/v1/models", key="wrong"),
        Exchange("unauthorized-no-key", complete, completion(prompt), key="none"),
        Exchange("models-base", "/v1/models"),
        Exchange("tokenize", "/tokenize", {"model": BASE_NAME, "prompt": "Who are you?", "add_special_tokens": False}),
        Exchange("error-missing-adapter", complete, completion(prompt, "ada-v99")),
        Exchange("text-load", load, {"lora_name": name, "lora_path": folder}),
        Exchange("error-already-loaded", load, {"lora_name": name, "lora_path": folder}),
        Exchange("error-load-no-folder", load, {"lora_name": "ada-v98", "lora_path": f"{space.home}/nowhere"}),
        Exchange("error-load-no-weights", load, {"lora_name": "understudy-probe", "lora_path": str(probe)}),
        Exchange("error-load-rank", load, {"lora_name": wide.name, "lora_path": str(wide.folder)}),
        Exchange("models-adapter", "/v1/models"),
        Exchange("stream-base", complete, completion(prompt)),
        Exchange("stream-adapter", complete, completion(prompt, name)),
        Exchange("stream-resolved", complete, completion(prompt, second.name)),
        Exchange("stream-logprobs", complete, completion(
            prompt, max_tokens=3, logprobs=2, return_tokens_as_token_ids=True)),
        Exchange("stream-highest-token", complete, completion([highest], max_tokens=1)),
        Exchange("broken-out-of-vocabulary", complete, completion([highest + 1], max_tokens=1)),
        Exchange("stream-length-left", complete, completion((prompt * 99)[: CONTEXT_TOKENS - 3], max_tokens=50)),
        Exchange("error-too-long", complete, completion(long)),
        Exchange("error-cache-salt", complete, completion(prompt, cache_salt="a/b")),
        Exchange("error-bad-value", complete, completion(prompt, temperature=-1.0)),
        Exchange("completion-prompt-logprobs", complete, completion(
            prompt[:6], max_tokens=1, stream=False, stream_options=None, prompt_logprobs=0)),
        Exchange("text-unload", unload, {"lora_name": name}),
        Exchange("error-unload-unknown", unload, {"lora_name": name}),
        Exchange("text-metrics", "/metrics", key="none"),
    ]  # fmt: skip


async def ask(session: aiohttp.ClientSession, url: str, exchange: Exchange) -> RecordedResponse:
    """Send a request and return the answer as it came."""
    method = "GET" if exchange.body is None else "POST"
    headers = {**KEYS[exchange.key], "X-Request-Id": "recorded"}
    async with session.request(
        method, f"{url}{exchange.path}", json=exchange.body, headers=headers
    ) as response:
        text = await response.text()
        found = RecordedResponse(status=response.status, content_type=response.content_type)
        if response.content_type == "text/event-stream":
            found.events = [parse_event(event) for event in text.split("\n\n") if event]
        else:
            found.body = json.loads(text) if response.content_type == "application/json" else text
        if exchange.name == "text-metrics":
            found.body = "".join(f"{line}\n" for line in KEPT_METRICS.findall(text))
        return found


def parse_event(event: str) -> Any:
    data = event.removeprefix("data: ")
    return data if data == recordings.DONE else json.loads(data)


def scrub(value: Any, paths: dict[str, str]) -> Any:
    """Replace this machine's paths, times and random ids."""
    if isinstance(value, dict):
        fixed = {"created": 1_767_225_600, "permission": []}
        value = {name: item for name, item in value.items() if name != "timings"}
        return {name: fixed.get(name, scrub(item, paths)) for name, item in value.items()}
    if isinstance(value, list):
        return [scrub(item, paths) for item in value]
    if isinstance(value, str):
        for path, name in paths.items():
            value = value.replace(path, name)
        return RANDOM_ID.sub("chatcmpl-recorded", value)
    return value


def exchanges_without_lora(space: TinyWorkspace) -> list[Exchange]:
    body = {"lora_name": "ada-v1", "lora_path": str(space.version(1).folder)}
    return [
        Exchange("error-load-without-lora", "/v1/load_lora_adapter", body),
        Exchange("deltas-vllm", "/v1/chat/completions", chat_body(BASE_NAME)),
    ]


def chat_body(model: str) -> dict[str, Any]:
    """Return a request with messages, as the engine sends it."""
    sampling = SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=4)
    return ServedByOpenAI(model, model, 0).body(
        (), [{"role": "user", "content": "hello"}], sampling, 7
    )


def llama_cpp_exchanges(renderer: Renderer, model: str) -> list[Exchange]:
    """List what the checks of a server and a reply of each kind ask."""
    prompt = renderer.prompt(
        Persona("ada", "Ada", description="You are Ada."), [Turn("Bo", "hello")]
    ).ids
    sampling = SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=4)
    served = ServedByOpenAI(model, model, 0, takes_ids=True)
    probe = {
        "model": model,
        "prompt": PROBE_TEXT,
        "content": PROBE_TEXT,
        "add_special_tokens": False,
    }
    complete = served.body(prompt, (), sampling, 7)
    unknown = len(renderer.tokenizer)
    return [
        Exchange("served-llamacpp", "/v1/models"),
        Exchange("tokens-llamacpp", "/tokenize", probe),
        Exchange("pieces-llamacpp", "/v1/completions", {**complete, "return_token_ids": True}),
        Exchange("refusal-llamacpp", "/v1/completions", {**complete, "prompt": [unknown]}),
        Exchange("deltas-llamacpp", "/v1/chat/completions", chat_body(model)),
    ]


def exchanges_without_loading(space: TinyWorkspace) -> list[Exchange]:
    body = {"lora_name": "ada-v1", "lora_path": str(space.version(1).folder)}
    return [Exchange("unknown-path-load", "/v1/load_lora_adapter", body)]


async def record(python: Path, folder: Path) -> None:
    """Start a server for each list of requests and write what it answers. Raises for an answer of
    another shape.
    """
    space = make_workspace(folder)
    server = VllmProcess(
        python,
        space.base.folder,
        space.home,
        folder / "vllm.log",
        options=(*OPTIONS, *LORA_OPTIONS),
    )
    without_lora = replace(server, options=OPTIONS)
    without_loading = replace(server, runtime_lora=False)
    await record_server(server, exchanges(space), space, folder)
    await record_server(without_lora, exchanges_without_lora(space), space, folder)
    await record_server(without_loading, exchanges_without_loading(space), space, folder)


async def record_server(
    server: VllmProcess, asked: list[Exchange], space: TinyWorkspace, folder: Path
) -> None:
    paths = {
        str(space.base.folder): "/models/base",
        str(space.home): "/home/understudy",
        str(folder): "/folder",
    }
    async with server:
        await record_exchanges(server.url, asked, paths, recordings.SERVER)


async def record_llama_cpp(python: Path, gguf: Path) -> None:
    """Start llama.cpp's server over a GGUF of the bundled model and write what it answers."""
    port = find_free_port()
    process = await asyncio.create_subprocess_exec(
        python, "-c", LLAMA_CPP_SOURCE, gguf, str(port), stdin=asyncio.subprocess.PIPE
    )
    url = f"http://127.0.0.1:{port}"
    renderer = Renderer(load_tokenizer(locate(EMBEDDED)))
    try:
        async with aiohttp.ClientSession() as session:
            while not await is_up(session, url):  # noqa: ASYNC110  another process
                await asyncio.sleep(0.5)
        await record_exchanges(
            url,
            llama_cpp_exchanges(renderer, str(gguf)),
            {str(gguf): "model"},
            recordings.LLAMA_CPP,
        )
    finally:
        process.kill()
        await process.wait()


async def is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def record_exchanges(
    url: str, asked: list[Exchange], paths: dict[str, str], made_by: str
) -> None:
    connector = aiohttp.TCPConnector(
        force_close=True
    )  # llama.cpp closes connections after a stream
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=120), connector=connector
    ) as session:
        for exchange in asked:
            response = await ask(session, url, exchange)
            content = {"status": response.status, "content_type": response.content_type}
            content |= (
                {"events": response.events}
                if response.events is not None
                else {"body": response.body}
            )
            request = {
                "method": "GET" if exchange.body is None else "POST",
                "path": exchange.path,
                "key": exchange.key,
            }
            request |= {"json": exchange.body} if exchange.body is not None else {}
            written = scrub({"server": made_by, "request": request, "response": content}, paths)
            text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
            text = LIST_OF_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
            (recordings.FOLDER / f"{exchange.name}.json").write_text(text, encoding="utf-8")
            recordings.validate(exchange.name, Recording.model_validate_json(text).response)
            print(exchange.name, response.status, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m tests.personas.vllm_servers.record", description=__doc__
    )
    parser.add_argument(
        "--python", type=Path, default=Path("build/vllm/bin/python"), help="of vLLM's environment"
    )
    parser.add_argument("--llama-cpp", type=Path, help="python of an environment with xllamacpp")
    parser.add_argument("--gguf", type=Path, help="the bundled model for --llama-cpp")
    arguments = parser.parse_args()
    if arguments.llama_cpp:
        asyncio.run(record_llama_cpp(arguments.llama_cpp, arguments.gguf.absolute()))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(record(arguments.python.absolute(), Path(folder)))


if __name__ == "__main__":
    main()
