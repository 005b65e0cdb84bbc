"""Which precision is chosen to serve in, and what is said of it."""

import pytest
import torch

from personas import precisions
from personas.base_model import EMBEDDED, best_precision
from personas.engine.kernel import build
from personas.errors import BaseModelError
from personas.precisions import WANTED, choose

ABLE = "flags : avx512_bf16 avx512_vnni"


@pytest.fixture
def able(monkeypatch):
    """A processor that multiplies bytes, with a compiler, and a model that was measured in them."""
    monkeypatch.setattr(precisions, "MEASURED_IN_INT8", frozenset({EMBEDDED}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(build, "_processor", lambda: ABLE)
    monkeypatch.setattr(precisions, "compiler_here", lambda: "g++")


def test_what_is_asked_for_is_taken(able):
    assert {name: choose(name, EMBEDDED).precision for name in WANTED if name != "auto"} == {
        "bf16": "bfloat16", "fp32": "float32", "int8": "int8", "nf4": "nf4"
    }  # fmt: skip
    assert "asks for it" in choose("int8", "owner/other").why


def test_int8_is_chosen_where_it_was_measured_to_be_right_and_fast(able):
    chosen = choose("auto", EMBEDDED)
    assert chosen.precision == "int8" and "half as many bytes" in chosen.why


def test_it_is_not_where_nobody_measured_the_model(able):
    chosen = choose("auto", "owner/other")
    assert chosen.precision == best_precision() and "were not measured" in chosen.why


def test_it_is_not_without_the_compiled_kernel(able, monkeypatch):
    monkeypatch.setattr(precisions, "compiler_here", lambda: None)
    monkeypatch.setattr(precisions, "compiled_before", lambda: None)
    assert "no C++ compiler" in choose("auto", EMBEDDED).why
    monkeypatch.setattr(build, "_processor", lambda: "flags : avx2")
    chosen = choose("auto", EMBEDDED)
    assert chosen.precision == best_precision() and "this processor has no AVX-512 BF16" in chosen.why


class TestWithAGraphicsCard:
    """There it is the card's."""

    @pytest.fixture(autouse=True)
    def card(self, able, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)

    def test_it_computes_in_16_bits_or_4(self):
        assert choose("auto", EMBEDDED).precision == "bfloat16" and choose("nf4", EMBEDDED).precision == "nf4"

    @pytest.mark.parametrize("wanted", ["int8", "fp32"])
    def test_what_is_a_processors_is_refused(self, wanted):
        with pytest.raises(BaseModelError, match=f"ENGINE_PRECISION is {wanted}.*graphics card") as refused:
            choose(wanted, EMBEDDED)
        assert "nf4" in refused.value.advice
