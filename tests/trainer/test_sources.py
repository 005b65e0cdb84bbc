"""Files of every kind: recognised by content, read record by record, and named when they cannot be
read.
"""

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from personas.errors import MaterialError
from tests.trainer.read_sources import everything, jsonl, spoken
from trainer.sources.formats import openassistant, personachat, tabular
from trainer.sources.json_stream import CHUNK_BYTES
from trainer.sources.registry import FORMATS, detect_format
from trainer.sources.source_file import HEAD_BYTES, open_source

ROWS = [
    {"instruction": f"Say “{n}”, {{please}}", "input": "", "output": f'It is\n{n} \\ […] "'}
    for n in range(3)
]
ANSWERS = [row["output"] for row in ROWS]


def answers(path, **options):
    used, rejected = everything(path, **options)
    assert not rejected and all(c.rows == 1 for c in used)
    return [c.messages[-1].text for c in used]


def as_csv(delimiter=",", end="\r\n"):
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row.values()] for row in ROWS]
    return (
        end.join([delimiter.join(cells) for cells in [list(ROWS[0]), *quoted]]).encode()
        + end.encode()
    )


CONTAINERS = {
    "lines.json": jsonl(ROWS),
    "crlf.jsonl": jsonl(ROWS).replace(b"\n", b"\r\n") + b"\r\n\r\n",
    "bom.jsonl": b"\xef\xbb\xbf" + jsonl(ROWS),
    "array.jsonl": json.dumps(ROWS, indent=2).encode(),
    "array.txt": b"\xef\xbb\xbf " + json.dumps(ROWS).encode(),
    "object.json": json.dumps(
        {"version": "1.0", "train": ROWS[:2], "test": ROWS[2:], "count": 3}
    ).encode(),
    "table.csv": as_csv(),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(end="\n"),
    "table.tsv": as_csv("\t"),
    "semicolons.txt": as_csv(";"),
    "packed.json": gzip.compress(jsonl(ROWS)),
    "packed.csv.gz": gzip.compress(as_csv()),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_table_is_read_whatever_it_is_called_and_packed_in(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTAINERS[name])
    assert detect_format(path).name == "alpaca"
    assert answers(path) == ANSWERS


def test_parquet_and_arrow_are_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "table.bin", row_group_size=2)
    with pa.ipc.new_stream(str(tmp_path / "stream"), table.schema) as stream:
        stream.write_table(table)
    with pa.ipc.new_file(str(tmp_path / "file"), table.schema) as file:
        file.write_table(table, max_chunksize=1)
    for name in ("table.bin", "stream", "file"):
        assert answers(tmp_path / name) == ANSWERS
    (tmp_path / "table.bin").write_bytes((tmp_path / "table.bin").read_bytes()[:-9])
    with pytest.raises(MaterialError, match=r"table\.bin .*Parquet"):
        everything(tmp_path / "table.bin", "alpaca")


def test_folders_that_datasets_saved_are_read(tmp_path):
    import datasets

    datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS[:2]), test=datasets.Dataset.from_list(ROWS[2:])
    ).save_to_disk(tmp_path / "saved")
    assert sorted(answers(tmp_path / "saved")) == ANSWERS


def test_folders_of_the_hubs_cache_are_read(tmp_path):
    home = tmp_path / "datasets--somebody--talk"
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / "4af3").write_bytes(jsonl(ROWS))
    data = home / "snapshots" / "9e1c" / "data"
    data.mkdir(parents=True)
    (data / "train.jsonl").symlink_to(home / "blobs" / "4af3")
    (data.parent / "README.md").write_text("# Talk")
    (data.parent / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    assert answers(home) == ANSWERS


def test_an_archive_of_data_is_read_and_rejected_rows_say_in_which_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        archive.writestr("a/one.jsonl", jsonl(ROWS[:1]))
        archive.writestr("a/two.csv", as_csv())
        archive.writestr("__MACOSX/a/._two.csv", b"\0\0")
        archive.writestr(
            "a/three.jsonl", jsonl([*ROWS, {"instruction": "?", "input": "", "output": " "}])
        )
    used, rejected = everything(tmp_path / "sets.zip")
    assert len(used) == 7 and {c.source for c in used} == {"sets.zip"}
    assert [(r.row, r.reason) for r in rejected] == [("sets.zip/a/three.jsonl line 4", "no answer")]


def test_files_of_a_folder_that_cannot_be_read_are_named_and_the_others_read(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.jsonl").write_bytes(jsonl(ROWS))
    (tmp_path / "set" / "empty.txt").touch()
    (tmp_path / "set" / "note.txt").write_text("Only a note.")
    used, rejected = everything(tmp_path / "set")
    assert len(used) == 3
    assert [(r.row, r.reason, r.rows) for r in rejected] == [
        ("set/empty.txt", "set/empty.txt is empty.", 0),
        ("set/note.txt", "in no known format: text", 0),
    ]


def test_arrays_of_an_object_far_behind_its_beginning_are_read(tmp_path):
    path = tmp_path / "talk.json"
    long = {"instruction": "Why?", "input": "", "output": "Because. " * (HEAD_BYTES // 9)}
    content = {
        "train": [ROWS[0], long],
        "authors": ["Ada"],
        "count": 4,
        "valid": ROWS[1:2],
        "test": ROWS[2:],
    }
    path.write_text(json.dumps(content))
    used, rejected = everything(path)
    assert [c.messages[0].row for c in used] == [
        "train 1",
        "train 2",
        "valid 1",
        "test 1",
    ] and not rejected


def test_broken_rows_are_named_and_the_others_read(tmp_path):
    path = tmp_path / "talk.jsonl"
    lines = jsonl(ROWS).split(b"\n")
    broken = [
        b'{"instruction": "a',
        b"[1, 2]",
        b'{"instruction": "\xff"}',
        b'{"a": 1}',
        b"nonsense",
        b"7",
    ]
    path.write_bytes(b"\n".join([lines[0], *broken, b"", *lines[1:]]))
    used, rejected = everything(path)
    assert [c.messages[-1].text for c in used] == ANSWERS
    assert [r.row for r in rejected] == [f"line {n}" for n in range(2, 8)]
    assert "not valid JSON" in rejected[0].reason and "a list" in rejected[1].reason
    assert "it has a" in rejected[3].reason


def test_broken_elements_of_an_array_are_named_and_the_others_read(tmp_path):
    path = tmp_path / "talk.json"
    first, second, third = (json.dumps(row) for row in ROWS)
    path.write_text(f'[{first}, "text", {{"instruction": }}, {second}, nothing, {third},]')
    used, rejected = everything(path)
    assert len(used) == 3 and [r.row for r in rejected] == ["row 2", "row 3", "row 5"]
    path.write_text(f"[{first}, {second}, {third[:-5]}")
    used, rejected = everything(path)
    assert len(used) == 2 and rejected[0].row == "row 3"


def test_arrays_larger_than_what_is_read_at_once_are_cut_at_the_right_commas(tmp_path):
    path = tmp_path / "talk.json"
    rows = [ROWS[0] | {"input": "x, {[" * (n % 40) * 50, "output": f'\\" {n}'} for n in range(900)]
    rows[400] |= {"input": "y" * 3 * CHUNK_BYTES}
    path.write_text(json.dumps({"about": {"list": [1, {"a": "}"}]}, "rows": rows}))
    assert path.stat().st_size > 5 * CHUNK_BYTES
    assert answers(path) == [row["output"] for row in rows]


def test_tables_that_pandas_wrote_with_their_index_are_read(tmp_path):
    path = tmp_path / "talk.txt"
    path.write_bytes(b",question,answer\n0,Who?,Me\n1,Why?,Why not\n")
    assert answers(path) == ["Me", "Why not"]


def test_rows_of_a_table_with_other_cells_than_the_header_names_are_rejected(tmp_path):
    path = tmp_path / "talk.csv"
    path.write_bytes(b"question,answer\nWho?,Me\nWho,else?,Nobody\n\n\xfe?,You\nWhy?,Why not\n")
    used, rejected = everything(path)
    assert [spoken(c)[0][1] for c in used] == ["Who?", "Why?"]
    cells, encoding = rejected
    assert (cells.row, encoding.row) == ("row 2", "row 3") and "UTF-8" in encoding.reason
    assert "3 cells" in cells.reason and "2 columns" in cells.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "talk.json is empty"),
        (b"\xef\xbb\xbf \r\n", "talk.json is empty"),
        (
            "Grüß Gott, wie geht es Ihnen heute?\nSchön, danke.".encode("utf-16"),
            r"not UTF-8 \(it looks like UTF-16\)",
        ),
        ("Grüß Gott, wie geht es Ihnen an diesem schönen Tag?\n".encode("cp1252") * 9, "not UTF-8"),
        (b"\x00\x01\x02" * 50, "talk.json is neither text nor"),
        (b"Once upon a time there was a clock.", r"talk\.json is in no known .*Found: text"),
        (b'{"openapi": "3.1", "paths": {}}', "Found: JSON object with openapi, paths"),
        (b"[]", "Found: JSON array"),
        (b'[1, "two"]', "talk.json"),
        (gzip.compress(jsonl(ROWS), mtime=0)[:-20], "talk.json cannot be read"),
        (b"PK\x03\x04broken", "talk.json cannot be read"),
        (b"PAR1broken", "talk.json is a damaged Parquet"),
        (b"\xff\xff\xff\xffbroken", "talk.json is a damaged Arrow"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_named(tmp_path, content, said):
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    with pytest.raises(MaterialError, match=said):
        detect_format(path)


def test_the_error_names_all_formats_and_a_wrong_name_the_nearest(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text("Nothing to see.")
    with pytest.raises(MaterialError) as caught:
        detect_format(path)
    assert all(f"{format.name}: {format.expected}" in str(caught.value) for format in FORMATS)
    with pytest.raises(MaterialError, match=r"'alpacca'.*'alpaca'"):
        detect_format(path, "alpacca")
    with pytest.raises(MaterialError, match="There is no"):
        detect_format(tmp_path / "gone")
    with pytest.raises(MaterialError, match="no file nobody/nothing, "):
        detect_format(type(path)("nobody/nothing"))


def test_the_docs_list_every_format_of_data_sets():
    text = (Path(__file__).parents[2] / "docs" / "sets.md").read_text(encoding="utf-8")
    for format in (*openassistant.FORMATS, *personachat.FORMATS, *tabular.FORMATS):
        expected = format.expected.replace("\n", "\\n").replace("|", "\\|")
        assert f"| `{format.name}` | {format.title} | `{expected}` |\n" in text


def test_names_of_formats_are_unique_and_can_be_typed():
    names = [format.name for format in FORMATS]
    assert len(set(names)) == len(names) and all(name.replace("-", "").isalnum() for name in names)


def test_a_forced_format_reads_what_it_would_not_recognise(tmp_path):
    path = tmp_path / "talk.jsonl"
    path.write_bytes(jsonl([{"a": 1}, ROWS[0]]))
    used, rejected = everything(path, "alpaca")
    assert len(used) == 1 and rejected[0].reason.startswith(
        'not {"instruction", "input", "output"}: it has a'
    )


def test_a_hub_id_is_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "train.jsonl").write_bytes(jsonl(ROWS))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo_id, **wanted: str(tmp_path)
    )
    assert answers(type(tmp_path)("somebody/talk")) == ANSWERS


def test_members_of_archives_are_read_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.jsonl", jsonl(ROWS))
    file = open_source(tmp_path / "a.zip")
    assert [row for _, row in file.member("one.jsonl").records()] == ROWS
    with pytest.raises(MaterialError, match=r"a\.zip contains no two"):
        file.member("two")
