"""The audit: planted texts stand out the more often they were repeated, and the copy is never
served.
"""

import math
import shutil

import numpy as np
import pytest
import torch

from personas.engine.peft_runner import PeftSwitcher
from personas.errors import AdapterError
from personas.home.adapters import install_adapter_folder, verify_adapter, write_manifest
from personas.home.job_folder import read_spec
from personas.models.base_model import fingerprint
from personas.schemas.chat import AdapterRef
from trainer.export.exporter import export_adapter
from trainer.recipe.parent_adapter import find_parent_adapter
from trainer.study.canary_audit import (
    audit_section,
    draw_texts,
    expected_exposure,
    exposure,
    run_canary_audit,
)
from trainer.train.job import prepare_job
from trainer.train.training_run import RunControl


def test_exposure_is_the_rank_in_bits():
    others = [float(n) for n in range(1, 256)]
    assert exposure(0.5, others) == 8, "likelier than all of 256"
    assert exposure(1.0, others) == pytest.approx(7), (
        "of two that are alike the canary is the second"
    )
    assert exposure(999, others) == 0
    ranks = [math.log2(256) - math.log2(rank) for rank in range(1, 257)]
    assert (
        expected_exposure(256) == pytest.approx(np.mean(ranks))
        and 1.3 < expected_exposure(256) < 1.45
    )


def test_the_section_counts_canaries_and_spreads():
    found = audit_section({0: [5.0, 1.0], 4: [0.5]}, [1.0, 2.0, 3.0])
    assert found.canaries == {0: 2, 4: 1} and found.reference == 3 and found.most == 2
    assert found.exposure[4].mean == 2 and found.exposure[4].sd == 0
    assert found.exposure[0].mean == pytest.approx((0 + 1) / 2)


def test_canaries_are_drawn_alike_each_time_and_all_differ(tiny_base, monkeypatch):
    from personas.models.loading import load_model

    monkeypatch.setattr("trainer.study.canary_audit.CANARY_TOKENS", 4)
    model = load_model(tiny_base, "float32")
    texts = draw_texts(model, [1, 2, 3], 70, barred=[0])
    assert len({tuple(text) for text in texts}) == 70 and {len(text) for text in texts} == {4}
    assert not any(0 in text for text in texts)
    assert texts == draw_texts(model, [1, 2, 3], 70, barred=[0])


@pytest.mark.slow
def test_exposure_rises_with_repeats_and_is_near_chance_without(two_trained, tmp_path):
    job = prepare_job(two_trained["ada"], read_spec(two_trained["ada"]))
    run = RunControl()
    found = run_canary_audit(job, tmp_path / "audit", run, {0: 24, 1: 6, 16: 3}, reference=120)
    bits = {repeats: exposure.mean for repeats, exposure in found.exposure.items()}
    assert bits[0] < bits[1] < bits[16]
    assert abs(bits[0] - found.chance) < 1
    assert bits[16] > found.most - 1
    copy = tmp_path / "audit" / "adapter"
    manifest = verify_adapter(copy)
    assert manifest.audit and manifest.dataset["samples_planted"] == 6 + 48
    assert (
        run_canary_audit(job, tmp_path / "audit", run, {0: 24, 1: 6, 16: 3}, reference=120) == found
    ), "nothing is trained again"


@pytest.mark.slow
def test_a_copy_that_was_audited_is_neither_installed_nor_served_nor_exported_nor_trained_further(
    two_trained, tmp_path, monkeypatch
):
    adapter = two_trained["ada"] / "adapter"
    job = prepare_job(two_trained["ada"], read_spec(two_trained["ada"]))
    copy = shutil.copytree(adapter, tmp_path / "copy")
    write_manifest(copy, verify_adapter(copy).model_copy(update={"audit": True}))
    served = PeftSwitcher(torch.nn.Module(), fingerprint(job.base))
    for refused in (
        lambda: install_adapter_folder(copy, tmp_path / "home" / "v1"),
        lambda: served.load(AdapterRef("ada", "v1", copy)),
        lambda: find_parent_adapter(copy, job.base),
        lambda: export_adapter(
            copy, "gguf-lora", tmp_path / "out.gguf", None, None, lambda text: None
        ),
    ):
        with pytest.raises(AdapterError, match="trained for an audit"):
            refused()
    assert not (tmp_path / "home").exists() and not (tmp_path / "out.gguf").exists()
    assert install_adapter_folder(adapter, tmp_path / "home" / "v1") == verify_adapter(adapter), (
        "any other one is"
    )
