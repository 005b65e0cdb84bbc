"""Checks the notebooks: stored without outputs, importable names, and complete runs with small
settings.
"""

from __future__ import annotations

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.programs import PACKAGES, has_module
from tests.docs.reading import ROOT
from tools import set_up

FOLDER = ROOT / "examples" / "notebooks"
BRIEF = {"max_steps": 3, "num_train_epochs": 1, "train_samples": 24, "heldout_share": 0.01}
SMALL = {
    "1-data": {"GENERAL": 60},
    "2-training": {"SETTINGS": BRIEF, "CARD": "losses"},
    "3-personas": {
        "SETTINGS": BRIEF,
        "QUESTIONS": ["What do you do all day?"],
        "MAX_NEW_TOKENS": 8,
    },
    "4-evaluation": {"SETTINGS": BRIEF},
    "5-colab": {
        "BASE_MODEL": "embedded",
        "SETTINGS": {
            "max_steps": 2,
            "gradient_accumulation_steps": 1,
            "train_samples": 8,
            "heldout_share": 0.02,
        },
        "CARD": "losses",
        "QUESTIONS": ["What is rope for?"],
    },
}
SAYS = {
    "1-data": ("training samples", "of all tokens carry loss", "PERSON"),
    "2-training": ("steps, about", "samples/s", "final losses", "peak memory"),
    "3-personas": (
        "an adapter has",
        "ballast (adapter)",
        "predicted best by their persona's own adapter",
    ),
    "4-evaluation": ("Score card", "really:"),
    "5-colab": ("uses the checkout", "samples/s", "> What is rope for?", ".charx"),
}
FIGURES = {"1-data": 2, "2-training": 2, "3-personas": 1, "4-evaluation": 1, "5-colab": 1}
LIMIT_S = 900
IMPORT = re.compile(rf"from ((?:{'|'.join(PACKAGES)})[\w.]*) import (.+)")


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_all_notebooks_are_listed_and_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.ipynb)" in index for name in SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_it_is_stored_without_outputs_and_begins_with_its_parameters(name):
    book = notebook(name)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert book.cells[0].source.startswith("# ")
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    first, *others = code
    assert first.metadata.tags == ["parameters"]
    assert all(f"\n{given} = " in f"\n{first.source}" for given in SMALL[name])
    assert not any(cell.metadata.get("tags") for cell in others)


def test_the_colab_notebook_has_its_badge_and_installs_as_make_setup_does():
    book = notebook("5-colab")
    address = "https://colab.research.google.com/github/OWNER/understudy/blob/main/examples/notebooks/5-colab.ipynb"
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"({address})" in book.cells[0].source and f"({address})" in index
    steps = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    assert "set_up(plan(PYTHON, development=False)[1:], Report())" in steps
    left_out = set_up.plan(".venv/bin/python", development=False)[0]
    assert [step.label for step in left_out] == ["Environment"] and "virtualenv" in steps
    assert book.metadata["accelerator"] == "GPU"


@pytest.mark.parametrize("name", SMALL)
def test_the_names_that_it_imports_exist(name):
    for cell in notebook(name).cells:
        lines = cell.source.splitlines() if cell.cell_type == "code" else []
        for module, names in (found.groups() for line in lines if (found := IMPORT.match(line))):
            missing = [it for it in names.split(", ") if not has_module(f"{module}.{it}")]
            assert not missing, f"{module} has no {', '.join(missing)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs_to_its_end(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOKS_OUT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    book = notebook(name)
    given = "\n".join(f"{key} = {value!r}" for key, value in SMALL[name].items())
    book.cells.insert(2, nbformat.v4.new_code_cell(given))
    NotebookClient(book, timeout=LIMIT_S, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    assert not [words for words in SAYS[name] if words not in said], said
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= FIGURES[name]
