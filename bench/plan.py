"""How much is measured: the whole, and the quick form."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Rounds and counts; the defaults are the whole."""

    rounds: int = 5
    jobs: int = 3_000
    payload_rounds: int = 3
    payload_jobs: int = 1_500
    io_rounds: int = 3
    io_jobs: int = 1_000
    rival_rounds: int = 3
    rival_jobs: int = 2_000
    rival_io_jobs: int = 600
    slow_rival_jobs: int = 200
    many_rounds: int = 5
    many_jobs: int = 10_000
    pickups: int = 400
    idle_s: float = 15.0
    backlog: int = 1_000_000
    backlog_turns: int = 5
    letters: int = 200_000
    counted_jobs: int = 1_000


FULL = Plan()
# Under three minutes with the rivals' environments built: enough for a direction.
QUICK = Plan(
    rounds=3,
    jobs=1_200,
    payload_rounds=1,
    payload_jobs=400,
    io_rounds=1,
    io_jobs=400,
    rival_rounds=1,
    rival_jobs=800,
    rival_io_jobs=0,
    slow_rival_jobs=100,
    many_rounds=3,
    many_jobs=5_000,
    pickups=60,
    idle_s=3.0,
    backlog=10_000,
    backlog_turns=1,
    letters=5_000,
    counted_jobs=200,
)
