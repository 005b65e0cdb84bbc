"""Recipes for graphics cards run in their own precision on a CPU that multiplies in it."""

from __future__ import annotations

import pytest
import torch

from personas.home.adapters import verify_adapter
from personas.schemas.chat import Turn
from personas.schemas.training_events import Progress
from tests.trainer.job_folders import persona_job
from tests.trainer.test_recipes import recipe_of
from tools.tiny_models import TINY_MODELS, make_model, make_tokenizer
from trainer.machine import MachineSpec, probe_machine, probe_machine_without_torch
from trainer.recipe.machine_fit import fit_notes, fit_to_hardware
from trainer.run import run_job
from trainer.train.sft_trainer import make_sft_trainer
from trainer.train.trainer_base import StageInputs
from trainer.train.training_run import RunControl

FP16 = pytest.mark.skipif(
    torch.cuda.is_available() or not probe_machine().cpu_fp16,
    reason="this processor does not multiply in float16",
)


def test_fp16_stays_where_the_processor_has_it_and_is_replaced_with_a_note_elsewhere():
    recipe = recipe_of("s0-6gb")
    own, other = (
        fit_to_hardware(recipe, MachineSpec(False, "bf16", cpu_fp16=has)) for has in (True, False)
    )
    assert own.precision == "fp16" and not any("fp16" in note for note in fit_notes(recipe, own))
    assert other.precision == "bf16"
    notes = fit_notes(recipe, other)
    assert any("in fp16: bf16 is used" in note for note in notes)
    assert (
        probe_machine().cpu_fp16 == probe_machine_without_torch().cpu_fp16
        or probe_machine().has_cuda
    )


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@FP16
def test_a_recipe_in_fp16_trains_in_fp16_with_loss_scaling_as_on_a_card(tmp_path):
    base = make_model(TINY_MODELS["SmolLM2"], tmp_path / "base")
    settings = {"max_steps": 2, "logging_steps": 1, "eval_strategy": "no"}
    losses = {}
    for precision in ("fp16", "fp32"):
        changes = {**settings, "precision": precision}
        job = persona_job(
            tmp_path / precision, base.source, recipe="s0-6gb", hyperparameters=changes
        )
        events = []
        run_job(job, RunControl(events.append))
        manifest = verify_adapter(job / "adapter")
        assert manifest.training_precision == f"nf4 base, {precision} compute, float32 adapter"
        assert not any("does not compute" in caveat for caveat in manifest.caveats)
        losses[precision] = [event.loss for event in events if isinstance(event, Progress)]
    assert (
        losses["fp16"] == pytest.approx(losses["fp32"], rel=1e-3)
        and losses["fp16"] != losses["fp32"]
    )


@FP16
def test_the_loss_is_scaled_and_products_are_in_float16(tmp_path):
    from personas.prompt.renderer import Renderer

    kind = TINY_MODELS["SmolLM2"]
    base = make_model(kind, tmp_path / "base")
    renderer = Renderer(make_tokenizer(kind))
    sample = renderer.sample(None, [Turn("", "hello")], "Good day.")
    recipe = recipe_of("s0-6gb", max_steps=1, gradient_accumulation_steps=1, eval_strategy="no")
    recipe = fit_to_hardware(recipe, MachineSpec(False, "bf16", cpu_fp16=True))
    stage = StageInputs([sample], (), recipe, lambda event: None)
    trainer = make_sft_trainer(base, renderer.tokenizer, stage, tmp_path / "out")
    kinds = set()
    layer = next(
        module
        for name, module in trainer.model.named_modules()
        if name.endswith("o_proj.base_layer")
    )
    layer.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    trainer.train()
    assert kinds == {torch.float16} and trainer.accelerator.scaler.get_scale() > 1
