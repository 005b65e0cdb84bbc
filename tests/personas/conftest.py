"""Shared by the tests of `personas`: the embedded model's real tokenizer."""

import pytest

from personas.base_model import EMBEDDED, load_tokenizer, locate
from personas.prompt import Renderer


@pytest.fixture(scope="session")
def base():
    return locate(EMBEDDED)


@pytest.fixture(scope="session")
def renderer(base):
    return Renderer(load_tokenizer(base))
