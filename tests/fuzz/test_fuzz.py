"""A part of the fuzzing, what it once found, and whether it sees what it is to see."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from personas.errors import CardError
from tests.fuzz import __main__ as command
from tests.fuzz.answer_parsers import gguf_files
from tests.fuzz.harness import MAX_CPU_S, MAX_GROWTH_BYTES, Fuzzer, Parser, Seed, Tally, limited
from tests.fuzz.parsers import PARSERS, adapter_files, adapters, uploads, zipped
from tests.personas.cards import V2, as_json, v3
from tests.trainer import test_chat_logs as logs
from tests.trainer.read_sources import jsonl

INPUTS = 1_000
SEED = 7
BY_NAME = {parser.name: parser for parser in PARSERS}


@pytest.fixture
def fuzzer(tmp_path):
    with Fuzzer(tmp_path / "fuzz", SEED) as made:
        yield made


def run(fuzzer, read, *contents, errors=(CardError,)):
    """Give a parser these inputs."""
    seeds = [Seed(content) for content in contents or (b"x",)]
    tally = Tally()
    fuzzer.run(Parser("one", lambda: seeds, read, errors), 0, len(seeds), tally)
    return tally


def faults(tally):
    return [str(crash["fault"]).strip().splitlines()[-1] for crash in tally.crashes]


# -------------------------------------------------------------------------------------- all parsers


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # aiohttp's, of headers that it cannot parse
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_part_of_the_inputs_breaks_nothing(fuzzer, parser):
    tally = Tally()
    count = max(30, INPUTS * parser.share // sum(one.share for one in PARSERS))
    fuzzer.run(parser, 0, count, tally)
    assert faults(tally) == []
    assert tally.accepted >= len(parser.seeds) / 2 and tally.refused, (
        "seeds are real inputs, and variants are not"
    )


def test_inputs_repeat_by_seed_and_index():
    for parser in PARSERS:
        made = [parser.input(3, len(parser.seeds) + index).content for index in range(8)]
        assert made == [parser.input(3, len(parser.seeds) + index).content for index in range(8)]
        assert len(set(made)) > 4 and made[0] != parser.input(4, len(parser.seeds)).content


# ------------------------------------------------------------------------------- what it once found


def card_with(**fields):
    return as_json({**V2, "data": {**V2["data"], **fields}})


def misplaced(packed: bytes) -> bytes:
    """A zip whose directory places the first entry before the beginning of the file."""
    at = packed.rindex(b"PK\x05\x06") + 16
    return (
        packed[:at]
        + struct.pack("<I", struct.unpack("<I", packed[at : at + 4])[0] + 10_000)
        + packed[at + 4 :]
    )


def nameless(files) -> bytes:
    """A zip with an entry whose name Python reads as empty, as it ends at a null byte."""
    return zipped({**files, "unnamed": "x"}).replace(b"unnamed", b"\0nnamed")


def with_setting(packed: bytes, **settings) -> bytes:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        files = {Path(name).name: archive.read(name) for name in archive.namelist()}
    config = {**json.loads(files["adapter_config.json"]), **settings}
    return zipped({**files, "adapter_config.json": json.dumps(config)})


MESSAGE = '{"type": "message", "user": "U1", "text": "hi"}'
UNCLOSED = f'[[{MESSAGE}, {{"type": {"[" * 100_000}, "text": "hi"}}, {MESSAGE}], ' * 8
OUTSIDE = adapters()[1].content
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
INFINITE = b'{"data": [{"id": "base", "max_model_len": 1e999}]}'
ENDLESS = gguf_files()[0].content.replace(struct.pack("<IQ", 5, 3), struct.pack("<IQ", 5, 2**60))
DAY = {"general/2026-03-01.json": [logs.slack("hi")]}
FOUND = [
    ("card JSON", as_json({**V2, "spec": ["chara_card_v2"]}), "unknown spec"),
    ("card JSON", card_with(tags=7), "tags must be a list of texts"),
    (
        "card CHARX",
        zipped({"card.json": as_json({**v3(), "data": {**v3()["data"], "tags": 7}})}),
        "tags must be",
    ),
    ("lore markdown", b"---\ndate: 2026-02-30\n---\nSoup.", "day is out of range"),
    ("lore markdown", b"---\npersona: " + b"9" * 5000 + b"\n---\nSoup.", "4300 digits"),
    (
        "lore markdown",
        b"---\npersona: " + b"[" * 3000 + b"]" * 3000 + b"\n---\nSoup.",
        "nested too deeply",
    ),
    ("lore markdown", f"---\n{BOMB}persona: *i\n---\nSoup.".encode(), "it has an alias"),
    ("dataset catalogue", b"a = " + b"[" * 3000, "cannot be read"),
    ("dataset catalogue", b"a = " + b"9" * 5000, "4300 digits"),
    ("card TOML", b'name = "Oda"\ndescription = ' + b"9" * 5000, "4300 digits"),
    ("card CHARX", nameless({"card.json": as_json(v3())}), "is empty"),
    ("chat exports, zip", nameless(logs.WORKSPACE | DAY), "never speaks"),
    (
        "chat exports, zip",
        zipped(logs.WORKSPACE | DAY | {"users.json": [{"id": "U1", "profile": 3}]}),
        "never speaks",
    ),
    (
        "chat exports, zip",
        zipped(logs.WORKSPACE | DAY | {"channels.json": [{"id": "C1", "name": []}]}),
        "never speaks",
    ),
    ("chat exports and tables, text", b"a," * 20_000 + b"a\n1,2\n", "in no known format"),
    (
        "chat exports and rows, JSON",
        jsonl([{"instruction": "x", "output": " " * 60_000 + "x"}]),
        "",
    ),
    ("chat exports and rows, JSON", UNCLOSED.encode(), "not guessed which column speaks"),
    (
        "chat exports and rows, JSON",
        UNCLOSED.replace('"user": "U1", "text"', '"input": "Who?", "output"').encode(),
        "",
    ),
    (
        "chat exports, zip",
        zipped({"é.json": "[]"}).replace("é".encode(), b"\xff\xff", 1),
        "in no known format",
    ),
    (
        "chat exports, zip",
        zipped({"é.json": "[]"}).replace("é".encode(), b"\xff\xff"),
        "cannot be read",
    ),
    ("adapter", misplaced(OUTSIDE), "no zip file that can be read"),
    (
        "adapter",
        zipped({f"mira//{name}": content for name, content in adapter_files().items()}),
        "",
    ),
    ("adapter", with_setting(OUTSIDE, target_modules=[1, "v_proj"]), "is not accepted"),
    ("adapter", with_setting(OUTSIDE, r=[4] * 40), "is not accepted"),
    (
        "file upload",
        uploads()[0].content.replace(b"Content-Disposition", b"Content-Disposition\xff", 1),
        "incomplete",
    ),
    ("file upload", uploads()[0].content.replace(b"name=", b"name\0=", 1), "incomplete"),
    ("model server's answer", INFINITE.replace(b"base", b"gpt"), "does not answer as"),
    ("model server's answer", b"[" * 100_000, "does not answer as"),
    ("model server's stream", b"data: " + b"[" * 100_000 + b"\n\n", "no part of a reply"),
    ("model server's metrics", b"vllm:num_requests_running C:\\x\n", "does not answer as"),
    ("GGUF header", ENDLESS, "cut short"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), FOUND, ids=[f"{n} {one[0]}" for n, one in enumerate(FOUND)]
)
def test_what_once_escaped_is_refused_with_a_reason(tmp_path, name, content, message):
    parser = BY_NAME[name]
    file = tmp_path / "in" / parser.seeds[0].name
    out = tmp_path / "out"
    for folder in (file.parent, out):
        folder.mkdir()
    file.write_bytes(content)
    with limited(5 * MAX_CPU_S):  # they are larger than what is made
        if message:
            with pytest.raises(parser.errors, match=re.escape(message)):
                parser.read(file, out)
        else:
            parser.read(file, out)


# ------------------------------------------------------------------------- whether the harness sees


def test_another_error_is_a_crash_and_its_input_is_kept(fuzzer, tmp_path):
    def read(file, out):
        if file.read_bytes() == b"bad":
            raise KeyError("oops")
        raise CardError("no", "Try another.")

    tally = run(fuzzer, read, b"good", b"bad")
    assert (tally.inputs, tally.refused) == (2, 1) and faults(tally) == ["KeyError: 'oops'"]
    assert [path.read_bytes() for path in (tmp_path / "fuzz" / "crashes").iterdir()] == [b"bad"]


def test_an_endless_parser_is_ended(fuzzer, monkeypatch):
    monkeypatch.setattr("tests.fuzz.harness.MAX_CPU_S", 0.2)

    def read(file, out):
        try:
            while True:
                time.monotonic()
        except Exception:  # whatever a parser catches
            return

    assert faults(run(fuzzer, read)) == ["tests.fuzz.harness.HangError: more than 0.2 s"]


def test_a_parser_that_takes_too_much_memory_is_seen(fuzzer):
    def read(file, out):
        bytearray(MAX_GROWTH_BYTES + 2**25)[:: 2**12] = b"x" * len(
            range(0, MAX_GROWTH_BYTES + 2**25, 2**12)
        )

    (fault,) = faults(run(fuzzer, read))
    assert re.fullmatch(r"it took 2\d\d MiB", fault)


def test_effects_outside_of_the_own_folder_are_seen(fuzzer, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("mine")

    def swallowing(effect):
        def read(file, out):
            try:
                effect()
            except Exception:  # as a parser that hides it would
                return

        return read

    def connect():
        with socket.socket() as one:
            one.connect(("127.0.0.1", 9))

    for effect, seen in (
        (lambda: (tmp_path / "new").write_text("x"), "open "),
        (kept.unlink, "os.remove "),
        (lambda: kept.rename(tmp_path / "other"), "os.rename "),
        (lambda: subprocess.run(["true"], check=False), "subprocess.Popen "),
        (connect, "socket.connect "),
    ):
        (fault,) = faults(run(fuzzer, swallowing(effect)))
        assert f"EffectError: {seen}" in fault
    assert kept.read_text() == "mine" and sorted(path.name for path in tmp_path.iterdir()) == [
        "fuzz",
        "kept",
    ]


def test_what_a_parser_may_write_is_its_own_folder_and_temporary_files_that_it_removes(fuzzer):
    def tidy(file, out):
        (out / "a" / "b").mkdir(parents=True)
        (out / "a" / "b" / "c").write_text("x")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "x").write_text("x")

    def untidy(file, out):
        tempfile.mkstemp()

    assert run(fuzzer, tidy).accepted == 1
    assert "temporary files are left" in faults(run(fuzzer, untidy))[0]


def test_the_command_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for inputs, more in ((40, []), (60, ["--resume"])):
        monkeypatch.setattr(
            "sys.argv", ["fuzz", "--inputs", str(inputs), "--only", "form", "--seed", "5", *more]
        )
        assert command.main() == 0
    result = json.loads((tmp_path / "build/fuzz/result.json").read_text())
    assert (result["inputs"], result["crashed"], result["seed"]) == (60, 0, 5)
    assert re.search(r"\| page form \| 60 \| \d+ \| \d+ \| 0 \|", capsys.readouterr().out)
