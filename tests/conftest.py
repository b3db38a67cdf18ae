"""The guard of the folders, then the fixtures (support/fixtures.py), and a run's last lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

ROOT = Path(__file__).resolve().parents[1]
SOURCE_ROOTS = ("platform", "workers", "tasks", "ops")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start where a package file would break the namespace or the standard library."""
    folders = [Path(root) / part for root in SOURCE_ROOTS for part in ("", "taskyard")]
    found = [
        str(folder / "__init__.py")
        for folder in folders
        if (ROOT / folder / "__init__.py").exists()
    ]
    if found:
        raise pytest.UsageError(
            f"delete {', '.join(found)}: platform/, workers/, tasks/ and ops/ are source roots of "
            "one namespace package. An __init__.py there hides the other roots, and in platform/ "
            "it breaks the standard library"
        )
    # Not imported above: with such a file the fixtures' own imports fail, less clearly.
    config.pluginmanager.import_plugin("support.fixtures")


# What brings a missing program; others are named by their reason alone.
REMEDIES = {
    "rabbitmq-server": "install it (Debian: apt-get install rabbitmq-server), or set TEST_RABBITMQ "
    "to a folder that holds rabbitmq-server and rabbitmqctl",
    "redis-server": "install it (Debian: apt-get install redis-server); Valkey's wheel has no TLS",
}


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say once for each reason how many tests were skipped, and what would run them."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, count in reasons.most_common():
        remedy = REMEDIES.get(reason.partition(" ")[0])
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(
            f"skipped {tests}: {reason}" + (f"; {remedy}" if remedy else "")
        )
