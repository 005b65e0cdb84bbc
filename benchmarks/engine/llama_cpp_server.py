"""Measures llama.cpp in an environment of its own: `python llama_cpp_server.py SPEC.json`."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from typing import Any

xllamacpp: Any = importlib.import_module("xllamacpp")


def start_server(spec: dict[str, Any], chats: int) -> Any:
    """Start a server with a slot per chat and all adapters, each inactive until a request selects
    it.
    """
    settings = xllamacpp.CommonParams()
    settings.model.path = spec["model"]
    settings.n_parallel = chats
    settings.n_ctx = chats * spec["context"]
    settings.n_gpu_layers = 0
    settings.verbosity = -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = spec["threads"]
    settings.lora_init_without_apply = True
    settings.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in spec["adapters"][:chats]
    ]
    return xllamacpp.Server(settings)


def measure(server: Any, spec: dict[str, Any], chats: int, prompts: str) -> dict[str, Any]:
    """Measure all chats at once, each on a thread that follows its stream."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    tokens = [0] * chats

    def run_chat(at: int) -> None:
        def on_chunk(chunk: Any) -> bool:
            event = json.loads(chunk) if isinstance(chunk, str) else chunk
            last[at] = time.perf_counter() - start
            if any(choice.get("text") for choice in event.get("choices", [])):
                first.setdefault(at, last[at])
            tokens[at] = (event.get("usage") or {}).get("completion_tokens", tokens[at])
            return False

        body = {
            "prompt": spec[prompts][at], "max_tokens": spec["new_tokens"], "temperature": 0, "ignore_eos": True,
            "id_slot": at, "lora": [{"id": at, "scale": 1.0}], "stream": True, "cache_prompt": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        server.handle_completions(body, on_chunk)

    threads = [threading.Thread(target=run_chat, args=(at,)) for at in range(chats)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    generated = sum(tokens)
    if generated != chats * spec["new_tokens"]:
        raise SystemExit(
            f"llama.cpp generated {generated} tokens instead of {chats * spec['new_tokens']}"
        )
    token_s = [(last[at] - first[at]) / (spec["new_tokens"] - 1) for at in first]
    return {
        "tokens_per_s": generated / max(last.values()),
        "ttft_s": sorted(first.values()),
        "token_s": sorted(token_s),
    }


def main() -> int:
    """Measure all workloads, cold and with whole prompts cached."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 (this environment has few packages)
        spec = json.load(file)
    figures = {}
    for chats in spec["chats"]:
        server = start_server(spec, chats)
        measure(server, {**spec, "new_tokens": 4}, chats, "other_prompts")
        figures[f"{chats} cold"] = measure(server, spec, chats, "prompts")
        figures[f"{chats} cached"] = measure(server, spec, chats, "prompts")
        del server
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
