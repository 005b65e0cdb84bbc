"""Edits of the operator's catalogue: one entry changes, and everything else in the file stays, byte
for byte.
"""

from __future__ import annotations

import os
import threading
import tomllib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas.errors import MaterialError
from personas.home.catalogue_edit import _edited, edit_catalogue
from personas.home.dataset_catalogue import read_catalogue

FIELDS = {
    "path": "uploads/talk.jsonl",
    "right": "own-writing",
    "stated_by": 'Mina "Quay" Vale',
    "stated_on": date(2026, 11, 20),
    "why": "Written here.",
    "persona_names": ["Wick", "42"],
}
OTHERS = """\
# Ours. Ask Mina before you change it.
[ "harbour talk" ]   # the old one
path = 'talk/harbour.jsonl'
right = "own-writing"
stated_by = "Mina"
stated_on = 2026-11-20
why = \"\"\"
[talk]
is in this text\"\"\"

# The next one has two names.
[quay]
persona_names = [
  "Wick",   # by name
  "42",
]
hub = "a/b"
right = "licensed:MIT"
stated_by = "Mina"
stated_on = 2026-11-20
why = "So."
"""


@pytest.fixture(autouse=True)
def _open_umask():
    """Whatever tests in the same process have started before: the bot makes its files private."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    "before", ["", "# nothing yet", OTHERS, OTHERS.replace("\n", "\r\n"), "\ufeff" + OTHERS]
)
def test_an_entry_is_added_changed_and_removed_and_the_rest_stays(tmp_path, before):
    file = tmp_path / "catalogue.toml"
    if before:
        file.write_bytes(before.encode())
        file.chmod(0o640)
    edit_catalogue(tmp_path, "talk", FIELDS)
    assert tomllib.loads(file.read_text(encoding="utf-8-sig"))["talk"] == FIELDS
    assert file.read_bytes().startswith(before.encode())
    assert file.stat().st_mode & 0o777 == (0o640 if before else 0o600)
    edit_catalogue(tmp_path, "talk", {**FIELDS, "path": "other.jsonl"})
    catalogue = read_catalogue(tmp_path)
    assert catalogue.entries["talk"].path == tmp_path / "other.jsonl" and not catalogue.faults
    edit_catalogue(tmp_path, "talk", None)
    assert file.read_bytes().rstrip() == before.encode().rstrip()
    edit_catalogue(tmp_path, "talk", None)  # it is gone already


@pytest.mark.parametrize("name", ["harbour talk", "quay"])
def test_an_entry_between_others_goes_with_its_values_and_comments_elsewhere_stay(tmp_path, name):
    file = tmp_path / "catalogue.toml"
    file.write_text(OTHERS)
    edit_catalogue(tmp_path, name, None)
    left = file.read_text()
    assert tomllib.loads(left).keys() == tomllib.loads(OTHERS).keys() - {name}
    assert "# Ours. Ask Mina" in left and "# The next one has two names." in left
    file.write_text(OTHERS)
    edit_catalogue(tmp_path, name, FIELDS)
    assert (
        tomllib.loads(file.read_text())[name] == FIELDS
        and "# The next one has two names." in file.read_text()
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'[a]\npath = "b"\nright = \n',
            r"catalogue\.toml cannot be read: Invalid value \(at line 3, column 9\)",
        ),
        (b"\xff\xfe", "cannot be read"),
        (b'talk = { path = "b" }\n', r"'talk' is not a table of its own under \[talk\]"),
    ],
)
def test_a_file_that_cannot_be_edited_is_refused_with_the_line_and_stays(tmp_path, content, words):
    file = tmp_path / "catalogue.toml"
    file.write_bytes(content)
    with pytest.raises(MaterialError, match=words) as refused:
        edit_catalogue(tmp_path, "talk", FIELDS)
    assert file.read_bytes() == content and (
        "cannot be read" not in words or str(file) in refused.value.message
    )


def test_a_linked_file_stays_linked(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "catalogue.toml").symlink_to("elsewhere/mine.toml")
    (tmp_path / "elsewhere" / "mine.toml").write_text(OTHERS)
    edit_catalogue(tmp_path, "talk", FIELDS)
    assert (tmp_path / "catalogue.toml").is_symlink()
    assert "talk" in tomllib.loads((tmp_path / "elsewhere" / "mine.toml").read_text())


def test_entries_written_at_the_same_time_are_all_kept(tmp_path):
    names = [f"talk-{number}" for number in range(24)]
    threads = [
        threading.Thread(target=edit_catalogue, args=(tmp_path, name, FIELDS)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalogue = read_catalogue(tmp_path)
    assert set(names) <= catalogue.entries.keys() and not catalogue.faults


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXT, st.lists(TEXT, max_size=3), st.sampled_from(["", OTHERS]))
def test_any_text_survives(text, names, before):
    fields = {**FIELDS, "why": text, "persona_names": names}
    new = _edited(before.encode(), tomllib.loads(before), "talk", fields)
    tables = tomllib.loads(new.decode())
    assert tables["talk"] == fields
    assert _edited(new, tables, "talk", None).decode().rstrip() == before.rstrip()
