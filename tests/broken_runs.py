"""A plugin of pytest for `make test`, which repeats failed tests: a run that has more than these ends
with the exit code of an interrupted one.

pytest-xdist has one exit code for failed tests, files that cannot be collected and workers that crash.
After the last two, some tests may not have run at all.
"""

from __future__ import annotations

import pytest


class BrokenRuns:
    """Notes what is more than a failed test. In a run that `repeats` failed tests, so is one that is
    skipped.
    """

    def __init__(self, *, repeats: bool) -> None:
        self._repeats = repeats
        self._is_broken = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._is_broken |= report.failed

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        self._is_broken |= error is not None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._is_broken |= self._repeats and report.skipped

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_broken:
            session.exitstatus = pytest.ExitCode.INTERRUPTED


def pytest_configure(config: pytest.Config) -> None:
    """Watch over the run; its workers report to this process."""
    if not hasattr(config, "workerinput"):
        repeats = bool(config.getoption("lf", default=False))
        config.pluginmanager.register(BrokenRuns(repeats=repeats))
