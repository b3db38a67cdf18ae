"""Native workers and the client that enqueues for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chaos.clocks import SHIFT_VARIABLE
from chaos.supervisor import Supervised
from support.worker import Worker
from taskyard.client import EnqueueRequest, Taskyard
from taskyard.jobs import Catalogue, JobType
from taskyard.settings import Settings

__all__ = ["NativeFleet"]

_QUEUE: Final = "exec"
# Only operators move jobs there.
_QUEUES: Final = (_QUEUE, "plan")
_TYPE: Final = "storm_deed"


class NativeFleet:
    """`variables` are what the handlers read; `folder` is where workers write.

    `reply_to` is the queue in which the client waits for replies, None for no replies.
    """

    queues: tuple[str, ...] = _QUEUES
    job_type: str = _TYPE

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        variables: Mapping[str, str],
        reply_to: str | None = None,
    ) -> None:
        self._settings, self._folder, self._variables = settings, folder, variables
        self._reply_to = reply_to
        catalogue = Catalogue.load().with_type(JobType(name=_TYPE, queue=_QUEUE))
        self._client = Taskyard(settings, catalogue)

    def worker(self, number: int, concurrency: int, shift_s: float) -> Supervised:
        """A worker that is not started yet; its wall clock is `shift_s` ahead."""
        folder = self._folder / f"worker-{number}"
        return Worker(
            self._settings,
            folder,
            queues=_QUEUES,
            concurrency=concurrency,
            modules=("chaos.log_levels", "chaos.clocks", "chaos.jobs"),
            environment={
                **self._variables,
                SHIFT_VARIABLE: str(shift_s),
                "PYTHONPATH": os.pathsep.join((str(folder), self._variables["PYTHONPATH"])),
            },
            name=f"worker-{number}",
        )

    def send(self, batch: Mapping[int, str]) -> list[str]:
        """Enqueue jobs, the kind of each by its number; their ids. Sent again, they are found."""
        requests = [
            EnqueueRequest(
                job_type=_TYPE,
                payload={"number": number, "kind": kind},
                idempotency_key=str(number),
                reply_to=self._reply_to,
            )
            for number, kind in batch.items()
        ]
        return [handle.job_id for handle in self._client.enqueue_many(requests)]

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()
