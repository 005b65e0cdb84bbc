"""Naming a base model: what keeps it from being fetched is told apart."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors
from jinja2.exceptions import SecurityError

from personas.errors import BaseModelError
from personas.models.base_model import locate, recommended_sampling
from personas.models.loading import load_model, load_tokenizer
from personas.schemas.chat import SamplingParams
from trainer.recipe.target_modules import block_matrices
from trainer.train.job import load_fast_tokenizer

ANSWER = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.GatedRepoError("gated", response=ANSWER), r"accepted its terms.*set HF_TOKEN"),
        (
            errors.RepositoryNotFoundError("none", response=ANSWER),
            r"no such model, or it is private",
        ),
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
    with pytest.raises(BaseModelError, match=r"'harbour/tiny' .*fetched from a hub before"):
        locate("harbour/tiny", fetch=False)
    with pytest.raises(BaseModelError, match="'no such thing' is not on"):
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
    with pytest.raises(BaseModelError, match=r"config\.json of .*cannot be read: .*Fetch"):
        locate(str(copied))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, SamplingParams()),
        ({"do_sample": False, "temperature": 0.1}, SamplingParams()),
        ({"temperature": 0.1}, SamplingParams()),
        ([], SamplingParams()),
        (
            {
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.8,
                "top_k": 20,
                "max_new_tokens": 2048,
            },
            SamplingParams(temperature=0.7, top_p=0.8, top_k=20),
        ),
        (
            {"do_sample": True, "temperature": 0.3, "min_p": 0.15, "repetition_penalty": 1.1},
            SamplingParams(temperature=0.3, min_p=0.15, repetition_penalty=1.1),
        ),
        ({"do_sample": True, "top_k": 20.5, "temperature": float("nan")}, SamplingParams()),
        (
            {
                "do_sample": True,
                "temperature": -1,
                "top_p": 0,
                "top_k": "20",
                "min_p": True,
                "repetition_penalty": 9,
            },
            SamplingParams(),
        ),
    ],
)
def test_a_model_is_sampled_as_its_makers_recommend(copied, config, expected):
    (copied / "generation_config.json").unlink(missing_ok=True)
    if config is not None:
        (copied / "generation_config.json").write_text(json.dumps(config))
    assert recommended_sampling(locate(str(copied))) == expected


def test_a_damaged_recommendation_is_reported(copied):
    (copied / "generation_config.json").write_text("{")
    with pytest.raises(BaseModelError, match=r"generation_config\.json of .*cannot be"):
        recommended_sampling(locate(str(copied)))


@pytest.mark.parametrize("tokenizer", ["{", '{"a": 1}'])
def test_a_damaged_tokenizer_is_reported(copied, tokenizer):
    (copied / "tokenizer.json").write_text(tokenizer)
    for reads in (load_tokenizer, load_fast_tokenizer):
        with pytest.raises(BaseModelError, match=r"tokenizer of .*Fetch its tokenizer\.json"):
            reads(locate(str(copied)))


@pytest.mark.parametrize("kept", [4, 2000, 100_000])
def test_weights_that_are_cut_short_are_reported_by_their_header(copied, kept):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(BaseModelError, match=r"model\.safetensors of .*cannot be read: .*Fetch"):
        block_matrices(locate(str(copied)))


def test_weights_of_another_shape_are_reported(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "intermediate_size": 256}))
    with pytest.raises(BaseModelError, match=r"other shapes .*config\.json"):
        load_model(locate(str(copied)), "bfloat16")


@pytest.mark.parametrize("kind", ["llama", "of_its_own"])
def test_code_that_comes_with_a_model_is_never_run(copied, tmp_path, kind):
    marker = tmp_path / "ran"
    (copied / "own_code.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    own = {name: "own_code.Own" for name in ("AutoConfig", "AutoModelForCausalLM")}
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"auto_map": own, "model_type": kind}))
    tokenizer = json.loads((copied / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["own_code.Own", "own_code.Own"]}}
    (copied / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    base = locate(str(copied))
    load_tokenizer(base)
    if kind == "llama":
        load_model(base, "float32")  # its architecture is known, so its code is not needed
    else:
        with pytest.raises(BaseModelError):
            load_model(base, "float32")
    assert not marker.exists()


def test_a_chat_template_reaches_nothing_but_messages(copied):
    (copied / "chat_template.jinja").write_text(
        "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    )
    tokenizer = load_tokenizer(locate(str(copied)))
    with pytest.raises(SecurityError):
        tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
