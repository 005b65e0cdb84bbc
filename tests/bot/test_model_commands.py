"""`models fetch` and `models use`: the licence is asked, a cut is continued, and what becomes of versions is said."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from huggingface_hub import constants

from bot.models.fetch import FetchProgress
from bot.settings import load_settings
from bot.store import InstalledVersion, Store
from bot.training.store import NewTrainingJob
from personas.models.base_model import locate
from personas.schemas.training import TrainingRequest
from tests.bot.command_line import typed
from tests.bot.model_machine import COMMIT, MODEL, PINNED, pretend_machine
from tests.hub_server import Hub, Repository, reach
from tests.samples import SCORECARD
from tests.tiny_models import make_adapter


@pytest.fixture
def hub(monkeypatch, tmp_path):
    pretend_machine(monkeypatch)
    served = Hub(
        {
            "Qwen/Qwen3-0.6B": Repository({COMMIT: MODEL}, {"main": COMMIT}),
            "harbour/other": Repository({COMMIT: MODEL}, {"main": COMMIT}, licence="mit"),
            "unsloth/Qwen3-4B-Instruct-2507-GGUF": Repository(
                {COMMIT: {"Qwen3-4B-Instruct-2507-Q4_K_M.gguf": b"GGUF" + bytes(4000)}},
                {"main": COMMIT},
            ),
        }
    )
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


@pytest.fixture
def type_models(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("BASE_MODEL", raising=False)

    def type_words(*words, **environment):
        env = ("--env", str(tmp_path / ".env"))
        (tmp_path / ".env").touch()
        return typed(monkeypatch, capsys, tmp_path / "home", *env, "models", *words, **environment)

    return type_words


def answer(monkeypatch, text):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: text)


def downloads(hub):
    return [asked for asked in hub.asked if asked.startswith("GET") and "/resolve/" in asked]


def test_a_model_is_fetched_once_its_licence_is_accepted(hub, type_models, monkeypatch):
    answer(monkeypatch, "")
    code, output, errors = type_models("fetch", "qwen3-0.6b")
    assert code == 1 and "licensed under Apache-2.0" in errors and not downloads(hub)
    assert "524.4 kB to fetch" in output and "https://www.apache.org/licenses/" in output
    answer(monkeypatch, "y")
    code, output, _ = type_models("fetch", "qwen3-0.6b")
    assert code == 0 and "python -m bot models use qwen3-0.6b" in output
    assert locate("Qwen/Qwen3-0.6B", fetch=False).revision == COMMIT
    hub.asked.clear()
    code, output, _ = type_models("fetch", "qwen3-0.6b", program="/tools/bin/understudy")
    assert code == 0 and "  understudy models use qwen3-0.6b\n" in output
    code, output, _ = type_models("fetch", "qwen3-0.6b", "--yes", "--json")
    assert code == 0 and json.loads(output)["base_model"] == PINNED and not downloads(hub)


def test_without_a_terminal_nothing_is_accepted(hub, type_models, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    code, _, errors = type_models("fetch", "qwen3-0.6b")
    assert code == 1 and "accept it to fetch the model" in errors and not downloads(hub)


def test_a_cut_is_continued_by_the_same_command(hub, type_models):
    hub.cuts, hub.fails_after_cut = 1, True
    code, _, errors = type_models("fetch", "qwen3-0.6b", "--yes")
    assert code == 1 and "cannot be fetched" in errors
    hub.statuses.clear()
    code, output, _ = type_models("fetch", "qwen3-0.6b", "--yes")
    assert code == 0 and hub.ranges and " of 524.4 kB to fetch" in output


def test_the_best_form_is_fetched_unless_one_is_named(hub, type_models):
    code, output, _ = type_models("fetch", "qwen3-4b", "--yes", "--gguf")
    assert code == 0 and "Training unpacks the file once, into 8.04 GB of disk" in output
    assert f"unsloth/Qwen3-4B-Instruct-2507-GGUF@{COMMIT}:" in output
    code, output, _ = type_models("fetch", "harbour/other", "--yes")
    assert code == 0 and f"Licence: mit ({constants.ENDPOINT}/harbour/other)" in output
    code, _, errors = type_models("fetch", "harbour/other", "--yes", "--gguf")
    assert code == 1 and "Name it: owner/name:Q4_K_M" in errors
    code, _, errors = type_models("fetch", "deepseek-llm-7b", "--yes", "--gguf")
    assert code == 1 and "Fetch its safetensors: deepseek-ai/deepseek-llm-7b-chat" in errors


def test_without_a_network_it_says_what_to_do(hub, type_models, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, _, errors = type_models("fetch", "qwen3-0.6b", "--yes")
    assert code == 1 and "could not be reached" in errors and "Check the network" in errors
    code, _, errors = type_models("use", "qwen3-0.6b")
    assert code == 1 and "Fetch it first: python -m bot models fetch qwen3-0.6b" in errors


@pytest.fixture
def versions(tmp_path, tiny_base):
    """Ballast's live version was trained over a small model of the test's own."""
    home = tmp_path / "home"
    with Store.open(home / "understudy.sqlite") as store:
        make_adapter(home, tiny_base, "ballast", "v1", seed=1)
        request = TrainingRequest(job_name="b", persona="ballast", base_model=tiny_base.name)
        store.jobs.add(NewTrainingJob("ballast", 1, 1, 1, request), time.time())
        store.jobs.cancel("ballast", time.time())
        store.versions.record_installed(
            InstalledVersion("ballast", "v1", "ballast", time.time(), SCORECARD)
        )
        store.versions.promote("ballast", "v1", by=1, at=time.time())


def test_using_a_model_says_what_becomes_of_each_version(
    hub, type_models, versions, tmp_path, tiny_base, monkeypatch
):
    type_models("fetch", "qwen3-0.6b", "--yes")
    env = tmp_path / ".env"
    env.write_text("# mine\nBASE_MODEL=embedded # small\n")
    answer(monkeypatch, "n")
    code, output, errors = type_models("use", "qwen3-0.6b")
    assert code == 1 and "Nothing was changed" in errors and "embedded" in env.read_text()
    assert f"ballast v1 was trained over {tiny_base.name}: the base model answers" in output
    code, output, _ = type_models("use", "qwen3-0.6b", "--yes")
    assert code == 0 and "Restart the bot" in output and "/finetune all" in output
    assert env.read_text() == f"# mine\nBASE_MODEL={PINNED} # small\n"
    assert load_settings(env, {}).base_model == PINNED
    code, output, _ = type_models("use", tiny_base.source, "--json")
    assert code == 0, "nothing to lose, so nothing is asked"
    (version,) = json.loads(output)["versions"]
    assert version == {"persona": "ballast", "version": "v1", "other_model": None}


def test_a_file_that_was_not_unpacked_is_no_versions_model(hub, type_models, versions):
    type_models("fetch", "qwen3-4b", "--yes", "--gguf")
    code, output, _ = type_models("use", "qwen3-4b", "--yes", "--json")
    plan = json.loads(output)
    file = f"unsloth/Qwen3-4B-Instruct-2507-GGUF@{COMMIT}:Qwen3-4B-Instruct-2507-Q4_K_M.gguf"
    assert code == 0 and plan["base_model"] == file and plan["versions"][0]["other_model"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nonsense", "neither a name of the table, nor a hub's id (owner/name), nor a file"),
        ("qwen3-06b", "Did you mean qwen3-0.6b"),
        ("Qwen3-0.6B", "Fetch it first: python -m bot models fetch qwen3-0.6b\n"),
        ("owner/name", "Fetch it first: python -m bot models fetch owner/name\n"),
        ("qwen9:4b", "no such model can be read in"),
        ("/nowhere/x.gguf", "There is no file or folder /nowhere/x.gguf."),
        ("x.gguf", "There is no file or folder x.gguf."),
        ("embedded#yarn:99", "'yarn:99' is not a RoPE scaling"),
        (" ", "Name a model"),
    ],
)
def test_a_name_that_cannot_be_used_is_explained(hub, type_models, name, expected):
    code, output, errors = type_models("use", name)
    assert code == 1 and expected in errors and not output


def test_a_path_with_a_number_sign_cannot_be_named(hub, type_models, tmp_path):
    file = tmp_path / "a#b.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    code, _, errors = type_models("use", str(file))
    assert code == 1 and "has a #" in errors and "Rename" in errors


def test_a_relative_path_is_written_whole(type_models, tmp_path, tiny_base, monkeypatch):
    monkeypatch.chdir(tiny_base.folder.parent)
    (tmp_path / ".env").write_text("VLLM_PYTHON='/opt/python'\n")
    name = f"./{tiny_base.folder.name}#yarn:2"
    code, output, errors = type_models("use", name, "--yes", "--json")
    written = load_settings(tmp_path / ".env", {}).base_model
    assert code == 0 and written == json.loads(output)["base_model"]
    assert written == f"{tiny_base.folder.absolute()}#yarn:2"
    assert "nothing reads VLLM_PYTHON" not in errors, "the command may be about to set ENGINE"


def test_case_and_scaling_of_a_name_are_kept_apart(hub, type_models, tmp_path):
    type_models("fetch", "qwen3-0.6b", "--yes")
    code, output, _ = type_models("use", "QWEN3-0.6B#yarn:2", "--yes", "--json")
    assert code == 0 and json.loads(output)["base_model"] == f"{PINNED}#yarn:2"


def test_a_model_that_is_set_is_not_written_again(hub, type_models, tmp_path):
    for name in ("embedded", "Embedded"):
        code, output, _ = type_models("use", name)
        assert code == 0 and "BASE_MODEL is embedded already" in output
    assert (tmp_path / ".env").read_text() == ""


def test_the_file_that_is_written_is_the_bots(hub, type_models, tmp_path, monkeypatch, capsys):
    type_models("fetch", "qwen3-0.6b", "--yes")
    env = tmp_path / ".env"
    code, output, _ = type_models("use", "qwen3-0.6b", "--yes")
    assert code == 0 and f"Written to {env}." in output and env.is_absolute()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    missing = ("--env", ".env", "models", "use", "qwen3-0.6b", "--yes")
    monkeypatch.setattr("bot.cli.parser.existing_file", Path)
    code, output, errors = typed(monkeypatch, capsys, tmp_path / "home", *missing)
    assert code == 1 and f"There is no file with settings {elsewhere / '.env'}" in errors
    assert not output and not (elsewhere / ".env").exists()


def test_the_environment_precedes_the_file(hub, type_models, tmp_path):
    code, output, errors = type_models("use", "embedded", "--yes", BASE_MODEL="owner/name")
    assert code == 1 and not output and "BASE_MODEL is owner/name in the environment" in errors
    assert (tmp_path / ".env").read_text() == "" and os.environ["BASE_MODEL"] == "owner/name"


def test_progress_has_bytes_rate_and_time_left():
    progress = FetchProgress(1_000_000_000)
    assert progress.update(0, 0.0) == "0 B of 1.00 GB"
    assert progress.update(1_000_000, 0.1) == "", "said a moment ago"
    assert progress.update(20_000_000, 2.0) == "20.0 MB of 1.00 GB, 10.0 MB/s, 2 min left"
    assert progress.update(60_000_000, 12.5).endswith("3.8 MB/s, 4 min left")
    assert progress.update(1_000_000_000, 12.6) == "1.00 GB of 1.00 GB"


@pytest.fixture
def fetched_gguf(hub, type_models, monkeypatch):
    """A machine of 8 GiB, which has a model's GGUF file: its weights in 16 bits are larger."""
    monkeypatch.setattr(
        "bot.models.table.psutil",
        SimpleNamespace(
            virtual_memory=lambda: SimpleNamespace(total=8 * 2**30, available=2**30),
            Process=psutil.Process,
        ),
    )
    monkeypatch.delenv("ENGINE", raising=False)
    code, _, _ = type_models("fetch", "qwen3-4b", "--yes")
    assert code == 0


def test_using_a_model_writes_the_engine_that_serves_it_best(
    fetched_gguf, type_models, monkeypatch, tmp_path
):
    env = tmp_path / ".env"
    server = tmp_path / "llama-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    env.write_text(f"LLAMA_SERVER={server}\n")
    code, output, _ = type_models("use", "qwen3-4b")
    assert code == 0 and "in 16 bits it is larger than the memory" in output
    settings = load_settings(env, {})
    assert settings.engine == "llamacpp" and settings.base_model.endswith("Q4_K_M.gguf")
    code, output, _ = type_models("use", "qwen3-4b")
    assert code == 0 and "nothing was written" in output
    code, output, _ = type_models("use", "qwen3-4b#yarn:2")
    assert code == 0 and "RoPE scaling" in output and load_settings(env, {}).engine == "local"
    code, output, _ = type_models("use", "qwen3-4b#yarn:2")
    assert code == 0 and "nothing was written" in output


def test_an_engine_that_is_not_here_or_set_elsewhere_is_only_advised(
    fetched_gguf, type_models, monkeypatch, tmp_path
):
    env = tmp_path / ".env"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("personas.engine.remote.llamacpp_command.WHEEL", "no_such_package")
    code, output, _ = type_models("use", "qwen3-4b")
    assert code == 0 and "Install llama.cpp" in output and "ENGINE" not in env.read_text()
    env.write_text("ENGINE=openai\nENGINE_URLS=http://127.0.0.1:1\n")
    code, output, _ = type_models("use", "qwen3-4b")
    assert code == 0 and load_settings(env, {}).engine == "openai", "servers of their own stay"


def test_an_engine_of_the_environment_is_not_written_over(fetched_gguf, type_models, tmp_path):
    code, output, _ = type_models("use", "qwen3-4b#yarn:2", ENGINE="llamacpp")
    assert code == 0 and "in the environment" in output
    assert "ENGINE=" not in (tmp_path / ".env").read_text()


def test_the_home_that_a_first_command_makes_is_private(type_models, monkeypatch, tmp_path):
    pretend_machine(monkeypatch)
    umask = os.umask(0o022)
    try:
        code, _, _ = type_models()
        assert code == 0 and (tmp_path / "home").stat().st_mode & 0o077 == 0
    finally:
        os.umask(umask)
