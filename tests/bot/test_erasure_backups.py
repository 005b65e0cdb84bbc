"""Yesterday's backup comes back after somebody was forgotten: they do not come with it."""

from types import SimpleNamespace

import pytest

from bot.operations.backup.cli import run_backup, run_restore
from bot.settings import Settings
from bot.store import Store
from tests.bot.test_erasure import forget
from tests.bot.traceable_person import OTHERS_LINE, left_of_them, plant, rows


@pytest.fixture
def home(tmp_path):
    plant(tmp_path / "home")
    return tmp_path / "home"


def restore(backup, home):
    arguments = SimpleNamespace(
        file=backup,
        latest=False,
        home=None,
        keep_previous=False,
        json=False,
        settings=Settings(home=home),
    )
    run_restore(arguments, home)


def test_restored_over_the_home_nobody_comes_back(home, tmp_path, capsys):
    backup = tmp_path / "yesterday.zip"
    run_backup(SimpleNamespace(out=backup, json=False), home)
    receipt = forget(home)
    assert [(one.what, one.path) for one in receipt.exports if one.what == "backup"] == [
        ("backup", str(backup))
    ]
    assert left_of_them(home) == []
    restore(backup, home)
    assert left_of_them(home) == []
    assert OTHERS_LINE in [text for (text,) in rows(home, "select text from messages")]
    with Store.open(home / "understudy.sqlite") as store:
        assert store.versions.live("oda", 0) == "v1"


def test_whoever_was_not_forgotten_is_there_again(home, tmp_path, capsys):
    backup = tmp_path / "yesterday.zip"
    run_backup(SimpleNamespace(out=backup, json=False), home)
    restore(backup, home)
    with Store.open(home / "understudy.sqlite") as store:
        assert store.versions.live("oda", 0) == "v3"
