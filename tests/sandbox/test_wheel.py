"""The sandbox as a distribution of its own."""

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SANDBOX = Path(__file__).parents[2] / "sandbox"


@pytest.mark.slow
def test_the_folder_builds_a_wheel_that_runs_without_the_project(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(SANDBOX, source, ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path / "built"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(built), str(source)], check=True)
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata_name = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(metadata_name))
        archive.extractall(tmp_path / "site")
    for path in SANDBOX.rglob("*"):
        if path.suffix in (".py", ".js", ".css", ".html"):
            assert f"sandbox/{path.relative_to(SANDBOX).as_posix()}" in names
    required = {text.split(">=")[0].split("<")[0] for text in metadata.get_all("Requires-Dist")}
    assert required == {"aiohttp", "discord.py", "yarl"}
    code = "import sandbox, sandbox.__main__; print(sandbox.__file__)"
    site = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    imported = subprocess.run(
        [sys.executable, "-c", code],
        env=site,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(imported.stdout.strip()) == tmp_path / "site" / "sandbox" / "__init__.py"
