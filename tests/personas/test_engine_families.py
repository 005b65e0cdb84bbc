"""Each model family in the engine: batched if supported, otherwise one sequence at a time, and
correct.
"""

import copy

import pytest
import torch

from personas.engine.engine_parts import build_engine_parts
from personas.engine.fair_scheduler import SchedulerLimits
from personas.engine.peft_runner import PeftSwitcher
from personas.models.base_model import fingerprint
from personas.models.loading import load_model
from personas.models.model_fit import BATCHED_MODEL_TYPES
from tests.model_families import FAMILIES
from tests.personas.engine_reference import (
    RecordedReply,
    ask,
    differences,
    run_to_end,
    special_adapter,
)
from tools.tiny_models import LAYERS, make_model
from trainer.recipe.target_modules import find_target_modules

PROMPT = tuple(range(10, 50))
IN_THE_BATCH = {"SmolLM2", "Llama 3.2", "Qwen2.5", "Qwen3", "Mistral", "DeepSeek"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_what_it_says_alone(tmp_path, name):
    base = make_model(FAMILIES[name], tmp_path / "model")
    model = load_model(base, "float32")
    if not name.startswith(
        "DeepSeek-V"
    ):  # torch multiplies by experts in no more than single precision
        model.to(torch.float64)
    targets = list(find_target_modules(base, LAYERS).names)
    ref = special_adapter(tmp_path, base, "v1", r=4, target_modules=targets)
    alone = PeftSwitcher(copy.deepcopy(model), fingerprint(base))
    questions = [
        ask(alone, adapter, PROMPT[:length])
        for adapter in (None, ref)
        for length in (3, len(PROMPT))
    ]
    limits = SchedulerLimits(prefill_tokens=7, solo_prefill_tokens=13)
    parts = build_engine_parts(model, fingerprint(base), limits, slots=2, prefix_bytes=10**7)
    recorded = [RecordedReply(question, 10) for question in questions]
    for one in recorded:
        parts.batch.scheduler.add(one.sequence())
        parts.batch.step()
    run_to_end(parts)
    parts.close()
    close, wrong = differences(recorded)
    assert not wrong and (not close or name.startswith("DeepSeek-V"))
    assert (
        bool(parts.stacked)
        == (name in IN_THE_BATCH)
        == (model.config.model_type in BATCHED_MODEL_TYPES)
    )
