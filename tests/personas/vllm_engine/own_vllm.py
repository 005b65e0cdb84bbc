"""A program that stands in for vLLM, and a file in place of the card whose memory it shares."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from personas.engine.remote import child_guard
from personas.engine.remote.vllm_command import VllmProgram
from personas.models.graphics_cards import Gpu
from tests.personas.vllm_engine import own_server

CHECKOUT = Path(__file__).parents[3]
SLEEP_OPTION = "--enable-sleep-mode"
NVIDIA_SMI = """#!{python}
import json
card = json.load(open({card!r}))
total = card["total_bytes"]
free = total - card["other_bytes"] - card["held_bytes"]
print(f"a card, 1, 8.0, {{total // 2**20}}, {{free // 2**20}}")
"""


@dataclass
class OwnVllm:
    """The program, its settings, and the card's file."""

    program: VllmProgram
    settings: Path
    card: Path
    starts: Path

    @classmethod
    def in_folder(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> OwnVllm:
        """Write the program into a folder."""
        script = folder / "python-of-vllm"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {own_server.__file__} "$@"\n')
        script.chmod(0o755)
        settings = folder / "settings.json"
        monkeypatch.setenv("OWN_SERVER", str(settings))
        monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
        own = cls(VllmProgram(script), settings, folder / "card.json", folder / "starts.jsonl")
        own.set(starts=str(own.starts), card=str(own.card))
        return own

    def set(self, **settings: Any) -> None:
        """Change settings of the next start."""
        known = json.loads(self.settings.read_text()) if self.settings.exists() else {}
        self.settings.write_text(json.dumps({**known, **settings}))

    def options(self) -> list[dict[str, Any]]:
        """Return the options of each start."""
        if not self.starts.exists():
            return []
        return [json.loads(line) for line in self.starts.read_text().splitlines()]

    def kill(self) -> None:
        """Kill the server, as the kernel does where memory is short; on a card, the one there."""
        place = SLEEP_OPTION if self.card.exists() else own_server.__file__
        for process in psutil.Process().children(recursive=True):
            words = process.cmdline()
            if place in words and child_guard.__file__ not in words:
                process.kill()
        if self.card.exists():
            self._change_card(held_bytes=0)

    # ---- the card

    def set_card(self, total: int, other: int = 0) -> None:
        """Describe the card: its memory, and what other programs hold of it."""
        self.card.write_text(
            json.dumps({"total_bytes": total, "other_bytes": other, "held_bytes": 0})
        )

    def fill_card(self, free_bytes: int) -> None:
        """Have other programs hold all but so much of what the server leaves."""
        card = own_server.read_card(self.card)
        self._change_card(other_bytes=card["total_bytes"] - card["held_bytes"] - free_bytes)

    def _change_card(self, **changes: int) -> None:
        card = own_server.read_card(self.card)
        self.card.write_text(json.dumps({**card, **changes}))

    @property
    def held_bytes(self) -> int:
        """What the server holds of the card."""
        return own_server.read_card(self.card)["held_bytes"]

    def cards(self) -> list[Gpu]:
        """Describe the card as the driver would; none without a file."""
        if not self.card.exists():
            return []
        card = own_server.read_card(self.card)
        total = card["total_bytes"]
        free = total - card["other_bytes"] - card["held_bytes"]
        return [Gpu("a card", "1", 8.0, memory_bytes=total, free_bytes=free)]

    def write_nvidia_smi(self, folder: Path) -> None:
        """Write a program that tells of the card as the driver's does."""
        script = folder / "nvidia-smi"
        script.write_text(NVIDIA_SMI.format(python=sys.executable, card=str(self.card)))
        script.chmod(0o755)
