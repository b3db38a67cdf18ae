"""A worker whose wall clock is wrong: imported by it before the handlers, shifted by a variable.

Only what our own code reads of its clock can be shifted. Leases, epochs and due times are read by
scripts from Redis's clock, which is one clock for everybody: that is the protection.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, tzinfo
from typing import Final, Self

from taskyard.broker import amqp_publisher
from taskyard.engine import consumer

__all__ = ["SHIFT_VARIABLE"]

SHIFT_VARIABLE: Final = "CHAOS_CLOCK_SHIFT_S"
_SHIFT: Final = timedelta(seconds=float(os.environ.get(SHIFT_VARIABLE, "0")))


class _Shifted(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + _SHIFT


if _SHIFT:
    for module in (consumer, amqp_publisher):
        vars(module)["datetime"] = _Shifted
