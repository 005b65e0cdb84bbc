"""`make test` repeats what failed, alone, and hides nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ONCE_MORE = "Once more, alone, what failed:"
PASSED_ALONE = "These passed alone"
PASSES = "def test_passes():\n    pass\n"
FAILS_BESIDE_OTHERS = """import os
def test_fails_beside_others():
    assert "PYTEST_XDIST_WORKER" not in os.environ
"""
FAILS = "def test_fails():\n    raise AssertionError\n"
CRASHES_BESIDE_OTHERS = """import os
def test_crashes_beside_others():
    if "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(3)
"""
IS_NOT_COLLECTED_BESIDE_OTHERS = """import os
assert "PYTEST_XDIST_WORKER" not in os.environ
def test_fails():
    raise AssertionError
"""
IS_SKIPPED_ALONE = """import os, pytest
def test_is_skipped_alone():
    assert "PYTEST_XDIST_WORKER" not in os.environ
    pytest.skip()
"""


def make_test(folder: Path, *files: str) -> tuple[bool, str]:
    """Run the Makefile's `test` in a folder with these files; returns whether it passed, and its
    output.
    """
    for number, text in enumerate(files):
        (folder / f"test_{number}.py").write_text(text, encoding="utf-8")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "MAKE", "MFLAGS"))
    }
    python = Path(sys.executable)
    done = subprocess.run(
        [
            *("make", "--file", str(ROOT / "Makefile"), f"BIN={python.parent}", "test"),
            # What sets up the environment and fetches Chromium is taken as done.
            *("--old-file", ".venv/.ready-development", "--old-file", "chromium"),
        ],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout


def test_what_fails_beside_others_runs_once_more_and_stays_in_the_output(tmp_path: Path) -> None:
    passed, output = make_test(tmp_path, PASSES, FAILS_BESIDE_OTHERS)
    assert passed and ONCE_MORE in output and PASSED_ALONE in output
    assert "FAILED test_1.py::test_fails_beside_others" in output
    assert "1 passed" in output.partition(ONCE_MORE)[2]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(FAILS, id="fails alone, too"),
        pytest.param(IS_SKIPPED_ALONE, id="is skipped alone"),
    ],
)
def test_what_does_not_pass_alone_fails(tmp_path: Path, broken: str) -> None:
    passed, output = make_test(tmp_path, PASSES, broken)
    assert not passed and ONCE_MORE in output and PASSED_ALONE not in output


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(CRASHES_BESIDE_OTHERS, id="a worker crashes"),
        pytest.param(IS_NOT_COLLECTED_BESIDE_OTHERS, id="a file is not collected"),
    ],
)
def test_what_is_more_than_a_failed_test_is_not_repeated(tmp_path: Path, broken: str) -> None:
    passed, output = make_test(tmp_path, FAILS_BESIDE_OTHERS, broken)
    assert not passed and ONCE_MORE not in output


def test_failures_of_earlier_runs_count_for_nothing(tmp_path: Path) -> None:
    """Else a run that ended before its first test would pass with theirs."""
    make_test(tmp_path, FAILS_BESIDE_OTHERS, FAILS)
    (tmp_path / "test_1.py").unlink()
    passed, output = make_test(tmp_path, FAILS_BESIDE_OTHERS)
    assert passed and "rerun previous 1 failure" in output
