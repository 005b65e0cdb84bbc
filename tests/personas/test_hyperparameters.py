"""Settings that people write: what is wrong is refused by name, with what is allowed."""

import math

import pytest
from pydantic import ValidationError

from personas.errors import RequestError
from personas.schemas.hyperparameters import (
    Hyperparameters,
    describe_allowed_values,
    parse_settings,
    parse_settings_line,
)


def test_settings_are_read_with_their_kinds():
    found = parse_settings(
        [
            "learning_rate=2e-4",
            "lora_r = 8",
            "double_quant=true",
            "optim=adamw_torch",
            "max_length=512",
        ]
    )
    assert found == Hyperparameters(
        learning_rate=2e-4, lora_r=8, double_quant=True, optim="adamw_torch", max_length=512
    )
    assert (
        parse_settings([])
        == parse_settings_line("")
        == parse_settings_line(" , ")
        == Hyperparameters()
    )


def test_a_line_of_settings_may_hold_a_list():
    found = parse_settings_line("target_modules=q_proj, v_proj , lora_r=4,seed=7")
    assert found == Hyperparameters(target_modules=("q_proj", "v_proj"), lora_r=4, seed=7)


@pytest.mark.parametrize(
    ("pair", "cause", "advice"),
    [
        (
            "learning_rate=5",
            "learning_rate cannot be '5'.",
            "a number from 1e-07 to 0.01",
        ),
        ("learning_rate=", "learning_rate cannot be ''.", "from 1e-07 to 0.01"),
        ("lora_r=0", "lora_r cannot be '0'.", "a whole number from 1 to 256."),
        ("max_steps=1e3", "max_steps cannot be '1e3'.", "a whole number from 0 to 1000000."),
        ("seed=-1", "seed cannot be '-1'.", "from 0, below 2147483648"),
        ("lora_r=many", "lora_r cannot be 'many'.", "a whole number from 1 to 256."),
        ("lora_dropout=1", "lora_dropout cannot be '1'.", "a number from 0, below 1."),
        ("num_train_epochs=0", "num_train_epochs cannot be '0'.", "a number above 0 to 50."),
        ("weight_decay=nan", "weight_decay cannot be 'nan'.", "a number from 0 to 1."),
        (
            "optim=sgd",
            "optim cannot be 'sgd'.",
            "adamw_8bit, paged_adamw_8bit or paged_adamw_32bit.",
        ),
        ("double_quant=perhaps", "double_quant cannot be 'perhaps'.", "true or false."),
        ("use_dora=true", "There is no setting 'use_dora'.", "Known: quant_type"),
        ("lora_r", "'lora_r' is not a setting.", "Write name=value"),
        ("lr=1e-3", "There is no setting 'lr'.", "learning_rate"),
        ("epochs=2", "no setting 'epochs'", "num_train_epochs"),
        ("lora_rank=2", "no setting 'lora_rank'", "lora_r"),
        ("batch_size=2", "no setting 'batch_size'", "per_device_train_batch_size"),
        ("colour=red", "There is no setting 'colour'.", "Known: quant_type"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(pair, cause, advice):
    with pytest.raises(RequestError) as caught:
        parse_settings([pair])
    assert cause in caught.value.message and advice in caught.value.advice


def test_several_wrong_ones_are_all_named_and_nothing_is_set_twice():
    with pytest.raises(RequestError, match=r"lora_r .*'0'.*seed .*'-1'"):
        parse_settings_line("lora_r=0, seed=-1, max_length=512")
    with pytest.raises(RequestError, match="lora_r is set twice"):
        parse_settings_line("lora_r=4, lora_r=8")


@pytest.mark.parametrize("name", Hyperparameters.model_fields)
def test_what_is_allowed_is_what_is_accepted(name):
    """The words are made from the schema; here the ends of each range are tried."""
    words = describe_allowed_values(name)
    schema = Hyperparameters.model_json_schema()["properties"][name]["anyOf"][0]
    for word in schema.get("enum", []):
        assert word in words and getattr(parse_settings([f"{name}={word}"]), name) == word
    for key, inclusive, outwards in (
        ("minimum", True, -1), ("maximum", True, 1), ("exclusiveMinimum", False, -1), ("exclusiveMaximum", False, 1),
    ):  # fmt: skip
        if key not in schema:
            continue
        end = schema[key]
        assert (str(int(end)) if end == int(end) else f"{end:g}") in words
        if inclusive:
            assert getattr(parse_settings([f"{name}={end}"]), name) == end
        beyond = (
            end + outwards
            if schema["type"] == "integer"
            else math.nextafter(end, outwards * math.inf)
        )
        with pytest.raises(RequestError):
            parse_settings([f"{name}={beyond if inclusive else end}"])


def test_a_request_knows_the_same_names():
    with pytest.raises(ValidationError):
        Hyperparameters.model_validate({"lr": 1})
