"""docs/models.md has the catalogue's models, and names only models that it has."""

import re

from tests.docs.model_table import PAGE, with_table
from tests.docs.reading import ROOT
from tests.samples import catalogue_model


def test_the_table_is_up_to_date():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_table(text) == text, f"{PAGE} is not up to date: python -m tests.docs"


def test_the_paths_name_models_of_the_catalogue():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    named = re.findall(r"bot models (?:fetch|use) ([\w.:/-]+)", text)
    named = set(named) - {"NAME"}
    assert len(named) >= 3
    for name in named:
        catalogue_model(name)
