"""What decides how an adapter is trained: names, allowed ranges, and what a request may set of it.

The names are transformers' and peft's where they have one. `trainer/recipes/*.toml` explain what each does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

QuantType = Literal["nf4", "fp4", "none"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Optimiser = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup"]
Strategy = Literal["no", "steps", "epoch"]

Rank = Annotated[int, Field(ge=1, le=256)]
Alpha = Annotated[int, Field(ge=1, le=1024)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Modules = Annotated[tuple[str, ...], Field(min_length=1)]
LearningRate = Annotated[float, Field(ge=1e-6, le=1e-2)]
WarmupRatio = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
OneOrMoreSteps = Annotated[int, Field(ge=1, le=1_000_000)]
WeightDecay = Annotated[float, Field(ge=0, le=1)]
GradNorm = Annotated[float, Field(gt=0, le=1000)]
Epochs = Annotated[float, Field(gt=0, le=50)]
Batch = Annotated[int, Field(ge=1, le=64)]
Accumulation = Annotated[int, Field(ge=1, le=256)]
Patience = Annotated[int, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Length = Annotated[int, Field(ge=64, le=32768)]
Turns = Annotated[int, Field(ge=1, le=64)]
Minutes = Annotated[float, Field(gt=0, le=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]
HeldoutShare = Annotated[float, Field(gt=0, lt=1)]
NoiseAlpha = Annotated[float, Field(ge=0, le=100)]
RateRatio = Annotated[float, Field(ge=0, le=64)]


class Hyperparameters(BaseModel):
    """What a request may set. A field left out takes the recipe's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    per_device_train_batch_size: Batch | None = None
    gradient_accumulation_steps: Accumulation | None = None
    gradient_checkpointing: bool | None = None
    logging_steps: OneOrMoreSteps | None = None
    eval_strategy: Strategy | None = None
    eval_steps: OneOrMoreSteps | None = None
    early_stopping_patience: Patience | None = None
    seed: Seed | None = None
    max_length: Length | None = None
    history_turns: Turns | None = None
    session_gap_minutes: Minutes | None = None
    lore_share: Share | None = None
    heldout_share: HeldoutShare | None = None
