"""An earlier program and a later home: refused, and led back by a backup (docs/upgrading.md)."""

import re
import sqlite3
from contextlib import closing

import pytest

from bot.operations.backup.archive import FORMAT_VERSION
from bot.operations.backup.cli import reapply_deletions
from bot.operations.doctor.local_checks import check_database
from bot.platform.db.schema import schema_version
from bot.store import Store, StoreError
from personas.errors import AdapterError
from personas.home.adapters import verify_adapter, write_manifest
from personas.prompt.renderer import PROMPT_VERSION
from tests.bot.sample_home import DATABASE, fill, planted_backup, put_back, texts
from tests.personas.test_adapters import manifest, write_adapter
from tests.test_layering import ROOT

PAGE = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")


def age(home, by):
    """Give the home's database the schema of a program that is so many steps ahead."""
    with closing(sqlite3.connect(home / DATABASE)) as raw:
        raw.execute(f"pragma user_version = {schema_version() + by}")


def test_a_backup_leads_back_from_a_later_home_and_whoever_was_erased_stays_so(tmp_path):
    home = fill(tmp_path / "home")
    backup = planted_backup(home, tmp_path / "before.zip")  # with somebody who is erased afterwards
    age(home, by=1)
    with pytest.raises(StoreError, match="written by a newer Understudy") as refused:
        Store.open(home / DATABASE)
    assert refused.value.advice.startswith("Update the project")
    assert check_database(home).state == "fail"
    restored = put_back(backup, home, reapply_deletions, keep=True)
    assert "newer Understudy" in restored.since.lost and restored.kept.is_dir()
    assert f"schema {schema_version()};" in check_database(home).found
    assert not any("heron" in text for text in texts(home))


def test_an_adapter_with_prompts_of_a_later_program_is_refused(tmp_path):
    folder = tmp_path / "adapter"
    write_adapter(folder)
    for version, is_known in ((PROMPT_VERSION, True), (str(int(PROMPT_VERSION) + 1), False)):
        write_manifest(folder, manifest().model_copy(update={"prompt_version": version}))
        if is_known:
            assert verify_adapter(folder).prompt_version == version
        else:
            with pytest.raises(AdapterError, match="trained by a newer Understudy"):
                verify_adapter(folder)


def test_the_page_has_the_formats_of_this_program():
    """The last row of its table, which is `unreleased` between two releases."""
    rows = re.findall(
        r"^\| (\d+\.\d+\.\d+|unreleased) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE
    )
    assert rows[-1][1:] == (str(schema_version()), PROMPT_VERSION, str(FORMAT_VERSION)), (
        "docs/upgrading.md: correct the last row, or add `unreleased` below it if its release has a tag"
    )
