"""How much is measured: the whole, and the quick form."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Rounds and counts; the defaults are the whole.

    Rounds are at most so many: a part whose time is up makes fewer, and says how many.
    `longest_s` bounds the run; a part that could only begin after it is left out and named.
    """

    form: str = "full"
    longest_s: float = 1_800.0
    rounds: int = 20
    jobs: int = 1_000
    payload_rounds: int = 8
    payload_jobs: int = 400
    io_rounds: int = 8
    io_jobs: int = 400
    memory_rounds: int = 3
    memory_jobs: int = 1_000
    growth_jobs: int = 200_000
    rival_rounds: int = 3
    rival_jobs: int = 2_000
    rival_io_jobs: int = 600
    slow_rival_jobs: int = 200
    many_rounds: int = 12
    many_jobs: int = 10_000
    rabbitmq_rounds: int = 12
    rabbitmq_many_rounds: int = 6
    rabbitmq_many_jobs: int = 2_000
    pickups: int = 400
    idle_s: float = 15.0
    backlog: int = 1_000_000
    backlog_turns: int = 8
    letters: int = 200_000
    ledger_jobs: int = 30_000
    counted_jobs: int = 1_000
    sampled_jobs: int = 6_000
    service_rounds: int = 30
    awaited_s: float = 30.0
    relayed: int = 20_000
    sealing_turns: int = 20
    sealing_turn_s: float = 6.0


FULL = Plan()
# Enough for a direction.
QUICK = Plan(
    form="quick",
    longest_s=300.0,
    rounds=3,
    jobs=400,
    payload_rounds=1,
    payload_jobs=100,
    io_rounds=1,
    io_jobs=100,
    memory_rounds=1,
    memory_jobs=300,
    growth_jobs=5_000,
    rival_rounds=1,
    rival_jobs=800,
    rival_io_jobs=0,
    slow_rival_jobs=100,
    many_rounds=3,
    many_jobs=5_000,
    rabbitmq_rounds=3,
    rabbitmq_many_rounds=1,
    rabbitmq_many_jobs=500,
    pickups=60,
    idle_s=3.0,
    backlog=10_000,
    backlog_turns=1,
    letters=5_000,
    ledger_jobs=3_000,
    counted_jobs=200,
    sampled_jobs=1_000,
    service_rounds=8,
    awaited_s=10.0,
    relayed=4_000,
    sealing_turns=3,
    sealing_turn_s=5.5,
)
