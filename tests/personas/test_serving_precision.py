"""Which precision is chosen to serve in, and what is said of it."""

import pytest
import torch

from personas.engine import serving_precision
from personas.engine.cpu_kernel import build
from personas.engine.serving_precision import PRECISION_BY_SETTING, choose_precision
from personas.errors import BaseModelError
from personas.models.base_model import EMBEDDED
from personas.models.loading import best_precision

ABLE = "flags : avx512_bf16 avx512_vnni"


@pytest.fixture
def able(monkeypatch):
    """A processor that multiplies bytes, with a compiler, and a model that was measured in them."""
    monkeypatch.setattr(serving_precision, "INT8_MEASURED_MODELS", frozenset({EMBEDDED}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(build, "_cpu_flags", lambda: ABLE)
    monkeypatch.setattr(serving_precision, "find_compiler", lambda: "g++")


def test_what_is_asked_for_is_taken(able):
    assert {name: choose_precision(name, EMBEDDED).precision for name in PRECISION_BY_SETTING if name != "auto"} == {
        "bf16": "bfloat16", "fp32": "float32", "int8": "int8", "nf4": "nf4"
    }  # fmt: skip
    assert "set by ENGINE_PRECISION" in choose_precision("int8", "owner/other").reason


def test_int8_is_chosen_where_it_was_measured_to_be_right_and_fast(able):
    chosen = choose_precision("auto", EMBEDDED)
    assert chosen.precision == "int8" and "half as many bytes" in chosen.reason


def test_it_is_not_where_nobody_measured_the_model(able):
    chosen = choose_precision("auto", "owner/other")
    assert chosen.precision == best_precision() and "were not measured" in chosen.reason


def test_it_is_not_without_the_compiled_kernel(able, monkeypatch):
    monkeypatch.setattr(serving_precision, "find_compiler", lambda: None)
    monkeypatch.setattr(serving_precision, "load_compiled", lambda: None)
    assert "no C++ compiler" in choose_precision("auto", EMBEDDED).reason
    monkeypatch.setattr(build, "_cpu_flags", lambda: "flags : avx2")
    chosen = choose_precision("auto", EMBEDDED)
    assert chosen.precision == best_precision() and "no AVX-512 BF16" in chosen.reason


class TestWithAGraphicsCard:
    """There it is the card's."""

    @pytest.fixture(autouse=True)
    def card(self, able, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)

    def test_it_computes_in_16_bits_or_4(self):
        assert (
            choose_precision("auto", EMBEDDED).precision == "bfloat16"
            and choose_precision("nf4", EMBEDDED).precision == "nf4"
        )

    @pytest.mark.parametrize("wanted", ["int8", "fp32"])
    def test_what_is_a_processors_is_refused(self, wanted):
        with pytest.raises(BaseModelError, match=f"ENGINE_PRECISION is {wanted}.*GPU") as refused:
            choose_precision(wanted, EMBEDDED)
        assert "nf4" in refused.value.advice
