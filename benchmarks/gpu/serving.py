"""Measures ways of serving: the engine with an adapter for each reply, or transformers' `generate`
of the base model alone.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from benchmarks.engine.engine_systems import BenchSink, EngineSystem, TokenTimer
from benchmarks.engine.engine_workload import BenchChat, load_chats
from benchmarks.gpu.meters import (
    StepProfiler,
    UtilisationMeter,
    compilations,
    memory_peaks,
    reset_peak,
    synchronise,
)
from benchmarks.gpu.ways import Report
from personas.models.base_model import BaseModel
from personas.schemas.chat import SamplingParams

ROWS = (1, 8, 32)
WARM_UP_TOKENS = 8
"""Tokens of each reply that are not measured: graphs and caches are made meanwhile."""
LEAD_TOKENS = 4 * max(ROWS)
"""What the first reply may be ahead of the last one, whose prompt is computed later: all of them run
while steps are measured.
"""


@dataclass(frozen=True)
class ServingWorkload:
    """A model, the folder with a prompt and an adapter for each reply, and the tokens to measure."""

    base: BaseModel
    folder: Path
    tokens: int

    @property
    def max_tokens(self) -> int:
        """The tokens of a reply, none of which ends before the last measured step."""
        return WARM_UP_TOKENS + self.tokens + LEAD_TOKENS


def measure_engine(work: ServingWorkload, report: Report) -> None:
    """Measure the engine with 1, 8 and 32 replies at once, each with its own adapter."""
    system = EngineSystem(work.folder, work.base, precision="bfloat16", chats=max(ROWS))
    system.sampling = replace(SamplingParams(), max_new_tokens=work.max_tokens, stop_loops=False)
    for rows in ROWS:
        _measure_rows(system, load_chats(work.folder, rows), work.tokens, report)


def _measure_rows(
    system: EngineSystem, chats: list[BenchChat], tokens: int, report: Report
) -> None:
    batch = system.parts.batch
    timer = TokenTimer()
    sinks = [BenchSink(at, timer) for at in range(len(chats))]
    meter = RowsMeter(len(chats), report)
    for chat, sink in zip(chats, sinks, strict=True):
        system.add(chat, sink)
    while min(timer.tokens[at] for at in range(len(chats))) < WARM_UP_TOKENS:
        batch.step()
    before = timer.tokens.total()
    meter.begin()
    for _ in range(tokens):
        batch.step()
    meter.end(tokens=timer.tokens.total() - before, steps=tokens)
    meter.begin_counts()
    batch.step()
    meter.end_counts()
    for sink in sinks:
        sink.cancelled.set()
    while batch.step():
        pass


def measure_generate(work: ServingWorkload, report: Report) -> None:
    """Measure `generate` of the base model with 1, 8 and 32 replies at once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        work.base.source, dtype=torch.bfloat16, device_map={"": device}
    ).eval()
    for rows in ROWS:
        prompts = [chat.prompt for chat in load_chats(work.folder, rows)]
        ids = torch.tensor(prompts, device=device)
        meter = RowsMeter(rows, report)
        clock = _GenerateClock(meter, tokens=rows * work.tokens, steps=work.tokens)
        with torch.inference_mode():
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.6,
                top_p=0.9, repetition_penalty=1.05, max_new_tokens=work.max_tokens, eos_token_id=None,
                pad_token_id=0, stopping_criteria=StoppingCriteriaList([clock]),
            )  # fmt: skip


class _GenerateClock(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Measures the steps of `generate` after the first ones, and counts one more."""

    def __init__(self, meter: "RowsMeter", *, tokens: int, steps: int) -> None:
        self._meter = meter
        self._tokens = tokens
        self._steps = steps
        self._generated = 0

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self._generated += 1
        step = self._generated - WARM_UP_TOKENS
        if step == 0:
            self._meter.begin()
        elif step == self._steps:
            self._meter.end(tokens=self._tokens, steps=self._steps)
            self._meter.begin_counts()
        elif step > self._steps:
            self._meter.end_counts()
        is_done = step > self._steps
        return torch.full((len(input_ids),), is_done, dtype=torch.bool, device=input_ids.device)


class RowsMeter:
    """Measures steps of so many replies at once between synchronised clocks, and counts one."""

    def __init__(self, rows: int, report: Report) -> None:
        self._rows = rows
        self._report = report
        self._utilisation = UtilisationMeter()
        self._profiler = StepProfiler()
        self._made = time.perf_counter()
        self._started = 0.0

    def begin(self) -> None:
        """Begin to measure. What was computed since the meter was made is the warm-up."""
        self._utilisation.start()
        synchronise()
        reset_peak()
        self._started = time.perf_counter()

    def end(self, *, tokens: int, steps: int) -> None:
        """Report the figures of so many steps with so many tokens together."""
        synchronise()
        now = time.perf_counter()
        self._utilisation.stop()
        seconds = now - self._started
        self._report(
            {
                "rows": self._rows,
                "tokens_per_s": tokens / seconds,
                "step_s": seconds / steps,
                "warm_up_s": self._started - self._made,
                "busy_percent": self._utilisation.percent(self._started, now),
                **memory_peaks(),
                **compilations(),
            }
        )

    def begin_counts(self) -> None:
        """Begin the step that is counted."""
        self._profiler.start()

    def end_counts(self) -> None:
        """Report the counts of a step."""
        self._report({"rows": self._rows, **asdict(self._profiler.stop())})
