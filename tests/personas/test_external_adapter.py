"""Adapters from outside: peft folders, zips and a hub's repositories are checked, then sealed or
refused.
"""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from personas.engine.peft_runner import PeftSwitcher
from personas.errors import AdapterError
from personas.home import external_adapter_files, external_adapter_hub
from personas.home.adapters import (
    CONFIG_FILE,
    MANIFEST_FILE,
    README_FILE,
    WEIGHTS_FILE,
    verify_adapter,
)
from personas.home.atomic_files import lock_folder
from personas.home.external_adapter import import_adapter, open_any_adapter
from personas.models.base_model import fingerprint
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef
from personas.schemas.training import AdapterSource
from personas.schemas.training_events import UNMEASURED
from tests.hub_server import CHUNK_BYTES, Hub, Repository, reach
from tests.tiny_models import make_adapter

COMMIT = "c" * 40
NAME = "harbour/mira-lora"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def sealed(tiny_base, tmp_path_factory):
    """An adapter folder of this project."""
    return make_adapter(tmp_path_factory.mktemp("sealed"), tiny_base, "mira", "v7", seed=3).folder


@pytest.fixture
def plain(sealed, tmp_path):
    """The same as peft saves it, for each test to spoil."""
    folder = tmp_path / "mira-lora"
    folder.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(sealed / name, folder / name)
    return folder


@pytest.fixture
def hub(plain, monkeypatch, tmp_path):
    """A hub that has it."""
    commits = {COMMIT: {path.name: path.read_bytes() for path in plain.iterdir()}}
    served = Hub({NAME: Repository(commits, {"v1": COMMIT}, licence="apache-2.0")})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


def bring(source, tmp_path, base="", said=None):
    return import_adapter(
        str(source), tmp_path / "out", base, (said if said is not None else []).append
    )


def reconfigure(folder, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text()) | changes
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def reweigh(folder, **changes):
    """Change tensors: None removes one."""
    tensors = load_file(folder / WEIGHTS_FILE) | changes
    save_file({name: it for name, it in tensors.items() if it is not None}, folder / WEIGHTS_FILE)


def received_bytes(folder):
    """The whole chunks in the half that arrives before a cut."""
    return (folder / WEIGHTS_FILE).stat().st_size // 2 // CHUNK_BYTES * CHUNK_BYTES


# ------------------------------------------------------------------------------------------ taken


def test_a_peft_folder_is_sealed_and_speaks_as_the_one_that_was_trained(
    plain, sealed, tiny_base, tmp_path
):
    reconfigure(
        plain, auto_mapping={"base_model_class": "X", "parent_library": "os"}, task_type=None
    )
    manifest = bring(plain, tmp_path)
    assert manifest == verify_adapter(tmp_path / "out")
    assert (manifest.base_model, manifest.base_model_hash) == (
        tiny_base.name,
        fingerprint(tiny_base),
    )
    assert manifest.source == AdapterSource(name="mira-lora", base_model=tiny_base.source)
    assert manifest.metrics == UNMEASURED and manifest.lora["r"] == 4
    assert "auto_mapping" not in (tmp_path / "out" / CONFIG_FILE).read_text()
    tokens = torch.tensor([[5, 6, 7]])
    logits = []
    for folder in (sealed, tmp_path / "out"):
        switcher = PeftSwitcher(load_model(tiny_base, "float32"), fingerprint(tiny_base))
        with switcher.use(AdapterRef("mira", folder.name, folder)), torch.inference_mode():
            logits.append(switcher.model(tokens).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("parent", ["", "some/folder/"])
def test_a_zip_is_read_from_its_root_or_its_folder(plain, tmp_path, parent):
    with zipfile.ZipFile(tmp_path / "mira.zip", "w") as archive:
        for path in plain.iterdir():
            archive.write(path, parent + path.name)
        archive.writestr(f"{parent}../../outside", "x")
    assert bring(tmp_path / "mira.zip", tmp_path).source.name == "mira.zip"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE]
    )


@pytest.mark.parametrize("name", [README_FILE, CONFIG_FILE])
def test_links_are_not_followed(plain, tmp_path, name):
    (tmp_path / "secret").write_text("secret")
    (plain / name).unlink(missing_ok=True)
    (plain / name).symlink_to(tmp_path / "secret")
    with pytest.raises(AdapterError, match=rf"{name} in .* is a link"):
        bring(plain, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"use_rslora": True}, {"rank_pattern": {"q_proj": 4}, "r": 4}])
def test_plain_variants_are_taken(plain, tmp_path, changes):
    reconfigure(plain, **changes)
    assert bring(plain, tmp_path)


def test_dora_is_taken_with_its_magnitudes_and_refused_without(plain, tmp_path):
    reconfigure(plain, use_dora=True)
    with pytest.raises(AdapterError, match="has lora_A and lora_B only"):
        bring(plain, tmp_path)
    tensors = load_file(plain / WEIGHTS_FILE)
    outputs = {
        name.removesuffix("lora_B.weight"): it.shape[0]
        for name, it in tensors.items()
        if "lora_B" in name
    }
    reweigh(
        plain,
        **{f"{layer}lora_magnitude_vector": torch.ones(size) for layer, size in outputs.items()},
    )
    assert bring(plain, tmp_path)


def test_an_adapter_of_this_project_keeps_its_manifest(sealed, tmp_path):
    manifest = bring(sealed, tmp_path)
    assert (manifest.persona, manifest.version, manifest.source.name) == ("mira", "v7", "v7")
    with open_any_adapter(str(sealed), "", print) as folder:
        assert folder == sealed, "it needs no copy"


def test_a_repository_is_fetched_once_and_its_origin_recorded(hub, tiny_base, tmp_path):
    said = []
    manifest = bring(f"{NAME}@v1", tmp_path, said=said)
    source = AdapterSource(
        name=NAME, commit=COMMIT, licence="apache-2.0", base_model=tiny_base.source
    )
    assert manifest.source == source and verify_adapter(tmp_path / "out") == manifest
    assert said[0] == f"asking the hub for {NAME}@v1" and any(
        "adapter_model.safetensors: " in it for it in said
    )
    hub.asked.clear()
    shutil.rmtree(tmp_path / "out")
    assert bring(NAME, tmp_path).checksums == manifest.checksums
    assert hub.asked == [f"GET /api/models/{NAME}"]


def test_a_cut_download_continues_where_it_stopped(hub, plain, tmp_path):
    hub.cuts = 1
    bring(NAME, tmp_path)
    assert hub.ranges == [f"bytes={received_bytes(plain)}-"]
    assert (tmp_path / "out" / WEIGHTS_FILE).read_bytes() == (plain / WEIGHTS_FILE).read_bytes()


def test_a_download_that_failed_continues_with_the_next_try(hub, plain, tmp_path):
    hub.cuts = 1
    hub.fails_after_cut = True
    with pytest.raises(AdapterError, match=r"the hub failed \(status 503\)"):
        bring(NAME, tmp_path)
    assert not (tmp_path / "out").exists()
    hub.statuses.clear()
    bring(NAME, tmp_path)
    assert hub.ranges[-1] == f"bytes={received_bytes(plain)}-"
    assert (tmp_path / "out" / WEIGHTS_FILE).read_bytes() == (plain / WEIGHTS_FILE).read_bytes()


def test_only_the_latest_commits_stay_in_the_cache_and_those_that_are_being_fetched(
    hub, plain, tmp_path, monkeypatch
):
    monkeypatch.setattr(external_adapter_hub, "MAX_CACHED_COMMITS", 2)
    commits = [digit * 40 for digit in "abcde"]
    hub.repositories[NAME].commits.update(
        {it: hub.repositories[NAME].commits[COMMIT] for it in commits}
    )
    cache = tmp_path / "cache" / "understudy-adapters" / NAME.replace("/", "--")

    def fetch(commit):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        bring(f"{NAME}@{commit}", tmp_path)
        return sorted(path.name[0] for path in cache.iterdir())

    assert [fetch(commit) for commit in commits[:3]] == [["a"], ["a", "b"], ["b", "c"]]
    with lock_folder(cache / commits[1]):
        assert fetch(commits[3]) == ["b", "c", "d"]
    assert fetch(commits[2]) == ["c", "d"], "what is used again is one of the latest"
    assert fetch(commits[4]) == ["c", "e"]


# --------------------------------------------------------------------------------- refused: the hub


def test_content_with_another_checksum_is_refused_and_fetched_again(hub, tmp_path):
    hub.stated_sha = "0" * 64
    with pytest.raises(
        AdapterError, match=f"{NAME}. cannot .*: {WEIGHTS_FILE} arrived damaged: .*another checksum"
    ):
        bring(NAME, tmp_path)
    hub.stated_sha = ""
    assert bring(NAME, tmp_path)


def test_a_hub_that_sends_more_than_it_states_is_cut_off(hub, tmp_path):
    hub.stated_size = 10
    with pytest.raises(AdapterError, match=r"more of adapter_config\.json than"):
        bring(NAME, tmp_path)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            "does not know the token",
        ),
        ((401, {"X-Error-Code": "RepoNotFound"}), f"the hub has no {NAME}, or it is private"),
        (
            (403, {"X-Error-Code": "GatedRepo"}),
            "accepted its terms. Accept them",
        ),
        (
            (403, {"X-Error-Message": "Go to https://evil.example/x"}),
            r"the token may not do that \(Go to\)",
        ),
        ((404, {"X-Error-Code": "RepoNotFound"}), f"the hub has no {NAME}, or it is private"),
        ((429, {}), "the limit is reached. Try again"),
        ((503, {}), r"the hub failed \(status 503\). Try again later"),
    ],
)
def test_each_refusal_of_a_hub_says_why(hub, tmp_path, answer, words):
    hub.statuses["/api/models/"] = answer
    with pytest.raises(AdapterError, match=f"The adapter '{NAME}' cannot be fetched: .*{words}"):
        bring(NAME, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_reached_is_named(hub, tmp_path, monkeypatch):
    with pytest.raises(
        AdapterError, match=f"{NAME} has no commit, tag or branch 'v9'. Check the revision"
    ):
        bring(f"{NAME}@v9", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AdapterError, match="HF_HUB_OFFLINE is set"):
        bring(NAME, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AdapterError, match=r"reached.*ConnectError.*network"):
        bring(NAME, tmp_path)


def test_a_repository_without_safetensors_is_refused(hub, tmp_path):
    files = dict(hub.repositories[NAME].commits[COMMIT])
    weights = files.pop(WEIGHTS_FILE)
    hub.repositories[NAME] = Repository({COMMIT: files})
    with pytest.raises(AdapterError, match=f"is no peft adapter: it has no {WEIGHTS_FILE}"):
        bring(NAME, tmp_path)
    hub.repositories[NAME] = Repository({COMMIT: files | {"adapter_model.bin": weights}})
    with pytest.raises(AdapterError, match="a pickle, which can run code"):
        bring(NAME, tmp_path)
    assert not [asked for asked in hub.asked if "resolve" in asked], "nothing was downloaded"


def test_what_is_too_large_is_not_downloaded(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(external_adapter_files, "MAX_WEIGHTS_BYTES", 1000)
    with pytest.raises(
        AdapterError, match=rf"{WEIGHTS_FILE} of {NAME} has 0 MiB. At most 0 are read"
    ):
        bring(NAME, tmp_path)
    assert not [asked for asked in hub.asked if WEIGHTS_FILE in asked]


# ----------------------------------------------------------------------------- refused: the adapter


def test_an_adapter_for_another_base_model_says_which_and_which_is_served(
    plain, sealed, tiny_base, tmp_path
):
    reconfigure(plain, base_model_name_or_path="someone/Other-7B")
    with pytest.raises(
        AdapterError, match=rf"\(someone/Other-7B\) than is served \({tiny_base.folder.name}"
    ):
        bring(plain, tmp_path, tiny_base.source)
    reconfigure(plain, base_model_name_or_path=f"someone/{tiny_base.folder.name}")
    assert bring(plain, tmp_path, tiny_base.source).caveats, "a folder is known by its name"
    other = shutil.copytree(sealed, tmp_path / "other")
    manifest = json.loads((other / MANIFEST_FILE).read_text()) | {"base_model_hash": "0" * 64}
    (other / MANIFEST_FILE).write_text(json.dumps(manifest))
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(AdapterError, match="for another base model"):
        bring(other, tmp_path)


EXPRESSION = r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)"


def test_an_adapter_over_a_quantised_copy_is_taken_for_the_model_that_is_stated(
    plain, tiny_base, tmp_path
):
    """As Unsloth saves them: the base model's name ends with -bnb-4bit, and the modules are a
    regular expression.
    """
    names = {name.split(".")[-3] for name in load_file(plain / WEIGHTS_FILE)}
    reconfigure(
        plain,
        base_model_name_or_path="unsloth/heron-1b-unsloth-bnb-4bit",
        target_modules=EXPRESSION,
    )
    with pytest.raises(AdapterError, match="trainer import --base-model"):
        bring(plain, tmp_path, tiny_base.source)
    manifest = import_adapter(str(plain), tmp_path / "out", tiny_base.source, str, is_stated=True)
    assert "was stated as its base model" in manifest.caveats[0]
    config = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    assert set(config["target_modules"]) == names
    model = PeftSwitcher(load_model(tiny_base, "float32"), fingerprint(tiny_base))
    model.load(AdapterRef("mira", "imported", tmp_path / "out"))
    adapted = {
        name.split(".")[-4] for name, _ in model.model.named_parameters() if "lora_A" in name
    }
    assert adapted == names


def test_a_quantised_copy_of_the_served_model_is_known_by_its_name(plain, tiny_base, tmp_path):
    reconfigure(plain, base_model_name_or_path=f"unsloth/{tiny_base.folder.name}-bnb-4bit")
    assert "a quantised copy of" in bring(plain, tmp_path, tiny_base.source).caveats[0]


def test_a_manifest_that_does_not_match_is_refused(sealed, tmp_path):
    damaged = shutil.copytree(sealed, tmp_path / "damaged")
    reweigh(damaged, **{f"{LAYER}.lora_B.weight": torch.zeros(64, 4)})
    with pytest.raises(AdapterError, match=f"{WEIGHTS_FILE} does not match its checksum"):
        bring(damaged, tmp_path)
    (damaged / MANIFEST_FILE).write_text("{}")
    with pytest.raises(AdapterError, match=r"manifest.json is damaged"):
        bring(damaged, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules_to_save": ["lm_head"]}, "more than a plain LoRA: modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"peft_type": "IA3"}, "its type is 'IA3'"),
        ({"bias": "all"}, "it trains biases"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"target_modules": {"a": 1}}, "target_modules is no list"),
        ({"r": 4096}, "'rank 4096' is not accepted"),
        ({"lora_alpha": float("nan")}, "'alpha nan' is not accepted"),
        ({"r": 8}, "rank 4 and 4, and adapter_config.json states 8"),
    ],
)
def test_a_configuration_beyond_plain_lora_is_refused(plain, tmp_path, changes, words):
    reconfigure(plain, **changes)
    with pytest.raises(AdapterError, match=words):
        bring(plain, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{LAYER}.lora_A.weight": torch.full((4, 64), torch.nan)}, "values that are not finite"),
        ({f"{LAYER}.lora_A.weight": torch.ones((4, 64), dtype=torch.int8)}, "stored as I8"),
        (
            {f"{LAYER}.lora_A.weight": torch.ones((4, 32))},
            r"shapes \(4, 32\) and .*64 inputs and 64 outputs",
        ),
        ({f"{LAYER}.lora_B.weight": None}, "has lora_A only"),
        ({f"{LAYER}.weight": torch.ones(64, 64)}, "no part of a plain LoRA"),
        (
            {f"{LAYER.replace('.0.', '.9.')}.lora_A.weight": torch.ones(4, 64)},
            "base model does not have",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(plain, tmp_path, changes, words):
    reweigh(plain, **changes)
    with pytest.raises(AdapterError, match=f"does not fit: .*{words}"):
        bring(plain, tmp_path)


def test_files_that_are_none_are_refused(plain, tmp_path):
    (plain / WEIGHTS_FILE).write_bytes(b"no safetensors")
    with pytest.raises(AdapterError, match=r"not fit: .*cannot be read"):
        bring(plain, tmp_path)
    (plain / CONFIG_FILE).write_text("[1]")
    with pytest.raises(AdapterError, match=r"adapter_config\.json is not a JSON"):
        bring(plain, tmp_path)
    (tmp_path / "mira.zip").write_bytes(b"PK no zip")
    with pytest.raises(AdapterError, match=r"mira\.zip is no zip"):
        bring(tmp_path / "mira.zip", tmp_path)
    with pytest.raises(AdapterError, match=r"no complete adapter in .*/none"):
        bring(tmp_path / "none", tmp_path)


def test_a_zip_bomb_is_refused(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(external_adapter_files, "MAX_TEXT_BYTES", 10)
    with zipfile.ZipFile(tmp_path / "mira.zip", "w") as archive:
        for path in plain.iterdir():
            archive.write(path, path.name)
    with pytest.raises(AdapterError, match=r"config\.json of mira\.zip has 0 MiB"):
        bring(tmp_path / "mira.zip", tmp_path)
