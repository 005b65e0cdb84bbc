"""llama.cpp's server from the package xllamacpp, with the options of llama-server that the bot uses.

`python -m personas.engine.remote.xllamacpp_server --model FILE --port PORT …` serves until the
process ends. The key is read from LLAMA_API_KEY, as by llama-server.
"""

import argparse
import csv
import importlib
import os
import sys
import threading
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Serve until the process is ended; 1 if the model cannot be loaded."""
    options = _parse(arguments)
    xllamacpp: Any = importlib.import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = options.model
    settings.n_parallel = options.parallel
    settings.n_ctx = options.ctx_size
    settings.kv_unified = options.kv_unified
    settings.cache_ram_mib = options.cache_ram
    settings.mmproj.path = options.mmproj
    settings.image_max_tokens = options.image_max_tokens
    settings.lora_init_without_apply = options.lora_init_without_apply
    settings.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in adapter_paths(options.lora)
    ]
    settings.hostnames = [options.host]
    settings.port = options.port
    settings.ui = not options.no_webui
    if key := os.environ.get("LLAMA_API_KEY"):
        settings.api_keys = [key]
    threads = int(os.environ.get("LLAMA_ARG_THREADS") or os.cpu_count() or 1)
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    try:
        server = xllamacpp.Server(settings)
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()
    return 0


def adapter_paths(values: list[str]) -> list[str]:
    """Return the paths of `--lora`, each value of which may name several."""
    return [path for value in values for path in next(csv.reader([value]))]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="xllamacpp_server", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--ctx-size", type=int, required=True)
    parser.add_argument("--cache-ram", type=int, default=0)
    parser.add_argument("--kv-unified", action="store_true")
    parser.add_argument("--mmproj", default="")
    parser.add_argument("--image-max-tokens", type=int, default=-1)
    parser.add_argument("--lora-init-without-apply", action="store_true")
    parser.add_argument("--lora", action="append", default=[])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--no-webui", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
