"""A backup says how far it is, also where nobody sees a bar."""

from bot.operations.backup.cli import _progress_bar
from personas import cli_common


def test_in_a_pipe_a_line_comes_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(cli_common.time, "monotonic", lambda: now[0])
    with _progress_bar("backing up") as total:
        received = total(64 * 2**20)
        for _ in range(32):
            now[0] += 1
            received(2 * 2**20)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"backing up: {done} of 64 MB" for done in (20, 40, 60)]
