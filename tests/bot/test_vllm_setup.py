"""vLLM is installed after asking, into the home, and an installation that was broken off does not
count.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bot.operations import vllm_setup
from bot.operations.vllm_setup import VllmInstallationError, install_vllm, offer_installation
from bot.settings import load_settings
from personas.engine.remote.vllm_command import NoVllmError, find_vllm
from personas.models.graphics_cards import Gpu

CARD = Gpu("a card", "1", 8.0, memory_bytes=2**34, free_bytes=2**34)


@pytest.fixture
def installed(tmp_path, monkeypatch) -> list[list[str]]:
    """Notes what the installer was called with, and takes the place of pip's downloads."""
    calls: list[list[str]] = []
    notes = tmp_path / "calls"
    script = tmp_path / "install.sh"
    script.write_text(f'#!/bin/sh\necho "$@" >> {notes}\n')
    script.chmod(0o755)
    monkeypatch.setattr(vllm_setup, "INSTALLER", script)
    monkeypatch.setattr(vllm_setup, "FREE_BYTES", {"vllm": 1, "vllm-cuda": 1})
    monkeypatch.setattr(vllm_setup, "list_gpus", list)
    run = vllm_setup._run

    def note(command: list[str]) -> None:
        calls.append(command)
        if command[1:3] == ["-m", "venv"]:  # which takes seconds
            python = Path(command[3]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        else:
            run(command)

    monkeypatch.setattr(vllm_setup, "_run", note)
    return calls


def settings(home: Path, **environ: str):
    return load_settings(None, {"UNDERSTUDY_HOME": str(home), "ENGINE": "vllm", **environ})


def test_it_is_installed_for_the_processor_or_the_card(tmp_path, installed, monkeypatch):
    home = tmp_path / "home"
    for cards, chosen in (([], "vllm"), ([CARD], "vllm-cuda")):
        monkeypatch.setattr(vllm_setup, "list_gpus", lambda cards=cards: cards)
        install_vllm(home)
        python = find_vllm("", home).python
        assert installed[-1][1:] == [str(python), chosen]


def test_an_installation_that_fails_says_what_to_do_and_is_not_used(tmp_path, installed):
    vllm_setup.INSTALLER.write_text("#!/bin/sh\nexit 3\n")
    home = tmp_path / "home"
    with pytest.raises(VllmInstallationError, match=r"install\.sh ended with exit code 3") as error:
        install_vllm(home)
    assert "VLLM_PYTHON" in error.value.advice
    with pytest.raises(NoVllmError):
        find_vllm("", home)


def test_an_installation_that_has_no_room_leaves_the_earlier_one(tmp_path, installed):
    home = tmp_path / "home"
    vllm_setup.FREE_BYTES["vllm"] = 2**60
    with pytest.raises(VllmInstallationError, match="GiB of free disk"):
        install_vllm(home)
    vllm_setup.FREE_BYTES["vllm"] = 1
    install_vllm(home)
    vllm_setup.FREE_BYTES["vllm"] = 2**60
    with pytest.raises(VllmInstallationError, match="GiB of free disk"):
        install_vllm(home)
    assert find_vllm("", home).python.exists()


def test_the_bot_asks_on_a_terminal_and_only_where_one_is_needed(tmp_path, installed, monkeypatch):
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr(vllm_setup, "confirm", answer)
    home = tmp_path / "home"
    offer_installation(settings(home, ENGINE_URLS="http://127.0.0.1:8001"))
    offer_installation(settings(home, VLLM_PYTHON=sys.executable))
    assert asked == []
    offer_installation(settings(home))  # no
    assert len(asked) == 1 and installed == []
    offer_installation(settings(home))  # yes
    assert find_vllm("", home) and "for processors" in asked[0]
    offer_installation(settings(home))
    assert len(asked) == 2


def test_without_a_terminal_nothing_is_asked(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert not vllm_setup.confirm("Install it?")
