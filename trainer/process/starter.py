"""Whoever has started a run, at the other end of its standard input: says `hold` and `go`, and is missed when gone."""

from __future__ import annotations

import os
import threading

from trainer.process.holding import Hold
from trainer.process.stopping import Stop

CHUNK_BYTES = 4096
STANDARD_INPUT = 0


def listen_to_starter(stop: Stop, hold: Hold) -> None:
    """Hold and let go as the lines say; request a stop when standard input ends: whoever held its other end is gone."""

    def listen() -> None:
        rest = b""
        while chunk := os.read(STANDARD_INPUT, CHUNK_BYTES):
            *lines, rest = (rest + chunk)[-CHUNK_BYTES:].split(b"\n")
            for line in lines:
                _do(line.strip(), hold)
        stop.request("the process that started this run is gone")

    threading.Thread(target=listen, name="starter", daemon=True).start()


def _do(word: bytes, hold: Hold) -> None:
    match word:
        case b"hold":
            hold.ask()
        case b"go":
            hold.let_go()
