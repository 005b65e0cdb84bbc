"""`make bench-gpu`: a line after each way, whatever becomes of the rest, and all ways with a tiny
model.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
from packaging.utils import canonicalize_name

from benchmarks.gpu import __main__ as bench_gpu
from benchmarks.gpu import pack, run
from benchmarks.gpu.meters import StepProfiler
from benchmarks.gpu.run import TIME_UP, RunSettings, run_ways
from benchmarks.gpu.ways import WAYS

STAND_IN = """#!{python}
import json, sys, time
way = sys.argv[4]
def say(**figures):
    print("figures: " + json.dumps(figures), flush=True)
if way == "prepare":
    say(machine="a card")
elif way == "engine":
    print("words of a library")
    say(rows=8, tokens_per_s=900.0, step_s=0.01, warm_up_s=1.0, busy_percent=70.0, compile_s=2.0)
    say(rows=8, kernels=900, operators=5, synchronisations=1)
    time.sleep(60)
elif way == "plain":
    sys.exit("RuntimeError: no memory")
elif way == "ours":
    say(load_s=1.0, notes=["batches of 16"])
    say(step_s=0.5, samples_per_s=32.0, tokens_per_s=9000.0, warm_up_s=3.0, busy_percent=None,
        losses=[12.0, 11.0], micro_batches=1, compile_s=0.0)
"""


@pytest.fixture
def settings(tmp_path, monkeypatch) -> RunSettings:
    """A run whose ways are a stand-in's: the second fails, the third hangs."""
    program = tmp_path / "python"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o700)
    monkeypatch.setattr(run.sys, "executable", str(program))
    ways = ("ours", "plain", "engine", "generate")
    return RunSettings(tmp_path, tmp_path, "qwen2.5-3b", ways, limit_s=2.0, tiny=True)


def test_a_run_that_is_cut_off_keeps_what_it_had(settings):
    said: list[str] = []
    results = run_ways(settings, said.append)
    written = json.loads((settings.out / "gpu.json").read_text())
    assert written["machine"] == "a card" and written["ways"] == results.rows
    ours, plain, engine, *rest = results.rows
    assert ours["samples_per_s"] == 32.0 and "error" not in ours
    assert plain["error"] == "RuntimeError: no memory"
    assert (engine["tokens_per_s"], engine["kernels"]) == (900.0, 900)
    assert [row["error"] for row in rest if row["way"] == "generate"] == [TIME_UP]
    assert any(row.get("error") == TIME_UP for row in rest if row["way"] == "engine")
    assert any(line.startswith("engine") and "900.0 tokens/s" in line for line in said)
    assert "| ours | 32.00 | 9000 | 500.0 ms | – |" in said[-1]
    assert "- plain did not end: RuntimeError: no memory" in said[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_what_is_missing_and_how_to_run_it_anyway():
    with pytest.raises(SystemExit, match=r"needs a graphics card[\s\S]*run --tiny"):
        bench_gpu.main(["run"])


def test_operators_and_waits_of_a_step_are_counted():
    values = torch.ones(3)
    profiler = StepProfiler()
    profiler.start()
    (values + values).sum().item()
    counts = profiler.stop()
    assert counts.operators >= 4
    if not torch.cuda.is_available():
        assert (counts.synchronisations, counts.kernels, counts.kernel_s) == (1, 0, 0.0)


def test_the_folder_for_another_machine_has_all_but_what_pytorch_brings(tmp_path, monkeypatch):
    names = pack.needed_packages(["pandas"])
    assert {"transformers", "trl", "liger-kernel", "pyarrow", "tokenizers"} <= set(names)
    assert not {"torch", "sympy", "pandas", "pytest", "discord-py"} & set(names)
    assert len(pack.locked_lines(names)) > len(names), "each has hashes"
    lines = pack.locked_lines(["trl", "liger-kernel"])
    assert lines[0].startswith("trl==") and any(line.startswith("liger-kernel==") for line in lines)
    assert all("--hash=sha256:" in line for line in lines if line.startswith(" "))
    with pytest.raises(SystemExit, match="no hashes of unknown-package"):
        pack.locked_lines(["unknown-package"])

    site = tmp_path / "site"
    for name in ("libbitsandbytes_cuda130.so", "libbitsandbytes_cuda118.so", "nn.py"):
        (site / "bitsandbytes" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "bitsandbytes" / name).touch()
    pack.remove_unused(site, "13.0")
    kept = sorted(file.name for file in (site / "bitsandbytes").iterdir())
    assert kept == ["libbitsandbytes_cuda130.so", "nn.py"]
    with pytest.raises(SystemExit, match=r"no library for CUDA 9\.9: libbitsandbytes_cuda130\.so"):
        pack.remove_unused(site, "9.9")


def test_a_folder_that_is_too_large_names_its_largest_packages(tmp_path, monkeypatch):
    def install(site: Path, names: list[str], python: str) -> None:
        (site / "pyarrow").mkdir(parents=True)
        (site / "pyarrow" / "library.so").write_bytes(os.urandom(2**20))

    monkeypatch.setattr(pack, "install_packages", install)
    monkeypatch.setattr(pack, "write_inputs", lambda folder: None)
    monkeypatch.setattr(pack, "CODE", ())
    monkeypatch.setattr(pack, "FOLDER_LIMIT_MIB", 1)
    with pytest.raises(SystemExit, match=r"machines take 1\. .*pyarrow 1 MiB.*--without"):
        pack.write_pack(tmp_path / "out", "3.12", "13.0")


LOADED = """
import json, sys
import benchmarks.gpu.__main__, benchmarks.gpu.serving, benchmarks.gpu.training
import trainer.train.sft_trainer
ours = ("benchmarks", "personas", "trainer")
files = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ours}
print(json.dumps([file for file in files.values() if file]))
"""


@pytest.mark.slow
def test_what_the_measured_code_imports_is_in_the_folder():
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    imported: set[str] = set()
    for file in json.loads(done.stdout.splitlines()[-1]):
        for statement in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                imported.add(statement.module.partition(".")[0])
    distributions = packages_distributions()
    needed = {name for module in imported for name in distributions.get(module, ())}
    there = {*pack.needed_packages([]), "torch"}
    assert {str(canonicalize_name(name)) for name in needed} - {"understudy"} <= there


@pytest.mark.slow
def test_all_ways_run_to_their_end_from_the_folder_for_another_machine(tmp_path, monkeypatch):
    # The packages are this environment's: the folder has none of its own here.
    monkeypatch.setattr(pack, "install_packages", lambda site, names, python: site.mkdir())
    folder = tmp_path / "pack"
    pack.write_pack(folder, "3.12", "13.0")
    environment = {**os.environ, "OUT": str(tmp_path / "out")}
    command = [sys.executable, str(folder / "run.py"), "--tiny", "--limit-s", "900"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ways = json.loads((tmp_path / "out" / "gpu.json").read_text())["ways"]
    assert {row["way"] for row in ways} == set(WAYS)
    training = {row["way"]: row for row in ways if "samples_per_s" in row}
    assert set(training) == {"ours", "plain", "ours-6gb"}
    assert sum(training["ours"]["losses"]) == pytest.approx(
        sum(training["plain"]["losses"]), rel=0.005
    )
    assert training["plain"]["micro_batches"] == 16
    for way in ("engine", "generate"):
        rows = [row for row in ways if row["way"] == way and "rows" in row]
        assert [row["rows"] for row in rows] == [1, 8, 32]
        # All replies run in every measured step.
        tokens = [row["tokens_per_s"] * row["step_s"] for row in rows]
        assert tokens == pytest.approx([1, 8, 32]) and all(row["operators"] > 0 for row in rows)
    assert "Training:" in done.stdout and "Serving, 32 at once:" in done.stdout
