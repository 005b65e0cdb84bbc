"""Where and in which precision a base model serves."""

import re

import pytest
import torch

from personas.models import serving_model
from personas.models.base_model import BaseModel
from personas.models.serving_model import load_serving_model, precision_of, requires_4_bit
from tests.tiny_models import overflowing_model

GIB = 2**30
QWEN_3B = BaseModel("owner/three-billion", "nowhere", int(6.2 * GIB))


@pytest.fixture
def loaded(monkeypatch):
    """What is asked of transformers on a machine with a graphics card, which is described by
    calling it.
    """
    asked = []
    monkeypatch.setattr(
        serving_model,
        "load_model",
        lambda base, precision, **options: asked.append((precision, options)),
    )

    def card(gib, *, bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, gib * GIB))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
        monkeypatch.setattr(serving_model, "require_finite_activations", lambda model: None)
        load_serving_model(QWEN_3B, "float32")
        return asked[-1]

    return card


def test_a_card_with_room_serves_in_16_bits(loaded):
    assert loaded(24) == ("bfloat16", {"device_map": {"": "cuda"}})
    assert loaded(16, bfloat16=False) == ("float16", {"device_map": {"": "cuda"}})


def test_a_small_card_serves_in_4_bits(loaded):
    precision, options = loaded(6, bfloat16=False)
    quantisation = options["quantization_config"]
    assert (precision, options["device_map"]) == ("float16", {"": "cuda"})
    assert quantisation.load_in_4bit and quantisation.bnb_4bit_quant_type == "nf4"
    assert quantisation.bnb_4bit_compute_dtype is torch.float16


@pytest.mark.parametrize(("emulates", "wider"), [(True, "bfloat16"), (False, "float32")])
def test_a_card_without_bfloat16_serves_a_model_that_overflows_in_a_wider_precision(
    tmp_path, monkeypatch, caplog, emulates, wider
):
    base = overflowing_model(tmp_path / "model")
    on_card = serving_model.load_model
    monkeypatch.setattr(
        serving_model, "load_model", lambda base, precision, **_: on_card(base, precision)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: including_emulation and emulates,
    )
    assert precision_of(load_serving_model(base, "float32")) == wider
    assert re.search(rf"not finite in float16.* served in {wider}", caplog.text)


def test_4_bits_can_be_asked_of_any_card(monkeypatch):
    asked = []
    monkeypatch.setattr(
        serving_model, "load_model", lambda base, precision, **options: asked.append(options)
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    load_serving_model(QWEN_3B, "nf4")
    assert asked[0]["quantization_config"].load_in_4bit


def test_room_is_left_beside_the_weights():
    assert not requires_4_bit(4 * GIB, 6 * GIB)
    assert requires_4_bit(5 * GIB, 6 * GIB)


def test_without_a_card_the_precision_asked_for_serves(tiny_base):
    assert precision_of(load_serving_model(tiny_base, "float32")) == "float32"
    assert precision_of(load_serving_model(tiny_base, "bfloat16")) == "bfloat16"
