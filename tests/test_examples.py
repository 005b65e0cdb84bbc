"""The examples, run as people run them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE
from tests.hub_server import Hub, Repository, reach
from tests.tiny_models import make_adapter

ROOT = Path(__file__).parent.parent
EXAMPLE = "examples/persona_chat.py"
ODA = ROOT / "personas" / "cards" / "oda.toml"


def by_hand(*words: object) -> subprocess.CompletedProcess[str]:
    """As typed."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def chat(monkeypatch, capsys):
    """The same in this process, where the libraries are loaded already: exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", [EXAMPLE, *map(str, words)])
        code = runpy.run_path(str(ROOT / EXAMPLE))["main"]()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_an_adapter_answers_the_same_for_the_same_seed_and_another_adapter_otherwise(tmp_path, tiny_base, chat):
    one, other = (make_adapter(tmp_path, tiny_base, "oda", f"v{seed}", seed) for seed in (1, 2))
    asked = (ODA, "Is there soup?", "--seed", "1", "--max-new-tokens", "12")
    typed = by_hand(EXAMPLE, one.folder, *asked)
    assert typed.returncode == 0 and typed.stdout.strip() and not typed.stderr
    (code, again, _), (_, another, _) = chat(one.folder, *asked), chat(other.folder, *asked)
    assert code == 0 and again == typed.stdout != another


def test_what_is_missing_or_damaged_is_said_in_a_line(tmp_path, tiny_base, chat):
    ref = make_adapter(tmp_path, tiny_base, "oda", "v1", 1)
    for words, said in (
        ((tmp_path / "none", ODA, "Hello?"), "Name a complete adapter: its folder has"),
        ((ref.folder, "no-such-card.toml", "Hello?"), "no-such-card.toml"),
        ((ref.folder, ODA, "Hello?", "--base-model", tmp_path), "has no config.json"),
    ):
        code, output, errors = chat(*words)
        assert code == 1 and said in errors and len(errors.splitlines()) == 1 and not output
    weights = ref.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "is damaged: adapter_model.safetensors" in chat(ref.folder, ODA, "Hello?")[2]


def test_an_adapter_of_a_hub_answers_as_its_folder_does(tmp_path, tiny_base, chat, monkeypatch):
    ref = make_adapter(tmp_path, tiny_base, "oda", "v1", 1)
    asked = (ODA, "Is there soup?", "--seed", "1", "--max-new-tokens", "12")
    plain = {name: (ref.folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    with Hub({"harbour/oda": Repository({"c" * 40: plain})}).serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        code, output, errors = chat("harbour/oda", *asked)
    assert code == 0 and output == chat(ref.folder, *asked)[1]
    assert errors.startswith("… asking the hub for harbour/oda\n")


def test_its_help_and_the_readme_say_how_it_is_called():
    assert f'{EXAMPLE} ADAPTER CARD "What do you do all day?"' in by_hand(EXAMPLE, "--help").stdout
    assert EXAMPLE in (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short_enough_to_be_read():
    assert len((ROOT / EXAMPLE).read_text(encoding="utf-8").splitlines()) <= 75
