"""Shows figures that tests measured below the results: `record_property("figures", …)`."""

import pytest

PROPERTY = "figures"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == PROPERTY:
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")
