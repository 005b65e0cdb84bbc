"""Executes the marked blocks of the documents in a temporary home."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bot.app import open_app
from bot.settings import load_settings
from personas.home.job_material import ShippedData
from sandbox import Sandbox
from tests.docs.playing import FenceRunner, workspace
from tests.docs.reading import fences, pages

MARKED = {
    page: marked for page in pages() if (marked := [fence for fence in fences(page) if fence.mark])
}
QUICK = [page for page, marked in MARKED.items() if any(fence.mark == "run" for fence in marked)]
SLOW = [page for page, marked in MARKED.items() if any(fence.is_slow for fence in marked)]
DAYS = ("2026-01-05", "2026-01-06", "2026-02-11", "2026-02-12", "2026-03-08", "2026-03-09")
PACKAGE = {
    "account/user.json": {"id": "41", "username": "rowan", "global_name": "Rowan"},
    "messages/index.json": {"100000000000000001": "general in Skerrow"},
    "messages/c100000000000000001/messages.json": [
        {"ID": str(7 + n), "Timestamp": f"{day} 18:0{m}:00", "Contents": text, "Attachments": ""}
        for n, (day, m, text) in enumerate(
            (day, m, f"{said} That was on day {number}.")
            for number, day in enumerate(DAYS)
            for m, said in enumerate(
                ("The mast is glued, do not lean on it.", "Who moved my clamps again?")
            )
        )
    ],
}


@pytest.mark.parametrize("page", QUICK)
async def test_quick_blocks_of_a_page(page, tmp_path):
    runner = FenceRunner(_prepared(tmp_path))
    is_left_out = False
    for fence in MARKED[page]:
        is_left_out = fence.is_slow or (is_left_out and fence.mark == "prints")
        if not is_left_out:
            await runner.run(fence)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
async def test_all_blocks_of_a_page(page, tmp_path):
    async with AsyncExitStack() as stack:
        runner = FenceRunner(_prepared(tmp_path))
        if any(fence.language == "discord" and fence.runs for fence in MARKED[page]):
            runner.sandbox = await stack.enter_async_context(_guild(tmp_path / ".understudy"))
        for fence in MARKED[page]:
            await runner.run(fence)


def _prepared(tmp_path: Path) -> Path:
    folder = workspace(tmp_path)
    with zipfile.ZipFile(folder / "package.zip", "w") as archive:
        for name, held in PACKAGE.items():
            archive.writestr(name, json.dumps(held))
    return folder


@asynccontextmanager
async def _guild(home: Path) -> AsyncIterator[Sandbox]:
    """Starts the bot as `make run` does, over the bundled model, with a tenth of each log, to take
    minutes only.

    Versions are evaluated by losses alone.
    """
    shipped = ShippedData.from_source_tree()
    logs = home.parent / "logs"
    logs.mkdir()
    shutil.copy(shipped.logs / "rights.toml", logs)
    for path in shipped.logs.glob("*.json"):
        log = json.loads(path.read_bytes())
        kept = log["messages"][: len(log["messages"]) // 10]
        (logs / path.name).write_text(json.dumps({**log, "messages": kept}), encoding="utf-8")
    settings = load_settings(
        None, {"UNDERSTUDY_HOME": str(home), "WEB_PORT": "0", "TRAINER_CARD": "losses"}
    )
    async with open_app(settings, replace(shipped, logs=logs)) as app:
        assert app.sandbox is not None
        yield app.sandbox
