"""Checks that the pages generated from the code are up to date."""

from __future__ import annotations

import pytest

from tests.docs.generated import GENERATED_PAGES, page
from tests.docs.reading import ROOT


@pytest.mark.parametrize("name", GENERATED_PAGES)
def test_the_page_is_up_to_date(name):
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == page(name), f"{name} is not up to date: python -m tests.docs"
