"""Naming a base model: what keeps it from being fetched is told apart."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from personas.errors import BaseModelError
from personas.models.base_model import load_model, load_tokenizer, locate
from trainer.recipe.resolve import linear_layers
from trainer.train.job import load_fast_tokenizer

ANSWER = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.GatedRepoError("gated", response=ANSWER), r"accepted its terms.*set HF_TOKEN"),
        (errors.RepositoryNotFoundError("none", response=ANSWER), r"no such model, or it is private"),
        (errors.HFValidationError("not an id"), r"neither a folder nor a model's id.*owner/name"),
        (errors.LocalEntryNotFoundError("offline"), r"no hub could be reached\. Check the network"),
        (OSError("no route"), r"no hub could be reached \(OSError\).*Check the network"),
    ],
)
def test_each_reason_has_its_own_words(monkeypatch, error, words):
    def fetch(name, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BaseModelError, match=words):
        locate("owner/name")


def test_without_fetching_only_what_was_fetched_before_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseModelError, match=r"'harbour/tiny' is not on this machine.*fetched from a hub before"):
        locate("harbour/tiny", fetch=False)
    with pytest.raises(BaseModelError, match=r"'no such thing' is not on this machine"):
        locate("no such thing", fetch=False)
    cached = tmp_path / "models--harbour--tiny"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    for name in ("config.json", "model.safetensors"):
        (cached / "snapshots" / "abc" / name).write_text("{}")
    assert locate("harbour/tiny", fetch=False).folder == cached / "snapshots" / "abc"


@pytest.fixture
def copied(tiny_base, tmp_path):
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_base.folder, tmp_path / "model"))


@pytest.mark.parametrize("config", ["{", "[]", '{"text_config": 1}'])
def test_a_damaged_configuration_is_reported(copied, config):
    (copied / "config.json").write_text(config)
    with pytest.raises(BaseModelError, match=r"config\.json of .*model cannot be read: .*Fetch it again"):
        locate(str(copied))


@pytest.mark.parametrize("tokenizer", ["{", '{"a": 1}'])
def test_a_damaged_tokenizer_is_reported(copied, tokenizer):
    (copied / "tokenizer.json").write_text(tokenizer)
    for reads in (load_tokenizer, load_fast_tokenizer):
        with pytest.raises(BaseModelError, match=r"tokenizer of .*model cannot be read .*Fetch its tokenizer\.json"):
            reads(locate(str(copied)))


@pytest.mark.parametrize("kept", [4, 2000, 100_000])
def test_weights_that_are_cut_short_are_reported_by_their_header(copied, kept):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(BaseModelError, match=r"model\.safetensors of .*model cannot be read: .*Fetch it again"):
        linear_layers(locate(str(copied)))


def test_weights_of_another_shape_are_reported(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "intermediate_size": 256}))
    with pytest.raises(BaseModelError, match=r"other shapes than its config\.json says"):
        load_model(locate(str(copied)), "bfloat16")
