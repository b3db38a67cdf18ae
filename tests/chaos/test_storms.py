"""The chaos suite in its short form: few jobs, every number that must be 0 is 0.

`make chaos` is the long form: every storm, 20,000 jobs each.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos.audit import REPEATED, STORM_DEATHS, Audit
from chaos.report import RESUMED_S
from chaos.run import Plan, Result, blow

from servers import require_or_skip

JOBS = 150
RATE = 40.0
SEED = 7


def weather(storm: str, broker: str, folder: Path) -> tuple[Result, Audit]:
    if broker == "rabbitmq":
        require_or_skip("rabbitmq-server")
    result = blow(Plan(storm, broker, JOBS, SEED, RATE), folder)
    if result.audit is None:
        # Only where a small file system cannot be mounted; CI must be able to.
        assert os.environ.get("CI") != "true", result.skipped
        pytest.skip(result.skipped)
    return result, result.audit


@pytest.mark.parametrize(
    ("storm", "broker"),
    [
        ("kill children", "redis"),
        ("restart Redis", "redis"),
        ("cut and delay connections", "redis"),
        ("restart RabbitMQ", "rabbitmq"),
        ("fill the disk of Redis", "redis"),
        ("fill the disk of Postgres", "redis"),
        ("fill the disk of RabbitMQ", "rabbitmq"),
        ("wrong clocks", "rabbitmq"),
    ],
)
def test_a_storm_loses_nothing_and_doubles_nothing(storm: str, broker: str, tmp_path: Path) -> None:
    result, audit = weather(storm, broker, tmp_path)
    told = str(result.document())
    assert result.faults > 0, told
    assert (audit.jobs, audit.lost, audit.doubled, audit.letters_without_row) == (
        JOBS,
        0,
        0,
        0,
    ), told
    assert audit.poison > 0, told
    assert audit.poison_exact == audit.poison, told
    # Only a process that is killed counts as a death; an outage costs no job its life.
    allowed = {REPEATED, STORM_DEATHS} if storm.startswith("kill") else {REPEATED}
    assert set(audit.differences) <= allowed, told
    assert (result.recovery_s or 0) <= RESUMED_S, told
