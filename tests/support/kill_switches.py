"""Kill switches and pauses, set in Redis as `Control` does it, without Postgres."""

from __future__ import annotations

import redis

from taskyard.clock import redis_time_us, us_of
from taskyard.switches import Mode, RedisSwitches, SwitchField, SwitchState

__all__ = ["REASON", "lift", "turn_on"]

REASON = "the payment service doubles its bookings"


def turn_on(
    client: redis.Redis,
    namespace: str,
    field: SwitchField,
    *,
    mode: Mode = Mode.REFUSE,
    for_s: float | None = None,
    reason: str = REASON,
) -> SwitchState:
    """Turn a switch on, for `for_s` seconds or without an end."""
    now_us = redis_time_us(client.time())
    until_us = 0 if for_s is None else now_us + us_of(for_s)
    state = SwitchState(
        mode, now_us, now_us, until_us, operator="ada", via="cli", reason=reason, request_id="r"
    )
    assert RedisSwitches(client, namespace).put(field, state)
    return state


def lift(client: redis.Redis, namespace: str, field: SwitchField) -> None:
    """Turn a switch off."""
    now_us = redis_time_us(client.time())
    assert RedisSwitches(client, namespace).put(field, SwitchState(Mode.OFF, now_us, now_us))
