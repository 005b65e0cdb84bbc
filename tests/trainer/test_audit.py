"""The audit: planted texts stand out the more often they were repeated, and the copy is never served."""

import math
import shutil

import numpy as np
import pytest

from personas.adapters import install, seal, verify
from personas.base_model import fingerprint
from personas.contracts import AdapterRef
from personas.engine.weights import AdaptedModel
from personas.errors import AdapterError
from trainer.exports.export import export
from trainer.job import Run, prepare
from trainer.material import read_spec
from trainer.scorecard.audit import audit, audit_section, chance, draw, exposure
from trainer.start import start_of


def test_exposure_is_the_rank_in_bits():
    others = [float(n) for n in range(1, 256)]
    assert exposure(0.5, others) == 8, "likelier than all of 256"
    assert exposure(1.0, others) == pytest.approx(7), "of two that are alike the canary is the second"
    assert exposure(999, others) == 0
    ranks = [math.log2(256) - math.log2(rank) for rank in range(1, 257)]
    assert chance(256) == pytest.approx(np.mean(ranks)) and 1.3 < chance(256) < 1.45


def test_the_section_counts_canaries_and_spreads():
    found = audit_section({0: [5.0, 1.0], 4: [0.5]}, [1.0, 2.0, 3.0])
    assert found.canaries == {0: 2, 4: 1} and found.reference == 3 and found.most == 2
    assert found.exposure[4].mean == 2 and found.exposure[4].sd == 0
    assert found.exposure[0].mean == pytest.approx((0 + 1) / 2)


def test_canaries_are_drawn_alike_each_time_and_all_differ(tiny_base, monkeypatch):
    from personas.base_model import load_model

    monkeypatch.setattr("trainer.scorecard.audit.TOKENS", 4)
    model = load_model(tiny_base, "float32")
    texts = draw(model, [1, 2, 3], 70, barred=[0])
    assert len({tuple(text) for text in texts}) == 70 and {len(text) for text in texts} == {4}
    assert not any(0 in text for text in texts)
    assert texts == draw(model, [1, 2, 3], 70, barred=[0])


@pytest.mark.slow
def test_exposure_rises_with_repeats_and_is_near_chance_without(two_trained, tmp_path):
    job = prepare(two_trained["ada"], read_spec(two_trained["ada"]))
    run = Run(lambda event: None, lambda: None)
    found = audit(job, tmp_path / "audit", run, {0: 24, 1: 6, 16: 3}, reference=120)
    bits = {repeats: exposure.mean for repeats, exposure in found.exposure.items()}
    assert bits[0] < bits[1] < bits[16]
    assert abs(bits[0] - found.chance) < 1
    assert bits[16] > found.most - 1
    copy = tmp_path / "audit" / "adapter"
    manifest = verify(copy)
    assert manifest.audit and manifest.dataset["samples_planted"] == 6 + 48
    assert audit(job, tmp_path / "audit", run, {0: 24, 1: 6, 16: 3}, reference=120) == found, "nothing is trained again"


def test_a_copy_that_was_audited_is_neither_installed_nor_served_nor_exported_nor_trained_further(
    two_trained, tmp_path, monkeypatch
):
    adapter, job = two_trained["ada"] / "adapter", prepare(two_trained["ada"], read_spec(two_trained["ada"]))
    copy = shutil.copytree(adapter, tmp_path / "copy")
    seal(copy, verify(copy).model_copy(update={"audit": True}))
    monkeypatch.setattr("trainer.start.adapter_to_start_from", lambda folder, spec: copy)
    served = AdaptedModel(None, fingerprint(job.base))
    for refused in (
        lambda: install(copy, tmp_path / "home" / "v1"),
        lambda: served.load(AdapterRef("ada", "v1", copy)),
        lambda: start_of(tmp_path, job.spec, job.base),
        lambda: export(copy, "gguf-lora", tmp_path / "out.gguf", None, None, lambda text: None),
    ):
        with pytest.raises(AdapterError, match="trained for an audit"):
            refused()
    assert not (tmp_path / "home").exists() and not (tmp_path / "out.gguf").exists()
    assert install(adapter, tmp_path / "home" / "v1") == verify(adapter), "any other one is"
