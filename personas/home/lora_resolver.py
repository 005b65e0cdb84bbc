"""Resolver of adapter names inside vLLM servers: finds and verifies the versions of a home by name.

A replica that starts after a version was loaded on the others thus serves it at its first request.
vLLM calls `register` through the entry point `vllm.general_plugins`. It takes this project in
vLLM's environment, without its dependencies (`pip install --no-deps`), and UNDERSTUDY_HOME: the
home, or a copy that has its folder `models`.
"""

import asyncio
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from personas.errors import AdapterError, UnderstudyError
from personas.home.adapters import (
    DIALOGUE_PREFIX,
    NAME_ADAPTER_ADVICE,
    adapter_ref,
    find_dialogue_adapters,
    verify_for_base_model,
)
from personas.home.lora_checks import LayerShapes, check_lora, stored_linear_shapes
from personas.models.base_model import fingerprint, locate
from personas.schemas.chat import AdapterRef

RESOLVER_NAME = "understudy"
ADAPTER_NAME_PATTERN = re.compile(
    rf"(?P<id>(?:{DIALOGUE_PREFIX})?[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}?)-(?P<version>run-[0-9a-f]{{10}}|\w{{1,64}})",
    re.ASCII,
)
"""Form of `AdapterRef.name`. Only the versions of runs by hand contain a hyphen
(`trainer/train/job_folder.py`).
"""
logger = logging.getLogger(f"vllm.{RESOLVER_NAME}")  # vLLM prints what is logged below its own name


def find_served_adapter(
    home: Path, name: str, base_hash: str, layers: LayerShapes | None = None
) -> AdapterRef:
    """Find the adapter of a name (`AdapterRef.name`) in a home and verify its files, its place and
    its base model.

    Raises `AdapterError` for a name of another form, a folder that is a link to elsewhere, and what
    `verify_for_base_model` and `check_lora` refuse: vLLM stops when tensors do not have the shapes
    of `layers`.
    """
    matched = ADAPTER_NAME_PATTERN.fullmatch(name)
    if not matched:
        raise AdapterError(
            f"{name[:200]!r} is not the name of a version.", "The form is PERSONA-VERSION."
        )
    ref = _find_by_id(home, matched["id"], matched["version"])
    if _is_linked(home, ref.folder):
        raise AdapterError(
            f"{ref.folder} is a link to another folder.", "Copy the adapter into the home instead."
        )
    verify_for_base_model(ref, base_hash)
    check_lora(ref.folder, layers, f"{ref.persona_id} {ref.version}", has_all_layers=False)
    return ref


def _find_by_id(home: Path, persona_id: str, version: str) -> AdapterRef:
    if not persona_id.startswith(DIALOGUE_PREFIX):
        return adapter_ref(home, persona_id, version)
    found = find_dialogue_adapters(home).get(persona_id.removeprefix(DIALOGUE_PREFIX))
    if found is None or found.version != version:
        raise AdapterError(
            f"There is no adapter {persona_id} {version} in {home}.", NAME_ADAPTER_ADVICE
        )
    return found.ref


def _is_linked(home: Path, folder: Path) -> bool:
    """Return whether a folder below `models` or `runs` is a link; these two themselves may lie on
    another disk.
    """
    parts = folder.relative_to(home).parts
    return any(home.joinpath(*parts[:depth]).is_symlink() for depth in range(2, len(parts) + 1))


@cache
def _read_base_model(base_model: str) -> tuple[str, LayerShapes]:
    base = locate(base_model, fetch=False)
    return fingerprint(base), stored_linear_shapes(base)


class HomeLoRAResolver:
    """Implementation of vLLM's `LoRAResolver` (vllm/lora/resolver.py, 0.32) over a home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """Return vLLM's `LoRARequest` for a version; None, with the reason in the log, if it is not
        to be served.
        """
        from vllm.lora.request import LoRARequest  # installed in the server's environment only

        try:
            ref = await asyncio.to_thread(self._find, base_model_name, lora_name)
        except (UnderstudyError, OSError) as error:
            logger.warning("%s is not served: %s", lora_name[:200], error)
            return None
        return LoRARequest(
            lora_name=lora_name, lora_int_id=1, lora_path=str(ref.folder)
        )  # vLLM sets the number itself

    def _find(self, base_model: str, name: str) -> AdapterRef:
        return find_served_adapter(self.home, name, *_read_base_model(base_model))


def register() -> None:
    """Register the resolver in a vLLM process whose environment names a home."""
    home = os.environ.get("UNDERSTUDY_HOME")
    if not home:
        return
    from vllm.lora.resolver import (
        LoRAResolverRegistry,
    )  # installed in the server's environment only

    LoRAResolverRegistry.register_resolver(
        RESOLVER_NAME, HomeLoRAResolver(Path(home).expanduser().absolute())
    )
