"""A job's handle in a yard that stands still between two runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from taskyard.client import JobHandle
from taskyard.errors import ResultTimeout
from taskyard.jobs.states import LIVE, State
from taskyard.records import Record

__all__ = ["YardHandle"]


class YardHandle(JobHandle):
    """`JobHandle`, which never waits: nothing could happen meanwhile."""

    __slots__ = ()

    def record(self) -> Record:
        """Everything the record holds."""
        return self._yard.records.read(self.job_id)

    def result(
        self, timeout: timedelta | float | None = None, *, wait_for_replay: bool = False
    ) -> Any:
        """The handler's result; the errors are those of `JobHandle.result`.

        Raises `ResultTimeout` at once where production would wait.
        """
        record = self.record()
        waits = LIVE if wait_for_replay else LIVE - {State.DEAD_LETTERED}
        if record.state in waits:
            raise ResultTimeout(
                f"job {self.job_id} is {record.state}, and nothing runs while a test asks for its "
                "result: call yard.run() first, or yard.settle() where it waits for its time"
            )
        return self._ended(record, self._raw)

    async def aresult(
        self,
        timeout: timedelta | float | None = None,  # noqa: ASYNC109 - as `result`, whose error it has
        *,
        wait_for_replay: bool = False,
    ) -> Any:
        """`result`, for tests that are coroutines."""
        return self.result(timeout, wait_for_replay=wait_for_replay)
