"""The catalogue on the command line, and data sets fetched from a hub of the test's own."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from personas.errors import MaterialError, RequestError
from personas.home.dataset_catalogue import read_catalogue
from personas.home.published_datasets import published_datasets
from personas.schemas.base import right_error
from tests.hub_server import CHUNK_BYTES, COMMIT, Hub, Repository, reach
from trainer.cli.catalogue_command import fetch_dataset, list_datasets, remove_dataset, show_dataset
from trainer.cli.dataset_args import default_source
from trainer.cli.main import build_parser

REPLY = {
    "text": "Ask at gate {n}; they know.",
    "role": "assistant",
    "lang": "en",
    "rank": 0,
    "replies": [],
}
QUESTION = {"text": "What of gate {n}?", "role": "prompter", "lang": "en", "replies": [REPLY]}
TREE = {"message_tree_id": "t{n}", "prompt": QUESTION}
TREES = "".join(json.dumps(TREE).replace("{n}", str(n)) + "\n" for n in range(2000)).encode()
FILES = {
    "2023-11-05_oasst2_ready.trees.jsonl": TREES,
    "2023-11-05_oasst2_all.trees.jsonl": b"no",
    "README.md": b"#",
}
TWO_FILES = {"data/train-0.jsonl": TREES, "data/train-1.jsonl": TREES[::-1]}
RIGHT = 'right = "licensed:MIT"\nstated_by = "Mina"\nstated_on = 2026-11-20\nwhy = "So."\n'
ENTRY = '[{name}]\nhub = "{hub}"\nfiles = {files}\n' + RIGHT
NAMES = """oasst1 oasst2 ultrachat-200k alpaca alpaca-gpt4 belle belle-2m firefly finetome-100k the-tome
wizardlm personachat persona-based-chat synthetic-persona-chat dolly""".split()


@pytest.fixture
async def hub(monkeypatch, tmp_path):
    sets = {"OpenAssistant/oasst2": FILES, "harbour/talk": TWO_FILES}
    served = Hub(datasets={name: Repository({COMMIT: files}) for name, files in sets.items()})
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


def enter(
    home: Path,
    name: str = "oasst2",
    hub: str = "OpenAssistant/oasst2",
    files: str = '["*_ready.trees.jsonl"]',
) -> None:
    """The data sets of the tests are not compressed, so that they have some size."""
    (home / "catalogue.toml").write_text(ENTRY.format(name=name, hub=hub, files=files))


async def ask(command, home: Path, name: str = "oasst2", as_json: bool = False) -> None:
    options = argparse.Namespace(home=home, name=name, json=as_json, tell_every=0.0)
    await asyncio.to_thread(command, options)


def test_the_published_data_sets_are_complete_and_can_be_told_apart():
    published = published_datasets()
    assert set(NAMES) <= published.keys()
    assert len({of.hub for of in published.values()}) == len(published)
    for name, of in published.items():
        assert all((of.title, of.rows, of.language, of.good_for, of.not_for, of.files)), name
        assert of.bytes > 1e6
        stated = of.statement
        assert bool(of.licence) == bool(stated.right) and (
            not of.licence or not right_error(stated.right)
        )
        if "-NC-" in of.licence:
            assert "Commercial use" in of.not_for
        if not of.licence:
            assert "Use without asking" in of.not_for


def test_the_docs_list_each_with_language_and_licence():
    text = (Path(__file__).parents[2] / "docs" / "sets.md").read_text(encoding="utf-8")
    for name, of in published_datasets().items():
        assert (
            f"| `{name}` | {of.title} | {of.language} | {of.licence or 'none stated'} |\n" in text
        )


async def test_listed_shown_fetched_read_and_removed(hub, tmp_path, capsys, monkeypatch):
    enter(tmp_path)
    await ask(list_datasets, tmp_path)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert (
        "not fetched" in rows["oasst2"]
        and "CC-BY-NC-4.0" in rows["alpaca"]
        and "no licence stated" in rows["firefly"]
    )
    monkeypatch.setattr(sys, "argv", ["/tools/bin/understudy-trainer"])
    await ask(fetch_dataset, tmp_path)
    out, err = capsys.readouterr()
    assert "Train on it: understudy-trainer train --dialogue --dataset oasst2\n" in out
    assert f"OpenAssistant/oasst2, 1 file(s), {len(TREES) / 1000:.1f} kB, MIT" in out
    assert f"{len(TREES) / 1000:.1f} kB of {len(TREES) / 1000:.1f} kB fetched" in err
    folder = tmp_path / "fetched" / "oasst2"
    assert [path.name for path in folder.iterdir() if path.name[0] != "."] == [
        "2023-11-05_oasst2_ready.trees.jsonl"
    ]
    assert (folder / "2023-11-05_oasst2_ready.trees.jsonl").read_bytes() == TREES
    entry = read_catalogue(tmp_path).entries["oasst2"]
    assert entry.locate() == folder and entry.origin == f"OpenAssistant/oasst2@{COMMIT[:12]}"
    hub.asked.clear()
    await ask(fetch_dataset, tmp_path)
    assert not hub.asked, "it is not fetched twice"
    await ask(show_dataset, tmp_path, as_json=True)
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (shown["state"], shown["revision"], shown["bytes"]) == ("fetched", COMMIT, len(TREES))
    assert shown["right"]["right"] == "licensed:MIT" and shown["good_for"]
    await ask(remove_dataset, tmp_path)
    assert not folder.exists() and not read_catalogue(tmp_path).entries["oasst2"].is_here


async def test_a_fetch_that_breaks_off_resumes_where_it_was(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "time.sleep", lambda seconds: None
    )  # the client waits before it tries again
    enter(tmp_path, "talk", "harbour/talk", '["data/*"]')
    hub.cuts = 1
    hub.fails_after_cut = True
    with pytest.raises(MaterialError, match=r"harbour/talk .*\(status 503\)"):
        await ask(fetch_dataset, tmp_path, "talk")
    assert (
        not (tmp_path / "fetched" / "talk").exists()
        and not read_catalogue(tmp_path).entries["talk"].is_here
    )
    partial = tmp_path / "fetched" / ".talk.partial" / COMMIT / "data"
    there = sum(file.stat().st_size for file in partial.iterdir())
    assert there == len(TREES) // 2 // CHUNK_BYTES * CHUNK_BYTES, "the whole chunks"
    hub.statuses.clear()
    hub.asked.clear()
    hub.ranges.clear()
    await ask(fetch_dataset, tmp_path, "talk")
    assert hub.ranges == [f"bytes={there}-"]
    assert [asked[-12:] for asked in hub.asked if "resolve" in asked] == [
        "rain-0.jsonl",
        "rain-1.jsonl",
    ]
    for name, data in TWO_FILES.items():
        assert (tmp_path / "fetched" / "talk" / name).read_bytes() == data
    assert not partial.exists()


async def test_what_arrives_damaged_is_not_kept(hub, tmp_path):
    enter(tmp_path)
    hub.stated_sha = "0" * 64
    with pytest.raises(MaterialError, match="arrived damaged"):
        await ask(fetch_dataset, tmp_path)
    hub.stated_sha = ""
    await ask(fetch_dataset, tmp_path)
    assert read_catalogue(tmp_path).entries["oasst2"].is_here


async def test_why_nothing_can_be_fetched_is_named(hub, tmp_path, monkeypatch):
    enter(tmp_path)
    usage = SimpleNamespace(total=0, used=0, free=2**20)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(
            MaterialError,
            match=r" kB .*UNDERSTUDY_HOME has 1\.0 MB free",
        ):
            await ask(fetch_dataset, tmp_path)
    enter(tmp_path, files='["*.csv"]')
    with pytest.raises(MaterialError, match=r" \*\.csv; .*2023-11-05_oasst2_ready"):
        await ask(fetch_dataset, tmp_path)
    enter(tmp_path, hub="harbour/none")
    with pytest.raises(MaterialError, match="the hub has no harbour/none"):
        await ask(fetch_dataset, tmp_path)
    enter(tmp_path, hub="harbour/none", files='["*"]')
    for name in (
        "../../escape.jsonl",
        f"{tmp_path}/escape.jsonl",
        "a//escape.jsonl",
        "con.jsonl",
        "a\u202eb.jsonl",
    ):
        hub.datasets["harbour/none"] = Repository({COMMIT: {name: b"{}"}})
        with pytest.raises(MaterialError, match="a file whose name"):
            await ask(fetch_dataset, tmp_path)
    assert not list(tmp_path.parent.rglob("escape.jsonl"))
    with pytest.raises(RequestError, match=r"'oast2' .*oasst1"):
        await ask(fetch_dataset, tmp_path, "oast2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MaterialError, match="HF_HUB_OFFLINE is set"):
        await ask(fetch_dataset, tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MaterialError, match=r"no hub .* http://127\.0\.0\.1:9"):
        await ask(fetch_dataset, tmp_path)
    assert not (tmp_path / "fetched" / "oasst2").exists()


async def test_two_processes_do_not_fetch_the_same(hub, tmp_path):
    enter(tmp_path)
    (tmp_path / "fetched").mkdir()
    held = FileLock(tmp_path / "fetched" / ".oasst2.lock")
    refused = pytest.raises(MaterialError)
    with held, refused as error:
        await ask(fetch_dataset, tmp_path)
    assert "another process" in str(error.value)


@pytest.mark.slow
async def test_stopped_in_a_terminal_it_says_so_and_resumes(hub, tmp_path):
    enter(tmp_path)
    hub.pause_s = 0.3
    command = [
        sys.executable,
        "-m",
        "trainer",
        "catalogue",
        "fetch",
        "oasst2",
        "--home",
        str(tmp_path),
        "--tell-every",
        "0",
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stderr is not None
    for _ in range(3):
        await process.stderr.readline()  # some of it is there
    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert process.returncode == 143 and b"Stopped." in errors
    hub.pause_s = 0
    hub.ranges.clear()
    await ask(fetch_dataset, tmp_path)
    assert len(hub.ranges) == 1, "it continued"
    assert read_catalogue(tmp_path).entries["oasst2"].is_here


async def test_a_fetched_data_set_can_be_planned_and_the_right_is_in_the_material(
    hub, tmp_path, monkeypatch
):
    from trainer.cli.create_job import draft_job

    enter(tmp_path)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path))
    options = build_parser().parse_args(["train", "--dialogue", "--dataset", "oasst2"])
    with pytest.raises(MaterialError, match=r"not been fetched.*catalogue fetch oasst2`"):
        draft_job(options, tmp_path)
    await ask(fetch_dataset, tmp_path)
    (material,) = [one for one in draft_job(options, tmp_path).materials if one.kind == "messages"]
    assert (material.right, material.statement.stated_by) == ("licensed:MIT", "Mina")
    assert material.origin == f"OpenAssistant/oasst2@{COMMIT[:12]}"


def test_options_before_the_action_count(tmp_path):
    options = build_parser().parse_args(
        ["catalogue", "--home", str(tmp_path), "--json", "show", "oasst2"]
    )
    assert options.home == tmp_path and options.json and options.name == "oasst2"


@pytest.mark.parametrize(
    "find", [show_dataset, lambda options: default_source(options, options.home)]
)
def test_a_broken_catalogue_is_named_with_its_path(tmp_path, find):
    (tmp_path / "catalogue.toml").write_text("[broken")
    options = argparse.Namespace(
        name="quay", dataset="quay", persona=None, home=tmp_path, json=False
    )
    with pytest.raises(
        RequestError, match=re.escape(f"{tmp_path / 'catalogue.toml'} cannot be read: ")
    ):
        find(options)
