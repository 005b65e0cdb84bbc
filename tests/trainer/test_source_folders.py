"""Folders and archives of anything: every file is read as what it is, or named."""

import json
import os
import zipfile

import pytest

from personas.errors import MaterialError
from tests.trainer.read_sources import everything, jsonl
from trainer.sources import registry
from trainer.sources.registry import detect_format
from trainer.sources.source_file import open_source

ROWS = [{"instruction": f"What is number {n}?", "output": f"Number {n} it is."} for n in range(4)]


def answers(*numbers):
    return [ROWS[n]["output"] for n in numbers]


WHATSAPP = "15/01/2024, 10:30 - Ann: Hello you\n15/01/2024, 10:31 - Ben: Hello Ann\n"
SLACK_DAY = [{"type": "message", "user": "U1", "text": "Morning all", "ts": "1700000000.000100"}]
DISCORD = {"guild": {"id": "1"}, "channel": {"id": "2"}, "messages": [
    {"id": "1", "type": "Default", "timestamp": "2024-01-01T00:00:00+00:00", "content": "hey",
     "author": {"id": "1", "name": "Ann"}}]}  # fmt: skip


def write_slack(archive, top="", channel="C1"):
    archive.writestr(f"{top}users.json", '[{"id": "U1", "name": "ann"}]')
    archive.writestr(f"{top}channels.json", json.dumps([{"id": channel, "name": "general"}]))
    archive.writestr(f"{top}general/2024-01-01.json", json.dumps(SLACK_DAY))


@pytest.fixture
def exports(tmp_path):
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "whatsapp_chat.txt").write_text(WHATSAPP)
    (folder / "IMG-1.jpg").write_bytes(b"\xff\xd8")
    (folder / "discord.json").write_text(json.dumps(DISCORD))
    with zipfile.ZipFile(folder / "slack.zip", "w") as archive:
        write_slack(archive)
    package = folder / "package"
    (package / "messages" / "c123456789012345678").mkdir(parents=True)
    (package / "messages" / "c123456789012345678" / "messages.json").write_text(
        '[{"ID": 1, "Timestamp": "2024-01-01 00:00:00", "Contents": "mine", "Attachments": ""}]'
    )
    (package / "activity" / "reporting").mkdir(parents=True)
    (package / "activity" / "reporting" / "events.json").write_text(
        '{"event_type": "a b", "event_id": "c d"}\n' * 3
    )
    (folder / "rows.dat").write_bytes(jsonl(ROWS[:2]))
    (folder / "odd.bin").write_bytes(b"\0\1" * 40)
    (folder / "gone.json").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jsonl")
    return folder


def test_beside_an_export_every_file_is_read_or_named(exports):
    used, rejected = everything(exports)
    said = {message.text for talk in used for message in talk.messages}
    assert said >= {"Hello you", "hey", "Morning all", "mine", *answers(0, 1)}
    assert sorted(item.row for item in rejected) == [
        "exports/gone.json",
        "exports/odd.bin",
        "exports/pipe.jsonl",
    ]
    assert all(item.rows == 0 for item in rejected)
    assert {message.row for talk in used for message in talk.messages} == {
        "exports/whatsapp_chat.txt line "
        "1", "exports/whatsapp_chat.txt line 2", "exports/discord.json messages 1",
        "exports/slack.zip general/2024-01-01.json row "
        "1", "exports/rows.dat line 1", "exports/rows.dat line 2",
        "exports package/messages/c123456789012345678/messages.json row 1",
    }  # fmt: skip


def test_what_lies_beside_an_export_is_not_read_by_guess(exports):
    (exports / "likes.csv").write_text(
        "wer,was\nAnn Lee,Ein Bild vom Hafen\nBen Lee,Noch ein Bild\n"
    )
    _, rejected = everything(exports)
    assert any(
        item.row == "exports/likes.csv" and "in no known format" in item.reason for item in rejected
    )


def test_two_workspaces_in_a_folder_and_archives_in_archives_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        write_slack(archive, "work/", "C2")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        write_slack(archive, "home/")
        write_slack(archive, "club/", "C3")
        archive.write(tmp_path / "inner.zip", "inner.zip")
    used, rejected = everything(tmp_path / "all.zip")
    assert [talk.messages[0].text for talk in used] == ["Morning all"] * 3 and not rejected


def test_only_what_saved_sets_and_caches_keep_beside_data_is_passed_over(tmp_path):
    folder = tmp_path / "mine"
    (folder / "blobs").mkdir(parents=True)
    for number, name in enumerate(
        ["blobs/talk.jsonl", "tmp_talk.jsonl", "cache-1.jsonl", "state.json"]
    ):
        (folder / name).write_bytes(jsonl([ROWS[number]]))
    (folder / "photo.jpg").touch()
    (folder / "more.jpg").touch()
    used, rejected = everything(folder)
    assert sorted(talk.messages[-1].text for talk in used) == answers(0, 1, 2, 3)
    assert [(item.row, item.rows) for item in rejected] == [("mine/more.jpg and 1 more .jpg", 0)]


def test_of_very_many_files_some_are_looked_into_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "MAX_SINGLE_FILES", 3)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        write_slack(archive)
        for number in range(5):
            archive.writestr(f"kept/{number}.bin", b"\0")
    used, rejected = everything(tmp_path / "many.zip")
    assert len(used) == 1  # an export's own files are no single ones
    assert rejected[0].row == "many.zip/kept/3.bin and 1 more" and len(rejected) == 4
    assert "not looked into: 3 files" in rejected[0].reason


def test_linked_folders_are_followed_once(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "rows.jsonl").write_bytes(jsonl(ROWS[:2]))
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "self").symlink_to(tmp_path / "near")
    used, rejected = everything(tmp_path / "near")
    assert len(used) == 2 and not rejected


def test_lore_is_reported_from_talk_and_whose_it_is(tmp_path):
    lore = tmp_path / "lore"
    (lore / "mira").mkdir(parents=True)
    (lore / "mira" / "kitchen.md").write_text(
        "# Kitchen\n\nSoup at noon.\n\n## Oven\n\nIt smokes, always.\n"
    )
    (lore / "tides.md").write_text("---\npersona: oda\n---\n# Tides\n\nTwice a day.\n")
    (lore / "note.md").write_text("# Note\n\nNobody's.\n")
    assert detect_format(lore).name == "lore"
    used, rejected = everything(lore)
    assert not used
    assert [(item.row, item.reason.split(":")[0].split(",")[0]) for item in rejected] == [
        ("lore/mira/kitchen.md passage 1 (Kitchen)", "lore of mira"),
        ("lore/mira/kitchen.md passage 2 (Kitchen: Oven)", "lore of mira"),
        ("lore/note.md passage 1 (Note)", "lore of nobody"),
        ("lore/tides.md passage 1 (Tides)", "lore of oda"),
    ]
    (lore / "rows.jsonl").write_bytes(jsonl(ROWS[:2]))
    assert len(everything(lore)[0]) == 2


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MaterialError, match="pipe is neither"):
        open_source(tmp_path / "pipe")
