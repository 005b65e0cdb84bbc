"""A step on a GPU: nothing in it makes the host wait, and nothing is compiled.

The GPU's choices run on a CPU here, by the description of a machine.
"""

import random

import pytest
import torch

from personas.prompt.renderer import TokenizedSample
from tests.trainer.call_counter import CallCounter
from trainer.estimate.workload import workload_of
from trainer.machine import MachineSpec
from trainer.recipe.machine_fit import fit_to_machine
from trainer.recipe.recipe_file import load_recipe
from trainer.train import collator
from trainer.train.sft_trainer import make_sft_trainer, run_training_loop, training_arguments
from trainer.train.trainer_base import StageInputs

CARD = MachineSpec(has_cuda=True, best="bf16", memory_bytes=2**36, free_bytes=2**36)
pytestmark = pytest.mark.usefixtures("one_thread")


def samples_of(count):
    draw = random.Random(0)
    samples = []
    for _ in range(count):
        ids = (5, 6, 7, 8, 9, *draw.choices(range(10, 500), k=draw.randint(8, 60)))
        samples.append(TokenizedSample(ids, (False,) * (len(ids) - 5) + (True,) * 5))
    return samples


@pytest.fixture
def trained(tiny_base, renderer, tmp_path, monkeypatch):
    """Trains three steps of s0-6gb as on a card, and returns the calls in its computation: the count
    of trained tokens, forward and backward passes, clipping, and the optimiser.
    """
    monkeypatch.setattr("trainer.train.sft_trainer.probe_machine", lambda: CARD)
    counter = CallCounter()

    def counted(function):
        def call(*args, **kwargs):
            with counter:
                return function(*args, **kwargs)

        return call

    def train():
        samples = samples_of(48)
        asked = load_recipe("s0-6gb").with_values(
            quant_type="none", optim="adamw_torch_fused", max_steps=3
        )
        work = workload_of(samples, samples[:4])
        recipe = fit_to_machine("s0-6gb", asked, tiny_base, work, machine=CARD, free_bytes=2**40)
        assert recipe.per_device_train_batch_size == 16 and not recipe.gradient_checkpointing
        stage = StageInputs(samples, samples[:4], recipe, lambda event: None)
        trainer = make_sft_trainer(tiny_base, renderer.tokenizer, stage, tmp_path)
        assert trainer.kernels.layout == "rows" and trainer.kernels.fuses_lora
        trainer._get_num_items_in_batch = counted(trainer._get_num_items_in_batch)
        trainer.training_step = counted(trainer.training_step)
        trainer.accelerator.clip_grad_norm_ = counted(trainer.accelerator.clip_grad_norm_)
        make_optimizer = trainer.create_optimizer

        def create_optimizer(*args):
            optimizer = make_optimizer(*args)
            optimizer.step = counted(optimizer.step)
            return optimizer

        trainer.create_optimizer = create_optimizer
        run_training_loop(trainer)
        assert trainer.state.global_step == 3
        return counter

    return train


@pytest.mark.slow
def test_nothing_in_a_step_waits_for_the_card_and_nothing_is_compiled(trained, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda *args, **_: compiled.append(args))
    counter = trained()
    assert counter.dispatches > 100
    assert counter.waits == 0, counter.calls
    assert not compiled


@pytest.mark.slow
def test_a_wait_would_be_counted(trained, monkeypatch):
    row_mask = collator._row_mask

    def waiting(batch, *options):
        assert batch["documents"].max().item() > 0
        return row_mask(batch, *options)

    monkeypatch.setattr(collator, "_row_mask", waiting)
    assert trained().waits == 3, "one in each step"


@pytest.mark.parametrize("has_cuda", [True, False])
def test_a_card_copies_batches_from_pinned_memory_without_waiting(monkeypatch, tmp_path, has_cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    stage = StageInputs(samples_of(4), (), load_recipe("s0-6gb"), lambda event: None)
    arguments = training_arguments(stage, tmp_path)
    assert arguments["dataloader_pin_memory"] is has_cuda
    assert arguments["accelerator_config"] == {"non_blocking": has_cuda}
