"""The settings of a run as people read and write them: in groups, in words, and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Optimisation", (
        "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps",
        "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "weight_decay", "max_grad_norm",
        "gradient_checkpointing", "packing", "seed")),
    ("Adapter", (
        "lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora", "loraplus_lr_ratio",
        "neftune_noise_alpha")),
    ("Base model while it trains", ("quant_type", "double_quant", "precision")),
    ("Samples", (
        "max_length", "rope_scaling_factor", "rope_scaling_type", "history_turns", "session_gap_minutes", "lore_share",
        "heldout_share", "train_samples")),
    ("Measuring", ("logging_steps", "eval_strategy", "eval_steps", "early_stopping_patience")),
    ("General dialogue", ("general_share", "first_stage_epochs", "first_stage_learning_rate")),
    ("Preferences", ("preference_method", "preference_beta", "preference_share")),
)  # fmt: skip
"""Every setting that a request may name, once, in the order in which it is looked for."""

OF_REQUEST = ("persona", "task_type", "recipe", "dataset", "dataset_path", "general", "start_from", "base_model")


@dataclass(frozen=True)
class Row:
    """One setting of two runs, in words; a dash where it is set to nothing. `is_known` of both."""

    name: str
    a: str
    b: str
    is_known: bool = True

    @property
    def differs(self) -> bool:
        """Whether the two are known, and not the same."""
        return self.is_known and self.a != self.b


def written(value: object) -> str:
    """A value as it is typed: `true`, `0.0002`, `q_proj, v_proj`; empty for None."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case list() | tuple():
            return ", ".join(written(it) for it in value)
    return str(value)


def grouped(values: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings in words, by group; what no group knows is at the end."""
    groups = [(title, [(name, written(values[name])) for name in names if name in values]) for title, names in GROUPS]
    known = {name for _, names in GROUPS for name in names}
    others = [(name, written(value)) for name, value in values.items() if name not in known]
    return [(title, rows) for title, rows in (*groups, ("Others", others)) if rows]


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Row]:
    """Every setting that either has: what differs, then what is not known of one, then what is the same.

    Within each they are in the groups' order, after those that no group knows.
    """
    order = [name for _, names in GROUPS for name in names]
    others = [name for name in dict.fromkeys((*a, *b)) if name not in order]
    rows = [
        Row(name, _told(a, name), _told(b, name), name in a and name in b)
        for name in (*others, *order)
        if name in a or name in b
    ]
    return sorted(rows, key=lambda row: (not row.differs, row.is_known))


def _told(values: Mapping[str, Any], name: str) -> str:
    return written(values[name]) or "–" if name in values else "not known"
