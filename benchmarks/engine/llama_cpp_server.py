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
    """A server with a slot for each chat and all adapters, each at rest until a request asks for it."""
    settings = xllamacpp.CommonParams()
    settings.model.path = spec["model"]
    settings.n_parallel = chats
    settings.n_ctx = chats * spec["context"]
    settings.n_gpu_layers = 0
    settings.verbosity = -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = spec["threads"]
    settings.lora_init_without_apply = True
    settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in spec["adapters"][:chats]]
    return xllamacpp.Server(settings)


def measure(server: Any, spec: dict[str, Any], chats: int, prompts: str) -> dict[str, Any]:
    """All chats at once, each a thread that follows its stream."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    tokens = [0] * chats

    def ask(at: int) -> None:
        def heard(answer: Any) -> bool:
            found = json.loads(answer) if isinstance(answer, str) else answer
            last[at] = time.perf_counter() - began
            if any(choice.get("text") for choice in found.get("choices", [])):
                first.setdefault(at, last[at])
            tokens[at] = (found.get("usage") or {}).get("completion_tokens", tokens[at])
            return False

        body = {
            "prompt": spec[prompts][at], "max_tokens": spec["new_tokens"], "temperature": 0, "ignore_eos": True,
            "id_slot": at, "lora": [{"id": at, "scale": 1.0}], "stream": True, "cache_prompt": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        server.handle_completions(body, heard)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(chats)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = sum(tokens)
    if made != chats * spec["new_tokens"]:
        raise SystemExit(f"llama.cpp made {made} tokens of {chats * spec['new_tokens']}")
    each = [(last[at] - first[at]) / (spec["new_tokens"] - 1) for at in first]
    return {"tokens_per_s": made / max(last.values()), "ttft_s": sorted(first.values()), "token_s": sorted(each)}


def main() -> int:
    """Measure all workloads, cold and with the whole prompt cached."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 (as little as can be is loaded here)
        spec = json.load(file)
    found = {}
    for chats in spec["chats"]:
        server = start_server(spec, chats)
        measure(server, {**spec, "new_tokens": 4}, chats, "other_prompts")
        found[f"{chats} cold"] = measure(server, spec, chats, "prompts")
        found[f"{chats} cached"] = measure(server, spec, chats, "prompts")
        del server
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
