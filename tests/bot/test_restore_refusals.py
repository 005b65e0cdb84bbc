"""What `restore` refuses, before it touches anything: damage, foreign files, paths that leave the
home, no room.
"""

import hashlib
import json
import shutil
import stat
import zipfile

import pytest

from bot.operations.backup.archive import BackupError
from bot.operations.backup.create import create_backup
from bot.store import StoreError
from personas.errors import UnderstudyError
from tests.bot.sample_home import DATABASE, KEPT, NOW, fill, put_back, quiet, rows, tree


@pytest.fixture
def home(tmp_path):
    return fill(tmp_path / "home")


@pytest.fixture
def backup(home, tmp_path):
    return create_backup(home, tmp_path / "b.zip", NOW, quiet).path


def rewritten(backup, target, change):
    """The backup with its members changed: `change` is given names and contents, manifest
    included.
    """
    with zipfile.ZipFile(backup) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    members = change(members)
    with zipfile.ZipFile(target, "w") as new:
        for name, content in members.items():
            new.writestr(
                name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), content
            )
    return target


def declared(members, name, content=b"x"):
    """Members with one more, of which the manifest knows."""
    manifest = json.loads(members["manifest.json"])
    manifest["members"][name] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    return members | {"manifest.json": json.dumps(manifest).encode(), name: content}


def with_manifest(members, /, **fields):
    return members | {
        "manifest.json": json.dumps(json.loads(members["manifest.json"]) | fields).encode()
    }


def refused(home, file, says):
    """It is refused in one sentence, and the home is as it was."""
    before = tree(home)
    with pytest.raises(BackupError, match=says) as caught:
        put_back(file, home)
    assert caught.value.advice and tree(home) == before and not (home / ".restore").exists()


PATHS = (
    "../outside", "/etc/outside", "models/../../outside", "models/./x", "models//x", "models\\..\\x", "lore/",
    ".restore/state.json", "understudy.lock", "jobs/j1/request.json", "understudy.sqlite/x", "keys", "lore/a\nb",
    "understudy.sqlite-wal",
)  # fmt: skip


def test_paths_that_are_no_home_s_are_refused(home, backup, tmp_path):
    for name in PATHS:
        file = rewritten(
            backup, tmp_path / "evil.zip", lambda members, name=name: declared(members, name)
        )
        refused(home, file, "contains a file that no backup contains")
    assert not list(tmp_path.rglob("outside"))


def test_links_are_refused(home, backup, tmp_path):
    link = zipfile.ZipInfo("keys/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16

    def change(members):
        members = declared(members, "keys/link", b"/etc/passwd")
        return {link if name == "keys/link" else name: content for name, content in members.items()}

    refused(
        home,
        rewritten(backup, tmp_path / "evil.zip", change),
        "contains a file that no backup contains",
    )


CARD = "lore/77/mira-25/soup.md"


CHANGES = (
    (lambda members: members | {CARD: b"# Soup\nAlways ask"}, f"{CARD} has changed"),
    (lambda members: members | {CARD: members[CARD] * 9}, f"{CARD} has changed"),
    (lambda members: members | {"lore/x.md": b"x"}, "other files than its manifest"),
    (
        lambda members: {name: content for name, content in members.items() if name != CARD},
        "other files than",
    ),
    (
        lambda members: {
            name: content for name, content in members.items() if name != "manifest.json"
        },
        "not a backup",
    ),
    (lambda members: members | {"manifest.json": b"{}"}, "not a backup"),
    (
        lambda members: members | {"manifest.json": members["manifest.json"][:-9]},
        "manifest cannot be read",
    ),
    (lambda members: with_manifest(members, format=2), "made by a newer Understudy"),
    (lambda members: with_manifest(members, colour="red"), "made by a newer Understudy"),
    (lambda members: with_manifest(members, schema_version=99), "made by a newer Understudy"),
    (lambda members: with_manifest(members, schema_version=50), "before the first release"),
    *(
        (
            lambda members, wrong=wrong: with_manifest(members, **wrong),
            "manifest cannot be read",
        )
        for wrong in (
            {"made_at": "soon"},
            {"made_at": 7},
            {"made_at": "2026-01-02T03:04:05"},
            {"made_at": "0001-01-01T00:00:00Z"},
            {"members": []},
            {"members": {"x": 1}},
            {"program": None},
            {"schema_version": "x"},
            {"format": 0},
        )
    ),
)


def test_a_file_that_was_changed_is_refused_before_anything_is_touched(home, backup, tmp_path):
    for change, says in CHANGES:
        refused(home, rewritten(backup, tmp_path / "bad.zip", change), says)


def test_damage_anywhere_is_noticed(home, backup, tmp_path):
    data = backup.read_bytes()
    for at in range(7, len(data), len(data) // 30):
        (tmp_path / "bad.zip").write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        try:
            put_back(tmp_path / "bad.zip", tmp_path / "new")
        except BackupError:
            assert not (tmp_path / "new").exists()
        else:  # a byte that says nothing, such as a member's date: what came back is as it was written
            assert rows(tmp_path / "new" / DATABASE) == rows(home / DATABASE)
            assert {name: (tmp_path / "new" / name).read_bytes() for name in KEPT} == KEPT
            shutil.rmtree(tmp_path / "new")


def test_a_file_that_was_cut_off_is_refused(home, backup, tmp_path):
    data = backup.read_bytes()
    for share in (0.0, 0.3, 0.99):
        (tmp_path / "bad.zip").write_bytes(data[: int(len(data) * share)])
        refused(home, tmp_path / "bad.zip", "not a backup of Understudy, or truncated")


def test_what_is_no_file_of_ours_is_refused(home, tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    refused(home, tmp_path / "picture.png", "not a backup of Understudy")
    refused(home, tmp_path / "missing.zip", "cannot be read")
    refused(home, tmp_path, "cannot be read")


def test_a_backup_whose_database_is_newer_or_damaged_inside_changes_nothing(home, backup, tmp_path):
    def change(members):
        data = members[DATABASE][:4096] + b"\xff" * 4096 + members[DATABASE][8192:]
        manifest = json.loads(members["manifest.json"])
        manifest["members"][DATABASE]["sha256"] = hashlib.sha256(data).hexdigest()
        return members | {DATABASE: data, "manifest.json": json.dumps(manifest).encode()}

    before = tree(home)
    with pytest.raises(StoreError, match="damaged"):
        put_back(rewritten(backup, tmp_path / "bad.zip", change), home)
    assert tree(home) == before and not (home / ".restore").exists()


def test_without_room_nothing_happens(home, backup, monkeypatch):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    refused(home, backup, "MB are free")


def test_a_disk_that_fills_up_meanwhile_changes_nothing(home, backup):
    before = tree(home)

    def full(home, store):
        raise OSError(28, "No space left on device")

    with pytest.raises(BackupError, match=r"No space left on device.*Free disk space"):
        put_back(backup, home, full)
    assert tree(home) == before and not (home / ".restore").exists()


RULES = (
    ("keys/people.key", b"zz"), ("keys/people.key", b"\xff"), ("keys/old-00000000.key", b"ab"),
    ("keys/tombstones.json", b"{"), ("keys/tombstones.json", b'{"tombstones": {"x": 1}}'),
    ("consent.json", b"[]"), ("exports.jsonl", b"nonsense\n"), ("exports.jsonl", b"\xff\n"),
)  # fmt: skip


def test_a_backup_whose_rules_cannot_be_read_is_refused(home, backup, tmp_path):
    for number, (name, content) in enumerate(RULES):
        wrong = {"name": name, "content": content}
        file = rewritten(
            backup, tmp_path / "bad.zip", lambda members, wrong=wrong: declared(members, **wrong)
        )
        refused(home, file, name.replace(".", r"\."))
        refused_without_trace(file, tmp_path / f"new{number}", name.replace(".", r"\."))


def refused_without_trace(file, new, says):
    with pytest.raises(UnderstudyError, match=says):
        put_back(file, new)
    assert not new.exists()
    new.mkdir()
    with pytest.raises(UnderstudyError, match=says):
        put_back(file, new)
    assert list(new.iterdir()) == []


def test_where_no_folder_can_be_it_says_why(backup, tmp_path):
    (tmp_path / "file").touch()
    for home, advice in (
        (tmp_path / ("x" * 300), "shorter"),
        (tmp_path / "file", "another folder"),
    ):
        with pytest.raises(UnderstudyError) as caught:
            put_back(backup, home)
        assert advice in caught.value.advice
