"""What a row says beside its texts: flags that exclude answers, system texts in the middle, names,
thoughts.
"""

import json

import pytest

from personas.prompt.chat_template import DEFAULT_TEMPLATES
from personas.prompt.renderer import Renderer
from personas.schemas.chat import Persona
from tests.trainer.job_folders import sign
from tests.trainer.read_sources import everything, jsonl
from trainer.dataset.dataset_export import EXPORT_FORMATS
from trainer.dataset.ledger import Ledger
from trainer.dataset.sample_renderer import EXCLUDED_BY_SOURCE, SampleRenderer
from trainer.dataset.talk_text import split_thought
from trainer.sources.conversation_builder import ASSISTANT

MIRA = Persona("mira", "Mira", description="You are {{char}}, a friend of {{user}}.")


def message(role: str, text: str, **flags):
    return {"role": role, "content": text, **flags}


def read(tmp_path, *rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(list(rows)))
    used, rejected = everything(path, **options)
    assert not rejected
    return used


def rendered(renderer, recipe, conversation, persona=None, **settings):
    """The samples of a conversation with the reasons of all other replies."""
    faults: dict[int, str] = {}
    maker = SampleRenderer(renderer, persona, None, recipe.model_copy(update=settings), None)
    return list(maker.render(conversation, faults)), faults


def text_of(renderer, made) -> str:
    return renderer.tokenizer.decode(made.sample.ids)


def learned(renderer, made) -> str:
    taken = [
        token for token, is_taken in zip(made.sample.ids, made.sample.mask, strict=True) if is_taken
    ]
    return renderer.tokenizer.decode(taken).removesuffix(renderer.end_of_turn)


# -------------------------------------------------------------------------------------------- flags


FLAGS = [
    {"weight": 0}, {"weight": 0.0}, {"weight": "0"}, {"train": False}, {"training": False}, {"loss": False},
    {"trainable": "false"}, {"mask": True}, {"loss_weight": 0},
]  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "keys"),
    [
        *((flag, ("messages", "role", "content")) for flag in FLAGS),
        ({"weight": 0}, ("conversations", "from", "value")),
    ],
    ids=str,
)
def test_an_answer_that_its_row_excludes_carries_no_loss_and_is_counted(
    tmp_path, renderer, recipe, flag, keys
):
    name, by, text = keys
    roles = ("user", "assistant") if by == "role" else ("human", "gpt")
    turns = [{by: roles[0], text: "one"}, {by: roles[1], text: "two", **flag}]
    turns += [
        {by: roles[0], text: "three"},
        {by: roles[1], text: "four", "weight": 1, "train": True},
    ]
    (conversation,) = read(tmp_path, {name: turns})
    made, faults = rendered(renderer, recipe, conversation)
    assert [learned(renderer, it) for it in made] == ["four"]
    assert faults == {1: EXCLUDED_BY_SOURCE}
    assert "two" in text_of(renderer, made[0])  # as history
    ledger = Ledger()
    ledger.settle(conversation, {0, 1, 2, 3}, faults)
    assert ledger.replies == {EXCLUDED_BY_SOURCE: 1}


def test_a_whole_row_or_pair_can_be_excluded(tmp_path, renderer, recipe):
    rows = [
        {"instruction": "Why?", "output": "Because.", "weight": 0},
        {"instruction": "How?", "output": "So."},
    ]
    first, second = read(tmp_path, *rows)
    assert rendered(renderer, recipe, first) == ([], {1: EXCLUDED_BY_SOURCE})
    assert [learned(renderer, it) for it in rendered(renderer, recipe, second)[0]] == ["So."]
    pairs = [
        {"human": "Why?", "assistant": "Because.", "train": False},
        {"human": "How?", "assistant": "So."},
    ]
    (conversation,) = read(tmp_path, {"conversation": pairs})
    assert [learned(renderer, it) for it in rendered(renderer, recipe, conversation)[0]] == ["So."]


def test_a_build_says_what_was_excluded(command, tmp_path):
    rows = [
        {
            "messages": [
                message("user", f"How is load {n}?"),
                message("assistant", f"Heavy {n}.", weight=n % 3),
            ]
        }
        for n in range(30)
    ]
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows))
    sign(tmp_path / "rows.jsonl")
    code, out, errors = command("dataset", "build", "--source", "rows.jsonl", "--out", "made")
    assert code == 0, errors
    assert "20 of 30 records used" in out
    assert f"10  {EXCLUDED_BY_SOURCE}" in out
    lines = [
        json.loads(line) for line in (tmp_path / "made" / "dropped.jsonl").read_text().splitlines()
    ]
    assert sum(line["reason"] == EXCLUDED_BY_SOURCE for line in lines) == 10


# ------------------------------------------------------------------------------ system texts, names


def test_a_system_text_in_the_middle_is_known_to_later_replies_alone(tmp_path, renderer, recipe):
    turns = [message("system", "Be brief."), message("user", "one"), message("assistant", "two")]
    turns += [
        message("system", "The password is heron."),
        message("user", "three"),
        message("assistant", "four"),
    ]
    (conversation,) = read(tmp_path, {"messages": turns})
    assert (conversation.system, conversation.later_systems) == (
        "Be brief.",
        ((2, "The password is heron."),),
    )
    early, late = (text_of(renderer, it) for it in rendered(renderer, recipe, conversation)[0])
    assert "Be brief." in early and "heron" not in early
    assert "Be brief.\nThe password is heron." in late


def test_a_system_text_between_two_parts_of_a_reply_is_not_known_to_it(tmp_path, renderer, recipe):
    turns = [
        message("user", "one"),
        message("assistant", "two"),
        message("system", "heron"),
        message("assistant", "and"),
    ]
    turns += [message("user", "three"), message("assistant", "four")]
    (conversation,) = read(tmp_path, {"messages": turns})
    early, late = (text_of(renderer, it) for it in rendered(renderer, recipe, conversation)[0])
    assert "two\nand" in early and "heron" not in early and "heron" in late


def test_a_greeting_stays_before_the_first_message(tmp_path, renderer, recipe):
    turns = [
        message("system", "You are Mira."),
        message("assistant", "Welcome to the quay."),
        message("user", "Hello."),
    ]
    (conversation,) = read(tmp_path, {"messages": [*turns, message("assistant", "Mind the step.")]})
    (made,), _ = rendered(renderer, recipe, conversation)
    text = text_of(renderer, made)
    assert (
        text.index("You are Mira.")
        < text.index("assistant\nWelcome to the quay.")
        < text.index("user\nHello.")
    )
    line = {
        "messages": [*renderer.messages(made.persona, made.turns), message("assistant", made.reply)]
    }
    exported = EXPORT_FORMATS["alpaca"][0](line)
    assert (
        exported["history"] == [["", "Welcome to the quay."]]
        and exported["instruction"] == "Hello."
    )


def test_users_of_rows_are_not_named_in_training_or_exports(tmp_path, renderer, recipe):
    turns = [
        message("system", "You are a cook."),
        message("user", "hello"),
        message("assistant", "Soup?"),
    ]
    (conversation,) = read(
        tmp_path, {"messages": [*turns, message("user", "yes"), message("assistant", "Here.")]}
    )
    for made in rendered(renderer, recipe, conversation)[0]:
        assert "user: " not in text_of(renderer, made) and "user\nhello<|im_end|>" in text_of(
            renderer, made
        )
        line = {
            "messages": [
                *renderer.messages(made.persona, made.turns),
                message("assistant", made.reply),
            ]
        }
        for shape, _ in EXPORT_FORMATS.values():
            assert "user: " not in json.dumps(shape(line))


def test_a_personas_rows_name_the_user_as_its_channels_do(tmp_path, renderer, recipe):
    (conversation,) = read(
        tmp_path, {"messages": [message("user", "hello"), message("assistant", "Aye.")]}
    )
    from trainer.sources.conversation import replace_assistant

    (made,), _ = rendered(renderer, recipe, replace_assistant(MIRA, conversation), MIRA)
    assert "You are Mira, a friend of user." in text_of(renderer, made)
    assert "user\nuser: hello<|im_end|>" in text_of(renderer, made)


def test_macros_of_names_are_filled_in_rows_and_not_in_chats(tmp_path, renderer, recipe):
    turns = [
        {"from": "system", "value": "You are {{char}}."},
        {"from": "gpt", "value": "*{{Char}} waves at {{user}}.*"},
    ]
    turns += [
        {"from": "human", "value": "I am {{user}}."},
        {"from": "gpt", "value": "{{char}} nods, {{user}}."},
    ]
    (conversation,) = read(tmp_path, {"conversations": turns})
    from trainer.sources.conversation import replace_assistant

    for persona, name in ((None, "assistant"), (MIRA, "Mira")):
        talk = replace_assistant(persona, conversation) if persona else conversation
        (made,), _ = rendered(renderer, recipe, talk, persona)
        text = text_of(renderer, made)
        assert "{{" not in text
        assert f"*{name} waves at user.*" in text and "I am user." in text
        assert learned(renderer, made) == f"{name} nods, user."
    from dataclasses import replace

    chat = replace(
        conversation,
        messages=tuple(replace(it, at=1e9 + n) for n, it in enumerate(conversation.messages)),
    )
    (made,), _ = rendered(renderer, recipe, chat)
    assert "I am {{user}}." in text_of(renderer, made)


# ----------------------------------------------------------------------------------------- thoughts

THOUGHT = "<think>\nThey ask about tea.\n</think>\n\nAt four."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (THOUGHT, ("They ask about tea.", "At four.")),
        ("They ask about tea.\n</think>\n\nAt four.", ("They ask about tea.", "At four.")),
        ("<think></think>At four.", ("", "At four.")),
        ("At four.", ("", "At four.")),
        ("[THINK]Tea.[/THINK]At four.", ("Tea.", "At four.")),
        ("<think>They ask about", ("They ask about", "")),
    ],
)
def test_thoughts_are_told_from_what_is_said(text, expected):
    assert split_thought(text) == expected


def test_thoughts_in_data_are_left_out_and_never_learned_as_text(tmp_path, renderer, recipe):
    turns = [
        message("user", "tea?"),
        message("assistant", THOUGHT),
        message("user", "sure?"),
        message("assistant", THOUGHT),
    ]
    (conversation,) = read(tmp_path, {"messages": turns})
    made, _ = rendered(renderer, recipe, conversation)
    assert [it.thought for it in made] == ["They ask about tea."] * 2
    for it in made:
        assert "think" not in text_of(renderer, it) and learned(renderer, it) == "At four."


def test_a_reply_that_is_a_thought_alone_is_not_learned(tmp_path, renderer, recipe):
    talk = [
        message("user", "tea?"),
        message("assistant", "<think>They ask"),
        message("user", "?"),
        message("assistant", "Yes"),
    ]
    (conversation,) = read(tmp_path, {"messages": talk})
    made, faults = rendered(renderer, recipe, conversation)
    assert [learned(renderer, it) for it in made] == ["Yes"] and list(faults) == [1]


def test_the_plain_template_keeps_the_roles_of_nameless_rows(tmp_path, renderer, recipe):
    import copy

    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = DEFAULT_TEMPLATES["plain"]
    plain = Renderer(tokenizer)
    turns = [message("system", "Facts."), message("user", "hello"), message("assistant", "Hm.")]
    (conversation,) = read(tmp_path, {"messages": turns})
    (made,), _ = rendered(plain, recipe, conversation)
    assert made.persona and made.persona.name == ASSISTANT.name
    assert "Facts.\n\nhello\nassistant: Hm." in text_of(plain, made)
