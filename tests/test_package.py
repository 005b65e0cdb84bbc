"""The project as a package: what the wheel contains, and the bot from it in an empty environment.

`make release` runs the slow ones on the files that it built (`RELEASE_FOLDER`).
"""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bot.cli.parser import build_parser
from bot.models import cli as models_cli
from bot.platform.errors import error_text
from bot.platform.localisation import gettext_lazy
from bot.platform.web_kit.problems import redacted_texts
from bot.platform.web_kit.templating import shell_command
from bot.settings import SettingsError
from personas import cli_common
from personas.cli_common import as_typed, commands_as_typed, name_as_typed
from personas.errors import MaterialError
from personas.shipped_folders import IS_SOURCE_TREE, SHIPPED_DATA, SHIPPED_REQUIREMENTS
from tests.test_layering import PACKAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHIPPED = {name: f"personas/{name}" for name in ("data", "docs", "requirements")}
"""Folders that a wheel has elsewhere."""
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def tracked_files():
    """The files of the packages and of what ships with them, as git knows them."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *PACKAGES, *SHIPPED]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    return {name for name in names if not name.startswith("docs/pictures/")}


def in_wheel(name):
    top, _, rest = name.partition("/")
    return f"{SHIPPED.get(top, top)}/{rest}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel: that of a release, or else one of this tree."""
    if folder := os.environ.get("RELEASE_FOLDER"):
        (built,) = Path(folder).glob("*.whl")
        return built
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return next(folder.glob("*.whl"))


def build(folder):
    """Build the wheel with the backend of pyproject.toml, offline."""
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=ROOT, env=ENVIRON, check=True, capture_output=True)


def test_every_file_of_the_packages_and_their_data_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt")))
        metadata_name = next(name for name in names if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(metadata_name))
    assert {in_wheel(name) for name in tracked_files()} <= names
    catalogues = {name for name in names if name.endswith(".po")}
    assert {name.replace(".po", ".mo") for name in catalogues} <= names, "git has no .mo"
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)
    assert not [name for name in names if name.endswith((".pyc", ".env", ".sqlite"))]
    assert {f"{name} =" for name in PROJECT["scripts"]} <= {
        f"{line.split(' = ')[0]} =" for line in scripts.decode().splitlines()
    }
    assert metadata["Version"] == PROJECT["version"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_the_same_tree_builds_the_same_wheel(wheel, tmp_path):
    if "RELEASE_FOLDER" in os.environ:
        pytest.skip("make release compares its files itself")
    build(tmp_path)
    assert next(tmp_path.glob("*.whl")).read_bytes() == wheel.read_bytes()


def test_shipped_folders_are_found_in_a_source_tree_and_in_an_installed_package(tmp_path):
    assert (SHIPPED_DATA, SHIPPED_REQUIREMENTS) == (ROOT / "data", ROOT / "requirements")
    assert IS_SOURCE_TREE
    package = tmp_path / "personas"
    (package / "data").mkdir(parents=True)
    (package / "requirements").mkdir()
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "personas" / "shipped_folders.py", package)
    names = "SHIPPED_DATA, IS_SOURCE_TREE"
    code = f"from personas.shipped_folders import {names}; print({names})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(package / "data"), "False"]


def test_code_finds_shipped_files_in_one_place():
    """A path from a module up to the tree's root leads elsewhere in an installed package."""
    upward = re.compile(r"parents\[\d\]|\.parent\.parent")
    finders = {
        path.relative_to(ROOT).as_posix()
        for package in ("bot", "personas", "trainer")
        for path in (ROOT / package).rglob("*.py")
        if any(
            "__file__" in line and upward.search(line)
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    }
    # Of these, each means the folder of the packages themselves.
    assert finders == {
        "bot/models/cli.py",
        "bot/platform/localisation/__init__.py",
        "bot/platform/web_kit/templating.py",
        "bot/training/backends/trainer_environment.py",
        "bot/transcription/transcriber.py",
        "bot/training/web/run_details.py",
        "personas/card/toml_card.py",
        "personas/home/job_material.py",
    }


def test_texts_name_the_scripts_where_one_of_them_was_started(monkeypatch):
    advice = "Run `python -m bot doctor`, then python -m trainer plan."
    monkeypatch.setattr(sys, "argv", ["/tools/bin/understudy", "doctor"])
    assert as_typed(advice) == "Run `understudy doctor`, then understudy-trainer plan."
    help_text = name_as_typed(build_parser()).format_help()
    assert help_text.startswith("usage: understudy ") and "python -m" not in help_text
    monkeypatch.setattr(sys, "argv", [str(ROOT / "bot" / "__main__.py")])
    assert as_typed(advice) == advice


def test_pages_and_discord_name_the_started_script(monkeypatch, tmp_path):
    advice = "Run `python -m bot models`."
    error = MaterialError("It is not here.", advice)

    def shown() -> list[str]:
        return [
            gettext_lazy("Run `python -m bot models`.").in_language("en"),
            gettext_lazy("See {command}.", command=shell_command("python -m bot models", tmp_path)),
            error_text(error),
            *redacted_texts(error, tmp_path),
        ]

    assert all("python -m" in text for text in shown() if text != error.message)
    monkeypatch.setattr(sys, "argv", ["/tools/bin/understudy"])
    assert not [text for text in shown() if "python -m" in text]
    assert commands_as_typed("python -m bot.app python -m bottle") == (
        "python -m bot.app python -m bottle"
    )


def test_texts_name_documents_by_their_paths_in_an_installed_package(monkeypatch):
    advice = "Choose another model; docs/models.md and docs/howto/llamacpp.md name some."
    assert as_typed(advice) == advice
    monkeypatch.setattr(cli_common, "IS_SOURCE_TREE", False)
    named = re.findall(r"(/\S+\.md)", as_typed(advice))
    assert len(named) == 2 and all(Path(path).is_file() for path in named)


def test_every_document_that_a_text_of_the_packages_names_ships():
    pattern = re.compile(r"\bdocs/[a-z/-]+\.md")
    named = {
        document
        for name in tracked_files()
        if name.endswith((".py", ".html", ".toml")) and not name.startswith("docs/")
        for document in pattern.findall((ROOT / name).read_text(encoding="utf-8"))
    }
    assert "docs/models.md" in named and named <= tracked_files()


def test_a_new_file_with_settings_is_for_any_folder_of_a_package(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="no file with settings"):
        models_cli._require_env_file(tmp_path / ".env")
    monkeypatch.setattr(models_cli, "IS_SOURCE_TREE", False)
    assert models_cli._require_env_file(tmp_path / ".env") == tmp_path / ".env"


def test_ranges_have_both_ends_and_contain_the_locked_versions():
    locked = dict(
        re.findall(
            r"^([a-z0-9-]+)==(\S+)",
            "".join(
                (ROOT / "requirements" / f"{name}.txt").read_text()
                for name in ("lock", "torch", "build")
            ),
            re.MULTILINE,
        )
    )
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        operators = {bound.operator for bound in requirement.specifier}
        assert ">=" in operators, line
        if requirement.name not in ("pip", "regex"):  # versions of these are dates, or nearly
            assert "<" in operators, line
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        if name != "pip":
            assert locked[name] in requirement.specifier, line


# ------------------------------------------------------------------------- in an empty environment

OPENED = re.compile(r"Understudy is open at (http://\S+)")
START_TIMEOUT_S = 300


@dataclass(frozen=True)
class Installation:
    """An environment with the wheel alone, and a folder to work in that has nothing of the tree."""

    environment: Path
    folder: Path

    def run(self, script, *arguments, **options):
        """Run a script of the environment, or `python`, in the folder."""
        command = [self.environment / "bin" / script, *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environ(), **options)

    def environ(self):
        own = {
            "UNDERSTUDY_HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.environment.parent / "cache"),
            "DISCORD_TOKEN": "",
            "WEB_PORT": "0",
        }
        return ENVIRON | own


@pytest.fixture(scope="module", params=["lowest-direct", "highest"])
def installation(request, wheel, tmp_path_factory):
    """The wheel in an empty environment, with the oldest or the newest packages that it takes, and
    torch as `make` installs it.
    """
    root = tmp_path_factory.mktemp("installation")
    environment = root / "environment"
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([SHIPPED_REQUIREMENTS / "install.sh", python, "build"], check=True)
    versions = root / "versions.txt"
    # The installer has put uv there where the system has none.
    system_uv = shutil.which("uv")
    program = [system_uv] if system_uv else [python, "-m", "uv"]
    uv = (*program, "--no-config", "pip")
    # Of a wheel's dependencies, uv takes none for direct ones.
    resolved = ("--resolution", request.param, "--python", python, "--output-file", versions)
    subprocess.run([*uv, "compile", "--quiet", ROOT / "pyproject.toml", *resolved], check=True)
    chosen = ("--python", python, "--constraint", versions)
    subprocess.run([*uv, "install", "--quiet", *chosen, wheel], check=True)
    folder = root / "elsewhere"
    folder.mkdir()
    return Installation(environment, folder)


@pytest.mark.slow
def test_the_installed_scripts_know_themselves_and_the_machine(installation):
    output = installation.run("understudy", "--version", capture_output=True, text=True).stdout
    assert output == f"understudy {PROJECT['version']}\n"
    doctor = installation.run("understudy", "doctor", "--quick", capture_output=True, text=True)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    listed = installation.run("understudy-trainer", "recipes", capture_output=True, text=True)
    assert "demo-cpu" in listed.stdout and "python -m" not in listed.stdout


@pytest.mark.slow
def test_the_bot_starts_in_any_folder_and_answers(installation):
    """The bundled models are fetched at this first start."""
    command = [installation.environment / "bin" / "understudy"]
    with subprocess.Popen(
        command,
        cwd=installation.folder,
        env=installation.environ(),
        stdout=subprocess.PIPE,
        text=True,
    ) as bot:
        deadline = threading.Timer(START_TIMEOUT_S, bot.kill)
        deadline.start()
        try:
            assert OPENED.match(bot.stdout.readline())
        finally:
            deadline.cancel()
            bot.terminate()
    asked = installation.run(
        "model_inference",
        "--persona",
        "oda",
        "What is in the soup?",
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0 and asked.stdout.strip(), asked.stderr


@pytest.mark.slow
@pytest.mark.parametrize("installation", ["highest"], indirect=True)
def test_the_demo_runs_from_the_installed_package(installation):
    played = installation.run("understudy", "demo", capture_output=True, text=True)
    assert played.returncode == 0, played.stdout + played.stderr
    result = json.loads((installation.folder / "build" / "demo" / "result.json").read_text())
    assert result["loss_tuned"]["ballast"] < result["loss_base"]["ballast"]
