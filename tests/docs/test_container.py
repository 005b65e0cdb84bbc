"""The Dockerfile and compose.yaml against the rest of the project. Nothing is built here
(docs/howto/container.md).
"""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch

import yaml

from bot.settings import SETTINGS_BY_NAME
from tests.docs.programs import addresses
from tests.docs.reading import ROOT
from tools.set_up import plan

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
IGNORED = [
    line
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its words, lines joined, in order."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [
        (line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line.strip()
    ]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, words in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, words))
    return found


def is_ignored(name: str) -> bool:
    ignored = False
    for pattern in IGNORED:
        if fnmatch(name, pattern.lstrip("!").removeprefix("**/")):
            ignored = not pattern.startswith("!")
    return ignored


def test_what_is_copied_is_there_and_nothing_secret_is():
    copied = [words.split()[:-1] for name, words in stages()[0] if name == "COPY"]
    names = {name for those in copied for name in those}
    assert {"bot", "personas", "sandbox", "trainer", "data", "docs", "pyproject.toml"} <= names
    assert all((ROOT / name).exists() and not is_ignored(name) for name in names)
    assert all(is_ignored(name) for name in (".env", ".git", ".venv", "tests", "build"))
    assert not names & {".", "./"}


def test_it_installs_as_make_setup_does():
    installed = next(
        words for name, words in stages()[0] if name == "RUN" and "install.sh" in words
    )
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    steps = [
        " ".join(step.command)
        for steps in plan("/opt/venv/bin/python", development=False)
        for step in steps
    ]
    assert (
        "TORCH_ARGS=${TORCH_ARGS} requirements/install.sh /opt/venv/bin/python lock model"
        in installed
    )
    assert any(
        step.endswith("requirements/install.sh /opt/venv/bin/python lock model") for step in steps
    )
    assert "tools/set_up.py" in made and "export TORCH_ARGS" in made
    assert "python -m personas.models.bundled_model" in DOCKERFILE
    assert "/opt/venv/bin/python -m personas.models.bundled_model" in steps


def test_the_kernel_is_made_where_the_compiler_is_and_the_compiler_stays_there():
    first, *_, last = (
        " ".join(words for name, words in stage if name == "RUN") for stage in stages()
    )
    assert "g++" in first and "python -m personas.engine.cpu_kernel" in first
    assert "apt-get" not in last


def test_it_runs_as_nobody_in_particular_and_says_how_it_is():
    last = dict(stages()[-1])
    assert last["USER"].isdigit() and int(last["USER"]) >= 10_000
    assert f"--uid {last['USER']}" in last["RUN"]
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last["HEALTHCHECK"])
    assert asked and ("GET", asked[2]) in addresses() and asked[1] == last["EXPOSE"]
    assert json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"]) == ["python", "-m", "bot"]
    home, backups = last["VOLUME"].split()
    assert f" UNDERSTUDY_HOME={home} BACKUP_FOLDER={backups} " in last["ENV"]
    assert f"--owner understudy --mode 0700 {home} {backups}" in last["RUN"]


def test_the_base_has_a_tag_and_the_python_that_the_project_takes():
    base = re.search(r"ARG BASE=(\S+)", DOCKERFILE)[1]
    name, _, tag = base.partition(":")
    least = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert name == "python" and "slim" in tag and int(tag.split("-")[0].split(".")[1]) >= int(least)
    known = ["${BASE}", "${VLLM}"]
    for words in (words.split() for name, words in instructions() if name == "FROM"):
        assert words[0] in known, "another image"
        known += words[2:]


def test_each_service_sets_what_there_is_and_is_open_to_this_machine_alone():
    port = dict(stages()[-1])["EXPOSE"]
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    bots = [service for name, service in COMPOSE["services"].items() if name.startswith("bot")]
    for service in bots:
        assert set(service["environment"]) <= set(SETTINGS_BY_NAME)
        (published,) = service["ports"]
        assert published.startswith("127.0.0.1:") and published.endswith(f":{port}")
        volumes = dict(volume.split(":") for volume in service["volumes"])
        assert set(volumes) <= set(COMPOSE["volumes"])
        assert list(volumes.values()) == dict(stages()[-1])["VOLUME"].split()
        build = service["build"]
        assert set(build["args"]) <= arguments
        assert service["cap_drop"] == ["ALL"]
        environment = service["environment"]
        assert environment["WEB_PORT"] == port
        folders = [environment["UNDERSTUDY_HOME"], environment["BACKUP_FOLDER"]]
        assert folders == list(volumes.values())
    assert len({service["build"]["args"]["TORCH_ARGS"] for service in bots}) == 2
    (device,) = COMPOSE["services"]["bot-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_jupyter_runs_as_nobody_in_particular_on_this_machine_alone_and_never_without_a_token():
    service = COMPOSE["services"]["notebooks"]
    stage = next(
        stage for stage in stages() if stage[0][1].endswith(f"AS {service['build']['target']}")
    )
    words = dict(stage)
    assert int(words["USER"]) >= 10_000 and f"--uid {words['USER']}" in words["RUN"]
    assert "--require-hashes --requirement requirements/notebooks.txt" in words["RUN"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert any(pin.startswith("jupyterlab>=") for pin in extras["notebooks"])
    command = json.loads(words["CMD"])
    assert command[:2] == ["jupyter", "lab"] and f"--port={words['EXPOSE']}" in command
    assert not any("token" in word or "password" in word for word in command), (
        "Jupyter makes one up"
    )
    assert "--ServerApp.root_dir=/app/examples/notebooks" in command
    assert service["ports"] == [f"127.0.0.1:{words['EXPOSE']}:{words['EXPOSE']}"]
    assert service["profiles"] == ["notebooks"] and service["cap_drop"] == ["ALL"]
    (volume,) = service["volumes"]
    assert volume.split(":")[0] in COMPOSE["volumes"] and volume.split(":")[1] == words["VOLUME"]
    assert f"NOTEBOOKS_OUT={words['VOLUME']}/notebooks" in words["ENV"]
    assert set(service["environment"]) == {"JUPYTER_TOKEN"}
