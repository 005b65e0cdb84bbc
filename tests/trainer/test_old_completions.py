"""The separators of OpenAI's old completions are not learned; what a persona ends with is."""

import pytest

from tests.trainer.read_sources import everything, jsonl, spoken

PROMPTS = ("Is there soup?", "And bread?", "Tell me more.", "Why")
REPLIES = ("Always, dear.", "Two loaves!", "The ferry is late", "*He nods*")


def read(path, prompt_end, completion_end, names=("prompt", "completion")):
    rows = []
    for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
        rows.append({names[0]: prompt + prompt_end, names[1]: " " + reply + completion_end})
    path.write_bytes(jsonl(rows))
    used, rejected = everything(path)
    assert not rejected
    said = [[text for _, text in spoken(talk)] for talk in used]
    return [texts[0] for texts in said], [texts[1] for texts in said]


PROMPT_ENDS = (" ->", "\n\n===>", "###", "\n\nAnswer:", "\n\n---\n\nAgent: ")
COMPLETION_ENDS = (
    " END",
    "\n",
    "###",
    " <|endoftext|>",
    " [END]",
    "</s>",
    "\nSTOP",
    "<eos>",
    ".END",
    " →",
    " [/INST]",
    "\n\n**Oda:**",
)


@pytest.mark.parametrize(
    ("prompt_end", "completion_end"),
    [
        *((end, " END") for end in PROMPT_ENDS),
        *(("\n\n###\n\n", end) for end in COMPLETION_ENDS),
    ],
)
def test_an_ending_that_all_texts_share_is_stripped(tmp_path, prompt_end, completion_end):
    prompts, replies = read(tmp_path / "rows.jsonl", prompt_end, completion_end)
    assert (prompts, replies) == ([*PROMPTS], [*REPLIES])


@pytest.mark.parametrize(
    "end",
    [
        " :)",
        " 😀",
        " my dear.",
        "!!",
        " (yes)",
        ' "so"}',
        "\n```",
        " **so**",
        "</p>",
        " LOL",
        " ^^",
        " ~",
        " *",
        " ¯\\_(ツ)_/¯",
    ],
)
def test_what_is_said_stays(tmp_path, end):
    prompts, replies = read(tmp_path / "rows.jsonl", end, end)
    assert prompts == [text + end for text in PROMPTS]
    assert replies == [text + end for text in REPLIES]


def test_other_columns_and_single_texts_keep_their_endings(tmp_path):
    names = ("instruction", "output")
    prompts, replies = read(tmp_path / "rows.jsonl", " ->", " END", names=names)
    assert prompts[0].endswith("->") and replies[0].endswith("END")
    path = tmp_path / "few.jsonl"
    path.write_bytes(jsonl([{"prompt": "Soup ->", "completion": "Yes END"}]))
    assert spoken(everything(path)[0][0]) == [("user", "Soup ->"), ("assistant*", "Yes END")]


def test_a_transcript_keeps_its_labels(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Human: {text}\nAssistant:", "completion": f" {text}!"} for text in PROMPTS]
    path.write_bytes(jsonl(rows))
    assert spoken(everything(path)[0][0]) == [
        ("user", PROMPTS[0]),
        ("assistant*", PROMPTS[0] + "!"),
    ]
