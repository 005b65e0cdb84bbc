"""Medians over the rounds, ratios between systems, and the printed table."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.engine.engine_workload import CHAT_COUNTS, LONG_CONTEXTS, SYSTEM_FACTS

Figures = dict[str, Any]

SYSTEM_NAMES = {
    "switching": "peft, one after the other",
    "mixed": "peft, mixed batch",
    "llama": "llama.cpp",
    "bare": "generate, no adapter",
}
RATIOS = {
    "switching": "vs_peft_switching",
    "mixed": "vs_peft_mixed",
    "llama": "vs_llama_cpp",
    "bare": "vs_generate",
}


def summarise_rounds(rounds_by_system: dict[str, list[Figures]]) -> Figures:
    """Return the published figures: the engine's, and under `baselines` those of the other
    systems.
    """
    summary: Figures = {}
    for count in CHAT_COUNTS:
        summary[f"chats_{count}"] = {
            kind: _engine_figures(rounds_by_system, count, kind) for kind in ("cold", "cached")
        }
    summary["chats_1"]["cold"]["vs_generate"] = _ratio(rounds_by_system, "1 cold", "bare", "1 cold")
    summary["baselines"] = {
        name: {workload: _medians(rounds, workload) for workload in rounds[0] if workload not in SYSTEM_FACTS}
        for name, rounds in rounds_by_system.items() if name not in ("ours", "long")
    }  # fmt: skip
    if long_rounds := rounds_by_system.get("long"):
        summary["long_prompts"] = {}
        for context in LONG_CONTEXTS:
            summary["long_prompts"][str(context)] = {
                kind: _medians(long_rounds, f"{context} {kind}") for kind in ("cold", "cached")
            }
    summary["compiled_kernel"] = bool(rounds_by_system["ours"][0]["kernel"])
    summary["precision"] = rounds_by_system["ours"][0]["precision"]
    return summary


def _engine_figures(rounds_by_system: dict[str, list[Figures]], count: int, kind: str) -> Figures:
    ours = f"{count} {kind}"
    cold = f"{count} cold"
    return {
        **_medians(rounds_by_system["ours"], ours),
        "vs_peft_switching": _ratio(rounds_by_system, ours, "switching", cold),
        "vs_peft_mixed": _ratio(rounds_by_system, ours, "mixed", cold),
        "vs_llama_cpp": _ratio(rounds_by_system, ours, "llama", ours),
    }


def _medians(rounds: Sequence[Figures], workload: str) -> Figures:
    """Return medians over the rounds, of percentiles over each round's chats."""
    measured = [figures[workload] for figures in rounds if workload in figures]
    summary = {"tokens_per_s": statistics.median(figures["tokens_per_s"] for figures in measured)}
    for key, name in (("ttft_s", "ttft"), ("token_s", "token")):
        summary[f"{name}_p50_s"] = statistics.median(
            statistics.median(figures[key]) for figures in measured
        )
        summary[f"{name}_p95_s"] = statistics.median(p95(figures[key]) for figures in measured)
    return summary


def p95(values: Sequence[float]) -> float:
    """Return the smallest value that 95 % of all values do not exceed."""
    return sorted(values)[-(-95 * len(values) // 100) - 1]


def _ratio(
    rounds_by_system: dict[str, list[Figures]], ours: str, other: str, theirs: str
) -> float | None:
    rounds = rounds_by_system.get(other, [])
    if not any(theirs in figures for figures in rounds):
        return None
    ratio: float = (
        _medians(rounds_by_system["ours"], ours)["tokens_per_s"]
        / _medians(rounds, theirs)["tokens_per_s"]
    )
    return ratio


# ---------------------------------------------------------------------------------------- the table


def format_table(summary: Figures) -> str:
    """Format each workload with all measured systems and the engine's speed-up over them."""
    lines = [
        _line("", ("tokens/s", "first p50", "first p95", "token p50", "token p95", "the engine is"))
    ]
    for count in CHAT_COUNTS:
        for kind in ("cold", "cached"):
            lines += [
                "",
                f"{count} {'chat' if count == 1 else 'chats'}, {kind}",
                *_workload_lines(summary, count, kind),
            ]
    for context, kinds in summary.get("long_prompts", {}).items():
        lines += ["", f"1 chat, a prompt and its reply of {context} tokens"]
        for kind, speed in kinds.items():
            lines.append(_line(f"the engine, {kind}", _cells(speed, None)))
    fairness = summary["fairness"]
    alone = fairness["quiet_alone_ttft_p95_s"]
    flooded = fairness["quiet_flooded_ttft_p95_s"]
    lines += [
        "",
        f"a quiet server's first token, p95: {alone:.2f} s alone, {flooded:.2f} s beside a "
        "flooding one",
    ]
    return "\n".join(lines)


def _workload_lines(summary: Figures, count: int, kind: str) -> list[str]:
    row = summary[f"chats_{count}"][kind]
    workload = f"{count} {kind}"
    lines = [_line("the engine", _cells(row, None))]
    for name, ratio in RATIOS.items():
        if (factor := row.get(ratio)) is None:
            continue
        speeds = summary["baselines"][name]
        if workload in speeds:
            lines.append(_line(SYSTEM_NAMES[name], _cells(speeds[workload], factor)))
        else:
            lines.append(
                _line(f"{SYSTEM_NAMES[name]} (cold)", _cells(speeds[f"{count} cold"], factor))
            )
    if row["vs_llama_cpp"] is None:
        lines.append(_line(SYSTEM_NAMES["llama"], ("–",) * 6))
    return lines


def _cells(speed: Figures, factor: float | None) -> tuple[str, ...]:
    waits = (speed["ttft_p50_s"], speed["ttft_p95_s"])
    return (
        f"{speed['tokens_per_s']:.0f}",
        *(f"{wait:.2f} s" for wait in waits),
        *(f"{1000 * speed[f'token_{share}_s']:.0f} ms" for share in ("p50", "p95")),
        "" if factor is None else f"{factor:.2f} ×",
    )


def _line(name: str, cells: Sequence[str]) -> str:
    return f"  {name:33}" + "".join(f"{cell:>14}" for cell in cells)
