"""The set-up's steps: their seconds, and what it says where one of them fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_requirements import ROOT
from tools.set_up import (
    CAUSES,
    UNKNOWN_CAUSE,
    Report,
    Step,
    StepFailedError,
    explain,
    main,
    plan,
    set_up,
)


def shell(label: str, command: str, *, is_optional: bool = False) -> Step:
    return Step(label, ("sh", "-c", command), is_optional=is_optional)


def test_each_step_is_printed_with_its_seconds(capsys):
    set_up([[shell("Environment", "true")], [shell("Packages", "sleep 0.6")]], Report())
    assert capsys.readouterr().out == "  Environment … 0 s\n  Packages … 1 s\n"


def test_a_round_begins_after_the_one_before_and_its_steps_run_beside_each_other(tmp_path):
    """Each of the two waits for the file of the other."""
    pair = [
        shell(name, f"touch {name}; until [ -e {other} ] && [ -e first ]; do sleep 0.01; done")
        for name, other in (("a", "b"), ("b", "a"))
    ]
    rounds = [[shell("first", "sleep 0.1; touch first")], pair]
    rounds = [
        [Step(step.label, ("env", "-C", str(tmp_path), *step.command)) for step in steps]
        for steps in rounds
    ]
    set_up(rounds, Report())
    assert {path.name for path in tmp_path.iterdir()} == {"first", "a", "b"}


def test_a_step_that_fails_ends_the_set_up_with_its_output_and_advice(tmp_path, capsys):
    later = tmp_path / "later"
    failing = shell("Packages", "echo one; echo 'No space left on device' >&2; exit 3")
    with pytest.raises(StepFailedError) as raised:
        set_up([[failing], [shell("Model", f"touch {later}")]], Report())
    assert "    one\n    No space left on device\nThe disk is full. Free 4 GB" in str(raised.value)
    assert capsys.readouterr().out == "  Packages … 0 s  failed\n" and not later.exists()


def test_without_a_compiler_the_kernel_is_left_out_and_the_set_up_goes_on(monkeypatch, capsys):
    kernel = next(step for step in plan(sys.executable, development=False)[-1] if step.is_optional)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    set_up([[kernel]], Report())
    assert re.fullmatch(
        r"  Kernel … \d s  left out: .*torch: there is no C\+\+ compiler \(g\+\+ or clang\+\+\)\n",
        capsys.readouterr().out,
    )


OUTPUTS = [
    "Hash mismatch for `regex==2026.11.15`\n\nExpected:\n  sha256:1\n\nComputed:\n  sha256:2",
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
    "OSError: [Errno 28] No space left on device",
    "client error (Connect)\n  dns error\n  failed to lookup address information",
    "Failed to establish a new connection: [Errno 111] Connection refused')': /simple/uv/",
    "The virtual environment was not created successfully because ensurepip is not available.",
    "ERROR: No matching distribution found for torch==2.13.0",
    "ERROR: Could not find a version that satisfies the requirement uv==0.13.9 (from versions: none)\n"
    "ERROR: No matching distribution found for uv==0.13.9",
    "error: Permission denied (os error 13)",
]


def test_each_cause_has_an_output_and_another_output_has_none():
    assert {explain(output) for output in OUTPUTS} == {meaning for _, meaning in CAUSES}
    assert explain("Traceback: a fault of the program") == UNKNOWN_CAUSE


def test_the_bot_needs_no_packages_of_the_tests():
    lists = {
        is_development: [
            step.command[2:]
            for steps in plan("/x/bin/python", development=is_development)
            for step in steps
            if step.command[0].endswith("install.sh")
        ]
        for is_development in (False, True)
    }
    assert lists == {
        False: [("lock", "model"), ("--editable",)],
        True: [("lock", "model", "dev"), ("--editable",)],
    }


def test_an_older_python_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["set_up.py", str(tmp_path / ".venv")])
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    assert main() == 1 and not (tmp_path / ".venv").exists()
    assert "needs Python 3.11 or newer" in capsys.readouterr().err


# --------------------------------------------------------------------------------- by real installers


def clone(folder: Path) -> Path:
    """The files that the set-up reads, in a folder that may be changed."""
    for name in ("requirements", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def fails(folder: Path, **environ: str) -> str:
    """Set up in a copy of the project, which has to fail; returns what was printed."""
    done = subprocess.run(
        [sys.executable, "tools/set_up.py", ".venv"],
        cwd=folder,
        env={
            **os.environ,
            "UV_NO_CACHE": "1",
            "UV_HTTP_RETRIES": "0",
            "PIP_RETRIES": "0",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Packages … " in done.stdout, done.stderr
    return done.stderr


@pytest.mark.slow
def test_without_a_network_it_names_the_index_and_how_to_change_it(tmp_path, unused_tcp_port):
    address = f"http://127.0.0.1:{unused_tcp_port}/simple"
    nowhere = {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}
    said = fails(clone(tmp_path), PIP_INDEX_URL=address, **nowhere)
    assert str(unused_tcp_port) in said and "index cannot be reached" in said


@pytest.mark.slow
def test_a_package_with_another_hash_is_refused_and_not_tried_again(tmp_path):
    folder = clone(tmp_path)
    for path in (folder / "requirements").glob("*.txt"):
        if path.stem == "build":
            path.write_text(re.sub(r"sha256:\w{60}", f"sha256:{'0' * 60}", path.read_text()))
    said = fails(folder)
    assert "not the one that requirements/ names by its hash" in said
    assert "pip does" not in said
