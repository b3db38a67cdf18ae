"""What `celery inspect` says of a running task: as of Celery's own that acknowledges as late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.utils.nodenames import gethostname

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import legacy_on
from support.waiting import SOON_S

# Facts of the one run: who, when, which process.
OF_THE_RUN = ("hostname", "id", "time_start", "worker_pid")


class LateLegacy(Legacy):
    """The app without Taskyard, with `task_acks_late`."""

    def environment(self, mode: str | None = None, transport: bool | None = None) -> dict[str, str]:
        return {**super().environment(mode, transport), "LEGACY_ACKS_LATE": "1"}


@contextmanager
def running_task(app: Legacy) -> Iterator[Any]:
    """A task that a worker runs meanwhile."""
    app.worker()
    with app.producer() as tasks:
        result = tasks.gated.delay(f"g-{app.prefix}")
        app.await_notes(f"{result.id}:runs", 1)
        yield result
        app.open_gate(f"g-{app.prefix}")
        assert result.get(timeout=SOON_S) == 1


def inspected(app: Legacy) -> dict[str, Any]:
    """What `active` and `query_task` say of it, the same in each way, without facts of the run."""
    with running_task(app) as result:
        node = f"worker-{app.prefix}@{gethostname()}"
        # A busy worker answers after Celery's second. With its name it alone is waited for.
        inspect = result.app.control.inspect([node], timeout=SOON_S)
        [active] = inspect.active()[node]
        queried = inspect.query_task(result.id)[node]
        assert queried == {result.id: ["active", active]}
        assert active["id"] == result.id
    fields = {name: value for name, value in active.items() if name not in OF_THE_RUN}
    shown = str(fields).replace(app.prefix, "APP")
    return {"acknowledged": fields["acknowledged"], "shown": shown}


@pytest.mark.parametrize(
    ("broker", "mode", "kind", "acknowledged"),
    [
        ("redis", "protect", LateLegacy, False),
        ("rabbitmq", "protect", LateLegacy, False),
        ("redis", "observe", Legacy, True),
    ],
)
def test_a_running_task_is_shown_as_celerys_own_that_is_acknowledged_at_the_same_time(
    broker: str,
    mode: str,
    kind: type[Legacy],
    acknowledged: bool,
    servers: Servers,
    tmp_path: Path,
) -> None:
    found = []
    for name, which in (("none", kind), (mode, Legacy)):
        folder = tmp_path / name
        folder.mkdir()
        with legacy_on(broker, servers, folder, name, kind=which) as app:
            found.append(inspected(app))
    assert found[0] == found[1]
    assert found[1]["acknowledged"] is acknowledged
