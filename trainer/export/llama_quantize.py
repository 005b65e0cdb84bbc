"""Quantises GGUF files with llama.cpp's `llama-quantize`."""

from __future__ import annotations

import shutil
import subprocess  # nosec B404  # the program is the operator's own
from pathlib import Path

from gguf import LlamaFileType

from personas.cli_common import read_setting
from personas.errors import ExportError

PROGRAM = "llama-quantize"
QUANTISATION = "Q4_K_M"
SERVER_SETTING = "LLAMA_SERVER"
SHOWN_CHARACTERS = 300
FILE_TYPE = LlamaFileType.MOSTLY_Q4_K_M
ADVICE = (
    "Install llama.cpp with its tools (`brew install llama.cpp`, or a release of "
    "github.com/ggml-org/llama.cpp) so that llama-quantize is on the PATH, or name its "
    f"llama-server in {SERVER_SETTING}. Without it, --quantise q8_0 and f16 work."
)
FAILURE_ADVICE = "Nothing was kept. Try a newer llama.cpp, or --quantise q8_0."


def find_llama_quantize() -> str:
    """Find the program beside the server that LLAMA_SERVER names, else on the PATH. Raises
    `ExportError`, which says where it was looked for.
    """
    looked_for = "is not on the PATH"
    if setting := read_setting(SERVER_SETTING):
        server = Path(shutil.which(str(Path(setting).expanduser())) or setting)
        looked_for = f"is neither beside {server} ({SERVER_SETTING}) nor on the PATH"
        if beside := shutil.which(PROGRAM, path=str(server.parent)):
            return beside
    if found := shutil.which(PROGRAM):
        return found
    raise ExportError(f"4 bits are written by llama.cpp's {PROGRAM}, which {looked_for}.", ADVICE)


def quantise_file(program: str, source: Path, target: Path) -> None:
    """Write `source` in Q4_K_M. The program ends with this one. Raises `ExportError` with what it said
    last.
    """
    try:
        done = subprocess.run(  # nosec B603
            [program, str(source), str(target), QUANTISATION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ExportError(f"{program} cannot be run: {error.strerror}.", ADVICE) from error
    if done.returncode or not target.exists():
        fault = f"ended with code {done.returncode}" if done.returncode else "wrote no file"
        said = " ".join(done.stdout.split())[-SHOWN_CHARACTERS:] or "nothing"
        raise ExportError(f"{program} {fault}. It said: {said}.", FAILURE_ADVICE)
