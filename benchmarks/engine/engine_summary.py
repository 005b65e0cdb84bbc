"""Medians over the rounds, ratios between systems, and the printed table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.engine.engine_systems import SYSTEM_FACTS
from benchmarks.engine.engine_workload import CHAT_COUNTS

Figures = dict[str, Any]

SYSTEM_NAMES = {
    "switching": "peft, one after the other",
    "mixed": "peft, mixed batch",
    "llama": "llama.cpp",
    "bare": "generate, no adapter",
}
RATIOS = {"switching": "vs_peft_switching", "mixed": "vs_peft_mixed", "llama": "vs_llama_cpp", "bare": "vs_generate"}


def summarise_rounds(found: dict[str, list[Figures]]) -> Figures:
    """The figures by their published keys: those of the engine, and under `baselines` those of the others."""
    told: Figures = {}
    for count in CHAT_COUNTS:
        told[f"chats_{count}"] = {kind: _ours(found, count, kind) for kind in ("cold", "cached")}
    told["chats_1"]["cold"]["vs_generate"] = _ratio(found, "1 cold", "bare", "1 cold")
    told["baselines"] = {
        name: {workload: _speed(rounds, workload) for workload in rounds[0] if workload not in SYSTEM_FACTS}
        for name, rounds in found.items() if name != "ours"
    }  # fmt: skip
    told["compiled_kernel"] = bool(found["ours"][0]["kernel"])
    told["precision"] = found["ours"][0]["precision"]
    return told


def _ours(found: dict[str, list[Figures]], count: int, kind: str) -> Figures:
    ours, cold = f"{count} {kind}", f"{count} cold"
    return {
        **_speed(found["ours"], ours),
        "vs_peft_switching": _ratio(found, ours, "switching", cold),
        "vs_peft_mixed": _ratio(found, ours, "mixed", cold),
        "vs_llama_cpp": _ratio(found, ours, "llama", ours),
    }


def _speed(rounds: Sequence[Figures], workload: str) -> Figures:
    """Medians over the rounds. Percentiles are over the chats of one round."""
    there = [figures[workload] for figures in rounds if workload in figures]
    told = {"tokens_per_s": statistics.median(figures["tokens_per_s"] for figures in there)}
    for key, name in (("ttft_s", "ttft"), ("token_s", "token")):
        told[f"{name}_p50_s"] = statistics.median(statistics.median(figures[key]) for figures in there)
        told[f"{name}_p95_s"] = statistics.median(_p95(figures[key]) for figures in there)
    return told


def _p95(values: Sequence[float]) -> float:
    """The smallest value that is not exceeded by 95 % of all."""
    return sorted(values)[-(-95 * len(values) // 100) - 1]


def _ratio(found: dict[str, list[Figures]], ours: str, other: str, theirs: str) -> float | None:
    rounds = found.get(other, [])
    if not any(theirs in figures for figures in rounds):
        return None
    ratio: float = _speed(found["ours"], ours)["tokens_per_s"] / _speed(rounds, theirs)["tokens_per_s"]
    return ratio


# -------------------------------------------------------------------------------------------- the table


def format_table(told: Figures) -> str:
    """Each workload with all systems that answered it, and how many times theirs the engine's tokens per second are."""
    lines = [_line("", ("tokens/s", "first p50", "first p95", "token p50", "token p95", "the engine is"))]
    for count in CHAT_COUNTS:
        for kind in ("cold", "cached"):
            lines += ["", f"{count} {'chat' if count == 1 else 'chats'}, {kind}", *_workload(told, count, kind)]
    quiet = told["fairness"]
    alone, flooded = quiet["quiet_alone_ttft_p95_s"], quiet["quiet_flooded_ttft_p95_s"]
    lines += ["", f"a quiet server's first token, p95: {alone:.2f} s alone, {flooded:.2f} s beside one that floods"]
    return "\n".join(lines)


def _workload(told: Figures, count: int, kind: str) -> list[str]:
    row, workload = told[f"chats_{count}"][kind], f"{count} {kind}"
    lines = [_line("the engine", _cells(row, None))]
    for name, ratio in RATIOS.items():
        if (factor := row.get(ratio)) is None:
            continue
        speeds = told["baselines"][name]
        if workload in speeds:
            lines.append(_line(SYSTEM_NAMES[name], _cells(speeds[workload], factor)))
        else:
            lines.append(_line(f"{SYSTEM_NAMES[name]} (cold)", _cells(speeds[f"{count} cold"], factor)))
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
