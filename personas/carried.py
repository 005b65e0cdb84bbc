"""An adapter that a character card carries: the files of its folder are assets of the type `x_understudy_adapter`.

In the card specification V3 custom types begin with `x_`, so programs that know nothing of adapters pass them on.
`manifest.json` says which files belong to it.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path, PurePosixPath
from typing import Any

from personas.adapters import CONFIG, MANIFEST, require_servable, verify
from personas.card import Card
from personas.card.charx import SCHEME
from personas.contracts import Manifest, ScoreCard
from personas.errors import AdapterError

ASSET = "x_understudy_adapter"
INSIDE = f"{SCHEME}assets/{ASSET}/other/"

PLAIN_SETTINGS = frozenset(
    "alpha_pattern base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights lora_alpha "
    "lora_dropout megatron_core peft_type peft_version qalora_group_size r rank_pattern revision target_modules "
    "task_type use_dora use_rslora".split()
)
"""What a stranger's adapter may set of peft's `LoraConfig`: nothing that loads modules or builds on other models."""
MODULE = re.compile(r"[\w.]{1,200}")
"""How a module is named; peft would take any regular expression."""
LARGEST_RANK = 256
MISMADE = "Export the card again, with `python -m trainer export --to charx`."


def carries_adapter(card: Card) -> bool:
    """Whether an adapter is in the card."""
    return INSIDE + MANIFEST in card.files


def unpack_carried(card: Card, folder: Path, where: str) -> Manifest:
    """Write the adapter that a card carries into a folder, byte by byte as it was, and verify it.

    `where` names the card in errors. Raises `AdapterError` when there is none, or not all of it, and `OSError`.
    """
    if not carries_adapter(card):
        raise AdapterError(f"{where} carries no adapter.", "Name an adapter folder, or a file made with --to charx.")
    for uri, content in card.files.items():
        if not uri.startswith(INSIDE):
            continue
        name = uri.removeprefix(INSIDE)
        if ".." in PurePosixPath(name).parts:  # a zip was checked; this is for other containers
            raise AdapterError(f"{where} holds {name!r}, which leads out of it.", "Do not trust this file.")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return verify(folder)


def require_harmless(folder: Path, manifest: Manifest) -> None:
    """Refuse what a stranger's adapter has no business with. Raises `AdapterError` that names it."""
    require_servable(manifest, folder)
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        wrong = [name for name, value in config.items() if value and name not in PLAIN_SETTINGS]
    except (ValueError, AttributeError):
        raise AdapterError(f"The adapter's {CONFIG} cannot be read.", MISMADE) from None
    if wrong or not _is_small_lora(config):
        what = ", ".join(wrong) or "its kind, rank or modules"
        raise AdapterError(f"The adapter is more than a plain LoRA, by {what}.", "Only plain ones can be imported.")
    if not _are_losses(manifest.metrics):
        raise AdapterError(f"The losses in the adapter's {MANIFEST} are none.", MISMADE)


def _is_small_lora(config: dict[str, Any]) -> bool:
    modules, ranks, alphas = (config.get(name) or {} for name in ("target_modules", "rank_pattern", "alpha_pattern"))
    if not (isinstance(modules, list) and isinstance(ranks, dict) and isinstance(alphas, dict)):
        return False
    known = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    begun = config.get("init_lora_weights", True) in (True, False, "gaussian", None)
    named = all(isinstance(name, str) and MODULE.fullmatch(name) for name in [*modules, *ranks, *alphas])
    every = [config.get("r"), *ranks.values()]
    return known and begun and named and all(isinstance(rank, int) and 1 <= rank <= LARGEST_RANK for rank in every)


def _are_losses(metrics: ScoreCard) -> bool:
    pairs = (metrics.loss_base, metrics.loss_tuned, metrics.general_loss_base, metrics.general_loss_tuned)
    return all(math.isfinite(loss) and loss > 0 for loss in pairs)
