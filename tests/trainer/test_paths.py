"""Where the commands find the bot's home: where the bot does."""

import re
from pathlib import Path

import pytest

from personas.errors import KeyFileError, RequestError
from personas.home.pseudonyms import HomeKey
from trainer.process.environment import find_home, require_home


@pytest.mark.parametrize(
    ("environment", "file", "wanted"),
    [
        ("/srv/bot", "UNDERSTUDY_HOME=/elsewhere\n", "/srv/bot"),
        (
            None,
            "# where\nUNDERSTUDY_HOME='/srv/$USER/bot'\nBASE_MODEL=embedded\n",
            "/srv/$USER/bot",
        ),
        ("  ", "UNDERSTUDY_HOME=~/bot\n", str(Path("~/bot").expanduser())),
        (None, "UNDERSTUDY_HOME=\n", str(Path("~/.understudy").expanduser())),
        (None, None, str(Path("~/.understudy").expanduser())),
    ],
)
def test_the_environment_wins_over_the_file_and_the_file_over_what_is_usual(
    tmp_path, monkeypatch, environment, file, wanted
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNDERSTUDY_HOME")
    if environment is not None:
        monkeypatch.setenv("UNDERSTUDY_HOME", environment)
    if file is not None:
        Path(".env").write_text(file)
    assert find_home() == Path(wanted)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_home_that_is_no_folder_is_reported(tmp_path, command, monkeypatch, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / place))
    for words in (("plan", "--persona", "oda"), ("train", "--persona", "oda", "--dry-run")):
        code, _, errors = command(*words)
        assert code == 1 and "Set UNDERSTUDY_HOME" in errors
        assert f" {tmp_path / place} " in errors and f" {tmp_path / 'file'} is no folder" in errors
    with pytest.raises(RequestError, match="is no folder"):
        require_home(tmp_path / place)


def test_a_home_that_takes_no_keys_is_reported(tmp_path):
    (tmp_path / "keys").write_text("")  # as in /proc
    with pytest.raises(KeyFileError, match=rf"{re.escape(str(tmp_path))} .*Set UNDERSTUDY_HOME"):
        HomeKey.of(tmp_path)


def test_a_home_in_which_no_run_can_be_made_is_reported_as_the_home(command, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", "/proc")
    code, _, errors = command("train", "--persona", "oda", "--make-only")
    assert code == 1 and "/proc cannot be written" in errors and "set UNDERSTUDY_HOME" in errors
