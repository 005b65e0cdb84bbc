"""Exports over tiny models of each architecture; and what happens when one is damaged on
purpose.
"""

import json
import logging
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from gguf import GGUFReader

from bot.personas.registry import PersonaRegistry
from personas.card import card_cli as card_command
from personas.card.card_reader import read_card_file
from personas.card.toml_card import SHIPPED_CARDS
from personas.errors import AdapterError, ExportError, UnderstudyError
from personas.home.adapters import MANIFEST_FILE, WEIGHTS_FILE, verify_adapter, write_manifest
from personas.home.data_subjects import write_people
from personas.home.external_files import find_exports_containing
from personas.models.gguf_format import (
    ARCHITECTURES,
    GgufArchitecture,
    architecture_of,
)
from personas.schemas.training import AdapterManifest
from tests.full_disk import files_of_at_most
from tests.personas.cards import brought_in
from tools import export_parity
from tools.tiny_models import TINY_MODELS, make_adapter, make_model
from trainer.cli import main as trainer_command
from trainer.cli.export import format_report
from trainer.export import exporter, gguf_adapter, gguf_model
from trainer.export.exporter import DESCRIPTION_SUFFIX, export_adapter

WITHOUT_GGUF = ("Gemma 2", "Phi-3")
NAMES = [name for name in TINY_MODELS if name not in WITHOUT_GGUF]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One thread for tiny products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("gguf").setLevel(logging.ERROR)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Each kind's adapter folder, made when first asked for."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("exports")
            base = make_model(TINY_MODELS[name], folder / "base")
            made[name] = make_adapter(TINY_MODELS[name], base, folder / "adapter")
        return made[name]

    return of


def made(adapter, to, out, quantise=None, card=None):
    return export_adapter(adapter, to, out, quantise, card, lambda _: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_model_says_what_adapter_and_base_say(adapters, tmp_path, name):
    report = made(adapters(name), "gguf", tmp_path / "model.gguf")
    assert report.outcome.difference.max_abs < 0.05
    assert report.outcome.beyond.max_abs < 1e-3
    reader = GGUFReader(tmp_path / "model.gguf")
    assert (
        reader.get_field("general.architecture").contents()
        == architecture_of_kind(adapters(name)).gguf
    )
    assert ("rope_freqs.weight" in {tensor.name for tensor in reader.tensors}) == name.startswith(
        "Llama"
    )
    assert reader.get_field("tokenizer.chat_template").contents()


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_adapter_adds_what_peft_adds(adapters, tmp_path, name):
    report = made(adapters(name), "gguf-lora", tmp_path / "lora.gguf")
    assert report.outcome.difference.max_abs < 1e-3
    reader = GGUFReader(tmp_path / "lora.gguf")
    assert reader.get_field("adapter.type").contents() == "lora"
    config = json.loads((adapters(name) / "adapter_config.json").read_text())
    if config["use_rslora"]:
        assert reader.get_field("adapter.lora.alpha").contents() == pytest.approx(16 * 6**0.5)
    else:
        assert reader.get_field("adapter.lora.alpha").contents() == pytest.approx(16)


@pytest.mark.parametrize(
    ("name", "to"),
    [("Gemma 2", "gguf"), ("Gemma 2", "gguf-lora"), ("Phi-3", "gguf")],
)
def test_what_has_no_gguf_is_refused_and_merges_all_the_same(adapters, tmp_path, name, to):
    with nothing_left(tmp_path), pytest.raises(ExportError, match="is not made here; known are"):
        made(adapters(name), to, tmp_path / "out")
    if to == "gguf":
        assert made(adapters(name), "merged", tmp_path / "merged").outcome.difference.max_abs < 1


@pytest.mark.parametrize(
    ("to", "quantise"),
    [("adapter", None), ("merged", None), ("gguf", "q8_0"), ("ollama", "f16"), ("charx", None)],
)
def test_the_other_exports_say_it_too(adapters, tmp_path, to, quantise):
    out = tmp_path / "out"
    report = made(adapters("Qwen3"), to, out, quantise)
    rounds = {"merged": 0.2, "gguf": 0.5, "ollama": 0.05}.get(to, 1e-3)
    assert report.outcome.difference.max_abs < rounds
    held = json.loads((tmp_path / f"out{DESCRIPTION_SUFFIX}").read_text())
    assert held["to"] == to and held["difference"]["max_abs"] == report.outcome.difference.max_abs
    assert {path.name for path in tmp_path.iterdir()} == {"out", f"out{DESCRIPTION_SUFFIX}"}


def test_q8_0_differs_by_its_rounding_and_is_smaller(adapters, tmp_path):
    whole = made(adapters("SmolLM2"), "gguf", tmp_path / "f16", "f16").held
    small = made(adapters("SmolLM2"), "gguf", tmp_path / "q8", "q8_0").held
    assert small["bytes"] < whole["bytes"]
    assert small["rounding"]["kl"] > 10 * whole["rounding"]["kl"] > 0


def test_a_plain_adapter_folder_has_the_same_weights_and_a_model_card(adapters, tmp_path):
    made(adapters("SmolLM2"), "adapter", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json",
    ]  # fmt: skip
    assert (tmp_path / "out" / WEIGHTS_FILE).read_bytes() == (
        adapters("SmolLM2") / WEIGHTS_FILE
    ).read_bytes()
    assert (
        "Licence of the persona's card: Apache-2.0" in (tmp_path / "out" / "README.md").read_text()
    )


def test_an_adapter_in_a_card_comes_out_as_it_was(adapters, tmp_path, capsys):
    card = tmp_path / "ballast.charx"
    made(adapters("SmolLM2"), "charx", card)
    made(card, "adapter", tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS_FILE).read_bytes() == (
        adapters("SmolLM2") / WEIGHTS_FILE
    ).read_bytes()
    assert card_command.main(["card", "show", str(card)]) == 0
    assert "x_understudy_adapter" in capsys.readouterr().out
    assert read_card_file(card).name == "Ballast"
    personas = PersonaRegistry(SHIPPED_CARDS, tmp_path / "home")  # as `/persona import` does
    brought = brought_in(personas, 7, replace(read_card_file(card), document=renamed(card))).persona
    assert read_card_file(card).files.items() <= personas.card(brought, 7).files.items()
    made(card, "charx", tmp_path / "twice.charx")  # once more: one adapter in it, not two
    assert (
        read_card_file(tmp_path / "twice.charx").files.keys() == read_card_file(card).files.keys()
    )


def renamed(card):
    """The card's document under a name that nobody has."""
    document = read_card_file(card).document
    return {**document, "data": {**document["data"], "name": "Crane No. 2"}}


# -------------------------------------------------------------------------------- damage on purpose


def architecture_of_kind(adapter):
    from transformers import AutoConfig

    return architecture_of(AutoConfig.from_pretrained(adapter.parent / "base"))


@contextmanager
def nothing_left(folder):
    before = set(folder.iterdir())
    yield
    assert set(folder.iterdir()) == before


def flipped(architecture):
    return GgufArchitecture(architecture.arch, not architecture.permuted)


@pytest.mark.parametrize("to", ["gguf", "gguf-lora"])
def test_a_wrong_permutation_is_noticed(adapters, tmp_path, monkeypatch, to):
    adapter = adapters("SmolLM2")
    known = architecture_of_kind(adapter)
    class_name = next(class_name for class_name, it in ARCHITECTURES.items() if it is known)
    monkeypatch.setitem(ARCHITECTURES, class_name, flipped(known))
    with nothing_left(tmp_path), pytest.raises(ExportError):
        made(adapter, to, tmp_path / "out")


def test_a_wrong_alpha_is_noticed(adapters, tmp_path, monkeypatch):
    """As others write it for rsLoRA: α instead of α·√r."""
    wrong = property(lambda module: module.scale * len(module.a) ** 0.5)
    monkeypatch.setattr(gguf_adapter.LoraModule, "alpha", wrong)
    with nothing_left(tmp_path), pytest.raises(ExportError, match="too much"):
        made(adapters("Qwen3"), "gguf-lora", tmp_path / "out")


def test_positions_scaled_otherwise_are_noticed(adapters, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_model, "rope_type", lambda _: "default")
    with nothing_left(tmp_path), pytest.raises(ExportError, match="more than its format explains"):
        made(adapters("Llama 3.2"), "gguf", tmp_path / "out")


def test_a_merge_that_loses_the_adapter_is_noticed(adapters, tmp_path, monkeypatch):
    from peft import PeftModel

    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    with nothing_left(tmp_path), pytest.raises(ExportError, match="merged model differs"):
        made(adapters("SmolLM2"), "merged", tmp_path / "out")


def test_a_cut_file_is_refused(adapters, tmp_path, monkeypatch):
    written = exporter.write_model

    def cut(path, *rest, **named):
        written(path, *rest, **named)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 4096)

    monkeypatch.setattr(exporter, "write_model", cut)
    with nothing_left(tmp_path), pytest.raises(ExportError, match=r"damaged|cut short"):
        made(adapters("SmolLM2"), "gguf", tmp_path / "out")


@pytest.mark.parametrize("to", ["merged", "gguf", "charx"])
def test_a_full_disk_leaves_nothing(adapters, tmp_path, capsys, to):
    adapter = adapters("SmolLM2")
    arguments = ["export", "--adapter", str(adapter), "--to", to, "--out", str(tmp_path / "out")]
    options = trainer_command.build_parser().parse_args(arguments)
    with files_of_at_most(20_000), nothing_left(tmp_path):
        assert options.command(options) == 1
    assert "The disk is full." in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- refusals


def test_what_is_there_is_not_replaced(adapters, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExportError, match="is there already"):
        made(adapters("SmolLM2"), "gguf-lora", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_damaged_adapter_is_refused(adapters, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(adapters("SmolLM2"), damaged)
    weights = bytearray((damaged / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (damaged / WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(AdapterError, match="is damaged"):
        made(damaged, "adapter", tmp_path / "out")
    with pytest.raises(AdapterError, match="no adapter"):
        made(tmp_path, "adapter", tmp_path / "out")


def test_another_base_model_is_refused(adapters, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(adapters("SmolLM2").parent, moved)
    manifest = json.loads((moved / "adapter" / "manifest.json").read_text())
    manifest["base_model"] = str(adapters("Qwen2.5").parent / "base")
    (moved / "adapter" / "manifest.json").write_text(json.dumps(manifest))
    verify_adapter(moved / "adapter")
    with pytest.raises(AdapterError, match="not the one"):
        made(moved / "adapter", "adapter", tmp_path / "out")


def test_unknown_architectures_and_adapters_are_named(adapters, tmp_path):
    from transformers import AutoConfig

    with pytest.raises(ExportError, match=r"GemmaForCausalLM .*Llama.*Qwen3"):
        architecture_of(AutoConfig.for_model("gemma", architectures=["GemmaForCausalLM"]))
    dora = make_adapter(
        TINY_MODELS["SmolLM2"].__class__(
            **{**TINY_MODELS["SmolLM2"].__dict__, "lora": {"use_dora": True}}
        ),
        make_model(TINY_MODELS["SmolLM2"], tmp_path / "base"),
        tmp_path / "dora",
    )
    with pytest.raises(ExportError, match="DoRA"):
        made(dora, "gguf-lora", tmp_path / "out")
    assert made(dora, "gguf", tmp_path / "merged.gguf").outcome.beyond.max_abs < 1e-3


def test_a_persona_without_a_card_needs_one(adapters, tmp_path):
    nobody = make_adapter(
        TINY_MODELS["SmolLM2"],
        make_model(TINY_MODELS["SmolLM2"], tmp_path / "base"),
        tmp_path / "a",
        "nobody",
    )
    for to in ("ollama", "charx"):
        with pytest.raises(UnderstudyError, match="--card FILE"):
            made(nobody, to, tmp_path / "out")
    card = tmp_path / "mira.toml"
    card.write_text(
        'id = "nobody"\nname = "Mira"\ndescription = "You are Mira."\nlicense = "CC0-1.0"\n'
    )
    made(nobody, "charx", tmp_path / "mira.charx", card=card)
    assert read_card_file(tmp_path / "mira.charx").name == "Mira"
    with pytest.raises(ExportError, match="--quantise is for"):
        made(nobody, "charx", tmp_path / "out", "f16", card)


def test_a_card_of_another_persona_is_exported_with_a_doubt(adapters, tmp_path):
    report = made(
        adapters("SmolLM2"), "charx", tmp_path / "oda.charx", card=SHIPPED_CARDS / "oda.toml"
    )
    doubt = (
        "The card is Oda Marrow's, and the adapter was trained as ballast: is it the right card?"
    )
    assert format_report(report).endswith(f"note: {doubt}")
    own = made(
        adapters("SmolLM2"), "charx", tmp_path / "own.charx", card=SHIPPED_CARDS / "ballast.toml"
    )
    assert not own.outcome.notes


def test_folders_that_are_made_for_an_export_are_reported_and_go_with_one_that_fails(
    adapters, tmp_path
):
    out = tmp_path / "not" / "there" / "adapter"
    report = made(adapters("SmolLM2"), "adapter", out)
    assert out.is_dir() and f"Created the folder {tmp_path / 'not'}." in format_report(report)
    assert "it was made" not in format_report(
        made(adapters("SmolLM2"), "adapter", out.with_name("second"))
    )
    with nothing_left(tmp_path), pytest.raises(ExportError, match="is not made here"):
        made(adapters("Phi-3"), "gguf", tmp_path / "nor" / "there" / "model.gguf")


def test_the_command_prints_what_was_measured(adapters, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    adapter = tmp_path / "adapter"
    person = "0123456789abcdef" * 2
    shutil.copytree(adapters("SmolLM2"), adapter)
    write_people(adapter, {person: 3})
    write_manifest(
        adapter, AdapterManifest.model_validate_json((adapter / MANIFEST_FILE).read_bytes())
    )
    arguments = ["export", "--adapter", str(adapter), "--to", "gguf-lora"]
    options = trainer_command.build_parser().parse_args(
        [*arguments, "--out", str(tmp_path / "a"), "--json"]
    )
    assert options.command(options) == 0
    assert json.loads(capsys.readouterr().out)["difference"]["same_choice"] == 1.0
    options = trainer_command.build_parser().parse_args([*arguments, "--out", str(tmp_path / "b")])
    assert options.command(options) == 0
    said = capsys.readouterr()
    assert "max |Δ logit|" in said.out and not said.err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    options.out = tmp_path / "c"
    assert options.command(options) == 0
    assert "… writing the adapter as GGUF" in capsys.readouterr().err
    left = find_exports_containing(tmp_path / "home", {person})
    assert [one.path for one in left] == [str(tmp_path / name) for name in "abc"]


def test_the_page_shows_every_export_of_every_architecture():
    page = export_parity.DOCUMENT.read_text(encoding="utf-8")
    table = (
        page.partition(export_parity.BEGIN)[2].partition(export_parity.END)[0].strip().splitlines()
    )
    head = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert head[1:] == [f"{to} {quantise or ''}".strip() for to, quantise in export_parity.COLUMNS]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [row[0] for row in rows] == list(TINY_MODELS)
    assert all(len(row) == len(head) and all(row) for row in rows)
    refused = [name.startswith(export_parity.GGUF) for name in head[1:]]
    assert all(
        [cell == "no" for cell in row[1:]] == (refused if row[0] in WITHOUT_GGUF else [False] * 7)
        for row in rows
    )
    assert {to for to, _ in export_parity.COLUMNS} == set(exporter.EXPORTERS)
    assert all(f"`{to}`" in page for to in exporter.EXPORTERS)
