"""The chaos suite in its short form: few jobs, every number that must be 0 is 0.

`make chaos` is the long form: every storm, 20,000 jobs each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.audit import REPEATED, STORM_DEATHS
from chaos.run import Plan, Result, blow

from servers import require_or_skip

JOBS = 150
RATE = 40.0
RESUMED_S = 45.0
SEED = 7


def weather(storm: str, broker: str, folder: Path) -> Result:
    require_or_skip("redis-server")
    if broker == "rabbitmq":
        require_or_skip("rabbitmq-server")
    return blow(Plan(storm, broker, JOBS, SEED, RATE), folder)


@pytest.mark.parametrize(
    ("storm", "broker"),
    [
        ("restart Redis", "redis"),
        ("cut and delay connections", "redis"),
        ("restart RabbitMQ", "rabbitmq"),
        ("wrong clocks", "rabbitmq"),
    ],
)
def test_a_storm_loses_nothing_and_doubles_nothing(storm: str, broker: str, tmp_path: Path) -> None:
    result = weather(storm, broker, tmp_path)
    audit = result.audit
    assert audit is not None, result.skipped
    told = str(result.document())
    assert result.faults > 0, told
    assert (audit.jobs, audit.lost, audit.doubled, audit.letters_without_row) == (
        JOBS,
        0,
        0,
        0,
    ), told
    # Only a process that is killed counts as a death; an outage costs no job its life.
    allowed = {REPEATED, STORM_DEATHS} if storm.startswith("kill") else {REPEATED}
    assert set(audit.differences) <= allowed, told
    assert (result.recovery_s or 0) <= RESUMED_S, told
