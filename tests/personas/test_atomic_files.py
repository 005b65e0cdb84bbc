"""Files that replace others: whole, durable, and without leftovers, whatever step fails."""

import errno
import os

import pytest

from bot.personas.guild_lore import GuildLore
from bot.personas.revisions import RevisionHistory
from personas.card.card_cli import _write_files
from personas.home.atomic_files import write_file
from personas.lore.index import LoreIndex
from tests.chaos.failpoints import Failpoints, Plan


@pytest.fixture
def disk(monkeypatch):
    """Installs a plan over the calls that write; returns the calls, in order."""

    def install(plan):
        points = Failpoints(Plan.parse(plan))
        calls = []
        for name in ("replace", "fsync", "link"):
            inner = getattr(os, name)
            monkeypatch.setattr(os, name, inner)
            points.wrap(os, name, f"file.{name}")
        hit = points.hit
        points.hit = lambda point: (calls.append(point), hit(point))[1]
        return calls

    return install


def test_a_file_and_its_new_name_are_on_disk_when_it_is_written(tmp_path, disk):
    calls = disk("")
    write_file(tmp_path / "a", b"one")
    assert [call for call in calls if call.endswith(":before")] == [
        "file.fsync:before",  # the content
        "file.replace:before",
        "file.fsync:before",  # the folder
    ]


@pytest.mark.parametrize("number", range(1, 4))
def test_a_full_disk_at_any_step_before_the_rename_keeps_the_old_content_and_leaves_nothing(
    tmp_path, disk, number
):
    write_file(tmp_path / "a", b"old")
    disk(f"ENOSPC@{number}")
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(tmp_path / "a", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (
        tmp_path / "a"
    ).read_bytes() == b"old"


def test_a_card_that_cannot_be_written_leaves_no_part(tmp_path, disk):
    disk("ENOSPC@1:file.replace:before")
    with pytest.raises(OSError, match="No space left"):
        _write_files({tmp_path / "card.json": b"{}"}, overwrite=False)
    assert list(tmp_path.iterdir()) == []


async def test_a_lore_file_that_cannot_be_replaced_keeps_its_text_and_its_revisions(tmp_path, disk):
    lore = GuildLore(tmp_path, LoreIndex([]), keeping=False)
    await lore.add(5, "oda", "quay", b"# Quay\nThe old text.\n")
    earlier: RevisionHistory = lore.earlier(5, "oda", "quay.md")
    earlier.keep(b"the text before", 1_800_000_000.0)
    disk("ENOSPC@1:file.*")
    with pytest.raises(OSError, match="No space left"):
        await lore.add(5, "oda", "quay", b"# Quay\nThe new text.\n")
    assert "The old text." in lore.text(5, "oda", "quay.md")
    assert [earlier.read(one.number) for one in earlier.all()] == [b"the text before"]
