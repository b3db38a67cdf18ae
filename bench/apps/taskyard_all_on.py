"""Taskyard as it is shipped: leases, fencing, lifecycle stream, dead letters, events."""

from __future__ import annotations

from typing import Any

from bench.apps.sampler import watch
from bench.apps.work import payload, wait
from taskyard.client import EnqueueRequest, Taskyard
from taskyard.jobs import Catalogue, JobType
from taskyard.jobs.handler_registry import Registry
from taskyard.settings import Settings, load
from taskyard.workers.build import build_app

_handlers = Registry()
watch()


@_handlers.job("noop", queue="exec")
def noop(_: Any) -> None:
    """Nothing."""


@_handlers.job("io", queue="exec")
def io(_: Any) -> None:
    """A short wait."""
    wait()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    return build_app(load().settings, Catalogue.load(built_in=True), _handlers)


def yard() -> Taskyard:
    """A client of the settings in the environment."""
    return Taskyard(catalogue=_types())


def yard_at(url: str) -> Taskyard:
    """A client of one server."""
    return Taskyard(Settings(redis_url=url, broker_url=url), _types())


def _types() -> Catalogue:
    types = Catalogue.load(built_in=True)
    for body in ("noop", "io"):
        types = types.with_type(JobType(name=body, queue="exec"))
    return types


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    argument = payload(size)
    with yard() as client:
        for _ in range(count):
            client.enqueue(body, argument)


def send_many(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs with `enqueue_many`."""
    argument = payload(size)
    with yard() as client:
        client.enqueue_many(EnqueueRequest(job_type=body, payload=argument) for _ in range(count))
