"""Finding Chromium: what is tried, what is said where there is none, and who fails for want of
it.
"""

import asyncio
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest

from tests.browser import chromium
from tests.browser.conftest import fail_or_skip

COMMAND = [sys.executable, "-m", "tests.browser.chromium"]


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without a browser and without apt-get."""
    for name in ("CHROMIUM", chromium.REQUIRED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "browsers"))
    return tmp_path


def run(**settings):
    environ = os.environ | settings
    return subprocess.run(COMMAND, env=environ, capture_output=True, text=True, timeout=60)


async def unfound():
    return "Chromium is missing."


def test_without_any_it_says_what_to_type_and_only_where_it_is_expected_that_fails(
    bare, monkeypatch, capsys
):
    for name in ("_install_package", "_download"):
        monkeypatch.setattr(chromium, name, lambda: None)
    assert chromium.main() == 0
    said = capsys.readouterr().err
    assert "sudo apt-get install chromium" in said and "are skipped" in said
    with pytest.raises(pytest.skip.Exception, match="CHROMIUM=/path"):
        fail_or_skip(said)
    monkeypatch.setenv(chromium.REQUIRED, "1")
    monkeypatch.setattr(chromium, "find_problem", unfound)
    assert chromium.main() == 1
    with pytest.raises(pytest.fail.Exception):
        fail_or_skip("Chromium is missing.")


@pytest.mark.slow
def test_an_unreachable_download_is_named(bare):
    done = run(PLAYWRIGHT_DOWNLOAD_HOST="http://127.0.0.1:9")
    assert "Downloading" in done.stdout and "ECONNREFUSED" in done.stderr and done.returncode == 0


@pytest.fixture
def launcher():
    """A script that starts the browser of this machine, whatever PATH says."""
    found = [shutil.which(name, path=os.defpath) for name in chromium.NAMES]
    if not (installed := next(filter(None, found), None)):
        pytest.skip("this takes a Chromium of the system")
    return f'#!/bin/sh\nPATH={os.defpath} exec {installed} --headless "$@"\n'


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_root_installs_the_package(bare, launcher):
    """A stand-in for apt-get puts the browser on PATH when it is asked to install it."""
    (bare / "none").mkdir()
    (bare / "chromium").write_text(launcher)
    (bare / "chromium").chmod(0o755)
    install = f'if [ "$1" = install ]; then /bin/cp {bare}/chromium {bare}/none/; fi'
    (bare / "none" / "apt-get").write_text(f'#!/bin/sh\necho "$@" >> {bare}/asked\n{install}\n')
    (bare / "none" / "apt-get").chmod(0o755)
    done = run(REQUIRE_CHROMIUM="1")
    assert (done.returncode, done.stderr) == (0, "") and "Downloading" not in done.stdout
    assert (bare / "asked").read_text().splitlines() == [
        " ".join(it[1:]) for it in chromium.APT_COMMANDS
    ]


@pytest.mark.slow
def test_playwrights_download_is_used_where_the_system_has_none(bare, launcher):
    """A server on loopback has an archive like Playwright's, with a script that starts the browser
    of this machine.
    """

    class Archive(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2].removesuffix(".zip")
            with zipfile.ZipFile(path := bare / "archive.zip", "w") as archive:
                script = zipfile.ZipInfo(f"{name}/{name.removesuffix('-linux64')}")
                script.external_attr = 0o755 << 16
                archive.writestr(script, launcher)
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        host = f"http://127.0.0.1:{server.server_port}"
        done = run(PLAYWRIGHT_DOWNLOAD_HOST=host, REQUIRE_CHROMIUM="1")
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode, done.stderr) == (0, "") and "Downloading" in done.stdout
    assert asyncio.run(chromium.find_problem()) == ""
