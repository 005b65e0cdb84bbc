"""A recogniser that does what the "sound" says: the process in place of a model's, for tests of what
stands around it. A sound is what `sound` makes: the beginning of Ogg Opus, and an order.
"""

import json
import os
import sys
import time
from pathlib import Path

from bot.transcription.worker import REQUEST_HEAD

HEAD = b"OggS" + bytes(24) + b"OpusHead"


def sound(order: str) -> bytes:
    """Return a file with an order: `say WORDS`, `wait FILE WORDS`, `answer LINE`, `exit`,
    `environment`, or `seconds`, which says from which second to which it is heard. A voice is in the
    first half minute.
    """
    return HEAD + order.encode()


def main() -> None:
    starts, is_broken = sys.argv[1:]
    with Path(starts).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if is_broken == "broken":
        print(json.dumps({"problem": "the model cannot be loaded: it is a test"}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    while head := sys.stdin.buffer.read(REQUEST_HEAD.size):
        length, start_s, end_s = REQUEST_HEAD.unpack(head)
        data = sys.stdin.buffer.read(length)
        kind, _, words = data.removeprefix(HEAD).decode().partition(" ")
        if kind == "wait":
            file, _, words = words.partition(" ")
            while not Path(file).exists():
                time.sleep(0.005)
        if kind == "exit":
            os._exit(1)
        if kind == "environment":
            words = " ".join(sorted(os.environ))
        if kind == "seconds":
            words = f"{start_s}-{end_s}"
        elif start_s:
            words = ""
        print(words if kind == "answer" else json.dumps({"text": words}), flush=True)


if __name__ == "__main__":
    main()
