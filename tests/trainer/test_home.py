"""Where the commands find the bot's home: where the bot does."""

from pathlib import Path

import pytest

from trainer.home import home


@pytest.mark.parametrize(
    ("environment", "file", "wanted"),
    [
        ("/srv/bot", "UNDERSTUDY_HOME=/elsewhere\n", "/srv/bot"),
        (None, "# where\nUNDERSTUDY_HOME='/srv/$USER/bot'\nBASE_MODEL=embedded\n", "/srv/$USER/bot"),
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
    assert home() == Path(wanted)
