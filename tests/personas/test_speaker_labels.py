"""As whom a reply's lines speak, however their labels are marked up: own labels are left out, and a
reply ends before a line of somebody else.
"""

import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.engine.speaker_labels import OwnWords, SpeakerLabels, own_names

MARKUP = (
    "{}{}", "**{}{}**", "**{}**{}", "*{}{}*", "***{}***{}", "__{}__{}", "_{}{}_", "~~{}~~{}", "||{}||{}", "`{}`{}",
    "[{}]{}", "[{}{}]", "({}){}", "<{}>{}", "【{}】{}", "「{}」{}", '"{}"{}', "“{}{}”", "> {}{}", "> **{}**{}",
    "### {}{}", "# **{}**{}", "-# {}{}", "— {}{}", "  {}{}", "{} (laughing){}", "{} [12:30]{}", "🌊 {}{}",
)  # fmt: skip
COLONS = (":", " :", "：", "\u200b:", ": ")
NAMES = {
    "Tobias Reed": ("Tobias Reed", "tobias reed", "TOBIAS", "Tobias", "Tobias  Reed"),
    "Ольга Дуб": ("Ольга Дуб", "ольга"),
    "김하루": ("김하루",),
    "राम लाल": ("राम लाल", "राम"),
    "Đức": ("Đức", "đức", "Đức"),
    "山田 花": ("山田 花",),
    "محمد": ("محمد",),
    "~mina_vale~ ✨": ("mina_vale", "Mina Vale"),
    "Dr: Who": ("Dr: Who",),
}
ROLE_LINES = (
    "User:", "user :", "**Human:**", "### Human:", "### Instruction:", "## Input：", "System:", "Assistant:",
    "USER：", "assistant\n", "user\n", "<|im_start|>user\n", "<start_of_turn>user\n", "[INST]", "[/INST]",
    "<tool_call>", "<|start_header_id|>user<|end_header_id|>", "<｜User｜>", "<<SYS>>", "<|turn>user", "[TOOL_CALLS]",
)  # fmt: skip


def labels():
    others = [*NAMES, *(name.split()[0] for name in NAMES if " " in name and ":" not in name)]
    return SpeakerLabels(
        own_names("Ballast", "Old Bal"), [*others, "Mina Vale", "Mina", "田中", "민수"]
    )


def shown(text, whole=True):
    """Return what is said in a text that comes sign by sign; it never shrinks meanwhile."""
    growing = labels()
    before = ""
    for end in range(len(text) + 1):
        # As the detokenizer does: white space at the end waits.
        said = growing.own_words(text[:end].rstrip(), is_whole=False)
        now = said.text.strip()
        assert now.startswith(before), (before, now)
        before = now
        if said.is_cut:
            break
    end = labels().own_words(text, is_whole=True)
    assert end.text.strip().startswith(before)
    assert end.is_cut or not said.is_cut
    return end.text.strip(), end.is_cut


@pytest.mark.parametrize("markup", MARKUP)
def test_a_reply_ends_before_a_line_of_somebody_else(markup):
    for name, colon in product((form for forms in NAMES.values() for form in forms), COLONS):
        label = markup.format(name, colon)
        said = labels().own_words(f"Good evening.\n{label} I agree.\nYes.", is_whole=True)
        assert said == OwnWords("Good evening.\n", is_cut=True), label
        assert labels().own_words(f"{label} I agree.", is_whole=True) == OwnWords("", is_cut=True)
    for name in ("Tobias Reed", "김하루"):
        label = markup.format(name, ":")
        assert shown(f"Good evening.\n{label} I agree.\nYes.") == ("Good evening.", True), label


@pytest.mark.parametrize("line", ROLE_LINES)
def test_a_reply_ends_before_a_role_or_a_token(line):
    assert shown(f"Good evening.\n{line} I agree.") == ("Good evening.", True)


@pytest.mark.parametrize("markup", MARKUP)
def test_the_own_label_is_left_out(markup):
    for name, colon in product(("Ballast", "BALLAST", "Old Bal", "old"), COLONS):
        label = markup.format(name, colon)
        text, is_cut = shown(f"{label} Salt.\nAnd {name}: tar.\n{label} Rope.")
        assert not is_cut and text.strip("“*_ ").startswith("Salt."), (label, text)
        assert f"And {name}: tar." in text and text.endswith("Rope."), (label, text)


@pytest.mark.parametrize(
    "label",
    [
        "assistant\n\n", "Assistant:\n", "model\n", "### Response:\n", "<start_of_turn>model\n",
        "<|im_start|>assistant\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n", "[/INST] ", "<|assistant|>\n", "<｜Assistant｜>",
        "<|im_start|>assistant\nBallast: ", "<|start|>assistant<|message|>", "[Ballast] ", "<Ballast> ",
    ],
)  # fmt: skip
def test_the_beginning_of_the_own_turn_is_left_out(label):
    assert shown(f"{label}Salt and tar.") == ("Salt and tar.", False)


@pytest.mark.parametrize(
    "text",
    [
        "For:\nMina: papers\nTobias Reed: carrying",
        "For tonight：\n\nMina: papers\nTobias Reed: carrying\nBallast: the lamp",
        "**Watch list**\nMina Vale: first\nTobias: second",
        "## Watch\nMina Vale: first\n**Tobias:** second",
        "So be it.\n- Mina: papers\n- **Tobias Reed:** carrying\n* Ballast: the lamp",
        "So be it.\n1. Mina: papers\n2) Tobias: carrying",
        "| Mina: | papers |\n| Tobias: | rope |",
        "The crew is:\nCaptain: Oda\nMina: mate\nTobias Reed: cook",
        "Set it so:\nUser: admin\nSystem: rope",
        "```yaml\nuser: admin\nMina Vale: mate\n```\nSo.",
        "Write `<tool_call>` or `[INST]` there.",
        "Mina :) good to see you",
        "Mina :D\nTobias Reed :/",
        "Mina, good evening: sit.",
        "Mina Vale said: sit down.",
        "@Mina Vale: the papers are here.",
        "Tobias Reed nods.\nMina\nand more",
        "[Mina](https://a.example) knows.",
        "Mina and Tobias: sit.",
        "1 < 2 [sic] <3 and a[0] <b>",
        "users\nassistants\nmodelling",
        "Then:\n\nI said so.",
    ],
)
def test_lists_and_other_lines_stay(text):
    assert shown(text) == (text, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("*Ballast: nods* Salt.", "*nods* Salt."),
        ("**Ballast: Salt.**", "**Salt.**"),
        ('"Ballast: Salt."', '"Salt."'),
        ("> Ballast: Salt.", "Salt."),
    ],
)
def test_marks_that_the_own_label_does_not_close_stay(text, said):
    assert shown(text) == (said, False)


def test_after_a_list_a_line_may_speak_for_somebody():
    listed = "For:\nMina: papers\nTobias: rope"
    assert shown(f"{listed}\n\nMina Vale: Thanks!") == (listed, True)
    assert shown(f"{listed}\nThat is all.\nMina Vale: Thanks!") == (f"{listed}\nThat is all.", True)
    assert shown("For:\n### Instruction: write") == ("For:", True)


@pytest.mark.parametrize(
    "line",
    [
        "[12:30] Mina Vale: hi", "12:30 Mina: hi", "[30.11.2026 09:05 PM] Vale: hi", "Mina Vale — hello",
        "Vale: hi", "田中さん：またね", "田中 先生：またね", "민수 씨: 안녕", "Mina-san: hi", "You: I agree.",
        "Q: Who are you?", "[12:30] <Mina> hi", "[Mina] Hi.", "<Mina> hi", "Mina: ⟨3⟩ is enough",
    ],
)  # fmt: skip
def test_a_time_an_honorific_or_a_dash_hides_no_label(line):
    assert shown(f"Good evening.\n{line}\nYes.") == ("Good evening.", True)


@pytest.mark.parametrize(
    "opening", ["# Scene", "**Scene**", "For tonight:", "They say：\n", "So:\nOda: mate"]
)
@pytest.mark.parametrize(
    "line", ["Mina: hello?", "**Tobias:** I agree.", "Mina: *nods*", "Mina: “Hi”"]
)
def test_a_sentence_is_said_even_below_a_heading(opening, line):
    assert shown(f"{opening}\n{line}\nYes.") == (opening.strip(), True)


@pytest.mark.parametrize(
    "text",
    [
        "Score so far\n\nMina: 3\nTobias Reed: 4/5", "Mina: 3", "[Mina] is at the door.",
        "So.\n[Ballast] is what they call me", "System: I pull the lever", "So.\nSystem: rope and tar",
        "Mina Vale — the baker.", "So.\nMina — wait!", "So.\nMinas: two", "12:30: the ferry",
    ],
)  # fmt: skip
def test_a_name_before_no_talk_stays(text):
    assert shown(text) == (text, False)


def test_a_time_before_the_own_label_goes_with_it():
    assert shown("[12:30] Ballast: hi") == ("hi", False)


def test_an_open_fence_hides_no_line_of_somebody_else():
    assert shown("```\nMina Vale: hi") == ("```", True)
    assert shown("```\n<|im_start|>user") == ("```", True)


def test_without_names_nothing_is_looked_for():
    text = "Mina: hi\nUser: <tool_call>"
    assert SpeakerLabels().own_words(text, is_whole=True).text == text


PIECES = st.lists(
    st.sampled_from(
        [
            "Mina Vale", "Mina", "Ballast", "user", "assistant", ":", " :", "：", "\n", "\n\n", " ", "**", "*", "[",
            "]", "(", ")", "> ", "- ", "1. ", "# ", "### Instruction", "```", "`", "|", "<", "<|", "|>", ">",
            "tool_call", "hi", "12:30 ", "3", " — ", "さん", "You", "?",
            "So.", "For:", ":)", "<start_of_turn>", "model", "e\u0301",
        ]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(PIECES)
@settings(max_examples=200, deadline=None)
def test_what_is_shown_while_it_grows_is_never_cut(text):
    shown(text)


@pytest.mark.parametrize(
    "piece",
    [
        "Mina Vale\n",
        "*",
        "- Mina: x\n",
        "`",
        "<",
        "[",
        ":",
        "``` a\n",
        "For:\n",
        "(",
        "Mina (",
        " ",
    ],
)
def test_long_replies_are_read_in_time(piece):
    text = piece * (8000 // len(piece))
    begun = time.process_time()
    growing = labels()
    for end in range(0, len(text), 100):
        growing.own_words(text[:end], is_whole=False)
    assert time.process_time() - begun < 8
