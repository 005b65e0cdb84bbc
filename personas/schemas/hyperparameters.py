"""Settings of a training run: names, types and allowed ranges; and the part that a request sets."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, create_model

from personas.errors import RequestError
from personas.schemas.base import FrozenModel

PreferenceMethod = Literal["kto", "dpo"]
MAX_ROPE_FACTOR = 8.0
MAX_BATCH_SAMPLES = 64
MAX_ACCUMULATION_STEPS = 256


class RecipeSettings(FrozenModel):
    """Every setting of a run with its type and range.

    `trainer/recipe/recipes/demo-cpu.toml` explains each of them.
    """

    quant_type: Literal["nf4", "fp4", "none"]
    double_quant: bool
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    lora_r: int = Field(ge=1, le=256)
    lora_alpha: int = Field(ge=1, le=1024)
    lora_dropout: float = Field(ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(min_length=1)
    optim: Literal[
        "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"
    ]
    learning_rate: float = Field(ge=1e-7, le=1e-2)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"]
    warmup_ratio: float = Field(ge=0, lt=1)
    warmup_steps: int = Field(ge=0, le=1_000_000)
    weight_decay: float = Field(ge=0, le=1)
    max_grad_norm: float = Field(gt=0, le=1000)
    num_train_epochs: float = Field(gt=0, le=50)
    max_steps: int = Field(ge=0, le=1_000_000)
    per_device_train_batch_size: int = Field(ge=1, le=MAX_BATCH_SAMPLES)
    gradient_accumulation_steps: int = Field(ge=1, le=MAX_ACCUMULATION_STEPS)
    gradient_checkpointing: bool
    logging_steps: int = Field(ge=1, le=1_000_000)
    eval_strategy: Literal["no", "steps", "epoch"]
    eval_steps: int = Field(ge=1, le=1_000_000)
    early_stopping_patience: int = Field(ge=0, le=100)
    card_deadline_minutes: float = Field(ge=0, le=10_000)
    seed: int = Field(ge=0, lt=2**31)
    max_length: int = Field(ge=64, le=32768)
    rope_scaling_factor: float = Field(ge=1, le=MAX_ROPE_FACTOR)
    history_turns: int = Field(ge=1, le=64)
    session_gap_minutes: float = Field(gt=0, le=100_000)
    cross_session_share: float = Field(ge=0, le=1)
    lore_share: float = Field(ge=0, le=1)
    short_card_share: float = Field(ge=0, le=1)
    heldout_share: float = Field(gt=0, lt=1)
    general_share: float = Field(ge=0, lt=1)
    first_stage_epochs: float = Field(ge=0, le=50)
    first_stage_learning_rate: float = Field(ge=1e-7, le=1e-2)
    train_samples: int = Field(ge=0, le=1_000_000)
    written_replies: int = Field(ge=1, le=100_000)
    written_drafts: int = Field(ge=1, le=16)
    preference_method: PreferenceMethod
    preference_beta: float = Field(gt=0, le=10)
    preference_share: float = Field(gt=0, le=1)


# Pydantic has no partial models. The fields of the one above are taken with their ranges, and each
# may be None, so that a setting is declared once.
_OPTIONAL_FIELDS: dict[str, Any] = {}
for _name, _field in RecipeSettings.model_fields.items():
    _type = Annotated[_field.annotation, Field(), *_field.metadata]  # type: ignore[name-defined]
    _OPTIONAL_FIELDS[_name] = (_type | None, None)


class Hyperparameters(create_model("_Hyperparameters", __base__=FrozenModel, **_OPTIONAL_FIELDS)):  # type: ignore[misc]
    """Hyperparameters of a training request. A field that is None takes the recipe's value."""


def parse_settings(pairs: Iterable[str]) -> Hyperparameters:
    """Parse settings written as `name=value`. Raises `RequestError` with the wrong setting and its
    allowed values.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise RequestError(
                f"{pair.strip()!r} is not a setting.",
                "Write name=value, such as learning_rate=2e-4.",
            )
        if name not in Hyperparameters.model_fields:
            raise RequestError(f"There is no setting {name!r}.", _suggest_names(name))
        if name in values:
            raise RequestError(f"{name} is set twice.", "Set it once.")
        values[name] = value
        if name == "target_modules":
            values[name] = [part.strip() for part in value.split(",")]
    try:
        return Hyperparameters(**values)
    except ValidationError as error:
        invalid = list(dict.fromkeys(str(item["loc"][0]) for item in error.errors()))
        problem = ", ".join(f"{name} cannot be {_quote_value(values[name])}" for name in invalid)
        allowed = " ".join(f"{name}: {describe_allowed_values(name)}." for name in invalid)
        raise RequestError(f"{problem}.", allowed) from None


def parse_settings_line(text: str) -> Hyperparameters:
    """Parse settings on one line, separated by commas: `learning_rate=2e-4, lora_r=8`. Raises
    `RequestError`.

    A part without `=` continues the list before it: `target_modules=q_proj, v_proj`.
    """
    pairs: list[str] = []
    for part in map(str.strip, text.split(",")):
        if not part:
            continue
        if "=" in part or not pairs:
            pairs.append(part)
        else:
            pairs[-1] += f",{part}"
    return parse_settings(pairs)


def describe_allowed_values(name: str) -> str:
    """Describe the values that a setting may have: its choices, or its range."""
    schema = Hyperparameters.model_json_schema()["properties"][name]["anyOf"][0]
    if "enum" in schema:
        *others, last = schema["enum"]
        return f"{', '.join(others)} or {last}"
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "array":
            return "all-linear, or names of linear layers with commas between them"
        case kind:
            number = "a whole number" if kind == "integer" else "a number"
            return f"{number} {_describe_range(schema)}"


def _describe_range(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema:
        low = f"from {_format_number(schema['minimum'])}"
    else:
        low = f"above {_format_number(schema['exclusiveMinimum'])}"
    if "maximum" in schema:
        return f"{low} to {_format_number(schema['maximum'])}"
    return f"{low}, below {_format_number(schema['exclusiveMaximum'])}"


def _format_number(value: float) -> str:
    """Format a number as a user may type it: whole numbers with all digits."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def _suggest_names(name: str) -> str:
    suggestions = similar_settings(name)
    if suggestions:
        return f"Did you mean {' or '.join(suggestions)}?"
    return f"Known: {', '.join(Hyperparameters.model_fields)}."


def similar_settings(name: str) -> list[str]:
    """Return the settings that a misspelt, shortened, extended or abbreviated name may stand for,
    likeliest first.
    """
    names = list(Hyperparameters.model_fields)
    wrong = name.lower()
    initials = [known for known in names if _initials(known) == wrong]
    similar = difflib.get_close_matches(name, names, cutoff=0.6)
    overlapping = []
    if len(name) > 2:
        overlapping = [known for known in names if wrong in known or known in wrong]
    return list(dict.fromkeys([*initials, *similar, *overlapping]))[:3]


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("_"))


def _quote_value(value: str | list[str]) -> str:
    return repr(value if isinstance(value, str) else ",".join(value))
