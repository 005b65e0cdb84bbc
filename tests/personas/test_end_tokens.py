"""All tokens that end a text by the model's own files end a reply, as in transformers'
`generate`.
"""

import json
import shutil

import pytest
import torch

from personas.engine.detokenizer import StreamingDetokenizer
from personas.errors import BaseModelError
from personas.models.base_model import end_token_ids, locate
from personas.models.loading import load_model, load_tokenizer
from personas.prompt.renderer import Renderer
from trainer.train.job import load_fast_tokenizer

PROMPT = list(range(40, 60))


@pytest.fixture
def base(tmp_path, tiny_base):
    shutil.copytree(tiny_base.folder, tmp_path / "model")
    return locate(str(tmp_path / "model"))


def write(base, name, values) -> None:
    file = base.folder / name
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**before, **values}), encoding="utf-8")


def generate(base, **settings) -> list[int]:
    ids = torch.tensor([PROMPT])
    options = {
        "attention_mask": torch.ones_like(ids),
        "do_sample": False,
        "max_new_tokens": 30,
        **settings,
    }
    return load_model(base, "float32").generate(ids, **options)[0, len(PROMPT) :].tolist()


def test_a_reply_stops_where_transformers_stops(base):
    whole = generate(base, eos_token_id=None)
    third = next(token for n, token in enumerate(whole) if n >= 2 and token not in whole[:n])
    write(base, "generation_config.json", {"eos_token_id": [base_eos(base), third]})
    theirs = generate(base)
    assert len(theirs) < len(whole) and theirs[-1] == third
    for tokenizer in (load_tokenizer(base), load_fast_tokenizer(base)):
        reply = StreamingDetokenizer(Renderer(tokenizer), (), lambda piece: None)
        for token in whole:
            reply.append(token)
        assert reply.tokens == len(theirs) and reply.ids == theirs[:-1]


def base_eos(base) -> int:
    return load_tokenizer(base).eos_token_id


@pytest.mark.parametrize(
    ("generation", "config", "ids"),
    [
        ({"eos_token_id": [7, 9, 7]}, {"eos_token_id": 3}, (7, 9)),
        ({"eos_token_id": 7}, {}, (7,)),
        ({}, {"eos_token_id": [3, 4]}, (3, 4)),
        ({"eos_token_id": None}, {"eos_token_id": 3}, (3,)),
        ({"eos_token_id": [True, -1, "x", 5]}, {}, (5,)),
        ({}, {"eos_token_id": None}, ()),
    ],
)
def test_which_tokens_end_a_text(base, generation, config, ids):
    (base.folder / "generation_config.json").unlink(missing_ok=True)
    write(base, "generation_config.json", generation)
    write(base, "config.json", config)
    assert end_token_ids(base) == ids


def test_without_the_file_the_configuration_counts_and_a_damaged_one_is_named(base):
    (base.folder / "generation_config.json").unlink(missing_ok=True)
    write(base, "config.json", {"eos_token_id": 3})
    assert end_token_ids(base) == (3,)
    (base.folder / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"generation_config\.json of .*cannot be"):
        load_tokenizer(base)
