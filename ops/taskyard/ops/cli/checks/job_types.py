"""Job types, their queues and models, and the handlers on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.jobs import Catalogue, JobType
from taskyard.jobs.catalogue import BUILT_IN
from taskyard.jobs.handler_registry import ENTRY_POINTS, Registry
from taskyard.ops.cli.checks.finding import Finding
from taskyard.settings import Settings

__all__ = ["CONSUMER_TIMEOUT_S", "handlers", "known_types", "look_at"]

# RabbitMQ's default: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout. No client
# can ask the server what it is set to.
CONSUMER_TIMEOUT_S: Final = 1_800


def look_at(settings: Settings, catalogue: Catalogue) -> Iterator[Finding]:
    """Check that each type has an existing queue and priority, and a model that can be imported."""
    for job_type in catalogue.values():
        yield from _faults(settings, job_type)
    # The broker's own code is not used here: an invalid broker URL is reported with the broker.
    if (settings.broker_url or "").startswith(("amqp", "pyamqp")):
        yield from _held_too_long(catalogue)
    sources = [BUILT_IN] * settings.builtin_jobs + [str(file) for file in settings.job_types]
    if sources:
        yield Finding.ok(
            "job types", f"{len(catalogue)} ({', '.join(sources)}): {', '.join(catalogue)}"
        )
    else:
        yield Finding.ok("job types", "none in files: clients know the types they import")


def _faults(settings: Settings, job_type: JobType) -> Iterator[Finding]:
    try:
        settings.queue(job_type.queue)
        if job_type.priority is not None:
            settings.check_priority(job_type.queue, job_type.priority)
        job_type.model()
    except TaskyardError as error:
        remedy = "" if str(error).endswith(".") else "Correct its job type file."
        named = f"{job_type.name}: {error}"
        yield Finding.error("job types", named, remedy, exit_code=error.exit_code)


def _held_too_long(catalogue: Catalogue) -> Iterator[Finding]:
    long = [job for job in catalogue.values() if job.time_limit_s > CONSUMER_TIMEOUT_S]
    for job_type in long:
        yield Finding.warning(
            "job types",
            f"{job_type.name} may run {job_type.time_limit_s:g} s, and RabbitMQ takes back a "
            f"message that is held for {CONSUMER_TIMEOUT_S} s (its default consumer_timeout): the "
            f"job would begin again",
            "Raise consumer_timeout in rabbitmq.conf above the longest time limit.",
        )


def handlers(settings: Settings, catalogue: Catalogue, registry: Registry) -> Iterator[Finding]:
    """Check that each handler has a type and each type has a handler."""
    for failure in registry.load_entry_points(built_in=settings.builtin_jobs):
        yield Finding.error(
            "handlers", failure, "Correct the module: a worker would start without its handlers."
        )
    known = registry.under(catalogue)
    decorated = [job_type for name, job_type in known.items() if name not in catalogue]
    for name, job_type in known.items():
        # What is wrong in the file itself was found with the job types.
        if name not in catalogue or not any(_faults(settings, catalogue[name])):
            yield from _faults(settings, job_type)
    services = [job_type.name for job_type in decorated if job_type.name not in OPERATOR_TASKS]
    if services:
        # It is unknown here what services import, and a client that imports the module can enqueue.
        listed = ", ".join(services)
        yield Finding.ok(
            "handlers",
            f"only decorators define {listed}: a service can enqueue them if it imports their "
            f"modules, or if a file named by TASKYARD_JOB_TYPES defines them",
        )
    found = registry.handlers()
    own = {handler.name for handler in found if handler.job_type is not None}
    names = [handler.name for handler in found]
    homeless = [name for name in names if name not in catalogue and name not in own]
    idle = [name for name in catalogue if name not in names]
    yield _found(names)
    for name in homeless:
        yield Finding.error(
            "handlers",
            f"the handler {name!r} has no job type, so a worker will not start",
            "Define the type in a file named by TASKYARD_JOB_TYPES, or give its decorator a queue.",
        )
    for name in idle:
        yield Finding.error(
            "handlers",
            f"the job type {name!r} has no handler here, so its jobs become dead letters",
            f"Name the handler's module as an entry point of group {ENTRY_POINTS!r}, "
            "or remove the type.",
        )


def known_types(catalogue: Catalogue, registry: Registry) -> Catalogue:
    """Return the types of files and decorators; only those of files if a decorator is wrong."""
    try:
        return registry.under(catalogue)
    except InvalidSettings:
        return catalogue


def _found(names: list[str]) -> Finding:
    if names:
        return Finding.ok("handlers", f"{len(names)}: {', '.join(names)}")
    return Finding.warning(
        "handlers",
        "there is none on this machine, so a worker here would run no job",
        f"Name the modules of your handlers as entry points of group {ENTRY_POINTS!r} and install "
        "their package; or set TASKYARD_BUILTIN_JOBS=1 for the built-in jobs.",
    )
