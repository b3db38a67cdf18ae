"""What `taskyard up` says at its start: what runs where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from taskyard.database import SchemaStatus
from taskyard.ops.cli.console import Command, put_facts, say
from taskyard.settings import Settings
from taskyard.wire import redact_url

__all__ = ["banner"]

_NEXT: Final = (
    'eval "$(taskyard env --export)"   # in another shell: use these servers from here on',
    "taskyard check",
)
_ENQUEUE_BUILT_IN: Final = (
    """taskyard jobs enqueue batch_locator_generation '{"html": "<button>Buy</button>"}' --wait"""
)
_ENQUEUE: Final = "taskyard jobs enqueue TYPE PAYLOAD --wait   # types: taskyard types list"


def banner(settings: Settings, home: Path, schema: SchemaStatus, processes: Sequence[str]) -> None:
    """Print it."""
    servants = ("mirror", "relay")
    workers = [name for name in processes if name not in servants]
    rows: list[tuple[str, object]] = [
        ("home", home),
        ("Valkey", f"{redact_url(settings.need_redis_url())} (broker and records)"),
        ("PostgreSQL", f"{redact_url(settings.need_database_url())} (schema {schema.current})"),
        ("processes", ", ".join(servants)),
        ("workers", ", ".join(workers) or "none (--no-workers)"),
    ]
    steps = (*_NEXT, _ENQUEUE_BUILT_IN if settings.builtin_jobs else _ENQUEUE)
    rows += [("next" if line == steps[0] else "", Command(line)) for line in steps]
    rows.append(("stop", "Ctrl-C: workers finish what they run"))
    put_facts(rows)
    say("")
