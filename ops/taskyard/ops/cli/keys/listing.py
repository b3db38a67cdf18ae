"""`taskyard keys list`: who may sign, up to which role, until when."""

from __future__ import annotations

from datetime import datetime

from taskyard.access.key_files import read_ring
from taskyard.access.key_ring import PublicKey, state_of, text_of
from taskyard.clock import SYSTEM_CLOCK
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.keys.find_key_ring import need_ring
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import bounds_text
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.time_text import moment

__all__ = ["command"]


def command(json: Json = False) -> None:
    """List the keys of the key ring."""
    found = read_ring(need_ring(find_target(quiet=True).settings))
    now = SYSTEM_CLOCK.now()
    if json:
        print_json([_document(key, now) for key in found.values()])
        return
    columns = ("id", "role", "state", "until", "by name", "bounds", "subjects")
    put(table(columns, [_row(key, now) for key in found.values()]))
    if not found:
        note("the key ring is empty. Run: taskyard keys create")


def _row(key: PublicKey, now: datetime) -> tuple[object, ...]:
    return (
        key.key_id,
        key.role,
        state_of(key, now),
        "-" if key.not_after is None else f"{moment(key.not_after)}"[:16],
        ", ".join(sorted(key.granted)) or "-",
        bounds_text(key.queues, key.domains),
        ", ".join(sorted(key.subjects)),
    )


def _document(key: PublicKey, now: datetime) -> dict[str, object]:
    return {
        "id": key.key_id,
        "public_key": text_of(key.public_key),
        "subjects": sorted(key.subjects),
        "role": key.role,
        "queues": None if key.queues is None else sorted(key.queues),
        "domains": None if key.domains is None else sorted(key.domains),
        "granted": sorted(key.granted),
        "not_before": key.not_before,
        "not_after": key.not_after,
        "state": state_of(key, now),
    }
