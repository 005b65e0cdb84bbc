"""A model that overflows in float16: said so, and trained in another precision without a word about
the rate.
"""

from __future__ import annotations

import dataclasses

import pytest

import trainer.recipe.resolve
from personas.home.adapters import verify_adapter
from personas.models.loading import load_model
from personas.models.probe import Float16OverflowError, require_finite_activations
from personas.schemas.training_events import Phase, Progress
from tests.tiny_models import overflowing_model
from tests.trainer.job_folders import persona_job
from trainer.machine import probe_machine
from trainer.run import run_job
from trainer.train.divergence import require_convergence, require_finite_loss
from trainer.train.resume_config import ResumeConfig, lock_config
from trainer.train.sft_trainer import load_model_with_kernels
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("one_thread", "blank_charts")


def test_a_loss_that_is_no_number_in_float16_is_not_blamed_on_the_rate(recipe):
    half = recipe.model_copy(update={"precision": "fp16"})
    for check in (
        lambda: require_convergence([float("nan")], 1, 100, half, 2.0),
        lambda: require_finite_loss(float("inf"), "the held-out replies", half),
    ):
        with pytest.raises(Float16OverflowError, match=r"float16.*precision=fp32") as caught:
            check()
        assert (
            "learning_rate=" not in caught.value.advice and "diverged" not in caught.value.message
        )
    with pytest.raises(Exception, match="diverged") as diverged:
        require_convergence(
            [float("nan")], 1, 100, recipe.model_copy(update={"precision": "bf16"}), 2.0
        )
    assert "learning_rate=" in diverged.value.advice


def test_it_is_found_when_the_model_is_loaded(tmp_path, recipe):
    base = overflowing_model(tmp_path / "model")
    half = recipe.model_copy(update={"precision": "fp16", "quant_type": "none"})
    with pytest.raises(Float16OverflowError, match=r"llama, .*not finite in float16"):
        load_model_with_kernels(base, half)
    require_finite_activations(load_model(base, "float32"))
    require_finite_activations(load_model(base, "bfloat16"))


def test_a_run_starts_anew_in_another_precision_and_says_so(tmp_path, monkeypatch):
    base = overflowing_model(tmp_path / "model")
    probe = probe_machine()
    monkeypatch.setattr(
        trainer.recipe.resolve, "probe_machine", lambda: dataclasses.replace(probe, cpu_fp16=True)
    )
    changes = {"precision": "fp16", "max_steps": 2, "quant_type": "none", "learning_rate": 1e-5}
    folder = persona_job(tmp_path, base.source, hyperparameters=changes)
    received = []
    run_job(folder, RunControl(received.append, checkpoint_s=0))
    manifest = verify_adapter(folder / "adapter")
    best = "bf16" if probe.best == "bf16" else "fp32"
    assert manifest.training_precision == f"none base, {best} compute, float32 adapter"
    assert any(
        "overflow in float16" in caveat and f"trained in {best}" in caveat
        for caveat in manifest.caveats
    )
    details = [event.detail for event in received if isinstance(event, Phase)]
    assert any(f"in {best} because float16 overflows" in detail for detail in details)
    assert [event.step for event in received if isinstance(event, Progress)] == [1, 2]


def test_a_resumed_run_keeps_the_other_precision(tmp_path, recipe):
    half = recipe.model_copy(update={"precision": "fp16"})
    wanted = ResumeConfig(
        recipe=half, used=half, batches="", base_model_hash="", threads=1, packages={}
    )
    changed = wanted.without_float16("fp32")
    assert changed and changed.used.precision == "fp32" and changed.without_float16("fp32") is None
    lock_config(tmp_path, changed)
    assert lock_config(tmp_path, wanted).used.precision == "fp32"
