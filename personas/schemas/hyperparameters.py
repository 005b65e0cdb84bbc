"""Hyperparameters a training request may set: names, types and allowed ranges."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from personas.errors import RequestError
from personas.schemas.base import FrozenModel

QuantType = Literal["nf4", "fp4", "none"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Optimiser = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"
]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup"]
Strategy = Literal["no", "steps", "epoch"]
Packing = Literal["auto", "on", "off"]
RopeType = Literal["linear", "dynamic", "yarn"]
Reasoning = Literal["strip", "keep"]
TrainedReplies = Literal["all", "last"]
DefaultTemplate = Literal["chatml", "plain"]
TemplateChoice = Literal["auto", "chatml", "plain"]
"""`auto` is the base model's own chat template; without one, ChatML where its vocabulary has it,
else the plain one.
"""
DEFAULT_ROPE_TYPE: RopeType = "yarn"
MAX_ROPE_FACTOR = 8.0
Rank = Annotated[int, Field(ge=1, le=256)]
Alpha = Annotated[int, Field(ge=1, le=1024)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Modules = Annotated[tuple[str, ...], Field(min_length=1)]
LearningRate = Annotated[float, Field(ge=1e-7, le=1e-2)]
WarmupRatio = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
PositiveSteps = Annotated[int, Field(ge=1, le=1_000_000)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
GradNorm = Annotated[float, Field(gt=0, le=1000)]
Epochs = Annotated[float, Field(gt=0, le=50)]
BatchSize = Annotated[int, Field(ge=1, le=64)]
Accumulation = Annotated[int, Field(ge=1, le=256)]
Patience = Annotated[int, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SequenceLength = Annotated[int, Field(ge=64, le=32768)]
RopeFactor = Annotated[float, Field(ge=1, le=MAX_ROPE_FACTOR)]
TurnCount = Annotated[int, Field(ge=1, le=64)]
Minutes = Annotated[float, Field(gt=0, le=100_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
HeldoutShare = Annotated[float, Field(gt=0, lt=1)]
GeneralShare = Annotated[float, Field(ge=0, lt=1)]
StageEpochs = Annotated[float, Field(ge=0, le=50)]
NoiseAlpha = Annotated[float, Field(ge=0, le=100)]
RateRatio = Annotated[float, Field(ge=0, le=64)]
SampleCount = Annotated[int, Field(ge=0, le=1_000_000)]
PreferenceMethod = Literal["kto", "dpo"]
PreferenceBeta = Annotated[float, Field(gt=0, le=10)]
PreferenceShare = Annotated[float, Field(gt=0, le=1)]


class Hyperparameters(FrozenModel):
    """Hyperparameters of a training request. A field that is None takes the recipe's value."""

    quant_type: QuantType | None = None
    double_quant: bool | None = None
    precision: Precision | None = None
    lora_r: Rank | None = None
    lora_alpha: Alpha | None = None
    lora_dropout: Dropout | None = None
    target_modules: Modules | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    loraplus_lr_ratio: RateRatio | None = None
    neftune_noise_alpha: NoiseAlpha | None = None
    optim: Optimiser | None = None
    learning_rate: LearningRate | None = None
    lr_scheduler_type: Schedule | None = None
    warmup_ratio: WarmupRatio | None = None
    warmup_steps: Steps | None = None
    weight_decay: WeightDecay | None = None
    max_grad_norm: GradNorm | None = None
    num_train_epochs: Epochs | None = None
    max_steps: Steps | None = None
    per_device_train_batch_size: BatchSize | None = None
    gradient_accumulation_steps: Accumulation | None = None
    gradient_checkpointing: bool | None = None
    packing: Packing | None = None
    logging_steps: PositiveSteps | None = None
    eval_strategy: Strategy | None = None
    eval_steps: PositiveSteps | None = None
    early_stopping_patience: Patience | None = None
    seed: Seed | None = None
    max_length: SequenceLength | None = None
    rope_scaling_factor: RopeFactor | None = None
    rope_scaling_type: RopeType | None = None
    chat_template: TemplateChoice | None = None
    history_turns: TurnCount | None = None
    session_gap_minutes: Minutes | None = None
    cross_session_share: Fraction | None = None
    lore_share: Fraction | None = None
    trained_replies: TrainedReplies | None = None
    reasoning: Reasoning | None = None
    heldout_share: HeldoutShare | None = None
    general_share: GeneralShare | None = None
    first_stage_epochs: StageEpochs | None = None
    first_stage_learning_rate: LearningRate | None = None
    train_samples: SampleCount | None = None
    preference_method: PreferenceMethod | None = None
    preference_beta: PreferenceBeta | None = None
    preference_share: PreferenceShare | None = None


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
        values[name] = (
            [part.strip() for part in value.split(",")] if name == "target_modules" else value
        )
    try:
        return Hyperparameters.model_validate(values)
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
    for part in filter(None, (part.strip() for part in text.split(","))):
        if "=" not in part and pairs:
            pairs[-1] += f",{part}"
        else:
            pairs.append(part)
    return parse_settings(pairs)


def describe_allowed_values(name: str) -> str:
    schema = Hyperparameters.model_json_schema()["properties"][name]["anyOf"][0]
    if "enum" in schema:
        *others, last = schema["enum"]
        return f"{', '.join(others)} or {last}"
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "array":
            return "names of linear layers, with commas between them"
        case kind:
            number = "a whole number" if kind == "integer" else "a number"
            return f"{number} {_describe_range(schema)}"


def _describe_range(schema: Mapping[str, Any]) -> str:
    ends = {
        end: _format_number(schema[end])
        for end in schema
        if end.lower().endswith(("minimum", "maximum"))
    }
    low = f"from {ends['minimum']}" if "minimum" in ends else f"above {ends['exclusiveMinimum']}"
    return (
        f"{low} to {ends['maximum']}"
        if "maximum" in ends
        else f"{low}, below {ends['exclusiveMaximum']}"
    )


def _format_number(value: float) -> str:
    """Format a number as a user may type it: whole numbers with all digits."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def _suggest_names(name: str) -> str:
    """Suggest existing names for a misspelt, shortened, extended or abbreviated one."""
    names = list(Hyperparameters.model_fields)
    similar = difflib.get_close_matches(name, names, cutoff=0.6)
    initials = [it for it in names if "".join(word[0] for word in it.split("_")) == name.lower()]
    overlapping = [
        it for it in names if len(name) > 2 and (name.lower() in it or it in name.lower())
    ]
    suggestions = list(dict.fromkeys([*initials, *similar, *overlapping]))[:3]
    return (
        f"Did you mean {' or '.join(suggestions)}?"
        if suggestions
        else f"Known: {', '.join(names)}."
    )


def _quote_value(value: str | list[str]) -> str:
    return repr(value if isinstance(value, str) else ",".join(value))
