"""Checks that the pages generated from the code are up to date."""

from __future__ import annotations

import pytest

from bot.settings import SETTINGS
from tests.docs.generated import GENERATED_PAGES, page
from tests.docs.reading import ROOT
from trainer.recipe.recipe_file import recipe_names


@pytest.mark.parametrize("name", GENERATED_PAGES)
def test_the_page_is_up_to_date(name):
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == page(name), f"{name} is not up to date: python -m tests.docs"


def test_nothing_is_left_out():
    assert all(
        f"| `{setting.name}` | {setting.allowed} |" in page("docs/settings.md")
        for setting in SETTINGS
    )
    assert all(f"\n## {name}\n" in page("docs/recipes.md") for name in recipe_names())
