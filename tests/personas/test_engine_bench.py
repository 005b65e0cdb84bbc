"""The engine's benchmark: its summary and table, also without a baseline."""

import json

import pytest

from benchmarks.engine.engine_summary import format_table, summarise_rounds
from benchmarks.engine.engine_systems import TokenTimer
from benchmarks.engine.engine_workload import (
    CHAT_COUNTS,
    LONG_CONTEXTS,
    NEW_MESSAGE_TOKENS,
    NEW_TOKENS,
    long_chat,
)


def measured(speeds: dict[str, float], **more):
    waits = {"ttft_s": [1.0, 2.0, 3.0], "token_s": [0.02, 0.03, 0.05]}
    return {name: {"tokens_per_s": speed, **waits} for name, speed in speeds.items()} | more


def figures(*, llama: bool):
    ours = {
        f"{count} {kind}": 100.0 * (1 + (kind == "cached"))
        for count in CHAT_COUNTS
        for kind in ("cold", "cached")
    }
    cold = {f"{count} cold": 20.0 for count in CHAT_COUNTS}
    found = {
        "switching": [
            measured(cold),
            measured({name: 10.0 for name in cold}),
            measured({name: 50.0 for name in cold}),
        ],
        "mixed": [measured(cold)],
        "bare": [measured({"1 cold": 40.0})],
        "ours": [measured(ours, kernel=True, precision="int8")],
    }
    return found | (
        {"llama": [measured({name: speed / 2 for name, speed in ours.items()})]} if llama else {}
    )


def test_ratios_are_of_medians_and_the_cached_ones_stand_beside_pefts_cold_figure():
    result = summarise_rounds(figures(llama=True))
    eight = result["chats_8"]
    assert eight["cold"]["tokens_per_s"] == 100 and eight["cached"]["tokens_per_s"] == 200
    assert (eight["cold"]["vs_peft_switching"], eight["cached"]["vs_peft_switching"]) == (5, 10)
    assert eight["cold"]["vs_llama_cpp"] == eight["cached"]["vs_llama_cpp"] == 2
    assert result["chats_1"]["cold"]["vs_generate"] == 2.5 and result["compiled_kernel"] is True
    assert result["precision"] == "int8"
    assert (eight["cold"]["ttft_p50_s"], eight["cold"]["ttft_p95_s"]) == (2, 3)
    assert (eight["cold"]["token_p50_s"], eight["cold"]["token_p95_s"]) == (0.03, 0.05)
    assert result["baselines"]["switching"]["8 cold"]["tokens_per_s"] == 20


def shown(*, llama: bool) -> list[str]:
    result = summarise_rounds(figures(llama=llama)) | {
        "fairness": {"quiet_alone_ttft_p95_s": 0.1, "quiet_flooded_ttft_p95_s": 0.3}
    }
    return format_table(result).splitlines()


def test_the_table_sets_every_system_beside_the_engine():
    lines = shown(llama=True)
    eight = lines[lines.index("8 chats, cached") + 1 :][:4]
    assert [line.split()[0] for line in eight] == ["the", "peft,", "peft,", "llama.cpp"]
    assert "(cold)" in eight[1] and eight[1].endswith("10.00 ×") and "30 ms" in eight[1]
    assert eight[3].endswith("2.00 ×") and "(cold)" not in eight[3]
    one = lines[lines.index("1 chat, cold") + 1 :]
    assert one[4].split()[0] == "generate," and one[4].endswith("2.50 ×")


def test_long_prompts_are_measured_with_the_engine_alone():
    speeds = {
        f"{context} {kind}": 10.0 * (1 + (kind == "cached"))
        for context in LONG_CONTEXTS
        for kind in ("cold", "cached")
    }
    result = summarise_rounds(figures(llama=False) | {"long": [measured(speeds)] * 3})
    assert "long" not in result["baselines"]
    assert result["long_prompts"]["8192"]["cached"]["tokens_per_s"] == 20
    fairness = {"quiet_alone_ttft_p95_s": 0.1, "quiet_flooded_ttft_p95_s": 0.3}
    lines = format_table(result | {"fairness": fairness}).splitlines()
    at = lines.index("1 chat, a prompt and its reply of 4096 tokens")
    assert [line.split()[:3] for line in lines[at + 1 : at + 3]] == [
        ["the", "engine,", "cold"],
        ["the", "engine,", "cached"],
    ]


def test_a_long_chat_fills_its_context_and_all_but_its_last_message_is_known(tmp_path):
    prompts = [[list(range(100, 300))] * 2]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    for context in LONG_CONTEXTS:
        chat = long_chat(tmp_path, context)
        assert len(chat.prompt) == context - NEW_TOKENS
        assert chat.prompt[: len(chat.earlier_prompt)] == chat.earlier_prompt
        assert len(chat.earlier_prompt) == len(chat.prompt) - NEW_MESSAGE_TOKENS
        assert chat.prompt[:200] != chat.prompt[200:400]


def test_without_llama_cpp_its_line_stays_empty():
    assert summarise_rounds(figures(llama=False))["chats_32"]["cold"]["vs_llama_cpp"] is None
    assert [line for line in shown(llama=False) if "llama.cpp" in line and "–" in line]


def test_tokens_are_counted_from_the_first_submission_to_the_last_token(monkeypatch):
    now = [5.0]
    monkeypatch.setattr("benchmarks.engine.engine_systems.time.perf_counter", lambda: now[0])
    timer = TokenTimer()
    for chat, at in ((0, 6.0), (1, 7.0), (0, 9.0)):
        now[0] = at
        timer.count_token(chat)
    assert timer.figures() == {
        "tokens_per_s": pytest.approx(3 / 4),
        "ttft_s": [1.0, 2.0],
        "token_s": [3.0],
    }
