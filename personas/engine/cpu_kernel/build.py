"""Compiles the CPU kernel, once for all x86-64 processors that can run it, and loads it."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from personas.home.atomic_files import fsync_path, replace_durably

SOURCE = Path(__file__).with_name("forward.cpp")
SOURCE_FILES = (SOURCE, Path(__file__).with_name("int8.h"))
REQUIRED_CPU_FLAGS = {"avx512_bf16": "AVX-512 BF16", "avx512_vnni": "AVX-512 VNNI"}
"""Required processor features: Linux's flag and the feature's name."""
ISA_FLAGS = ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-mprefer-vector-width=512")
"""Instruction sets that all processors with the required features have, so that one library runs on
all of them.
"""
COMPILER_FLAGS = ("-O3", *ISA_FLAGS, "-std=c++17", "-shared", "-fPIC", "-pthread", "-w")
SUPPORTED_MACHINES = ("x86_64", "AMD64")
COMPILE_TIMEOUT_S = 120.0
NO_COMPILER_MESSAGE = "there is no C++ compiler (g++ or clang++)"


class KernelUnavailableError(Exception):
    """The kernel cannot be used on this machine or for this model. The message is the reason, for
    the log.
    """


def load_compiled() -> ctypes.CDLL | None:
    """Load the kernel if it has been compiled from the current source."""
    library = _library_path()
    return ctypes.CDLL(str(library)) if library.exists() else None


def compile_and_load() -> ctypes.CDLL:
    """Compile the kernel for this machine. Raises `KernelUnavailableError`."""
    require_supported_cpu()
    return ctypes.CDLL(str(compile_library()))


def compile_library() -> Path:
    """Compile the kernel, even if this machine's processor cannot run it. Raises
    `KernelUnavailableError`.
    """
    if platform.machine() not in SUPPORTED_MACHINES:
        raise KernelUnavailableError(f"the kernel is for x86-64, not for {platform.machine()}")
    if not (compiler := find_compiler()):
        raise KernelUnavailableError(NO_COMPILER_MESSAGE)
    library = _library_path()
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may compile at once: each in its own folder, on the file system where
        # the library is then renamed into place.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            compiled = Path(folder) / library.name
            command = [compiler, *COMPILER_FLAGS, "-o", str(compiled), str(SOURCE)]
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
            )
            fsync_path(compiled)
            replace_durably(compiled, library)
        return library
    except subprocess.CalledProcessError as error:
        output = (error.stderr or "").strip()[-300:]
        raise KernelUnavailableError(f"{compiler} does not compile the kernel: {output}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailableError(f"the kernel cannot be compiled: {error}") from error


def find_compiler() -> str | None:
    """Find a C++ compiler: `CXX`, g++, clang++ or c++."""
    return (
        os.environ.get("CXX")
        or shutil.which("g++")
        or shutil.which("clang++")
        or shutil.which("c++")
    )


def require_supported_cpu() -> None:
    """Raise `KernelUnavailableError` unless the source is installed and the processor has all
    required features.
    """
    for part in SOURCE_FILES:
        if not part.exists():
            raise KernelUnavailableError(f"{part} is not installed")
    for flag, name in REQUIRED_CPU_FLAGS.items():
        if flag not in _cpu_flags():
            raise KernelUnavailableError(f"this processor has no {name}")


def _library_path() -> Path:
    """Return the library's path in the Python environment, named after a digest of source and
    flags.
    """
    source = b"".join(part.read_bytes() for part in SOURCE_FILES)
    digest = hashlib.sha256(source + " ".join(COMPILER_FLAGS).encode()).hexdigest()
    return Path(sys.prefix) / "share" / "understudy" / f"rows-{digest[:16]}.so"


def _cpu_flags() -> str:
    """Return the processor's flags on Linux, elsewhere its name, which contains none of them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
