"""A full disk is a 507 that says so, at every door that stores something; nothing is stored by
halves.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from discord import app_commands

from bot.platform.db.database import translate_errors
from bot.platform.errors import DISK_FULL_MESSAGE, error_text, is_disk_full
from bot.store import StoreError
from personas.errors import CardError
from tests.bot.web.conftest import DashboardClient
from tests.bot.web.test_web_cards import rewrite, upload
from tests.bot.web.test_web_openai import put_version
from tests.personas.cards import V2, as_json


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be written to its end."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def refuse_rows(*_: Any, **__: Any) -> None:
    """What the store raises once SQLite finds no room for a page."""
    with translate_errors(Path("/home/op/.understudy/understudy.sqlite")):
        raise sqlite3.OperationalError("database or disk is full")


def tree(dashboard: DashboardClient, *folders: str) -> set[str]:
    found = (
        path for name in folders for path in (dashboard.home / name).rglob("*") if path.is_file()
    )
    return {path.relative_to(dashboard.home).as_posix() for path in found}


@pytest.mark.usefixtures("full_disk")
async def test_for_the_script_that_uploads(dashboard: DashboardClient) -> None:
    data = b'{"messages": []}\n'
    status, problem, _ = await dashboard.ask("PUT", "/dashboard/data/uploads/talk.jsonl", data=data)
    assert (status, problem["type"]) == (507, "/problems/no-room"), problem
    assert not tree(dashboard, "uploads")


@pytest.mark.usefixtures("full_disk")
async def test_on_the_pages(dashboard: DashboardClient) -> None:
    status, text, _ = await dashboard.submit(
        "/dashboard/personas/ballast/lore", name="mine", text="# Mine\n\nOf silk."
    )
    assert (
        status == 507 and DISK_FULL_MESSAGE in text and "Of silk." in text
    )  # the text is still in the form
    await rewrite(dashboard, status=507, tagline="A crane.")
    status, _, text = await upload(dashboard, "/dashboard/personas", "mira.json", as_json(V2))
    assert status == 507 and DISK_FULL_MESSAGE in text
    assert not tree(dashboard, "lore", "personas")


async def test_with_a_full_database(
    dashboard: DashboardClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_version(dashboard.store, "ballast", "v1")
    monkeypatch.setattr(dashboard.store.jobs, "add", refuse_rows)
    monkeypatch.setattr(dashboard.store.versions, "promote", refuse_rows)
    status, problem, _ = await dashboard.start()
    assert (status, problem["type"]) == (507, "/problems/no-room"), problem
    status, problem, _ = await dashboard.ask(
        "POST", "/personas/ballast/versions/v1/promote", json={}
    )
    assert (status, problem["type"]) == (507, "/problems/no-room"), problem
    assert "/home/op" not in str(problem)


def test_members_are_told_that_the_disk_is_full() -> None:
    full = OSError(
        errno.ENOSPC, "No space left on device", "/home/op/.understudy/personas/7/x/card.toml"
    )
    with pytest.raises(StoreError) as raised:
        refuse_rows()
    assert is_disk_full(raised.value)
    for error in (full, OSError(errno.EDQUOT, "Disk quota exceeded")):
        assert is_disk_full(error)
        text = error_text(app_commands.CommandInvokeError(_command(), error))
        assert text.startswith(DISK_FULL_MESSAGE) and "operator" in text and "/home" not in text
    for other in (
        OSError(errno.EACCES, "Permission denied"),
        CardError("No card.", "Choose one."),
        ValueError("full"),
    ):
        assert not is_disk_full(other)


def _command() -> Any:
    @app_commands.command(name="x", description="x")
    async def command(interaction: Any) -> None:
        """Do nothing."""

    return command
