"""What is removed or replaced: each entry is kept for a day under a key of its own."""

import time

import pytest

from personas.home import trash
from personas.home.trash import (
    KEPT_S,
    TrashEntry,
    delete_entry,
    entries_of,
    find_entry,
    find_parts,
    list_entries,
    swap,
    take_back,
    throw_away,
)


def thrown_away(home, text, at):
    """A file's entry, of some text."""
    file = home / "uploads" / "talk.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    entry = TrashEntry(guild_id=0, kind="upload", id="talk", name="talk", at=at)
    throw_away(home, entry, {"data": file})
    return file, entry


def test_a_second_entry_of_the_same_id_drops_none_and_the_newest_is_found(tmp_path):
    now = time.time()
    file, first = thrown_away(tmp_path, "first", now - 60)
    _, second = thrown_away(tmp_path, "second", now)
    _, old = thrown_away(tmp_path, "old", now - KEPT_S - 1)
    assert first.stamp < second.stamp < old.stamp, "stamps sort by the time that they were made"
    assert find_entry(tmp_path, 0, "upload", "talk", stamp=second.stamp) == second
    assert find_entry(tmp_path, 0, "upload", "talk", stamp=first.stamp) == first
    for stamp in (old.stamp, "../" + first.stamp, "x"):
        assert find_entry(tmp_path, 0, "upload", "talk", stamp=stamp) is None
    everything = [second, first, old]
    assert list_entries(tmp_path) == entries_of(tmp_path, 0, "upload", "talk") == everything
    assert len(find_parts(tmp_path, 0, "talk", "data")) == 3
    take_back(tmp_path, first, {"data": file})
    assert file.read_text() == "first"
    assert find_entry(tmp_path, 0, "upload", "talk", stamp=first.stamp) is None
    for entry in (second, old):
        delete_entry(tmp_path, entry)
    assert not list(tmp_path.glob("trash/*/*/*"))


def test_what_is_there_takes_the_place_of_what_is_brought_back(tmp_path):
    file, entry = thrown_away(tmp_path, "first", time.time())
    file.write_text("second")
    present = entry.model_copy(update={"stamp": "1-0"})
    swap(tmp_path, entry, present, {"data": file})
    assert file.read_text() == "first" and list_entries(tmp_path) == [present]
    swap(tmp_path, present, entry, {"data": file})
    assert file.read_text() == "second"


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_swap_that_fails_moves_nothing(tmp_path, monkeypatch, failing):
    files = {name: tmp_path / name for name in ("data", "build")}
    for file in files.values():
        file.write_text("before")
    entry = TrashEntry(guild_id=0, kind="dataset", id="talk", name="talk", at=time.time())
    throw_away(tmp_path, entry, files)
    for file in files.values():
        file.write_text("now")
    moves = []
    move = trash.replace_durably

    def fail_once(source, target):
        moves.append(source)
        if len(moves) == failing:
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(trash, "replace_durably", fail_once)
    present = entry.model_copy(update={"stamp": "1-0"})
    with pytest.raises(OSError, match="No space"):
        swap(tmp_path, entry, present, files)
    assert [file.read_text() for file in files.values()] == ["now", "now"]
    assert list_entries(tmp_path) == [entry]
    assert [part.read_text() for part in find_parts(tmp_path, 0, "talk", "*")][:2] == ["before"] * 2


def test_a_copy_that_fails_leaves_no_entry(tmp_path, monkeypatch):
    file = tmp_path / "talk.txt"
    file.write_text("text")

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trash, "_link_or_copy", fail)
    entry = TrashEntry(guild_id=0, kind="upload", id="talk", name="talk", at=time.time())
    with pytest.raises(OSError, match="No space"):
        throw_away(tmp_path, entry, {}, copies={"data": file})
    assert list_entries(tmp_path) == [] and file.read_text() == "text"
