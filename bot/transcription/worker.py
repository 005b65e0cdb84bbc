"""Recognises speech: `python -m bot.transcription.worker FOLDER THREADS`, with a Whisper model.

A request on standard input is a `REQUEST_HEAD` and an Ogg Opus file; its answer is a line of JSON on
standard output, with `text` or `problem`. The first line says that the model is loaded. The end of
the input ends the process, also while it computes.

Voice messages are files of strangers, and their decoder is a large library in C. So this process
has no secrets, cannot write files, and its memory is limited.
"""

import json
import os
import queue
import resource
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bot.transcription.audio import SAMPLE_RATE_HZ, AudioError, decode_ogg_opus
from bot.transcription.voice_model import WEIGHTS_FILE

NICENESS = 10
REQUEST_HEAD = struct.Struct(">IHH")
"""The length of the file in bytes, and from which second to which it is transcribed."""
BASE_MEMORY_BYTES = 3 * 2**30
"""Memory beside the model's weights, which are there twice while they are loaded."""


def main() -> int:
    """Answer requests until the input ends."""
    folder = Path(sys.argv[1])
    threads = int(sys.argv[2])
    os.nice(NICENESS)
    # Libraries print to standard output, too: it becomes standard error, and answers have their own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        model = _load(folder, threads)
    except Exception as error:  # the libraries' errors have no common type
        _answer(answers, problem=f"the model cannot be loaded: {type(error).__name__}: {error}")
        return 1
    _answer(answers, ready=True)
    for audio, start_s, end_s in _requests(sys.stdin.buffer):
        try:
            _answer(answers, text=_transcribe(model, audio, start_s, end_s))
        except AudioError as error:
            _answer(answers, problem=f"it {error}")
        except Exception as error:  # likewise: the next message may be recognised
            _answer(answers, problem=f"the recogniser failed: {type(error).__name__}: {error}")
    return 0


def _load(folder: Path, threads: int) -> Any:
    import faster_whisper

    _limit_rights(BASE_MEMORY_BYTES + 4 * (folder / WEIGHTS_FILE).stat().st_size)
    return faster_whisper.WhisperModel(
        str(folder), device="cpu", compute_type="int8", cpu_threads=threads
    )


def _limit_rights(memory_bytes: int) -> None:
    """Let this process write no file, leave no core dump, and use so much memory at most."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _transcribe(model: Any, audio: bytes, start_s: int, end_s: int) -> str:
    """Return the words, in the language that is spoken; none where nobody speaks."""
    samples = decode_ogg_opus(audio)[start_s * SAMPLE_RATE_HZ : end_s * SAMPLE_RATE_HZ]
    if not samples.size:
        return ""
    # Without speech, Whisper invents words. Given its own words, it may repeat them for ever.
    segments, _ = model.transcribe(samples, vad_filter=True, condition_on_previous_text=False)
    return " ".join(segment.text.strip() for segment in segments)


def _requests(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the files of the input, and which seconds of each. Once it ends, the process does,
    whatever it computes.
    """
    waiting = queue.SimpleQueue[tuple[bytes, int, int]]()

    def read() -> None:
        while len(head := stream.read(REQUEST_HEAD.size)) == REQUEST_HEAD.size:
            length, start_s, end_s = REQUEST_HEAD.unpack(head)
            waiting.put((stream.read(length), start_s, end_s))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def _answer(answers: Any, **content: object) -> None:
    answers.write(json.dumps(content) + "\n")


if __name__ == "__main__":
    sys.exit(main())
