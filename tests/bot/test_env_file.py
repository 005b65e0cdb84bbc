"""A setting in `.env`: the last assignment changes, everything else stays, and a failure leaves the file whole."""

import os

import pytest

from bot.models.env_file import set_in_env_file
from bot.settings import SettingsError, load_settings

OLD = """\
# The bot of the harbour
DISCORD_TOKEN='a.b.c'   # renewed in May

BASE_MODEL=embedded  # the bundled one
TOP_P=0.9
"""


def value_of(file):
    return load_settings(file, {}).base_model


@pytest.mark.parametrize(
    "value",
    [
        "Qwen/Qwen3-1.7B@" + "a" * 40,
        "owner/name@abc:Q4_K_M.gguf#yarn:2#plain",
        "/models/with a space/and 'quotes' \"of\" both.gguf",
        "/models/$HOME/x",
        "C:\\models\\x.gguf",
    ],
)
def test_the_value_is_read_back_and_the_rest_stays(tmp_path, value):
    file = tmp_path / ".env"
    file.write_text(OLD)
    file.chmod(0o640)
    set_in_env_file(file, {"BASE_MODEL": value})
    assert value_of(file) == value
    lines = file.read_text().splitlines()
    assert [*lines[:3], lines[4]] == [*OLD.splitlines()[:3], "TOP_P=0.9"]
    assert lines[3].endswith("  # the bundled one") and file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ("BASE_MODEL='a # b'  # mine", "  # mine"),
        ('export BASE_MODEL="a" # mine, "quoted"', ' # mine, "quoted"'),
        ("BASE_MODEL='a'#mine", "  #mine"),
        ("BASE_MODEL=a # it's mine", " # it's mine"),
        ("BASE_MODEL=a#b", ""),
        ("BASE_MODEL='a # b'", ""),
        ("BASE_MODEL=", ""),
        ("BASE_MODEL='two\nlines' # mine", " # mine"),
    ],
)
def test_a_comment_behind_a_value_stays_whatever_the_quotes(tmp_path, old, kept):
    file = tmp_path / ".env"
    file.write_text(f"A=1\n{old}\nTOP_P=0.9\n")
    set_in_env_file(file, {"BASE_MODEL": "owner/name"})
    export = "export " if old.startswith("export") else ""
    assert file.read_text() == f"A=1\n{export}BASE_MODEL=owner/name{kept}\nTOP_P=0.9\n"
    assert value_of(file) == "owner/name"


def test_the_last_assignment_counts_and_a_commented_one_does_not(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# BASE_MODEL=no\nBASE_MODEL=first\nexport BASE_MODEL=second\n")
    set_in_env_file(file, {"BASE_MODEL": "third"})
    assert file.read_text() == "# BASE_MODEL=no\nBASE_MODEL=first\nexport BASE_MODEL=third\n"
    assert value_of(file) == "third"


@pytest.mark.parametrize("old", ["", "TOP_P=0.9", "TOP_P=0.9\n"])
def test_a_new_assignment_is_the_last_line(tmp_path, old):
    file = tmp_path / ".env"
    file.write_text(old)
    set_in_env_file(file, {"BASE_MODEL": "owner/name"})
    assert file.read_text().splitlines() == [*old.splitlines(), "BASE_MODEL=owner/name"]
    assert value_of(file) == "owner/name"


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path):
    file = tmp_path / ".env"
    set_in_env_file(file, {"BASE_MODEL": "owner/name"})
    assert file.stat().st_mode & 0o777 == 0o600 and value_of(file) == "owner/name"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text(OLD)
    link = tmp_path / ".env"
    link.symlink_to("real")
    set_in_env_file(link, {"BASE_MODEL": "owner/name"})
    assert link.is_symlink() and value_of(tmp_path / "real") == "owner/name"


def test_a_failure_leaves_the_file_and_says_what_to_write(tmp_path, monkeypatch):
    file = tmp_path / ".env"
    file.write_text(OLD)

    def fail(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("personas.home.atomic_files.os.fsync", fail)
    with pytest.raises(SettingsError, match="No space left") as refused:
        set_in_env_file(file, {"BASE_MODEL": "owner/name"})
    assert "Write BASE_MODEL=owner/name into it by hand;" in refused.value.advice
    assert "`docker compose up --detach bot`" in refused.value.advice
    assert file.read_text() == OLD and list(tmp_path.iterdir()) == [file]


def test_a_file_of_another_encoding_is_not_touched(tmp_path):
    file = tmp_path / ".env"
    file.write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        set_in_env_file(file, {"BASE_MODEL": "owner/name"})
    assert file.read_bytes() == "# Größe\n".encode("latin-1")
