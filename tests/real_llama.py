"""A real llama.cpp server, its llama-quantize and a real base model for slow tests, which are skipped
where there are none.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from personas.engine.remote.llamacpp_command import (
    LlamaProgram,
    NoLlamaServerError,
    find_program,
)
from tools.real_model import ModelUnavailableError, fetch_real_model

BUILT = Path("build/llama.cpp/release/bin/llama-server")
"""Where `make bench-chat-engine` builds llama.cpp."""


def find_llama_program() -> LlamaProgram:
    """Return the server that LLAMA_SERVER names, else the one that the benchmarks have built, else
    one on the PATH, else the wheel's. Raises `NoLlamaServerError`.
    """
    setting = os.environ.get("LLAMA_SERVER") or (str(BUILT.absolute()) if BUILT.exists() else "")
    return find_program(setting)


def llama_program() -> LlamaProgram:
    """Return a server as above. Skips the test where there is none."""
    try:
        return find_llama_program()
    except NoLlamaServerError as error:
        pytest.skip(f"{error}")


def llama_quantize() -> Path:
    """Return the llama-quantize that the benchmarks have built, else one on the PATH. Skips the test
    where there is none.
    """
    built = BUILT.with_name("llama-quantize")
    found = shutil.which("llama-quantize")
    if not built.exists() and found is None:
        pytest.skip("There is no llama-quantize: `make bench-chat-engine` builds it.")
    return built.absolute() if found is None else Path(found)


def setting_of(program: LlamaProgram) -> str:
    """Return the LLAMA_SERVER that names a server; empty for the wheel's."""
    return program.command[0] if len(program.command) == 1 else ""


def real_model() -> Path:
    """Return the GGUF file of a real model of 0.5 billion parameters. Skips the test where it
    cannot be had.
    """
    try:
        return fetch_real_model()
    except ModelUnavailableError as error:
        pytest.skip(f"Qwen2.5-Coder-0.5B-Instruct: {error}")
