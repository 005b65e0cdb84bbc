"""`python -m trainer predictions`: its configurations can be run, and its page says what was found."""

from __future__ import annotations

import json

import pytest

from personas.base_model import locate
from personas.hyperparameters import Hyperparameters, settings_of
from trainer.cli import parser
from trainer.predict.cases import CASES, MIDDLE, QUICK, make_model
from trainer.predict.measured import Compared, as_json, compare, page
from trainer.predict.shape import config_of

FOUND = [
    Compared("one", "embedded", {"lora_r": "4"}, 600, 3 * 2**30, 2 * 2**30, 30, 40, "a test", {"libraries": 2**30}),
    Compared("two", "llama-30m", {}, 500, 2**30, 2 * 2**30, 50, 40, "a test", {"libraries": 2**29, "loss": 2**29}),
]


def test_each_case_is_a_run_that_the_command_line_takes():
    assert len(CASES) >= 8 and len({case.name for case in CASES}) == len(CASES) and all(case in CASES for case in QUICK)
    for case in CASES:
        options = parser().parse_args(["train", *case.words])
        assert isinstance(settings_of(options.settings), Hyperparameters) and (options.persona or options.dataset)


def test_a_model_with_random_weights_is_of_its_shape(tmp_path):
    make_model(MIDDLE, tmp_path)
    base = locate(str(tmp_path))
    assert config_of(base).weights * 2 == pytest.approx(base.weight_bytes, rel=1e-3)


def test_the_page_says_what_was_found():
    told = as_json(FOUND)
    assert [run["memory_ratio"] for run in told["runs"]] == [1.5, 0.5]
    written = page(told)
    assert "| one | embedded | 600 | 3.00 GiB | 2.00 GiB | 1.50 | 30 s | 40 s | 0.75 |" in written
    assert "Memory: from 0.50 to 1.50 of what was measured." in written and "- one: lora_r=4" in written
    assert "| configuration | libraries | loss |" in written and "| two | 512 | 512 |" in written


def test_the_command_writes_the_page_and_prints_json(tmp_path, command, monkeypatch):
    asked = []

    def compared(cases, folder, say):
        asked.append(tuple(cases))
        return FOUND

    monkeypatch.setattr("trainer.predict.measured.compare", compared)
    code, output, _ = command("predictions", "--quick", "--json", "--out", "page.md")
    assert code == 0 and asked == [QUICK] and json.loads(output)["runs"][1]["name"] == "two"
    assert (tmp_path / "page.md").read_text().startswith("# Predictions and measurements")


@pytest.mark.slow
def test_what_a_real_run_holds_is_near_what_was_predicted(tmp_path):
    (found,) = compare([QUICK[-1]], tmp_path, print)
    assert found.memory_ratio == pytest.approx(1, abs=0.15) and found.measured_s > 0
