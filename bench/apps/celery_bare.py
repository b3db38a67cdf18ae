"""Bare Celery as its documentation advises for work that must not be lost."""

from __future__ import annotations

from typing import Any

from celery import Celery

from bench.apps.work import payload, redis_url, wait

app = Celery("bench", broker=redis_url(), backend=redis_url())
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    task_default_queue="bench",
)


@app.task(name="noop")
def noop(_: Any) -> None:
    """Nothing."""


@app.task(name="io")
def io(_: Any) -> None:
    """A short wait."""
    wait()


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    task, argument = app.tasks[body], payload(size)
    for _ in range(count):
        task.delay(argument)
