"""Backups that the bot makes by itself, and the way back from a damaged database."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bot.operations.backup.archive import BackupError
from bot.operations.backup.automatic import (
    CHECK_INTERVAL_S,
    FIRST_DELAY_S,
    OWNER_FILE,
    AutomaticBackup,
    BackupSchedule,
    latest_backup,
)
from bot.operations.doctor import local_checks
from bot.operations.web.system_state import _check_background
from bot.platform.backup_folder import FOLDER_ADVICE, automatic_backups, automatic_folder
from bot.settings import Settings, SettingsError
from bot.store import HOME_DATABASE, Store, StoreError
from personas.home.external_files import read_exports
from personas.home.pseudonyms import KEY_FILE
from tests.bot.sample_home import GUILD, fill
from tests.bot.stored_messages import guild_messages
from tests.bot.test_store_failures import ENVIRON
from tests.fakes import FakeClock, until
from tests.unprivileged import without_overrides

DAY_S = 86_400.0


@pytest.fixture
def home(tmp_path):
    return fill(tmp_path / "home")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(home):
    with Store.open(home / HOME_DATABASE) as opened:
        yield opened


@pytest.fixture
def backup(home, store, clock):
    os.utime(home / KEY_FILE, (clock.now(),) * 2)
    return AutomaticBackup(
        home, store, clock, BackupSchedule(DAY_S, keep=3, folder=automatic_folder(home))
    )


async def test_backups_are_made_in_time_and_the_oldest_are_deleted(home, backup, clock):
    assert not await backup.back_up_if_due()
    clock.advance(FIRST_DELAY_S)
    assert await backup.back_up_if_due() and not await backup.back_up_if_due()
    times = []
    for _ in range(5):
        clock.advance(DAY_S)
        assert await backup.back_up_if_due()
        times.append(clock.now())
    assert list(automatic_backups(automatic_folder(home), clock.now()).values()) == times[-3:]
    assert automatic_folder(home).stat().st_mode & 0o777 == 0o700
    assert (
        latest_backup(automatic_folder(home), clock.now())
        == list(automatic_backups(automatic_folder(home), clock.now()))[-1]
    )
    assert not [
        export
        for export in read_exports(home)
        if export.what == "backup" and ".backups" in export.path
    ]


async def test_the_worker_goes_on_after_a_failure(home, backup, clock, caplog):
    automatic_folder(home).write_text("a file where the folder has to be")
    clock.advance(FIRST_DELAY_S)
    backup.task.start()
    await until(lambda: backup.task.error)
    assert "automatic backup" in caplog.text
    automatic_folder(home).unlink()
    await until(lambda: clock.sleepers)
    clock.advance(CHECK_INTERVAL_S)
    await until(lambda: automatic_backups(automatic_folder(home), clock.now()))
    await until(lambda: not backup.task.error)
    await backup.task.stop()


async def test_an_erasure_replaces_the_backups_from_before(home, backup, store, clock):
    for _ in range(2):
        clock.advance(DAY_S)
        await backup.back_up_if_due()
    clock.advance(60.0)
    store.people.record_erased("a key", clock.now())
    clock.advance(60.0)
    assert await backup.back_up_if_due()
    assert list(automatic_backups(automatic_folder(home), clock.now()).values()) == [clock.now()]


async def test_a_damaged_database_is_found_and_the_backups_stay(home, backup, clock):
    clock.advance(DAY_S)
    await backup.back_up_if_due()
    before = automatic_backups(automatic_folder(home), clock.now())
    damage(home)
    clock.advance(DAY_S)
    with pytest.raises(StoreError, match="damaged"):
        await backup.back_up_if_due()
    assert automatic_backups(automatic_folder(home), clock.now()) == before


def damage(home):
    """Overwrite the pages after the first, as a failing disk does."""
    file = home / HOME_DATABASE
    raw = sqlite3.connect(file)
    raw.execute("pragma wal_checkpoint(truncate)").fetchall()
    raw.close()
    content = bytearray(file.read_bytes())
    content[4096:20480] = b"\xa5" * (20480 - 4096)
    file.write_bytes(content)


def lose(home):
    (home / HOME_DATABASE).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("harm", [damage, lose])
def test_the_bot_says_what_to_do_about_a_damaged_database_and_that_works(home, clock, harm):
    with Store.open(home / HOME_DATABASE) as store:
        texts = [message.text for message in guild_messages(store, GUILD)]
        made = AutomaticBackup(home, store, clock, BackupSchedule(DAY_S, 3, automatic_folder(home)))
        clock.advance(FIRST_DELAY_S)
        assert asyncio.run(made.back_up_if_due())
    harm(home)
    environ = {**ENVIRON, "UNDERSTUDY_HOME": str(home), "WEB_PORT": "0"}
    started = subprocess.run(
        [sys.executable, "-m", "bot"], env=environ, capture_output=True, text=True, timeout=60
    )
    assert started.returncode == 1 and "python -m bot restore --latest" in started.stderr
    command = [sys.executable, "-m", "bot", "restore", "--latest"]
    restored = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert restored.returncode == 0, restored.stderr
    with Store.open(home / HOME_DATABASE) as store:
        assert [message.text for message in guild_messages(store, GUILD)] == texts


def test_without_an_automatic_backup_restore_says_so(home, clock):
    with pytest.raises(BackupError, match="no automatic backup"):
        latest_backup(automatic_folder(home), clock.now())
    (automatic_folder(home)).mkdir()
    (automatic_folder(home) / "understudy-mine.zip").touch()
    assert automatic_backups(automatic_folder(home), clock.now()) == {}


async def test_a_backup_from_a_clock_that_was_ahead_neither_delays_the_next_nor_stays(
    home, backup, clock
):
    clock.advance(2 * DAY_S)
    assert await backup.back_up_if_due()
    (made,) = automatic_backups(automatic_folder(home), clock.now())
    ahead = made.with_name("understudy-20990101-000000.zip")
    made.rename(ahead)
    assert latest_backup(automatic_folder(home), clock.now()) == ahead, "there is no other"
    assert await backup.back_up_if_due(), "nobody knows when that one was made"
    assert latest_backup(automatic_folder(home), clock.now()) == made
    assert not ahead.exists(), "it may contain who was erased"


async def test_a_bot_that_is_restarted_often_makes_its_first_backup(home, store, clock):
    os.utime(home / KEY_FILE, (clock.now() - FIRST_DELAY_S,) * 2)
    assert await AutomaticBackup(
        home, store, clock, BackupSchedule(DAY_S, keep=3, folder=automatic_folder(home))
    ).back_up_if_due()


def test_a_damaged_backup_names_the_one_before(home, backup, clock):
    for _ in range(2):
        clock.advance(2 * DAY_S)
        assert asyncio.run(backup.back_up_if_due())
    older, newer = automatic_backups(automatic_folder(home), clock.now())
    newer.write_bytes(newer.read_bytes()[:2000])
    environ = {**ENVIRON, "UNDERSTUDY_HOME": str(home)}
    command = [sys.executable, "-m", "bot", "restore", "--latest"]
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and str(newer) in refused.stderr
    assert f"python -m bot restore {older}" in refused.stderr


@pytest.fixture
def locked_parent(home):
    """The folder that the home is in can be read alone, as / can in a container."""
    home.parent.chmod(0o555)
    with without_overrides():
        yield home.parent
    home.parent.chmod(0o755)


def backups_check(home, chosen=None):
    settings = Settings(home=home, backup_folder=chosen)
    (check,) = (each for each in local_checks.check_machine(settings) if each.name == "backups")
    return check


async def test_beside_a_home_in_a_folder_of_others_backups_are_missed_at_once(
    home, backup, clock, locked_parent, caplog
):
    """Long before one is due; the doctor says the same."""
    with pytest.raises(BackupError, match="BACKUP_FOLDER") as refused:
        await backup.back_up_if_due()
    assert str(automatic_folder(home)) in refused.value.message
    assert "Permission denied" in refused.value.message
    check = backups_check(home)
    assert check.state == "warn" and check.found == refused.value.message
    assert "BACKUP_FOLDER" in check.remedy and (home / HOME_DATABASE).is_file()


async def test_the_system_page_says_what_to_do_about_missing_backups(home, backup):
    automatic_folder(home).write_text("a file where the folder has to be")
    backup.task.start()
    await until(lambda: backup.task.error)
    (check,) = _check_background(SimpleNamespace(background=[backup.task], home=home))
    assert check.state == "warn" and "No automatic backup can be made" in check.found
    assert check.remedy == FOLDER_ADVICE and FOLDER_ADVICE not in check.found
    assert FOLDER_ADVICE in backup.task.error, "the log and /healthz have all of it"
    await backup.task.stop()


def test_backups_go_to_the_folder_that_is_chosen_and_come_back_from_there(
    home, tmp_path, store, clock
):
    chosen = tmp_path / "disk" / "backups"
    chosen.parent.mkdir()
    schedule = BackupSchedule(DAY_S, 3, automatic_folder(home, chosen))
    clock.advance(DAY_S)
    assert asyncio.run(AutomaticBackup(home, store, clock, schedule).back_up_if_due())
    (made,) = automatic_backups(chosen, clock.now())
    assert not automatic_folder(home).exists() and chosen.stat().st_mode & 0o777 == 0o700
    check = backups_check(home, chosen)
    assert check.state == "ok" and check.found == f"1 in {chosen}"
    store.close()
    (home / HOME_DATABASE).unlink()
    environ = {**ENVIRON, "UNDERSTUDY_HOME": str(home), "BACKUP_FOLDER": str(chosen)}
    command = [sys.executable, "-m", "bot", "restore", "--latest"]
    restored = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert restored.returncode == 0, restored.stderr
    assert (home / HOME_DATABASE).is_file() and made.is_file()


def test_a_folder_inside_the_home_is_refused(home):
    for inside in (home, home / "backups"):
        with pytest.raises(SettingsError, match=r"BACKUP_FOLDER is .* inside UNDERSTUDY_HOME"):
            Settings(home=home, backup_folder=inside)
    with pytest.raises(ValueError, match="not a folder"):
        Settings(home=home, backup_folder=home / HOME_DATABASE)


@pytest.mark.parametrize("has_mark", [True, False])
async def test_a_folder_with_backups_that_are_not_its_own_is_refused(
    home, tmp_path, store, clock, has_mark
):
    """Another bot's, or those of a nightly `backup --out`: the oldest would be deleted."""
    shared = tmp_path / "shared"
    schedule = BackupSchedule(DAY_S, 1, shared)
    clock.advance(DAY_S)
    other = fill(tmp_path / "other")
    with Store.open(other / HOME_DATABASE) as others:
        made = AutomaticBackup(other, others, clock, schedule)
        assert await made.back_up_if_due()
        if not has_mark:
            (shared / OWNER_FILE).unlink()
        kept = sorted(shared.iterdir())
        clock.advance(DAY_S)
        with pytest.raises(BackupError, match="BACKUP_FOLDER"):
            await AutomaticBackup(home, store, clock, schedule).back_up_if_due()
        assert sorted(shared.iterdir()) == kept
        if has_mark:
            assert await made.back_up_if_due()


def test_another_home_is_not_restored_from_the_chosen_folder(home, tmp_path, store, clock):
    chosen = tmp_path / "chosen"
    clock.advance(DAY_S)
    backup = AutomaticBackup(home, store, clock, BackupSchedule(DAY_S, 3, chosen))
    assert asyncio.run(backup.back_up_if_due())
    environ = {**ENVIRON, "UNDERSTUDY_HOME": str(home), "BACKUP_FOLDER": str(chosen)}
    other = tmp_path / "other"
    command = [sys.executable, "-m", "bot", "restore", "--latest", "--home", str(other)]
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and f"{other}.backups" in refused.stderr
    assert not other.exists()
