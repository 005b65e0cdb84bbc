"""The ends of commands that are nobody's fault: a full disk, a closed pipe, Ctrl-C, a place that
cannot be written.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.full_disk import files_of_at_most
from tests.trainer.read_sources import jsonl
from trainer.cli.main import main
from trainer.dataset import inspection as inspecting

THINGS = "lamp rope bell tide crane ladder kettle anchor ledger barrel stove lantern".split()
ROWS = [
    {
        "instruction": f"What became of the {one} and the {other}?",
        "output": f"The {one} stands by the door, {len(one)} paces from where the {other} used to hang.",
    }
    for one in THINGS
    for other in THINGS
    if one != other
]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["trainer", *map(str, arguments)])
    code = main()
    return code, *capsys.readouterr()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a source, lore, and a data set as far as an export reads it; it is the working
    directory.
    """
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_bytes(jsonl(ROWS))
    Path("ada.toml").write_text('id = "ada"\nname = "Ada"\ndescription = "You are Ada."\n')
    Path("lore/ada").mkdir(parents=True)
    Path("lore/ada/clocks.md").write_text(
        "# Clocks\n\n" + "Ada winds the tower clock at noon. " * 200
    )
    Path("built").mkdir()
    Path("built/stats.json").write_text("{}")
    line = {
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "So. " * 200},
        ]
    }
    line |= {"tokens": 400, "right": "own-writing"}
    Path("built/train.jsonl").write_bytes(jsonl([line] * 100))
    return tmp_path


BUILD = ("dataset", "build", "--source", "rows.jsonl", "--right", "own-writing", "--out")
EXPORT = ("dataset", "export", "built", "--to", "openai", "--out")
EXTRACT = ("lore", "extract", "--persona", "ada.toml", "--lore", "lore", "--out")
SYNTHESISE = (
    "lore",
    "synthesise",
    "--persona",
    "ada.toml",
    "--lore",
    "lore",
    "--count",
    "1",
    "--out",
)


@pytest.mark.parametrize(
    ("command", "size"),
    [(BUILD, 30_000), (EXPORT, 9_000), (EXTRACT, 2_000)],
)
def test_a_full_disk_is_one_message_and_leaves_nothing(home, monkeypatch, capsys, command, size):
    before = sorted(path.name for path in home.rglob("*"))
    with files_of_at_most(size):
        code, out, err = run(monkeypatch, capsys, *command, "new")
    assert (code, out) == (1, "")
    assert err.strip().splitlines()[-1].startswith("The disk is full. Free some space")
    assert "Traceback" not in err
    assert sorted(path.name for path in home.rglob("*")) == before


def test_what_was_extracted_before_stays_whole_when_the_disk_is_full(home, monkeypatch, capsys):
    assert run(monkeypatch, capsys, *EXTRACT, "made")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("made").iterdir()}
    with Path("lore/ada/clocks.md").open("a") as lore:
        lore.write("\n## More\n\nAda oils the bells in spring. Ada counts the strokes.\n")
    with files_of_at_most(max(map(len, before.values()))):
        assert run(monkeypatch, capsys, *EXTRACT, "made")[0] == 1
    assert {path.name: path.read_bytes() for path in Path("made").iterdir()} == before


@pytest.mark.parametrize("command", [BUILD, EXPORT, EXTRACT, SYNTHESISE])
@pytest.mark.parametrize("out", ["/proc/xx", "rows.jsonl/x/y"])
def test_a_place_that_cannot_be_written_is_said_at_once(home, monkeypatch, capsys, command, out):
    code, result, err = run(monkeypatch, capsys, *command, out)
    assert (code, result) == (1, "")
    assert err.startswith(f"{out} cannot be written: ") and len(err.strip().splitlines()) == 1


def test_a_device_is_not_replaced_by_a_file(home, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, *EXPORT, "/dev/null")
    assert code == 1 and "neither a file nor a folder" in err and Path("/dev/null").is_char_device()


def test_ctrl_c_ends_with_a_line_and_130(home, monkeypatch, capsys):
    def interrupted(*_arguments):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("trainer.sources.reader.resolve_path", interrupted)
    code, out, err = run(monkeypatch, capsys, *BUILD, "new")
    assert (code, out, err.strip()) == (130, "", "Stopped.") and not Path("new").exists()


@pytest.mark.slow
def test_output_that_nobody_takes_is_no_traceback(home):
    command = [sys.executable, "-m", "trainer", "dataset", "inspect", "rows.jsonl", "--json"]
    where = {
        "cwd": home,
        "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
        "stderr": subprocess.PIPE,
    }
    with (
        Path("/dev/full").open("wb") as full,
        subprocess.Popen(command, stdout=subprocess.PIPE, **where) as unheard,
        subprocess.Popen(command, stdout=full, **where) as refused,
    ):
        unheard.stdout.close()
        assert (unheard.wait(), unheard.stderr.read()) == (141, b"")
        assert refused.wait() == 1
        (line,) = refused.stderr.read().decode().splitlines()
        assert line.startswith("The disk is full. Free some space")


# inspect


def test_the_languages_of_a_sample_are_said_to_be_such(home, monkeypatch, capsys):
    found = json.loads(run(monkeypatch, capsys, "dataset", "inspect", "rows.jsonl", "--json")[1])
    assert (
        sum(found["languages"].values()) == found["conversations"] == len(ROWS)
        and "languages_of" not in found
    )
    monkeypatch.setattr(inspecting, "MAX_LANGUAGE_CONVERSATIONS", 50)
    found = json.loads(run(monkeypatch, capsys, "dataset", "inspect", "rows.jsonl", "--json")[1])
    assert sum(found["languages"].values()) == found["languages_of"] == 50
    assert (
        "en 50 (of 50 conversations)"
        in run(monkeypatch, capsys, "dataset", "inspect", "rows.jsonl")[1]
    )


def test_all_formats_of_a_folder_are_named_and_examples_say_their_file(home, monkeypatch, capsys):
    Path("talk.csv").write_text("question,answer\nWhy is it so?,Because it is.\n")
    Path("odd.bin").write_bytes(b"\0" * 9)
    _, out, _ = run(monkeypatch, capsys, "dataset", "inspect", ".")
    assert out.startswith(f"{home.name}: ") and "(character-card, 1 file)" in out
    assert "(wizardlm, 1 file)" in out and "(answers, 1 file)" in out
    assert f"Example 1, {home.name}/" in out and f"{home.name}/odd.bin" in out
    found = json.loads(run(monkeypatch, capsys, "dataset", "inspect", ".", "--json")[1])
    assert found["format"] == "character-card, openai, lore, wizardlm, answers"


def test_lore_is_reported_where_it_belongs(home, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "dataset", "inspect", "lore")
    assert code == 0 and out.startswith("lore: Lore (--format lore)")
    assert "lore of nobody (its folder 'ada'" in out
    assert "data/rag-resources" in out and "--lore" in out
    (home / "lore" / "ada").rename(home / "lore" / "Oda Marrow")
    assert "lore of oda, not dialogue" in run(monkeypatch, capsys, "dataset", "inspect", "lore")[1]
    code, _, err = run(
        monkeypatch,
        capsys,
        "dataset",
        "build",
        "--source",
        "lore",
        "--right",
        "own-writing",
        "--out",
        "n",
    )
    assert code == 1 and "lore belongs in data/rag-resources" in err


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        (["foo=instruction"], "--map foo=instruction: 'foo' is neither"),
        (
            ["user=instruction", "user=output"],
            "--map gives user twice: ",
        ),
        (
            ["user=instruction", "question=output"],
            "--map gives user twice: ",
        ),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(home, monkeypatch, capsys, mapping, said):
    code, _, err = run(monkeypatch, capsys, "dataset", "inspect", "rows.jsonl", "--map", *mapping)
    assert code == 1 and err.startswith(said)


def test_an_empty_path_is_refused(home, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "dataset", "inspect", "")
    assert "the path is empty" in capsys.readouterr().err


def test_french_in_the_western_encoding_is_called_that(home, monkeypatch, capsys):
    Path("talk.csv").write_bytes(
        "prompt,response\nUn café crème ?,Très bien, voilà «mon ami».\n".encode("cp1252") * 3
    )
    assert "CP1252 or ISO-8859-1" in run(monkeypatch, capsys, "dataset", "inspect", "talk.csv")[2]
    Path("talk.csv").write_bytes(
        "prompt,response\nKtóra jest godzina?,Zażółć gęślą jaźń.\n".encode("cp1250") * 3
    )
    assert "CP1252" not in run(monkeypatch, capsys, "dataset", "inspect", "talk.csv")[2]


def test_of_many_files_the_one_is_named_that_may_not_be_used(home, monkeypatch, capsys):
    Path("many").mkdir()
    Path("many/rows.jsonl").write_bytes(jsonl(ROWS))
    Path("many/export.json").write_text(json.dumps({"guild": {}, "channel": {}, "messages": []}))
    Path("many/chat.txt").write_text(
        "15/01/2024, 10:30 - Ann: Hello you\n15/01/2024, 10:31 - Ben: Hello Ann\n"
    )
    command = ("dataset", "build", "--source", "many", "--right", "own-writing", "--out", "new")
    code, _, err = run(monkeypatch, capsys, *command)
    assert code == 1 and err.startswith("many/export.json: ") and "Discord's API" in err
