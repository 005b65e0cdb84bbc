"""The vectors that ship with the lore."""

import io

import numpy as np
import pytest

from personas.lore import semantic, shipped_vectors
from personas.lore.minilm import load_minilm
from personas.lore.semantic import SMALL_TALK, clear_vectors, embed_units
from tools.lore_vectors import shipped_units

_buffer = io.BytesIO()
np.save(_buffer, np.zeros(3))
ARRAY = _buffer.getvalue()


def test_every_unit_of_the_shipped_lore_has_the_vector_that_the_encoder_computes():
    """Where this fails: python -m tools.lore_vectors."""
    units = shipped_units()
    stored = shipped_vectors.shipped_vectors()
    assert stored.keys() == units.keys() and len(units) > 400
    some = [*units][::40]
    computed = load_minilm().embed([units[key] for key in some])
    for key, vector in zip(some, computed, strict=True):
        np.testing.assert_allclose(stored[key], vector, atol=2e-4)


def test_what_ships_is_not_computed_and_everything_else_is(monkeypatch):
    asked = []
    encoder = load_minilm()

    class Counting:
        def embed(self, texts):
            asked.extend(texts)
            return encoder.embed(texts)

    clear_vectors()
    monkeypatch.setattr(semantic, "load_encoder", lambda name: Counting())
    vectors = embed_units([*SMALL_TALK, "The lamp on the quay is lit by a cat."])
    assert asked == ["The lamp on the quay is lit by a cat."]
    assert len(vectors) == len(SMALL_TALK) + 1
    clear_vectors()
    embed_units(SMALL_TALK[:1], "another/encoder")
    assert asked[1:] == [SMALL_TALK[0]], "its vectors are others"


@pytest.mark.parametrize("content", [None, b"", b"PK\x05\x06" + bytes(18), b"no archive", ARRAY])
def test_a_file_that_is_missing_or_damaged_has_none(tmp_path, content):
    path = tmp_path / "vectors.npz"
    if content is not None:
        path.write_bytes(content)
    assert shipped_vectors.shipped_vectors.__wrapped__(path) == {}
