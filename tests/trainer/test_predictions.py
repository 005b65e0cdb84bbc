"""`python -m trainer predictions`: its configurations can be run, and its page says what was
found.
"""

from __future__ import annotations

import json

import pytest

from personas.models.base_model import locate
from personas.schemas.hyperparameters import Hyperparameters, parse_settings
from trainer.cli.main import build_parser
from trainer.estimate.calibration import (
    CASES,
    MEDIUM_MODEL,
    QUICK_CASES,
    CalibrationResult,
    calibration_json,
    calibration_markdown,
    make_random_model,
    run_calibration,
)
from trainer.estimate.model_shape import model_shape_of

FOUND = [
    CalibrationResult(
        "one",
        "embedded",
        {"lora_r": "4"},
        600,
        3 * 2**30,
        2 * 2**30,
        30,
        40,
        "a test",
        {"libraries": 2**30},
    ),
    CalibrationResult(
        "two",
        "llama-30m",
        {},
        500,
        2**30,
        2 * 2**30,
        50,
        40,
        "a test",
        {"libraries": 2**29, "loss": 2**29},
    ),
]


def test_each_case_is_a_run_that_the_command_line_takes():
    assert (
        len(CASES) >= 8
        and len({case.name for case in CASES}) == len(CASES)
        and all(case in CASES for case in QUICK_CASES)
    )
    for case in CASES:
        options = build_parser().parse_args(["train", *case.arguments])
        assert isinstance(parse_settings(options.settings), Hyperparameters) and (
            options.persona or options.dataset
        )


def test_a_model_with_random_weights_is_of_its_shape(tmp_path):
    make_random_model(MEDIUM_MODEL, tmp_path)
    base = locate(str(tmp_path))
    assert model_shape_of(base).weights * 2 == pytest.approx(base.weight_bytes, rel=1e-3)


def test_the_page_says_what_was_found():
    result = calibration_json(FOUND)
    assert [run["memory_ratio"] for run in result["runs"]] == [1.5, 0.5]
    written = calibration_markdown(result)
    assert "| one | embedded | 600 | 3.00 GiB | 2.00 GiB | 1.50 | 30 s | 40 s | 0.75 |" in written
    assert "from 0.50 to 1.50" in written and "- one: lora_r=4" in written
    assert "| configuration | libraries | loss |" in written and "| two | 512 | 512 |" in written


def test_the_command_writes_the_page_and_prints_json(tmp_path, command, monkeypatch):
    asked = []

    def compared(cases, folder, say):
        asked.append(tuple(cases))
        return FOUND

    monkeypatch.setattr("trainer.cli.doctor_command.run_calibration", compared)
    code, output, _ = command("predictions", "--quick", "--json", "--out", "page.md")
    assert code == 0 and asked == [QUICK_CASES] and json.loads(output)["runs"][1]["name"] == "two"
    assert (tmp_path / "page.md").read_text().startswith("# Predictions and measurements")


@pytest.mark.slow
def test_what_a_real_run_holds_is_near_what_was_predicted(tmp_path):
    (found,) = run_calibration([QUICK_CASES[-1]], tmp_path, print)
    assert found.memory_ratio == pytest.approx(1, abs=0.15) and found.measured_s > 0
