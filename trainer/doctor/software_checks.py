"""Checks the software: Python, packages, torch, 4-bit weights, compilers, optional extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping

from trainer.doctor.hardware_checks import MachineCheck, TorchBuild, run_python

MIN_PYTHON = (3, 11)
DISTRIBUTION = "understudy"
PINNED_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)\s*$")
SETUP_COMMAND = "make setup"
LOAD_TIMEOUT_S, COMPILE_TIMEOUT_S, VERSION_TIMEOUT_S = 120, 180, 10

TORCH_CODE = """
import json, torch
from trainer.machine import machine_here
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda or "",
                  "sees_gpu": torch.cuda.is_available(), "best": machine_here().best}))
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
OPTIONAL_PACKAGES = {
    "flash_attn": "attention without padding on GPUs",
    "liger_kernel": "faster kernels on GPUs",
    "unsloth": "faster kernels on GPUs",
    "wandb": "experiment tracking",
    "xllamacpp": "checks of GGUF exports by llama.cpp",
}


def check_python() -> MachineCheck:
    """The interpreter's version."""
    version = platform.python_version()
    if sys.version_info >= MIN_PYTHON:
        return MachineCheck("Python", "ok", version)
    oldest = ".".join(map(str, MIN_PYTHON))
    return MachineCheck(
        "Python", "fail", version, f"install Python {oldest} or newer, then {SETUP_COMMAND} PYTHON=python{oldest}"
    )


def check_packages(pinned: Iterable[str] | None = None) -> MachineCheck:
    """Whether the packages are there in the versions that the project is tested with."""
    pins = dict(_pinned_versions(importlib.metadata.requires(DISTRIBUTION) or () if pinned is None else pinned))
    missing, others = list[str](), list[str]()
    for name, wanted in pins.items():
        try:
            found = importlib.metadata.version(name).partition("+")[0]  # torch 2.13.0+cpu is 2.13.0
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if found != wanted:
            others.append(f"{name} {found} instead of {wanted}")
    if missing:
        return MachineCheck("packages", "fail", f"missing: {', '.join(missing)}", SETUP_COMMAND)
    if others:
        return MachineCheck(
            "packages", "warn", "; ".join(others), f"{SETUP_COMMAND} installs the versions that are tested"
        )
    return MachineCheck("packages", "ok", f"{len(pins)} in the versions that are tested")


def check_torch(environment: Mapping[str, str] | None = None) -> tuple[MachineCheck, TorchBuild | None]:
    """Whether torch can be loaded; what it says of itself, None where it cannot."""
    loaded, said = run_python(TORCH_CODE, LOAD_TIMEOUT_S, environment)
    if not loaded:
        return MachineCheck("torch", "fail", f"cannot be loaded: {said}", SETUP_COMMAND), None
    torch = TorchBuild(**json.loads(said.splitlines()[-1]))
    build = f"built for CUDA {torch.cuda}" if torch.cuda else "built without CUDA"
    return MachineCheck("torch", "ok", f"{torch.version}, {build}; computes in {torch.best} fastest"), torch


def check_quantisation(environment: Mapping[str, str] | None = None) -> MachineCheck:
    """Whether bitsandbytes packs weights into 4 bits, and unpacks them again."""
    works, said = run_python(ROUND_TRIP_CODE, LOAD_TIMEOUT_S, environment)
    if works:
        return MachineCheck("4-bit weights", "ok", said)
    return MachineCheck(
        "4-bit weights", "fail", f"bitsandbytes: {said}", f"{SETUP_COMMAND}; until then --set quant_type=none"
    )


def check_compilers(environment: Mapping[str, str] | None = None) -> MachineCheck:
    """A C and a C++ compiler: those that are named, else the usual ones."""
    place = dict(os.environ if environment is None else environment)
    wanted = {"C": (place.get("CC"), "cc", "gcc", "clang"), "C++": (place.get("CXX"), "c++", "g++", "clang++")}
    found = {
        language: next((path for name in names if name and (path := shutil.which(name, path=place.get("PATH")))), None)
        for language, names in wanted.items()
    }
    if missing := [language for language, path in found.items() if not path]:
        lacking = " and no ".join(missing)
        return MachineCheck(
            "compilers", "warn", f"no {lacking} compiler", "install one, such as the package build-essential"
        )
    return MachineCheck(
        "compilers",
        "ok",
        "; ".join(f"{language}: {_compiler_version(path)}" for language, path in found.items() if path),
    )


def check_torch_compile(environment: Mapping[str, str] | None = None) -> MachineCheck:
    """Whether `torch.compile` makes code that computes right."""
    works, said = run_python(COMPILE_CODE, COMPILE_TIMEOUT_S, environment)
    if works:
        return MachineCheck("torch.compile", "ok", "compiles, and computes right")
    return MachineCheck("torch.compile", "warn", said, "see compilers; without it everything works, some of it slower")


def check_extras() -> MachineCheck:
    """What may be installed besides."""
    there = [name for name in OPTIONAL_PACKAGES if importlib.util.find_spec(name)]
    missing = [f"{name} ({what})" for name, what in OPTIONAL_PACKAGES.items() if name not in there]
    parts = [
        f"installed: {', '.join(there)}" if there else "",
        f"not installed: {', '.join(missing)}" if missing else "",
    ]
    return MachineCheck("extras", "ok", "; ".join(part for part in parts if part))


def _pinned_versions(requirements: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Name and version of each, without those of extras, which have a marker behind a semicolon."""
    return ((pin["name"], pin["version"]) for text in requirements if (pin := PINNED_REQUIREMENT.match(text)))


def _compiler_version(path: str) -> str:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return path
    return said.partition("\n")[0] or path
