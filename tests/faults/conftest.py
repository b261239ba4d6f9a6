"""Counts what the tests of this folder do: faults injected, survived, and bytes of committed files lost to them."""

import pytest
from helpers.faults import TALLY, Fault, _fault


@pytest.fixture
def fault() -> Fault:
    """`with fault(folder): …` injects one fault into something that has committed `folder` before."""
    return _fault


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.injected:
        terminalreporter.section("faults")
        terminalreporter.line(
            f"{TALLY.injected} faults injected, {TALLY.survived} survived, {TALLY.bytes_lost} bytes lost"
        )
