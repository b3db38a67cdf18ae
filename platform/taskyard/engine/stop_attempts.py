"""Stop the attempts of jobs that an operator has ended, when the relay asks this worker to.

The thread of the heartbeats takes the requests from Redis. The main loop carries them out: only
there it is certain which process runs which job. In a pool that cannot stop an attempt, the main
loop may be busy with that attempt, so the thread answers.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

import redis
from celery import bootsteps
from redis.exceptions import RedisError

from taskyard.engine.ports import Force
from taskyard.engine.worker_context import WorkerContext
from taskyard.jobs.states import TERMINAL, State
from taskyard.records import AttemptStops, Stop, StopAnswer
from taskyard.wire.redacted_logs import logger

__all__ = ["StopAttempts", "blocking_s", "take_request"]

log = logger(__name__)

INTERVAL_S: Final = 0.2
# A server that is silent for longer than the socket's timeout counts as lost.
_LONGEST_S: Final = 4.0
_SHARE: Final = 0.8
_UNREACHABLE: Final = "an attempt was not stopped, because its job's record could not be read"


def take_request(context: WorkerContext, stops: AttemptStops, worker: str, until_s: float) -> None:
    """Wait for one request until the monotonic time `until_s`, in the thread of the heartbeats.

    Raises redis-py's errors.
    """
    wait_s = until_s - monotonic()
    stop = stops.wait(worker, wait_s) if wait_s > 0 else None
    if stop is None:
        return
    ports = context.ports
    if ports is None or ports.attempts.can_stop:
        context.stops.append(stop)
        return
    runs = ports.attempts.runs(stop.job_id)
    stops.answer(stop.request_id, StopAnswer.UNSUPPORTED if runs else StopAnswer.NOT_RUNNING)


def carry_out_requests(context: WorkerContext) -> None:
    """Stop what was asked for, in the main loop; what cannot be judged now is tried again."""
    while context.stops:
        stop = context.stops[0]
        try:
            _carry_out(context, stop)
        except RedisError as error:
            facts = {"job_id": stop.job_id}
            context.backoff.failed(
                _UNREACHABLE, error, action="stop_unreachable", item=stop.job_id, facts=facts
            )
            return
        context.stops.popleft()
        context.backoff.succeeded(_UNREACHABLE, stop.job_id)


def _carry_out(context: WorkerContext, stop: Stop) -> None:
    records, ports = context.records, context.ports
    record = records.read(stop.job_id)
    by_operator = "verb" in record.fields and record.state in {*TERMINAL, State.REROUTED}
    if ports is None or not by_operator:
        log.warning(
            "a request to stop the attempt of job %s is ignored: the job is %s, and no operator "
            "has ended or moved it. Somebody else can write to Taskyard's Redis",
            stop.job_id[:80],
            record.state,
            extra={"action": "stop_ignored", "job_id": stop.job_id[:80]},
        )
        return
    stopped = ports.attempts.stop(stop.job_id, stop.token, Force.HARD)
    answer = StopAnswer.STOPPED if stopped else StopAnswer.NOT_RUNNING
    records.stops.answer(stop.request_id, answer)


class StopAttempts(bootsteps.StartStopStep):  # type: ignore[misc]
    """Carries out the requests to stop attempts, some times a second."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer."""
        context = consumer.app.taskyard
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, carry_out_requests, (context,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


def blocking_s(client: redis.Redis) -> float:
    """Return how long a command of this client may wait at the server, in seconds."""
    timeout_s = client.connection_pool.connection_kwargs.get("socket_timeout")
    return _LONGEST_S if timeout_s is None else min(_LONGEST_S, timeout_s * _SHARE)
