"""The benchmark of reading: its files, its measures, and the promise that memory does not grow with
a file.
"""

import json

import pytest

from benchmarks import reading_speed as bench_data
from benchmarks.synthetic_files import ROW_MAKERS, write_rows
from trainer.sources.registry import detect_format


@pytest.mark.parametrize(
    ("kind", "format"),
    [("oasst", "oasst-trees"), ("ultrachat", "ultrachat"), ("sharegpt", "sharegpt")],
)
def test_files_are_in_the_published_shapes_and_all_of_it_is_read(tmp_path, kind, format):
    path = tmp_path / "files" / "rows.jsonl"
    write_rows(path, kind, 30)
    assert detect_format(path).name == format
    found = bench_data.measure_parse(path)
    nodes = path.read_text().count('"message_id"')
    assert (
        found["records"] == (nodes or 30) and found["conversations"] == 30 and found["seconds"] > 0
    )
    made = path.read_bytes()
    path.unlink()
    write_rows(path, kind, 30)
    assert path.read_bytes() == made and list(path.parent.iterdir()) == [path]


@pytest.mark.slow
def test_the_benchmark_compares_and_says_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_data, "FILES_FOLDER", tmp_path)
    figures = bench_data.run_benchmark(40)
    assert set(figures["sets"]) == set(ROW_MAKERS) and not list(tmp_path.iterdir())
    assert figures["parse_ratio"] == min(found["ratio"] for found in figures["sets"].values()) > 0
    assert 2**20 < figures["peak_bytes"] < 2**30 and figures["dedupe_rows_per_s"] > 0
    text = bench_data.format_table(json.loads(json.dumps(figures)))
    assert all(kind in text for kind in ROW_MAKERS) and "worst ratio" in text


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["lines", "array", "csv"])
def test_two_million_rows_are_read_in_less_than_a_gigabyte(tmp_path, shape):
    path = tmp_path / "rows"
    row = {
        "lines": '{"instruction":"Why %d?","output":"It is."}\n',
        "array": '{"instruction":"Why %d?","output":"It is."},\n',
    }
    with path.open("w") as file:
        file.write({"lines": "", "array": "[", "csv": "instruction,output\n"}[shape])
        file.writelines(row.get(shape, "Why %d?,It is.\n") % number for number in range(2_000_000))
        file.write('{"instruction":"Last?","output":"Yes."}]' if shape == "array" else "")
    figures, peak = bench_data.run_in_subprocess("parse", path)
    assert figures["conversations"] >= 2_000_000 and peak < 2**30
