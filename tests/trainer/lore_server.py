"""A small card with lore, and an OpenAI-compatible server on a real socket that says what it is
told to.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

CARD = '''id = "ada"
name = "Ada Marsh"
description = "You keep the clock of the harbour."
mes_example = """
{{user}}: good morning
{{char}}: I am winding the clock. It is slow, and I am patient.
{{user}}: who are you
{{char}}: I keep the hours here. You may sit down by the stove.
{{user}}: is it late
{{char}}: It is never late. I hold the hands myself when I have to.
"""
'''
LORE = {
    "ada/clock.md": (
        "# The Clock\n\n## The tower\nAda Marsh winds the clock every evening. It has eleven "
        "wheels and one bell. "
        "She cannot climb the ladder any more.\n\n## Bram Weir\nBram Weir is her cousin. He oils "
        "the wheels on Sundays."
        "\n\n## How she speaks\nShe speaks slowly. She never shouts.\n"
    ),
    "_world/town.md": "# The Town\n\n## The market\nIt opens on Thursdays behind the chapel, with nine stalls.\n",
}


def home(folder: Path) -> tuple[Path, Path]:
    """The card's file and the lore's folder."""
    card = folder / "ada.toml"
    card.write_text(CARD, encoding="utf-8")
    for name, text in LORE.items():
        path = folder / "lore" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return card, folder / "lore"


def lore_command(*words: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m trainer lore …`, run as people run it."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "trainer", "lore", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, "UNDERSTUDY_HOME": "/nowhere", **environ}, timeout=120,
    )  # fmt: skip


Script = Callable[[dict[str, Any]], str | int | dict[str, Any] | web.Response]


class Endpoint:
    """What was asked of the server. `script` gets the request's body and says the reply, a whole choice,
    a status, or a whole response.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization"))
        said = self.script(body)
        if isinstance(said, web.Response):
            return said
        if isinstance(said, int):
            return web.Response(status=said, text="no")
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": said},
        }
        if isinstance(said, dict):
            choice |= said
        return web.json_response({"object": "chat.completion", "choices": [choice]})


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Endpoint]:
    """The server, listening."""
    endpoint = Endpoint(script)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield endpoint
    finally:
        await site.stop()
        # A connection that was accepted just now is none of the runner's yet, and would stay open.
        await asyncio.sleep(0.01)
        await runner.cleanup()
