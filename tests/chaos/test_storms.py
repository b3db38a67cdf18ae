"""The chaos suite in its short form: few jobs, every number that must be 0 is 0.

`make chaos` is the long form: every storm, 20,000 jobs each.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos.audit import LOST_IN_POP, REPEATED, STORM_DEATHS, Audit
from chaos.run import Plan, Result, run_storm
from chaos.setups import SETUPS
from chaos.storms import STORMS
from chaos.stranded import GOES_ON_S

from servers import require_or_skip

pytestmark = pytest.mark.slow

JOBS = 150
# Operators need a while to meet each other, and a switch must be forgotten between two faults.
OPERATED_JOBS = 500
RATE = 40.0
SEED = 7


def audited_storm(storm: str, setup: str, folder: Path) -> tuple[Result, Audit]:
    if SETUPS[setup].broker == "rabbitmq":
        require_or_skip("rabbitmq-server")
    chosen = STORMS[storm]
    jobs = OPERATED_JOBS if chosen.operated or chosen.flips else JOBS
    result = run_storm(Plan(storm, setup, jobs, SEED, RATE), folder)
    if result.audit is None:
        # Only where a small file system cannot be mounted; CI must be able to.
        assert os.environ.get("CI") != "true", result.skipped
        pytest.skip(result.skipped)
    return result, result.audit


@pytest.mark.parametrize(
    ("storm", "setup"),
    [
        ("kill children", "redis"),
        ("restart Redis", "redis"),
        ("cut and delay connections", "redis"),
        ("restart RabbitMQ", "rabbitmq"),
        ("fill the disk of Redis", "redis"),
        ("fill the disk of Postgres", "redis"),
        ("fill the disk of RabbitMQ", "rabbitmq"),
        ("wrong clocks", "rabbitmq"),
        ("operators and kills", "redis"),
        ("operators and kills", "rabbitmq"),
        ("switches and flushes", "rabbitmq"),
        ("kill workers", "app"),
        ("restart Redis", "app"),
        ("cut and delay connections", "app-rabbitmq"),
        ("kill workers", "app-kombu"),
        ("kill workers", "app-rabbitmq"),
    ],
)
def test_a_storm_loses_nothing_and_doubles_nothing(storm: str, setup: str, tmp_path: Path) -> None:
    result, audit = audited_storm(storm, setup, tmp_path)
    whole = str(result.document())
    assert result.faults > 0, whole
    assert result.ended == [], whole
    counted = (audit.lost, audit.doubled, audit.letters_without_row, audit.contradictions)
    assert counted == (0, 0, 0, 0), whole
    chosen = STORMS[storm]
    assert (audit.requests > 0) is chosen.operated, whole
    assert (result.flips > 0) is chosen.flips, whole
    # An operator may touch each poison job, which is then not counted.
    assert audit.poison > 0 or chosen.operated or not chosen.poison, whole
    assert audit.poison_exact == audit.poison, whole
    # Only a process that is killed counts as a death; an outage costs no job its life.
    allowed = {REPEATED, STORM_DEATHS} if "kill" in storm else {REPEATED}
    if SETUPS[setup].loses_pops:
        allowed |= {LOST_IN_POP}
    else:
        assert result.stranded_jobs == [], whole
    assert set(audit.differences) <= allowed, whole
    assert (result.recovery_s or 0) <= GOES_ON_S, whole
