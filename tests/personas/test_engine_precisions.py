"""Differences of log-probabilities between the serving precisions and float32, with and without
adapters.
"""

import copy

import pytest
import torch

from personas.engine.lora_runner import StackedLoraRunner
from personas.engine.lora_slots import AdapterWeights
from personas.engine.model_runner import ScheduledTokens
from personas.models.base_model import locate
from personas.models.serving_model import load_serving_model
from personas.schemas.chat import AdapterRef
from tests.personas.test_engine_kernel import rough, run_batch, tiny

TOLERANCES = {"bfloat16": (0.02, 0.15), "int8": (0.03, 0.25), "nf4": (0.3, 2.5)}
"""Largest accepted mean and maximum difference, in nats."""


pytestmark = pytest.mark.usefixtures("one_thread")


def served(folder, precision):
    return load_serving_model(locate(str(folder)), precision, "cpu")


@pytest.mark.parametrize("precision", TOLERANCES)
def test_log_probabilities_are_near_those_in_float32(tmp_path, precision):
    tiny("llama", 192).save_pretrained(tmp_path)
    coarse, fine = (
        StackedLoraRunner(served(tmp_path, kind), 4, 0) for kind in (precision, "float32")
    )
    torch.manual_seed(3)
    for slot, rank in ((1, 4), (2, 18), (3, 1)):
        pairs = {
            name: (rough(rank, linear.in_features) * 0.125, rough(rank, linear.out_features) * 0.25)
            for name, linear in fine.linears.items()
            if name != "lm_head"
        }
        for runner in (coarse, fine):
            runner.stack.put(slot, AdapterWeights(AdapterRef("a", str(slot), None), pairs))
    apart = run_batch(coarse, coarse.forward).sub(run_batch(fine, fine.forward)).abs()
    mean, most = TOLERANCES[precision]
    print(f"{precision}: {apart.mean():.4f} on average, {apart.max():.4f} at most")
    assert 0 < apart.mean() < mean and apart.max() < most


def test_in_4_bits_rows_are_what_the_model_says_alone(tmp_path):
    tiny("mistral", 192).save_pretrained(tmp_path)
    model = served(tmp_path, "nf4")
    ids = torch.tensor([[5, 9, 44, 3, 7]])
    with torch.inference_mode():
        alone = copy.deepcopy(model)(ids).logits[0, -1].float().log_softmax(-1)
    runner = StackedLoraRunner(model, 2, 0)
    rows = [runner.new_kv_cache(9) for _ in range(2)]
    logits = runner.forward(
        [ScheduledTokens(rows[0], [1, 2]), ScheduledTokens(rows[1], ids[0].tolist())]
    )
    assert (logits[1].log_softmax(-1) - alone).abs().max() < 0.05
