"""`python -m bot restore`: all of a backup comes back, but nothing that has gone since."""

import math
import stat

import pytest

from bot.operations.backup.archive import HOME_CONTENT, BackupError
from bot.operations.backup.cli import reapply_deletions
from bot.operations.backup.create import create_backup
from bot.operations.backup.restore import REPLACED_NAMES
from bot.privacy.consent_files import ConsentMirror, read_tombstones
from bot.privacy.erasure_runner import ErasureRunner
from bot.store import ConsentDecision, Store, StoreError
from personas.errors import UnderstudyError
from personas.home.data_subjects import read_consent
from personas.home.external_files import read_exports, record_export
from personas.home.pseudonyms import HomeKey, keyed_person
from tests.bot.sample_home import (
    ADA,
    BEN,
    DATABASE,
    GUILD,
    KEPT,
    MADE_ANEW,
    NOW,
    PLANTED,
    STAYS,
    digest,
    fill,
    forget,
    planted_backup,
    put,
    put_back,
    quiet,
    rows,
    say,
    texts,
    train,
    tree,
    where,
)


@pytest.fixture
def home(tmp_path):
    return fill(tmp_path / "home")


@pytest.fixture
def backup(home, tmp_path):
    return create_backup(home, tmp_path / "b.zip", NOW, quiet).path


@pytest.fixture
def planted(home, tmp_path):
    return planted_backup(home, tmp_path / "planted.zip")


# -------------------------------------------------------------------------------------------- whole


def test_all_that_was_backed_up_comes_back_and_what_was_made_of_it_is_made_anew(home, backup):
    before = rows(home / DATABASE)
    with Store.open(home / DATABASE) as store:
        say(store, "said afterwards")
    put(
        home,
        {
            "lore/77/mira-25/soup.md": b"changed",
            "lore/77/mira-25/later.md": b"added",
            "notes.txt": b"mine",
        },
    )
    restored = put_back(backup, home)
    assert restored.made_at == "2026-11-18T11:06:40+00:00" and restored.kept is None
    assert rows(home / DATABASE) == before
    assert {name: (home / name).read_bytes() for name in KEPT | STAYS} == KEPT | STAYS
    assert not [name for name in MADE_ANEW if (home / name).exists()]
    assert not (home / "lore/77/mira-25/later.md").exists()
    assert (home / "notes.txt").read_bytes() == b"mine", "what is not ours is nobody's to delete"
    assert not (home / ".restore").exists() and list(home.parent.glob("home*")) == [home]


def test_a_new_machine_knows_of_the_backup_that_it_came_from_and_only_its_owner_reads_it(
    backup, tmp_path
):
    put_back(backup, tmp_path / "new")
    for path in (tmp_path / "new").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name == "understudy.lock", (
            path
        )
    assert [(export.path, export.sha256) for export in read_exports(tmp_path / "new")] == [
        (str(backup), digest(backup))
    ]


def test_the_home_as_it_was_can_be_kept_and_put_back_by_hand(home, backup, tmp_path):
    put(home, {"lore/77/mira-25/soup.md": b"changed"})
    before = {name: value for name, value in tree(home).items() if name not in STAYS}
    kept = put_back(backup, home, keep=True).kept
    assert kept == tmp_path / "home.before-restore-20261118-110740"
    assert tree(kept) == before
    assert str(kept) in {export.path for export in read_exports(home)}, (
        "forgetting does not reach it"
    )


def test_where_the_old_home_cannot_be_kept_nothing_happens(home, backup, tmp_path):
    (tmp_path / "home.before-restore-20261118-110740").mkdir()
    before = tree(home)
    with pytest.raises(BackupError, match="cannot be moved to"):
        put_back(backup, home, keep=True)
    assert tree(home) == before


def test_it_refuses_while_a_bot_runs(home, backup):
    with (
        Store.open(home / DATABASE),
        pytest.raises(StoreError, match="Another bot runs on this home"),
    ):
        put_back(backup, home)
    assert not (home / ".restore").exists()


# ------------------------------------------------------------------------------ what has gone since


def test_what_was_decided_since_holds(home, backup):
    with Store.open(home / DATABASE) as store:
        store.people.decide(ConsentDecision(ADA, False, 200.0, "vi"))
        store.messages.delete(901)
        store.messages.update(902, "the tide is early")
        assert train(store, "j2").version == "v2"
        store.versions.withdraw("oda", "v1", 300.0, "withdrawn")
    record_export(home, "card", "elsewhere.png", ())
    since = put_back(backup, home).since
    assert (since.taken_over.decisions, since.taken_over.deleted, since.taken_over.edited) == (
        1,
        1,
        1,
    )
    assert texts(home) == ["the tide is early"]
    assert read_consent(home).opted_in == frozenset(), "also before a bot has started on it"
    with Store.open(home / DATABASE) as store:
        assert store.people.decision(ADA) == ConsentDecision(ADA, False, 200.0, "vi")
        assert store.versions.installed("oda") == []
        assert train(store, "j3").version == "v3", "no number is given out twice"
    assert [export.what for export in read_exports(home)] == ["backup", "card"]


def test_a_withdrawn_version_is_known_also_after_a_backup_from_before_it(home, backup, tmp_path):
    with Store.open(home / DATABASE) as store:
        assert train(store, "j2").version == "v2"
    later = create_backup(home, tmp_path / "d.zip", NOW, quiet).path
    with Store.open(home / DATABASE) as store:
        store.versions.withdraw("oda", "v2", 300.0, "removed")
    for file in (backup, later):
        put_back(file, home)
        with Store.open(home / DATABASE) as store:
            assert [one.version for one in store.versions.installed("oda")] == ["v1"]


def test_a_persona_that_comes_back_is_not_taken_for_removed(home, backup):
    with Store.open(home / DATABASE) as store:
        store.guilds.record_persona_removal("oda", 200.0)
    put_back(backup, home)
    with Store.open(home / DATABASE) as store:
        assert store.guilds.personas_removed_before(math.inf) == []


def test_answers_with_help_lines_since_are_counted_still(home, tmp_path):
    with Store.open(home / DATABASE) as store:
        store.safety_answers.count("2026-11-27", "en")
    backup = create_backup(home, tmp_path / "c.zip", NOW, quiet).path
    with Store.open(home / DATABASE) as store:
        for day in ("2026-11-27", "2026-11-28"):
            store.safety_answers.count(day, "en")
    put_back(backup, home)
    with Store.open(home / DATABASE) as store:
        assert store.safety_answers.by_year() == {"2026": 3}


def test_the_channels_of_threads_since_are_known_and_nothing_else_of_channels(home, backup):
    with Store.open(home / DATABASE) as store:
        say(store, "in a thread")  # in channel 5
        store.places.record_thread(GUILD, 5, 30)
        store.places.set_webhook(GUILD, 30, 5, "token")
    put_back(backup, home)
    with Store.open(home / DATABASE) as store:
        assert store.places.threads_of(30) == [5]
        assert store.places.webhook(30) is None


def test_who_agreed_before_and_after_still_agrees(home, backup):
    put_back(backup, home)
    assert (
        read_consent(home).opted_in == {str(ADA)}
        and "Permission 7" in read_consent(home).permission
    )


def test_a_server_that_was_deleted_since_is_deleted_again(home, tmp_path):
    put(home, {f"lore/{GUILD}/oda/quay.md": b"# Quay"})
    backup = create_backup(home, tmp_path / "c.zip", NOW, quiet).path
    with Store.open(home / DATABASE) as store:
        store.guilds.record_deletion(GUILD, NOW + 10)
    assert put_back(backup, home).since.guilds == 1
    assert texts(home) == [] and not (home / "lore" / str(GUILD)).exists()
    with Store.open(home / DATABASE) as store:  # it has come back, and was backed up since
        say(store, "hello again")
    backup = create_backup(home, tmp_path / "d.zip", NOW + 20, quiet).path
    assert put_back(backup, home).since.guilds == 0 and texts(home) == ["hello again"]


def test_a_database_that_cannot_be_read_is_no_reason_not_to_restore_but_is_said(home, backup):
    (home / DATABASE).write_bytes(b"not a database at all, whatever it was before" * 100)
    assert "damaged" in put_back(backup, home).since.lost
    assert texts(home) == ["the lanterns are lit", "the tide is late"]


def test_who_was_forgotten_since_is_nowhere_in_what_comes_back(home, planted):
    assert where(home, *PLANTED) == [], "before"
    restored = put_back(planted, home, reapply_deletions)
    assert restored.since.tombstones >= 1
    assert where(home, *PLANTED) == []
    assert texts(home) == ["the tide is late"]


def test_on_another_machine_the_list_of_who_was_forgotten_is_enough(home, planted, tmp_path):
    put(
        tmp_path / "new", {"keys/tombstones.json": (home / "keys" / "tombstones.json").read_bytes()}
    )
    put_back(planted, tmp_path / "new", reapply_deletions)
    assert where(tmp_path / "new", *PLANTED) == [] and texts(tmp_path / "new") == [
        "the tide is late"
    ]


def test_a_forgetting_that_had_only_been_begun_is_not_lost(home, backup):
    with Store.open(home / DATABASE) as store:
        forgetter = ErasureRunner(home, store, ConsentMirror(home, store), lambda: NOW + 30)
        forgetter.begin(forgetter.traces(BEN))  # and killed here, before there is a tombstone
    put_back(backup, home, reapply_deletions)
    assert texts(home) == ["the lanterns are lit"] and where(home, "Ben Arkwright", str(BEN)) == []


def test_a_damaged_list_of_who_was_forgotten_stops_it(home, planted):
    (home / "keys" / "tombstones.json").write_text("{")
    before = tree(home)
    with pytest.raises(UnderstudyError, match=r"tombstones\.json cannot be read"):
        put_back(planted, home, reapply_deletions)
    assert tree(home) == before and where(home, *PLANTED) == []


def test_tombstones_outlive_the_database_that_knew_them(home, planted):
    (home / DATABASE).write_bytes(b"\0" * 9000)
    put_back(planted, home, reapply_deletions)
    assert where(home, *PLANTED) == []


def test_tombstones_under_another_key_hold_too(home, planted, tmp_path):
    """The home was begun anew once, with another key; those forgotten in it are forgotten in the
    old backup.
    """
    new = tmp_path / "begun-anew"
    with Store.open(new / DATABASE) as store:
        say(store, "back again", name="Philippa Quist")
    other = HomeKey.of(new)
    forget(new, ADA)
    restored = put_back(planted, new, reapply_deletions)
    assert restored.since.other_key and HomeKey.of(new) == HomeKey.of(home) != other
    assert where(new, *PLANTED) == [] and texts(new) == ["the tide is late"]
    (old,) = (new / "keys").glob("old-*.key")
    assert (
        bytes.fromhex(old.read_text()) == other.secret and stat.S_IMODE(old.stat().st_mode) == 0o600
    )
    people = HomeKey.of(new).people()
    assert {
        keyed_person(people, str(ADA)),
        keyed_person(other.people(), str(ADA)),
    } <= read_tombstones(new).keys()
    assert keyed_person(people, str(BEN)) not in read_tombstones(new)


def test_what_may_stand_in_a_backup_is_what_a_restore_takes_out():
    assert {*REPLACED_NAMES} >= HOME_CONTENT
