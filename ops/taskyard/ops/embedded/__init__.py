"""PostgreSQL and Valkey from wheels, only for `taskyard up`, `taskyard demo` and the tests."""

from taskyard.ops.embedded.data_folder import Home, HomeInUse, default_home
from taskyard.ops.embedded.embedded_wheels import WheelMissing
from taskyard.ops.embedded.postgres import EmbeddedPostgres
from taskyard.ops.embedded.run_processes import run_processes
from taskyard.ops.embedded.stack import EmbeddedStack, StackNotRunning, environment_of
from taskyard.ops.embedded.valkey import EmbeddedValkey

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedStack",
    "EmbeddedValkey",
    "Home",
    "HomeInUse",
    "StackNotRunning",
    "WheelMissing",
    "default_home",
    "environment_of",
    "run_processes",
]
