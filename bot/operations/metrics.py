"""Metrics of the running bot: reply latencies, logged warnings and start time, kept in memory."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from bot.operations.doctor.cached_results import CachedDoctor, local_check_runner
from bot.safety.rules import LANGUAGES
from bot.settings import Settings
from personas.engine import RequestMetrics

MAX_REPLIES = 1000
"""Latest replies, from which percentiles are computed."""
MAX_WARNINGS = 100
"""Latest warnings that are kept."""
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
ANSWERED_FINISHES = ("stop", "length")
FINISHES = (*ANSWERED_FINISHES, "cancelled", "failed")


@dataclass(frozen=True)
class LoggedWarning:
    """A line of the log from a warning on. `at` in seconds since 1970."""

    at: float
    level: str
    logger: str
    words: str


@dataclass(frozen=True)
class Percentiles:
    """Number of replies, and percentiles of their duration in seconds; None without replies."""

    replies: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class WarningLogHandler(logging.Handler):
    """Keeps the latest warnings and errors of the log, and counts all."""

    def __init__(self, counter: Counter) -> None:
        super().__init__(logging.WARNING)
        self._counter = counter
        self.lines: deque[LoggedWarning] = deque(maxlen=MAX_WARNINGS)

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            words += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        self._counter.labels(record.levelname.lower()).inc()
        self.lines.append(LoggedWarning(record.created, record.levelname, record.name, words))


class BotMetrics:
    """Collects metrics of replies, from any thread, and warnings of the log inside `listening`."""

    def __init__(self, settings: Settings | None = None) -> None:
        # The start times of the series are noise: all begin with the bot.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.started_at = time.time()
        self.registry = CollectorRegistry()
        self.findings = CachedDoctor(local_check_runner(settings or Settings()))
        self._replies: deque[RequestMetrics] = deque(maxlen=MAX_REPLIES)
        self._ended = self._counter(
            "understudy_replies", "Replies that have ended, by how.", "finish", FINISHES
        )
        self._tokens = self._counter(
            "understudy_tokens", "Tokens of prompts and replies.", "kind", ("prompt", "reply")
        )
        self._safety_answers = self._counter(
            "understudy_safety_answers",
            "Messages that spoke of self-harm, answered with helplines.",
            "language",
            LANGUAGES,
        )
        levels = ("warning", "error", "critical")
        self.warnings = WarningLogHandler(
            self._counter("understudy_log_lines", "Warnings and worse.", "level", levels)
        )
        self._first = self._histogram(
            "understudy_reply_first_text", "From a request to the first text of its reply."
        )
        self._whole = self._histogram("understudy_reply", "From a request to the end of its reply.")

    def reply(self, request: RequestMetrics) -> None:
        """Record an ended request."""
        self._ended.labels(request.finish).inc()
        self._tokens.labels("prompt").inc(request.prompt_tokens)
        self._tokens.labels("reply").inc(request.new_tokens)
        if request.first_s is not None:
            self._first.observe(request.first_s)
        if request.finish in ANSWERED_FINISHES:
            self._whole.observe(request.whole_s)
            self._replies.append(request)

    def safety_answer(self, language: str) -> None:
        """Count an answer with helplines."""
        self._safety_answers.labels(language).inc()

    @property
    def first_text(self) -> Percentiles:
        """Seconds to first text of the latest replies."""
        return percentiles(
            [reply.first_s for reply in list(self._replies) if reply.first_s is not None]
        )

    @property
    def whole_reply(self) -> Percentiles:
        """Durations of the latest replies."""
        return percentiles([reply.whole_s for reply in list(self._replies)])

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep warnings of the log inside the block."""
        logging.getLogger().addHandler(self.warnings)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(self.warnings)

    def _counter(self, name: str, words: str, label: str, values: Sequence[str]) -> Counter:
        counter = Counter(name, words, [label], registry=self.registry)
        for value in values:  # exposes zeros before the first event
            counter.labels(value)
        return counter

    def _histogram(self, name: str, words: str) -> Histogram:
        return Histogram(name, words, unit="seconds", buckets=BUCKETS_S, registry=self.registry)


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Percentiles by nearest rank."""
    if not seconds:
        return Percentiles(0)
    ordered = sorted(seconds)

    def at(percent: int) -> float:
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    return Percentiles(len(ordered), at(50), at(90), at(99))
