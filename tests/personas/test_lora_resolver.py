"""The resolver that vLLM servers call: which names it serves, and what it refuses."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from personas.errors import AdapterError
from personas.home.adapters import adapter_ref
from personas.home.lora_resolver import find_served_adapter
from personas.models.base_model import fingerprint
from tests.tiny_models import make_adapter, make_dialogue_adapter, manifest_over, write_adapter

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made_home(tmp_path_factory, tiny_base) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_adapter(home, tiny_base, "ada", "v1", seed=1)
    make_dialogue_adapter(home, tiny_base, "Quay-talk", seed=2)
    return home


@pytest.fixture
def home(made_home, tmp_path) -> Path:
    return shutil.copytree(made_home, tmp_path / "home")


@pytest.mark.parametrize("name", ["ada-v1", "dialogue/Quay-talk-v1"])
def test_a_name_finds_its_folder_and_the_folder_its_name(home, tiny_base, name):
    ref = find_served_adapter(home, name, fingerprint(tiny_base))
    assert ref.name == name
    assert ref.folder.is_relative_to(home) and (ref.folder / "manifest.json").exists()


@pytest.mark.parametrize(
    ("persona_id", "version"),
    [("ada", "run-9d31979eac"), ("cat-run", "v3"), ("quay-run-cat", "run-0123456789")],
)
def test_hyphens_in_both_separate_persona_and_version(home, tiny_base, persona_id, version):
    folder = adapter_ref(home, persona_id, version).folder
    write_adapter(folder, tiny_base, manifest_over(tiny_base, persona_id, version), seed=3)
    ref = find_served_adapter(home, f"{persona_id}-{version}", fingerprint(tiny_base))
    assert (ref.persona_id, ref.version, ref.folder) == (persona_id, version, folder)


def test_a_job_that_ran_in_the_home_is_found_too(home, tiny_base):
    write_adapter(
        home / "runs" / "night" / "adapter", tiny_base, manifest_over(tiny_base, None, "v7"), seed=3
    )
    assert find_served_adapter(home, "dialogue/night-v7", fingerprint(tiny_base)).version == "v7"
    with pytest.raises(AdapterError, match="no adapter dialogue/night v8"):
        find_served_adapter(home, "dialogue/night-v8", fingerprint(tiny_base))


@pytest.mark.parametrize(
    "name",
    [
        "", "ada", "-v1", "ada-", "ada/v1", "../ada-v1", "ada-..", "ada-../v1", "ada-v1/../v1", "/ada-v1", "ada-v1.",
        "dialogue/../ada-v1", "dialogue/-v1", "ada-v1\n", "ada\0-v1", "a" * 65 + "-v1", "llama", "runs/night-v1",
    ],
)  # fmt: skip
def test_names_of_another_form_are_refused_before_a_file_is_opened(tmp_path, name):
    with pytest.raises(AdapterError, match="not the name of a version"):
        find_served_adapter(tmp_path / "nowhere", name, "")


def test_a_link_to_elsewhere_is_refused(home, tiny_base, tmp_path):
    personas = home / "models" / "persona_adapters"
    shutil.move(personas / "ada" / "v1", tmp_path / "elsewhere")
    (personas / "ada" / "v1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError, match="is a link"):
        find_served_adapter(home, "ada-v1", fingerprint(tiny_base))
    (personas / "eve").symlink_to(tmp_path)
    with pytest.raises(AdapterError, match="is a link"):
        find_served_adapter(home, "eve-elsewhere", fingerprint(tiny_base))


def test_models_may_lie_on_another_disk(home, tiny_base, tmp_path):
    shutil.move(home / "models", tmp_path / "disk")
    (home / "models").symlink_to(tmp_path / "disk")
    assert find_served_adapter(home, "ada-v1", fingerprint(tiny_base)).persona_id == "ada"


def test_damaged_missing_and_foreign_adapters_are_refused(home, tiny_base):
    folder = find_served_adapter(home, "ada-v1", fingerprint(tiny_base)).folder
    with pytest.raises(AdapterError, match="another base model"):
        find_served_adapter(home, "ada-v1", "0" * 64)
    with pytest.raises(AdapterError, match="no complete adapter"):
        find_served_adapter(home, "ada-v2", fingerprint(tiny_base))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(AdapterError, match="does not match its checksum"):
        find_served_adapter(home, "ada-v1", fingerprint(tiny_base))


def test_vllm_finds_the_resolver_and_it_needs_neither_torch_nor_the_bot():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["entry-points"]["vllm.general_plugins"]["understudy"].partition(
        ":"
    )
    code = (
        f"import sys, {module} as resolver\n"
        f"resolver.{function}()  # does nothing without a home\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'torch', 'transformers', 'discord', 'bot', 'trainer', 'vllm'}))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "UNDERSTUDY_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
