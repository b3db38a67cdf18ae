"""Switches, pauses and kill switches: which one a field names, its state, its place in Redis.

Workers and clients read them in Redis, in one hash a namespace. Postgres has the same states in the
table `switches`, as the truth that survives a Redis that forgets.
"""

from taskyard.switches.redis_switches import (
    IN_FORCE_LUA,
    Form,
    RedisSwitches,
    SwitchesRead,
    switches_key,
)
from taskyard.switches.switch_field import Kind, SwitchField, SwitchScope, fields_of
from taskyard.switches.switch_state import Mode, SwitchState, next_version

__all__ = [
    "IN_FORCE_LUA",
    "Form",
    "Kind",
    "Mode",
    "RedisSwitches",
    "SwitchField",
    "SwitchScope",
    "SwitchState",
    "SwitchesRead",
    "fields_of",
    "next_version",
    "switches_key",
]
