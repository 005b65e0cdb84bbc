"""Makes every test fail in which bot and sandbox said what Discord would not, and sums up what was
compared.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sandbox import traffic_log
from tests.openapi import description
from tests.openapi.checker import Checker, objects_in

LISTED = 20


class Comparison:
    """What one test run heard, and what was wrong with it."""

    def __init__(self) -> None:
        self.received: list[traffic_log.HttpExchange | traffic_log.GatewayEvent] = []
        self.kinds: Counter[str] = Counter()
        self.objects = self.wrong = 0
        self._checker: Checker | None = None
        self._missing: description.DescriptionMissing | None = None

    def receive(self, what: traffic_log.HttpExchange | traffic_log.GatewayEvent) -> None:
        """Keep it as it is now, for the sandbox goes on with its objects."""
        # Called within the sandbox's own request: what is wrong must not be raised here.
        if isinstance(what, traffic_log.HttpExchange):
            self.received.append(
                replace(what, body=_frozen(what.body), answer=_frozen(what.answer))
            )
        else:
            self.received.append(replace(what, data=_frozen(what.data)))

    def problems(self) -> list[str]:
        """Compare what was heard since the last time. Raises DescriptionMissing."""
        received = self.received
        self.received = []
        if not received:
            return []
        found = [
            problem for one in received for problem in self._compare(self._ready_checker(), one)
        ]
        self.wrong += len(found)
        return list(dict.fromkeys(found))

    def _ready_checker(self) -> Checker:
        if self._missing is not None:
            raise self._missing
        try:
            self._checker = self._checker or Checker(description.load())
        except description.DescriptionMissing as error:
            self._missing = error
            raise
        return self._checker

    def _compare(
        self, checker: Checker, one: traffic_log.HttpExchange | traffic_log.GatewayEvent
    ) -> list[str]:
        if isinstance(one, traffic_log.GatewayEvent):
            self.objects += len(list(objects_in(one)))
            return checker.problems_in(one)
        if operation := checker.operation(one.method, one.path):
            self.kinds[operation.kind] += 1
        return checker.problems(one)

    def summary(self) -> str:
        """One line of figures."""
        return (
            f"Compared with Discord's description: {len(self.kinds)} kinds of requests, "
            f"{self.kinds.total()} answers, {self.objects} objects in events; "
            f"{self.wrong or 'nothing'} wrong."
        )


def _frozen(value: Any) -> Any:
    return json.loads(json.dumps(value))


COMPARISON = pytest.StashKey[Comparison]()


def pytest_configure(config: pytest.Config) -> None:
    comparison = config.stash[COMPARISON] = Comparison()
    traffic_log.observers.append(comparison.receive)


def pytest_unconfigure(config: pytest.Config) -> None:
    traffic_log.observers.remove(config.stash[COMPARISON].receive)


@pytest.fixture(autouse=True)
def said_as_discord_describes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before all others and so torn down after them: what a bot says while it leaves counts,
    too.
    """
    yield
    if verdict := _verdict(request.config.stash[COMPARISON]):
        pytest.fail(verdict, pytrace=False)


def _verdict(comparison: Comparison) -> str:
    try:
        problems = comparison.problems()
    except description.DescriptionMissing as error:
        return str(error)
    if not problems:
        return ""
    more = [f"… and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "\n".join(["Not as Discord describes it:", *problems[:LISTED], *more])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    comparison = config.stash[COMPARISON]
    if comparison.kinds:
        terminalreporter.write_line(comparison.summary())
