"""A home's files are readable by the bot's own user only, also where the home was there before."""

import os
import shutil
import stat
import subprocess
import sys

import pytest

from personas.home.private_home import protect_home


@pytest.fixture
def open_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_home_that_was_open_is_closed_below_and_that_is_said(tmp_path, caplog):
    home = tmp_path / "home"
    (home / "lore" / "77").mkdir(parents=True, mode=0o755)
    home.chmod(0o755)
    (home / "catalogue.toml").touch(0o644)
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (home / "models").symlink_to(tmp_path / "elsewhere")
    protect_home(home)
    (home / "new").touch()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes == {"lore": 0o700, "catalogue.toml": 0o600, "models": 0o755, "new": 0o600}
    assert f"chmod 700 {home}" in caplog.text and stat.S_IMODE(home.stat().st_mode) == 0o755


@pytest.mark.usefixtures("open_umask")
def test_a_closed_home_and_one_that_is_not_there_yet_are_silent(tmp_path, caplog):
    protect_home(tmp_path / "none")
    protect_home(tmp_path)
    assert caplog.text == ""


ON_READ_ONLY = """
import sys
from pathlib import Path
from bot.store import Store, StoreError
from personas.home.private_home import protect_home

home = Path(sys.argv[1])
protect_home(home)
try:
    Store.open(home / "understudy.sqlite")
except StoreError as error:
    print(error)
"""


def test_on_a_read_only_file_system_the_remedy_is_another_one_and_no_chmod(tmp_path):
    home = tmp_path / "home"
    (home / "lore").mkdir(parents=True, mode=0o755)
    home.chmod(0o755)
    mount = f"mount --bind {home} {home} && mount -o remount,bind,ro {home}"
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "sh", "-c", mount], check=False).returncode:
        pytest.skip("no read-only file system can be mounted here")
    program = [sys.executable, "-c", ON_READ_ONLY, str(home)]
    found = subprocess.run(
        [unshare, "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *program],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "The file system is read-only: mount it for writing" in found.stdout
    assert "rights" not in found.stdout and "chmod" not in found.stderr
