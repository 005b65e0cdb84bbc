"""What a model thinks is removed from its text, in whatever pieces it comes."""

import pytest

from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.speaker_labels import SpeakerLabels
from personas.engine.thoughts import END_TOKENS, remove_thoughts

SPOKEN = [
    ("<think>They ask for salt.</think>\n\nSalt is in the shed.", "Salt is in the shed."),
    ("They ask for salt. I know where.\n</think>\n\nSalt is in the shed.", "Salt is in the shed."),
    ("<think></think>Salt is in the shed.", "Salt is in the shed."),
    ("Salt. <think>Where was it?</think> In the shed.", "Salt. In the shed."),
    ("<think>a<think>b</think>c</think>Salt.", "Salt."),
    ("<THINKING>They ask.</THINKING> Salt.", "Salt."),
    ("[THINK]They ask.[/THINK]Salt.", "Salt."),
    ("◁think▷They ask.◁/think▷Salt.", "Salt."),
    ("<|START_THINKING|>They ask.<|END_THINKING|>Salt.", "Salt."),
    ((
        "<|channel|>analysis<|message|>They "
        "ask.<|end|><|start|>assistant<|channel|>final<|message|>Salt."
    ), "Salt."),
    ("5 < 7, [sic] and <thin ice>", "5 < 7, [sic] and <thin ice>"),
    ("I [think] so. <thinks>", "I [think] so. <thinks>"),
    ("Salt. <think>Is it", "Salt."),
    ("<think>They ask for", ""),
    ((
        "<|begin_of_thought|>They "
        "ask.<|end_of_thought|>\n\n<|begin_of_solution|>Salt.<|end_of_solution|>"
    ), "Salt."),
    ("<|begin_of_thought|>They ask.\n<|begin_of_solution|>Salt.", "Salt."),
    ("<|channel>thought\nThey ask.<channel|>Salt.", "Salt."),
    ("<reason>They ask.</reason>Salt.", "Salt."),
    ("<analysis>They ask.</analysis>Salt.", "Salt."),
    ("<Think >They ask.</think >Salt.", "Salt."),
    ("<THINK\n>They ask.</ Think>Salt.", "Salt."),
    ("<|start|>assistant<|channel|>analysis<|message|>They ask.<|end|>"
     "<|start|>assistant<|channel|>final<|message|>Salt.<|return|>", "Salt."),
    *((f"Salt.{end}{more}", "Salt.") for end in END_TOKENS for more in ("", "\n", "\n<|im_start|>user\nmore")),
    ((
        "<think>They "
        "ask.</think>Salt.<|im_end|>\n<|im_start|>assistant\n<think>More.</think>Pepper."
    ), "Salt."),
    ("<s>Pepper.</s> Salt.", "<s>Pepper.</s> Salt."),
    ("Write `</s>` and `<end_of_turn>`.", "Write `</s>` and `<end_of_turn>`."),
    ("Salt <|im_ended|> and </section> <end of turn>", "Salt <|im_ended|> and </section> <end of turn>"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "spoken"), SPOKEN)
def test_thoughts_are_removed_from_a_whole_text(text, spoken):
    assert remove_thoughts(text).text.strip() == spoken


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize(("text", "spoken"), SPOKEN)
def test_thoughts_are_removed_from_a_servers_pieces(renderer, text, spoken, size):
    shown: list[str] = []
    reply = StreamingDetokenizer(renderer, (), shown.append)
    for at in range(0, len(text), size):
        reply.append_text(text[at : at + size])
    reply.stop()
    assert reply.text == spoken
    if text.count("</") < 2 and text.startswith(
        ("<", "[", "◁", "Salt")
    ):  # else nobody can tell in advance
        assert "".join(shown) == spoken


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Ballast: Salt.", "Salt."),
        ("\n BALLAST:Salt.", "Salt."),
        ("<think>They ask.</think>\nBallast: Salt.", "Salt."),
        ("Ballast: Ballast: Salt.", "Ballast: Salt."),
        ("Ballast is heavy: salt.", "Ballast is heavy: salt."),
        ("Salt. Ballast: no.", "Salt. Ballast: no."),
        ("Ball", "Ball"),
    ],
)
def test_the_personas_own_name_before_the_reply_is_left_out(renderer, text, spoken, size):
    shown: list[str] = []
    reply = StreamingDetokenizer(renderer, (), shown.append, labels=SpeakerLabels(["Ballast"]))
    for at in range(0, len(text), size):
        reply.append_text(text[at : at + size])
    reply.stop()
    assert "".join(shown) == reply.text == spoken


def test_a_reply_ends_where_the_turn_ends(renderer):
    reply = StreamingDetokenizer(renderer, (), lambda piece: None)
    for piece in ("Salt.", "<|im_", "end|>", "\n", "<|im_start|>user"):
        assert not reply.stopped
        reply.append_text(piece)
        if piece == "\n":
            break
    assert reply.stopped and reply.text == "Salt."


def test_nothing_is_shown_of_a_thought_that_the_servers_template_opened(renderer):
    shown: list[str] = []
    reply = StreamingDetokenizer(renderer, (), shown.append)
    reply.starts_in_thought = True
    for piece in ("They ask ", "for salt.", "</th", "ink>\n", "Salt is ", "there."):
        reply.append_text(piece)
    reply.stop()
    assert "".join(shown) == reply.text == "Salt is there."


def test_thoughts_are_removed_from_tokens_too(renderer):
    shown: list[str] = []
    reply = StreamingDetokenizer(renderer, (), shown.append)
    for token in renderer.tokenizer("<think>They ask.</think>Salt is there.")["input_ids"]:
        reply.append(token)
    reply.stop()
    assert "".join(shown) == reply.text == "Salt is there."
