"""View model of a run's settings: as text, by group, and beside those of another run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.training.repeat import setting_text

SETTING_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Optimisation", (
        "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps",
        "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "weight_decay", "max_grad_norm",
        "gradient_checkpointing", "seed")),
    ("Adapter", (
        "lora_r", "lora_alpha", "lora_dropout", "target_modules")),
    ("Base model while it trains", ("quant_type", "double_quant", "precision")),
    ("Samples", (
        "max_length", "rope_scaling_factor", "history_turns", "session_gap_minutes", "cross_session_share",
        "lore_share", "short_card_share", "heldout_share", "train_samples", "written_replies", "written_drafts")),
    ("Measuring", (
        "logging_steps", "eval_strategy", "eval_steps", "early_stopping_patience", "card_deadline_minutes")),
    ("General dialogue", ("general_share", "first_stage_epochs", "first_stage_learning_rate")),
    ("Preferences", ("preference_method", "preference_beta", "preference_share")),
)  # fmt: skip
"""Every setting of a request, once, in the order of the pages."""
REQUEST_FIELDS = (
    "persona",
    "task_type",
    "recipe",
    "dataset",
    "dataset_path",
    "right",
    "general",
    "start_from",
    "lore_pairs",
    "from_card",
    "base_model",
)
SHARE_FIELDS = ("lore_pairs", "from_card")
"""Those that are numbers."""


@dataclass(frozen=True)
class SettingComparison:
    """A setting of two runs as text; a dash where it is empty. `is_known`: for both."""

    name: str
    a: str
    b: str
    is_known: bool = True

    @property
    def differs(self) -> bool:
        return self.is_known and self.a != self.b


def group_settings(values: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings as text, by group; unknown ones last."""
    groups = []
    others = dict(values)
    for title, names in SETTING_GROUPS:
        rows = [(name, setting_text(others.pop(name))) for name in names if name in others]
        groups.append((title, rows))
    groups.append(("Others", [(name, setting_text(value)) for name, value in others.items()]))
    return [(title, rows) for title, rows in groups if rows]


def compare_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingComparison]:
    """Every setting of either run: differing ones, those unknown for one, then equal ones.

    Each part is in the groups' order, after settings of no group.
    """
    order = [name for _, names in SETTING_GROUPS for name in names]
    others = [name for name in dict.fromkeys((*a, *b)) if name not in order]
    rows = []
    for name in (*others, *order):
        if name in a or name in b:
            row = SettingComparison(
                name,
                a=_setting_or_dash(a, name),
                b=_setting_or_dash(b, name),
                is_known=name in a and name in b,
            )
            rows.append(row)
    return sorted(rows, key=lambda row: (not row.differs, row.is_known))


def _setting_or_dash(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "not known"
    return setting_text(values[name]) or "–"
