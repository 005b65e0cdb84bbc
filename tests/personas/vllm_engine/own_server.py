"""The vLLM server without a model as a program, with vLLM's options: `python own_server.py -m MODULE
--model FOLDER …`. OWN_SERVER names a file with its settings.

The card is a file, too: `total_bytes`, `other_bytes` that other programs hold, and `held_bytes` of
the server, none while it sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

from personas.models.base_model import locate
from tests.personas.vllm_engine.server import VllmServer


class FastTokenizer:
    """The tokenizer of a model's folder without transformers, which takes seconds to import."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        end = config["eos_token"]
        self.eos_token_id = self._tokenizer.token_to_id(
            end if isinstance(end, str) else end["content"]
        )

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=False).ids}

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


class SleepingServer(VllmServer):
    """A server with vLLM's sleep mode, which holds a part of the card while it is awake."""

    card: Path | None = None
    held_bytes = 0
    cannot_sleep = False

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/sleep", self._sleep)
        app.router.add_post("/wake_up", self._wake_up)

    async def start(self) -> None:
        self.hold(self.held_bytes)
        await super().start()

    def hold(self, size: int) -> None:
        """Take so many bytes of the card. Exits where it has not as many, as vLLM does."""
        if self.card is None:
            return
        card = read_card(self.card)
        if size > card["total_bytes"] - card["other_bytes"]:
            sys.exit(
                "ValueError: Free memory on device is less than desired GPU memory utilization"
            )
        self.card.write_text(json.dumps({**card, "held_bytes": size}))

    @property
    def is_asleep(self) -> bool:
        return self.card is not None and not read_card(self.card)["held_bytes"]

    async def _sleep(self, request: web.Request) -> web.Response:
        assert request.query["level"] == "1"
        assert not self.open_replies
        if self.cannot_sleep:
            return web.Response(status=500)
        self.hold(0)
        return web.Response()

    async def _wake_up(self, request: web.Request) -> web.Response:
        self.hold(self.held_bytes)
        return web.Response()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        assert not self.is_asleep
        return await super()._completions(request)


def read_card(file: Path) -> dict[str, int]:
    return json.loads(file.read_text())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-m", dest="module", required=True)
    for name in ("--model", "--host", "--generation-config", "--quantization"):
        parser.add_argument(name)
    for name in ("--port", "--max-model-len", "--max-num-seqs", "--max-loras", "--max-cpu-loras"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--max-lora-rank", type=int, required=True)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.0)
    for name in ("--enable-lora", "--enable-sleep-mode"):
        parser.add_argument(name, action="store_true")
    return parser.parse_args()


async def serve(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    server = SleepingServer(
        arguments.model,
        FastTokenizer(Path(arguments.model)),
        max_model_len=arguments.max_model_len,
        key=os.environ["VLLM_API_KEY"],
        has_lora=arguments.enable_lora,
        allows_updates=os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "1",
        max_lora_rank=arguments.max_lora_rank,
        port=arguments.port,
    )
    server.faults.token_delay_s = settings.get("token_delay_s", 0.0)
    if arguments.enable_sleep_mode:
        assert os.environ["VLLM_SERVER_DEV_MODE"] == "1"
        server.card = Path(settings["card"])
        total = read_card(server.card)["total_bytes"]
        server.held_bytes = round(arguments.gpu_memory_utilization * total)
    server.cannot_sleep = settings.get("cannot_sleep", False)
    if settings.get("scores"):
        from tests.effect_probes import ScoringModel  # imports torch

        server.scoring = ScoringModel(locate(arguments.model))
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.hold(0)


if __name__ == "__main__":
    parsed = parse()
    stored = json.loads(Path(os.environ["OWN_SERVER"]).read_text())
    with Path(stored["starts"]).open("a") as starts:
        starts.write(json.dumps(vars(parsed)) + "\n")
    if refusal := stored.get("refuses"):
        sys.exit(refusal)
    asyncio.run(serve(parsed, stored))
