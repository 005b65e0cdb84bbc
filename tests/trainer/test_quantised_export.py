"""Exports in 4 bits by llama.cpp's llama-quantize, its absence, and programs that fail or write
something else.
"""

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType, GGUFReader, LlamaFileType

from personas.errors import ExportError
from tests.real_llama import llama_quantize
from tools.tiny_models import TINY_MODELS, make_adapter, make_model
from trainer.export import llama_quantize as quantiser
from trainer.export.exporter import DESCRIPTION_SUFFIX, export_adapter
from trainer.process.run_control import Terminated, raise_on_sigterm

RELABEL = f"""\
#!{sys.executable}
import sys
content = bytearray(open(sys.argv[1], "rb").read())
at = content.index(b"general.file_type") + len("general.file_type") + 4
content[at : at + 4] = (15).to_bytes(4, "little")
{{change}}
open(sys.argv[2], "wb").write(content)
"""
"""A program that says Q4_K_M of a file in F16."""
WHOLE_BLOCKS = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}
"""Q4_K takes 256 weights of a row at once; narrower rows are written in Q5_0."""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    kind = TINY_MODELS["Llama 3.1"]
    return make_adapter(kind, make_model(kind, folder / "base"), folder / "adapter")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes the script that is the one llama-quantize on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("LLAMA_SERVER", raising=False)

    def write(script: str) -> Path:
        file = folder / quantiser.PROGRAM
        file.write_text(script)
        file.chmod(0o755)
        return file

    return write


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model.gguf"


def export(adapter, out, to="gguf"):
    return export_adapter(adapter, to, out, "q4_k_m", None, lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SmolLM2", "Llama 3.1", "Qwen2.5", "Qwen3"])
def test_what_llama_cpp_quantises_says_what_adapter_and_base_say(name, tmp_path, monkeypatch, out):
    monkeypatch.setenv("PATH", f"{llama_quantize().parent}{os.pathsep}{os.environ['PATH']}")
    kind = replace(TINY_MODELS[name], settings={**TINY_MODELS[name].settings, **WHOLE_BLOCKS})
    adapter = make_adapter(kind, make_model(kind, tmp_path / "base"), tmp_path / "adapter")
    report = export(adapter, out)
    assert 1e-3 < report.outcome.rounding.kl < 0.1 and report.outcome.beyond.max_abs < 1e-3
    kinds = {tensor.tensor_type for tensor in GGUFReader(out).tensors}
    assert {GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K} <= kinds
    assert GGMLQuantizationType.F16 not in kinds


@pytest.mark.parametrize("to", ["gguf", "ollama"])
def test_the_program_beside_the_server_is_taken_and_its_file_exported(
    adapter, out, program, tmp_path, monkeypatch, to
):
    server = program(RELABEL.format(change="")).with_name("llama-server")
    server.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LLAMA_SERVER", str(server))
    report = export(adapter, out, to)
    assert report.held["quantise"] == "q4_k_m" and report.outcome.beyond.max_abs < 1e-3
    file = out if to == "gguf" else out / "model.gguf"
    stated = GGUFReader(file).get_field("general.file_type").contents()
    assert stated == LlamaFileType.MOSTLY_Q4_K_M
    beside = f"{out.name}{DESCRIPTION_SUFFIX}"
    assert {path.name for path in out.parent.iterdir()} == {out.name, beside}
    if to == "ollama":
        assert {path.name for path in out.iterdir()} == {"Modelfile", "model.gguf"}


def test_without_the_program_the_places_are_named_before_anything_is_computed(
    out, program, tmp_path, monkeypatch
):
    no_adapter = tmp_path / "none"
    with pytest.raises(ExportError, match="llama-quantize, which is not on the PATH") as error:
        export(no_adapter, out)
    assert "LLAMA_SERVER" in error.value.advice and "q8_0" in error.value.advice
    monkeypatch.setenv("LLAMA_SERVER", str(tmp_path / "opt" / "llama-server"))
    with pytest.raises(ExportError, match=r"neither beside .*/opt/llama-server .* nor on the PATH"):
        export(no_adapter, out)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("#!/bin/sh\necho the model is strange >&2\nexit 1\n", "code 1.* the model is strange"),
        ("#!/bin/sh\nexit 0\n", "wrote no file"),
        ("#!/no/such/interpreter\n", "cannot be run"),
        ('#!/bin/sh\necho half > "$2"\n', "is damaged"),
        ('#!/bin/sh\n: > "$2"\n', "is damaged"),
        (f'#!/bin/sh\n{shutil.which("cp")} "$1" "$2"\n', "not of the type MOSTLY_Q4_K_M"),
        (RELABEL.format(change="del content[-4096:]"), "damaged|cut short"),
        (
            RELABEL.format(change="content[-40_000:] = bytes(40_000)"),
            "has other weights in",
        ),
        (
            RELABEL.format(change="content[-40_000:] = b'\\xff' * 40_000"),
            "has other weights in",
        ),
    ],
)
def test_a_program_that_fails_or_writes_something_else_leaves_nothing(
    adapter, out, program, script, error
):
    program(script)
    with pytest.raises(ExportError, match=error):
        export(adapter, out)
    assert not [*out.parent.iterdir()]


def test_an_export_that_is_ended_ends_the_program_and_leaves_nothing(
    adapter, out, program, tmp_path
):
    pid_file = tmp_path / "pid"
    sleep = shutil.which("sleep", path="/usr/bin:/bin")
    program(f'#!/bin/sh\necho half > "$2"\necho $$ > {pid_file}\nexec {sleep} 600\n')

    def end_once_it_runs():
        while not (pid_file.exists() and pid_file.read_text().strip()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_once_it_runs, daemon=True).start()
    with pytest.raises(Terminated), raise_on_sigterm():
        export(adapter, out)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert not [*out.parent.iterdir()]
