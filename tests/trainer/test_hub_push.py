"""`export --push`: what arrives at a hub, and each reason for which nothing does."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open

from personas.errors import ExportError
from personas.home.adapters import MANIFEST_FILE, verify_adapter, write_manifest
from personas.home.data_subjects import write_people
from personas.home.external_adapter import import_adapter
from personas.home.external_files import find_exports_containing, read_exports
from personas.schemas.training import AdapterManifest
from tests.hub_server import READER, WRITER, Hub, Repository, reach
from tests.tiny_models import make_adapter
from trainer.cli.main import build_parser
from trainer.export.exporter import export_adapter
from trainer.export.hub_push import check_target, push_export

NAME = "harbour/oda-lora"
PERSON = "0123456789abcdef" * 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=<...>':DeprecationWarning"
)  # huggingface_hub's own call


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One thread for tiny products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    folder = make_adapter(tmp_path_factory.mktemp("sealed"), tiny_base, "oda", "v7", seed=3).folder
    write_people(folder, {PERSON: 3})
    write_manifest(
        folder, AdapterManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    )
    return folder


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory):
    return export_adapter(
        adapter, "adapter", tmp_path_factory.mktemp("exported") / "oda", None, None, str
    )


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    served = Hub()
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


@pytest.fixture
def push(adapter, capsys):
    """The command in this process: exit code, output, errors."""

    def run(*more, to="adapter", name=NAME):
        words = ["export", "--adapter", str(adapter), "--to", to, "--push", name, *map(str, more)]
        options = build_parser().parse_args(words)
        code = options.command(options)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def pushed(hub, name=NAME):
    return next(reversed(hub.repositories[name].commits.values()))


def test_an_adapter_is_pushed_to_a_new_private_repository_and_comes_back_as_it_was(
    hub, push, adapter, tiny_base, tmp_path
):
    code, output, errors = push()
    assert code == 0 and hub.repositories[NAME].private
    commit = next(iter(hub.repositories[NAME].commits))
    assert f"Pushed to {NAME}, commit {commit}; it is private." in output and "… pushing" in errors
    assert output.startswith(f"{NAME} (adapter): ")
    assert sorted(pushed(hub)) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    card = pushed(hub)["README.md"].decode()
    assert "license: apache-2.0\n" in card and "pipeline_tag: text-generation\n" in card
    assert not [name for name, data in pushed(hub).items() if tiny_base.source.encode() in data], (
        "no path of this machine"
    )
    again = import_adapter(f"{NAME}@{commit}", tmp_path / "again", tiny_base.source, str)
    ours = verify_adapter(adapter)
    assert (again.persona, again.version, again.metrics) == (
        ours.persona,
        ours.version,
        ours.metrics,
    )
    assert (again.source.name, again.source.commit) == (NAME, commit)
    weights = "adapter_model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (adapter / weights).read_bytes()
    (record,) = find_exports_containing(tmp_path / "home", {PERSON})
    assert record.path == f"{NAME}@{commit}"


@pytest.mark.parametrize(
    ("to", "file", "kind"),
    [
        pytest.param("merged", "model.safetensors", "transformers", marks=pytest.mark.slow),
        pytest.param("gguf", "oda-lora.gguf", "gguf", marks=pytest.mark.slow),
        ("gguf-lora", "oda-lora-lora.gguf", "peft"),
    ],
)
def test_scripts_push_other_exports_with_a_model_card(
    hub, push, tiny_base, tmp_path, to, file, kind
):
    out = tmp_path / "kept" / file if to == "gguf" else None
    hub.repositories[NAME] = Repository({"a" * 40: {}})
    code, output, _ = push("--json", "--yes", *(("--out", out) if out else ()), to=to)
    assert code == 0 and json.loads(output)["pushed"]["repository"] == NAME
    assert f"library_name: {kind}\n" in pushed(hub)["README.md"].decode()
    assert not any(tiny_base.source.encode() in data for data in pushed(hub).values())
    if out:
        assert out.read_bytes() == pushed(hub)[file]
    if to == "merged":
        (tmp_path / file).write_bytes(pushed(hub)[file])
        with safe_open(tmp_path / file, framework="pt") as weights:
            assert "model.embed_tokens.weight" in weights.keys()  # noqa: SIM118 - it is no mapping


def test_a_public_repository_takes_a_yes_and_keeps_what_it_has(hub, push, monkeypatch):
    hub.repositories[NAME] = Repository({"a" * 40: {"notes.txt": b"mine"}})
    code, _, errors = push()
    assert code == 1 and f"{NAME} is public" in errors and "--yes" in errors
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    code, output, errors = push()
    assert code == 1 and "[y/N]" in output and "Nothing was exported" in errors
    assert len(hub.repositories[NAME].commits) == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    code, output, _ = push()
    assert code == 0 and "it is public." in output and pushed(hub)["notes.txt"] == b"mine"
    monkeypatch.undo()


def test_a_card_that_names_a_folder_of_this_machine_is_not_pushed(hub, tiny_base, tmp_path):
    (tmp_path / "oda.charx").write_bytes(b"a card")
    with pytest.raises(ExportError, match=r"folder of this machine.*--to adapter"):
        push_export(check_target(NAME), tmp_path / "oda.charx", "", tiny_base.source)
    assert not hub.repositories


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "no token for the hub. Set HF_TOKEN"),
        ("hf_wrong", "does not know the token. Set HF_TOKEN"),
    ],
)
def test_a_token_that_will_not_do_is_named_before_the_work_begins(
    hub, push, monkeypatch, tmp_path, token, words
):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", token)
    code, output, errors = push()
    assert code == 1 and words in errors and "pushing" not in errors
    assert not token or token not in output + errors


@pytest.mark.parametrize(
    ("part", "answer", "words"),
    [
        (
            "POST /api/repos/create",
            (409, {"X-Error-Message": "taken"}),
            r"the name is taken \(taken",
        ),
        (
            "/commit/",
            (403, {"X-Error-Message": "Private repository storage limit reached"}),
            "no more room",
        ),
        ("/lfs/", (413, {}), "no more room for this account"),
        (
            "/preupload/",
            (404, {"X-Error-Code": "RepoNotFound"}),
            f"the hub has no {NAME}",
        ),
        ("GET /api/models", (429, {}), "the limit is reached. Try again"),
        (
            "/commit/",
            (500, {}),
            r"the hub failed \(status 500\). .* may have one later. Try again later",
        ),
    ],
)
def test_each_refusal_of_a_push_says_why(hub, exported, part, answer, words):
    hub.statuses[part] = answer
    with pytest.raises(ExportError, match=f"{NAME} was not pushed: .*{words}"):
        push_export(check_target(NAME), exported.out, exported.model_card, "embedded")
    assert not any(repository.commits for repository in hub.repositories.values())


def test_a_push_whose_answer_was_lost_is_found_on_the_hub(hub, push, tmp_path):
    hub.loses_commit_answers = True
    code, output, errors = push()
    commit = next(iter(hub.repositories[NAME].commits))
    assert code == 0, errors
    assert f"Pushed to {NAME}, commit {commit}" in output
    (record,) = find_exports_containing(tmp_path / "home", {PERSON})
    assert (record.path, record.state) == (f"{NAME}@{commit}", "done")


@pytest.mark.parametrize(
    ("status", "paths"),
    [pytest.param(500, [NAME], id="may have arrived"), pytest.param(403, [], id="refused")],
)
def test_an_erasure_finds_a_push_that_may_have_arrived(hub, push, tmp_path, status, paths):
    hub.statuses["/commit/"] = (status, {})
    code, _, errors = push()
    assert code == 1 and "was not pushed" in errors
    assert ("may have one later" in errors) == bool(paths)
    found = find_exports_containing(tmp_path / "home", {PERSON})
    assert [record.path for record in found] == paths
    assert read_exports(tmp_path / "home")[0].state == "begun"


def test_a_token_that_only_reads_is_refused_by_the_hub(hub, exported, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(ExportError, match=r"token .*\(This token has no write access\."):
        push_export(check_target(NAME), exported.out, exported.model_card, "embedded")


def test_without_a_network_or_a_name_nothing_is_exported(hub, push, monkeypatch):
    assert re.search("'oda' .*owner/name", push(name="oda")[2])
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, errors = push()
    assert code == 1 and "the hub could not be reached" in errors


def test_a_destination_is_needed(adapter, capsys):
    options = build_parser().parse_args(["export", "--adapter", str(adapter), "--to", "adapter"])
    assert options.command(options) == 1
    assert "--out nor --push" in capsys.readouterr().err
