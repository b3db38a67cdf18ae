"""Tools for users' own tests: a `Yard` in memory with production's rules and a clock to move.

Names are imported when they are used: pytest loads the plugin in every project.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

# The plugin is in this package, so what is imported here is imported in every project.
if TYPE_CHECKING:
    from taskyard.testing.asserts import (
        assert_completed,
        assert_dead_lettered,
        assert_enqueued,
        refute_enqueued,
    )
    from taskyard.testing.broker import SentReply
    from taskyard.testing.client import EnqueuedJob
    from taskyard.testing.clock import YardClock
    from taskyard.testing.faults import ProcessKilled
    from taskyard.testing.yard import Yard

__all__ = [
    "EnqueuedJob",
    "ProcessKilled",
    "SentReply",
    "Yard",
    "YardClock",
    "assert_completed",
    "assert_dead_lettered",
    "assert_enqueued",
    "refute_enqueued",
]

_HOMES: Final = {
    "EnqueuedJob": "client",
    "ProcessKilled": "faults",
    "SentReply": "broker",
    "Yard": "yard",
    "YardClock": "clock",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'asserts')}"), name)
