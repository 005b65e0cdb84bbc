"""Compiling the kernel: a second or two with any C++ compiler, once for all processors that it can run on."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("rows.cpp")
PARTS = (SOURCE, Path(__file__).with_name("int8.h"))
NEEDED = {"avx512_bf16": "AVX-512 BF16", "avx512_vnni": "AVX-512 VNNI"}
"""Of the processor, by Linux's names."""
ISA = ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-mprefer-vector-width=512")
"""What every processor with the above has: what was compiled on one machine, or for an image, runs on another."""
FLAGS = ("-O3", *ISA, "-std=c++17", "-shared", "-fPIC", "-pthread", "-w")
MACHINES = ("x86_64", "AMD64")
TIMEOUT_S = 120.0
NO_COMPILER = "there is no C++ compiler (g++ or clang++)"


class NoKernelError(Exception):
    """The kernel cannot be had here. The message says why, for the log."""


def compiled_before() -> ctypes.CDLL | None:
    """The kernel, if it has been compiled from this source."""
    library = _library()
    return ctypes.CDLL(str(library)) if library.exists() else None


def compiled() -> ctypes.CDLL:
    """Compile the kernel for this machine. Raises `NoKernelError`."""
    require_possible()
    return ctypes.CDLL(str(compile_ahead()))


def compile_ahead() -> Path:
    """Compile the kernel, whether or not this machine's processor can run it. Raises `NoKernelError`."""
    if platform.machine() not in MACHINES:
        raise NoKernelError(f"it is for x86-64, not for {platform.machine()}")
    if not (compiler := compiler_here()):
        raise NoKernelError(NO_COMPILER)
    library = _library()
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as aside:
            made = Path(aside) / library.name
            command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
            made.replace(library)
        return library
    except subprocess.CalledProcessError as error:
        raise NoKernelError(f"{compiler} does not compile it: {(error.stderr or '').strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelError(f"it cannot be compiled: {error}") from error


def compiler_here() -> str | None:
    """The C++ compiler of this machine, if there is one."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


def require_possible() -> None:
    """Raise `NoKernelError` unless the source is here and this processor multiplies bfloat16 and bytes in AVX-512."""
    for part in PARTS:
        if not part.exists():
            raise NoKernelError(f"{part} was not installed")
    for flag, name in NEEDED.items():
        if flag not in _processor():
            raise NoKernelError(f"this processor has no {name}")


def _library() -> Path:
    """Its place in the Python environment, named after what it is made from."""
    source = b"".join(part.read_bytes() for part in PARTS)
    made_from = hashlib.sha256(source + " ".join(FLAGS).encode()).hexdigest()
    return Path(sys.prefix) / "share" / "understudy" / f"rows-{made_from[:16]}.so"


def _processor() -> str:
    """What the processor can do, as Linux says; on other systems its name, which says nothing of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
