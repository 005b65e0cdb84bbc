"""Filters: what no voice excuses is dropped, what a voice may do stays."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conversations import dialogue
from trainer.dataset.quality_filters import QualityFilters
from trainer.languages import detect_language

LOGS = Path(__file__).parent.parent.parent / "data" / "logs"


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("As an AI language model, I cannot do that.", "boilerplate"),
        ("I'm just an AI and have no feelings.", "boilerplate"),
        ("I’m sorry, but I can’t assist with that.", "boilerplate"),
        ("作为一个人工智能语言模型，我没有感情。", "boilerplate"),
        ("Tôi là một mô hình ngôn ngữ.", "boilerplate"),
        ("Als KI habe ich keine Meinung.", "boilerplate"),
        ("ha " * 30, "repetition"),
        ("I said I will wait. " * 6, "repetition"),
        ("No" + "o" * 60, "repetition"),
        ("...", "reply without a word"),
        ("", "reply without a word"),
        ("No.", ""),
        ("👍", ""),
        ("42", ""),
        ("Nooooooo!", ""),
        ("HA HA HA HA!", ""),
        ("I am sorry, but I cannot help liking him. As an aid to memory I keep a list.", ""),
        ("My knowledge of the tides is old.", ""),
    ],
)
def test_replies(reply, fault):
    assert QualityFilters().reply_fault(reply) == fault


def test_lengths_are_counted_in_words():
    filters = QualityFilters(min_reply_words=2, max_reply_words=4)
    assert [filters.reply_fault(text) for text in ("No.", "No, not I.", "No, not I, nor she.")] == [
        "reply too short",
        "",
        "reply too long",
    ]


@pytest.mark.parametrize("persona", ["ballast", "oda", "thrip"])
def test_nothing_that_ships_is_dropped(persona):
    messages = json.loads((LOGS / f"{persona}.json").read_text(encoding="utf-8"))["messages"]
    assert [m["content"] for m in messages if QualityFilters().reply_fault(m["content"])] == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How are you doing today, my friend?", "en"),
        ("Xin chào, bạn có khỏe không?", "vi"),
        ("今天天气很好，我们去海边吧", "zh"),
        ("Guten Morgen, wie geht es dir heute?", "de"),
        ("ok", "und"),
        ("", "und"),
    ],
)
def test_languages_are_reported_where_they_can_be(text, language):
    assert detect_language(text) == language


def test_only_what_is_surely_in_another_language_is_dropped():
    filters = QualityFilters(languages=("en",))
    german = dialogue("Guten Morgen, wie geht es dir heute?", "Sehr gut, danke der Nachfrage!")
    assert filters.language_fault(german) == "language: de"
    assert filters.language_fault(dialogue("ok", "hm")) == ""
    assert filters.language_fault(dialogue("ok", "hm", lang="zh-CN")) == "language: zh"
    assert filters.language_fault(dialogue("Bonjour à tous", "Bonjour", lang="en")) == ""
    assert QualityFilters().language_fault(german) == ""


@given(st.text())
def test_any_text_can_be_judged(text):
    assert isinstance(QualityFilters().reply_fault(text), str)
