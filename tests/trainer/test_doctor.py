"""The doctor: each check finds what is wrong when it is broken on purpose, and says the remedy."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from personas.models.base_model import EMBEDDED, locate
from personas.models.catalogue import catalogue_models
from personas.models.graphics_cards import Gpu, list_gpus
from tests.full_disk import files_of_at_most
from trainer.doctor import doctor_report, machine_checks
from trainer.doctor.doctor_report import GPU_SIZES_GIB, known_models, predict_recipe_fits
from trainer.doctor.machine_checks import (
    MachineCheck,
    TorchBuild,
    check_disk,
    check_embedded_model,
    check_hub,
    run_python,
)
from trainer.estimate.memory_model import predict_memory
from trainer.estimate.model_shape import shape_from_config
from trainer.machine import MachineSpec
from trainer.recipe.recipe_file import load_recipe, recipe_names

GIB = 2**30
CPU_TORCH = TorchBuild("2.13.0+cpu", "", False, "bf16")
CUDA_TORCH = TorchBuild("2.13.0", "13.0", True, "bf16")
RTX = Gpu("RTX 3060", "580.95", 8.6, 6 * GIB, 5 * GIB)
TESLA = Gpu("Tesla T4", "580.95", 7.5, 16 * GIB, 15 * GIB)


def with_module(folder: Path, name: str, code: str) -> dict[str, str]:
    """An environment in which a Python finds another module of that name first."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder)}


# -------------------------------------------------------------------------------- what is installed


def test_packages_that_are_missing_or_others_are_named():
    check = machine_checks.check_packages(
        ["no-such-package==1.0", "numpy==0.1", 'pytest==1.0 ; extra == "dev"']
    )
    assert (check.state, check.found, check.remedy) == (
        "fail",
        "missing: no-such-package",
        "make setup",
    )
    check = machine_checks.check_packages(["numpy==0.1", "torch==2.13.0"])
    assert check.state == "warn" and "numpy" in check.found and "instead of ==0.1" in check.found
    assert "torch" not in check.found, "a build of a version is that version"
    assert machine_checks.check_packages(["pip==0.1"]).state == "ok", "make setup changes no pip"


def test_the_packages_here_are_those_that_are_tested():
    check = machine_checks.check_packages()
    assert check.state == "ok" and int(check.found.split()[0]) > 20


def test_an_old_python_is_refused(monkeypatch):
    assert machine_checks.check_python().state == "ok"
    monkeypatch.setattr(machine_checks, "MIN_PYTHON", (99, 0))
    assert (
        machine_checks.check_python().state == "fail"
        and "Python 99.0 or newer" in machine_checks.check_python().remedy
    )


def test_a_torch_that_cannot_be_loaded_is_reported_with_its_complaint(tmp_path):
    check, torch = machine_checks.check_torch(
        with_module(tmp_path, "torch", "raise ImportError('libgomp.so.1 is missing')")
    )
    assert torch is None and check.state == "fail"
    assert check.found.endswith(": ImportError: libgomp.so.1 is missing")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise OSError('libcudart.so.13: cannot open')", "OSError: libcudart.so.13: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ended with code -11"),
    ],
)
def test_a_broken_bitsandbytes_is_reported_even_when_it_crashes(tmp_path, code, said):
    check = machine_checks.check_quantisation(with_module(tmp_path, "bitsandbytes", code))
    assert (check.state, check.found) == ("fail", f"bitsandbytes: {said}")
    assert "--set quant_type=none" in check.remedy


def test_weights_that_come_back_wrong_are_found_out(tmp_path):
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").touch()
    code = (
        "def quantize_4bit(weights, **_): return weights.flatten()[::2], weights\n"
        "def dequantize_4bit(packed, state): return state * 0\n"
    )
    (tmp_path / "bitsandbytes" / "functional.py").write_text(code)
    check = machine_checks.check_quantisation({**os.environ, "PYTHONPATH": str(tmp_path)})
    assert check.state == "fail" and "an error of 100%" in check.found


def test_what_does_not_end_is_ended():
    assert run_python("while True: pass", 0.3) == (False, "it did not end within 0 s")


def test_no_compiler_or_only_one_for_c(tmp_path):
    check = machine_checks.check_compilers({"PATH": str(tmp_path)})
    assert (
        check.state == "warn"
        and check.found == "no C and no C++ compiler"
        and "build-essential" in check.remedy
    )
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho my cc 1.0\necho more\n")
    compiler.chmod(0o755)
    assert machine_checks.check_compilers({"PATH": str(tmp_path)}).found == "no C++ compiler"
    check = machine_checks.check_compilers({"PATH": str(tmp_path), "CXX": str(compiler)})
    assert (check.state, check.found) == ("ok", "C: my cc 1.0; C++: my cc 1.0")


def test_a_torch_that_cannot_compile_makes_runs_slower_not_impossible(tmp_path):
    (tmp_path / "torch" / "nn").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text(
        "linspace = lambda *_: 0\ndef compile(_): raise RuntimeError('InvalidCxxCompiler: no "
        "working compiler')\n"
    )
    (tmp_path / "torch" / "nn" / "__init__.py").touch()
    (tmp_path / "torch" / "nn" / "functional.py").write_text("silu = None\n")
    check = machine_checks.check_torch_compile({**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (
        check.state == "warn"
        and "InvalidCxxCompiler" in check.found
        and "see compilers" in check.remedy
    )


@pytest.mark.parametrize(
    ("printed", "found", "remedy"),
    [
        (
            "torch._inductor.exc.InductorError: CppCompileError: C++ compile error",
            "CppCompileError: C++ compile error",
            "see compilers",
        ),
        (
            "InductorError: CppCompileError: C++ compile error\n\nOutput:\n"
            "/tmp/a/main.cpp:38:10: fatal error: Python.h: No such file or directory",
            "Python.h: No such file or directory",
            "python3-dev",
        ),
    ],
)
def test_the_cause_of_a_failed_compilation_is_told_instead_of_torchs_last_line(
    tmp_path, printed, found, remedy
):
    advice = "Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace"
    (tmp_path / "torch.py").write_text(
        f"import sys\nprint({printed + chr(10) + advice!r}, file=sys.stderr)\nsys.exit(1)\n"
    )
    check = machine_checks.check_torch_compile({**os.environ, "PYTHONPATH": str(tmp_path)})
    assert check.state == "warn" and check.found.endswith(found) and remedy in check.remedy


def test_extras_are_reported_by_name():
    found = machine_checks.check_extras().found
    assert all(name in found for name in machine_checks.OPTIONAL_PACKAGES)


@pytest.mark.parametrize("installed", [True, False])
def test_liger_is_missed_where_torch_sees_a_card_alone(monkeypatch, installed):
    monkeypatch.setattr(machine_checks.importlib.util, "find_spec", lambda name: installed)
    assert machine_checks.check_extras(CPU_TORCH).state == "ok"
    check = machine_checks.check_extras(CUDA_TORCH)
    assert (check.state, bool(check.remedy)) == (("ok", False) if installed else ("warn", True))
    assert installed or ("install.sh" in check.remedy and check.remedy.count(" gpu ") == 1)


# ------------------------------------------------------------------------------------ what computes


@pytest.mark.parametrize(
    ("cards", "torch", "state", "said"),
    [
        ([], CPU_TORCH, "ok", "on the processor"),
        (
            [RTX],
            CUDA_TORCH,
            "ok",
            "RTX 3060, 5.0 of 6.0 GiB free, driver 580.95; CUDA 13.0, bfloat16",
        ),
        ([TESLA, RTX], CUDA_TORCH, "ok", "float16 only"),
        ([RTX], CPU_TORCH, "warn", "torch 2.13.0+cpu"),
        (
            [RTX],
            TorchBuild("2.13.0", "13.0", False, "fp32"),
            "fail",
            "built for CUDA 13.0, does not see",
        ),
        ([RTX], None, "warn", "RTX 3060"),
    ],
)
def test_a_graphics_card_is_of_use_only_to_a_torch_that_computes_on_it(cards, torch, state, said):
    check = machine_checks.check_gpus(cards, torch)
    assert check.state == state and said in check.found and bool(check.remedy) == (state != "ok")


@pytest.mark.parametrize(
    ("said", "cards"),
    [
        (
            "Tesla T4, 580.95, 7.5, 15360, 15000",
            [Gpu("Tesla T4", "580.95", 7.5, 15360 * 2**20, 15000 * 2**20)],
        ),
        (
            "NVIDIA A10, 24 GB, 580.95, 8.6, 24576, 1",
            [Gpu("NVIDIA A10, 24 GB", "580.95", 8.6, 24 * GIB, 2**20)],
        ),
        ("NVIDIA-SMI has failed because it could not communicate with the driver", []),
        ("", []),
    ],
)
def test_cards_are_those_that_the_driver_lists(tmp_path, monkeypatch, said, cards):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert list_gpus() == cards


def test_without_a_driver_there_are_no_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == []


def test_too_little_memory_fails_and_too_little_free_warns(monkeypatch):
    assert (
        machine_checks.check_memory(MachineSpec(False, "bf16", 8 * GIB, 6 * GIB), 3 * GIB).state
        == "ok"
    )
    check = machine_checks.check_memory(MachineSpec(False, "bf16", 8 * GIB, 2 * GIB), 3 * GIB)
    assert (
        check.state == "warn"
        and "2.0 GiB of 8.0 GiB free" in check.found
        and "takes 3.0 GiB" in check.found
    )
    assert (
        machine_checks.check_memory(MachineSpec(False, "bf16", 2 * GIB, 2 * GIB), 3 * GIB).state
        == "fail"
    )
    monkeypatch.setattr(machine_checks, "total_memory_bytes", lambda: GIB)
    assert (
        "a container's share"
        in machine_checks.check_memory(MachineSpec(True, "bf16", 8 * GIB, 8 * GIB, "T4"), GIB).found
    )


def test_cores_are_those_that_a_container_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_checks, "CGROUP_CPU_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine_checks.available_cores() == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert (
        machine_checks.available_cores() == 0.5
        and "0.5 of " in machine_checks.check_processor().found
    )


def test_a_processor_without_bfloat16_is_slow(monkeypatch):
    monkeypatch.setattr(machine_checks, "has_bfloat16", lambda: False)
    assert (
        machine_checks.check_processor().state == "warn"
        and "no bfloat16" in machine_checks.check_processor().found
    )


# -------------------------------------------------------------------------------- disk, hub, models


def test_a_disk_is_measured_where_the_home_will_be(tmp_path):
    check = check_disk(tmp_path / "not" / "there" / "yet")
    assert "MB/s" in check.found and str(tmp_path) in check.found and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("free", "state"), [(GIB // 2, "fail"), (2 * GIB, "warn"), (50 * GIB, "ok")]
)
def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(machine_checks, "MIN_WRITE_BYTES_PER_S", 0.0)
    check = check_disk(tmp_path, lambda _: SimpleNamespace(free=free))
    assert check.state == state and bool(check.remedy) == (state != "ok")


def test_a_slow_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_checks, "MIN_WRITE_BYTES_PER_S", 1e15)
    assert check_disk(tmp_path, lambda _: SimpleNamespace(free=50 * GIB)).remedy.startswith(
        "checkpoints take long"
    )


def test_a_disk_on_which_nothing_can_be_written(tmp_path):
    with files_of_at_most(2**20):
        check = check_disk(tmp_path)
    assert check.state == "fail" and "File too large" in check.found


class Refusing(http.server.BaseHTTPRequestHandler):
    """A hub that wants to know who asks."""

    def do_HEAD(self):
        self.send_error(401)

    def log_message(self, *_):
        pass


def test_a_hub_that_answers_is_reachable_whatever_it_says(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}"
        )
        assert check_hub() == MachineCheck("model hub", "ok", "reachable")
        server.shutdown()


def test_a_hub_that_is_not_there_or_never_answers_is_a_warning(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("personas.models.hub_snapshot.HUB_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            "http://127.0.0.1:1",
            "no address",
        ):
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
            assert check_hub().state == "warn" and "BASE_MODEL" in check_hub().remedy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert check_hub().state == "ok"


def test_the_embedded_model_is_whole_or_said_to_be_damaged(tmp_path):
    assert check_embedded_model().state == "ok"
    assert check_embedded_model(tmp_path).state == "warn", "not unpacked yet"
    whole = locate(EMBEDDED).folder
    broken = tmp_path / "model"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (broken / name).symlink_to(whole / name)
    assert check_embedded_model(broken).state == "fail", "without weights"
    with (whole / "model.safetensors").open("rb") as weights:
        (broken / "model.safetensors").write_bytes(weights.read(2**20))
    check = check_embedded_model(broken)
    assert (
        check.state == "fail"
        and "not what was unpacked" in check.found
        and str(broken) in check.remedy
    )


def test_a_base_model_that_is_not_here_is_reported_without_fetching_it(tmp_path):
    check = machine_checks.check_base_model("owner/no-such-model")
    assert check.state == "fail" and "not on this machine" in check.found and check.remedy
    assert machine_checks.check_base_model(str(locate(EMBEDDED).folder)).state == "ok"


# ---------------------------------------------------------------------------------------- what fits


def test_the_known_models_have_as_many_weights_as_their_publishers_say():
    stated = {model.id: model.parameters for model in catalogue_models()}
    assert len(stated) >= 12
    for name, model in known_models().items():
        assert model.shape.weights == pytest.approx(stated[name], rel=0.01), name


def test_every_recipe_is_reckoned_over_every_model(tiny_base):
    found = predict_recipe_fits(tiny_base, MachineSpec(False, "bf16", 16 * GIB, 1))
    assert {(fit.model, fit.recipe) for fit in found} == {
        (model, recipe) for model in (tiny_base.name, *known_models()) for recipe in recipe_names()
    }
    for fit in found:
        assert fit.fits_here == (fit.here_bytes <= 16 * GIB)
        assert fit.card_gib in (0, *GPU_SIZES_GIB) and (
            fit.card_gib == 0 or fit.card_bytes <= fit.card_gib * GIB
        )
    by = {(fit.model, fit.recipe): fit.here_bytes for fit in found}
    for recipe in recipe_names():
        assert by["Qwen/Qwen3-8B", recipe] > by[tiny_base.name, recipe]


def test_the_sizes_alone_need_no_check(command, monkeypatch, tiny_base):
    monkeypatch.setattr(machine_checks, "check_torch", lambda: pytest.fail("it checks torch"))
    code, output, _ = command("doctor", "--sizes", "--base-model", tiny_base.source)
    assert code == 0 and "GiB that a run needs on this machine" in output
    assert {line.split()[0] for line in output.splitlines() if line} >= set(recipe_names())
    result = json.loads(command("doctor", "--sizes", "--json")[1])
    assert {fit["model"] for fit in result["fits"]} >= set(known_models())
    assert not result["checks"]


# -------------------------------------------------------------------------------------- the command


@pytest.fixture
def quick(monkeypatch):
    """The checks that take seconds, as they are on a machine where all is well."""
    monkeypatch.setattr(
        machine_checks, "check_torch", lambda: (MachineCheck("torch", "ok", "2.13.0"), CPU_TORCH)
    )
    monkeypatch.setattr(
        machine_checks,
        "check_quantisation",
        lambda: MachineCheck("4-bit weights", "ok", "come back"),
    )
    monkeypatch.setattr(
        machine_checks,
        "check_torch_compile",
        lambda: MachineCheck("torch.compile", "ok", "compiles"),
    )
    monkeypatch.setattr(
        machine_checks,
        "check_hub",
        lambda: MachineCheck("model hub", "warn", "not reachable", "check the network"),
    )


def test_the_report_has_every_check_and_a_table(command, quick, tiny_base):
    code, output, errors = command("doctor", "--base-model", tiny_base.source)
    assert code == 0 and not errors and "\x1b" not in output, "no colours but on a terminal"
    for name in (
        "Python",
        "packages",
        "graphics card",
        "processor",
        "memory",
        "compilers",
        "disk",
        "base model",
    ):
        assert f"  {name} " in output
    assert "warn  model hub" in output and "→ check the network" in output
    rows = {
        line.split()[0]: line.split()[1:]
        for line in output.splitlines()
        if line.startswith(tuple(recipe_names()))
    }
    assert rows.keys() == set(recipe_names()) and "Qwen3" in output
    result = json.loads(command("doctor", "--base-model", tiny_base.source, "--json")[1])
    assert result["well"] and {check["state"] for check in result["checks"]} >= {"ok", "warn"}
    models = 1 + len(known_models())
    assert (
        len(result["fits"]) == models * len(recipe_names())
        and result["machine"]["memory_bytes"] > 0
    )


def test_it_fails_when_runs_do_not_work_and_only_the_hints_can_be_asked_for(
    command, quick, monkeypatch
):
    broken = MachineCheck("4-bit weights", "fail", "bitsandbytes: OSError", "make setup")
    monkeypatch.setattr(machine_checks, "check_quantisation", lambda: broken)
    code, output, errors = command("doctor", "--fix-hints", "--base-model", "owner/no-such-model")
    assert code == 1 and ": 4-bit weights, base model." in errors
    hints = dict(line.split(": ", 1) for line in output.splitlines())
    assert hints["4-bit weights"] == "make setup" and {"model hub", "base model"} <= hints.keys()
    assert "Python" not in hints
    code, output, _ = command("doctor", "--json", "--base-model", "owner/no-such-model")
    assert code == 1 and json.loads(output)["well"] is False


def test_where_a_larger_model_needs_less_the_report_says_why():
    def needed(**sizes):
        shape = shape_from_config({"num_key_value_heads": 4, "head_dim": 128, **sizes})
        return predict_memory(load_recipe("s0-6gb"), shape, 512, card).total

    card = MachineSpec(True, "fp16", 16 * GIB, 16 * GIB)
    qwen2_5_7b = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "vocab_size": 152064,
    }
    llama_3_1_8b = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
    assert needed(**qwen2_5_7b) > needed(**llama_3_1_8b)
    said = " ".join(
        doctor_report.report_lines(doctor_report.DoctorReport(card, (), ()), coloured=False)
    )
    assert "a larger one in 4 bits" in said


def test_on_a_terminal_states_have_colours():
    checks = tuple(MachineCheck(state, state, "found") for state in ("ok", "warn", "fail"))
    found = doctor_report.DoctorReport(MachineSpec(False, "bf16", GIB, GIB), checks, ())
    lines = list(doctor_report.report_lines(found, coloured=True))
    assert [line.partition("m")[0] for line in lines[:3]] == ["\x1b[32", "\x1b[33", "\x1b[31"]


def test_a_card_that_torch_does_not_see_counts_for_nothing(monkeypatch):
    monkeypatch.setattr(
        doctor_report,
        "probe_machine_without_torch",
        lambda: MachineSpec(True, "bf16", 6 * GIB, 5 * GIB, "RTX 3060"),
    )
    unseen = doctor_report._usable_machine(TorchBuild("2.13.0", "13.0", False, "fp32"))
    assert (unseen.has_cuda, unseen.best, unseen.device) == (False, "fp32", "main memory")
    assert doctor_report._usable_machine(CUDA_TORCH).device == "RTX 3060"


@pytest.mark.slow
def test_this_machine_is_well(command, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, output, _ = command("doctor", "--json")
    result = json.loads(output)
    checks = {check["name"]: check for check in result["checks"]}
    assert code == 0 and "error of 9" in checks["4-bit weights"]["found"], result["checks"]
    assert checks["torch"]["state"] == "ok"
