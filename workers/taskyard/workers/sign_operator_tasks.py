"""Sign operator tasks when they are published, by `celery call` or by beat.

The processes of a worker sign no operator task: they publish the continuations that a message
names, and whoever can write to the broker could have a task signed by naming it there.

Celery renders the arguments for events and logs before this, so they show no credential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
from celery import signals

from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.broker import Amqp
from taskyard.engine.operator_credentials_bootstep import RefuseCredentials
from taskyard.errors import InvalidPayload, NotPermitted, TaskyardError
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

__all__ = ["NotSigned", "SigningAmqp", "SignsNothing"]

# Whether this process is a worker or one of its children.
_in_worker = False


def _note_worker(**_: object) -> None:
    global _in_worker  # noqa: PLW0603 - a fact about the process
    _in_worker = True


# A child that is started anew, not forked, does not inherit the fact.
signals.worker_process_init.connect(
    _note_worker, weak=False, dispatch_uid="taskyard.workers.sign_operator_tasks"
)


class SignsNothing(RefuseCredentials):
    """Marks this process as a worker before it forks, so that it signs no operator tasks.

    As its base class does, it also ends the start of a worker whose settings or environment hold
    an operator's token or signing key.
    """

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        _note_worker()


class NotSigned(NotPermitted, click.ClickException):
    """An operator task was not published, since it could not be signed.

    Celery's command line shows a `ClickException` as one sentence.
    """


class SigningAmqp(Amqp):
    """Publishes an operator task with a credential of this process' identity.

    A task that has a credential of `taskyard sign` already keeps it. A worker publishes an operator
    task as it is: without a credential the receiver denies, counts and dead-letters it.
    """

    def _create_task_sender(self) -> Callable[..., Any]:
        send: Callable[..., Any] = super()._create_task_sender()
        settings: Settings = self.app.taskyard.settings

        def send_signed(producer: Any, name: str, message: Any, **options: Any) -> Any:
            if name in OPERATOR_TASKS and not _in_worker:
                message = _signed(settings, name, message)
            return send(producer, name, message, **options)

        return send_signed


def _signed(settings: Settings, name: str, message: Any) -> Any:
    args, kwargs, embed = message.body
    if CREDENTIAL in (kwargs or {}):
        return message
    try:
        from taskyard.control.sign_message import sign_task  # noqa: PLC0415 - extra `ops`

        arguments = _arguments(name, args, kwargs)
        signed = sign_task(settings, name, arguments)
    except ModuleNotFoundError as error:
        raise NotSigned(
            f"{name} was not published: {error.name} is not installed, which signing needs. Run: "
            "pip install 'taskyard[ops]'"
        ) from error
    except TaskyardError as error:
        raise NotSigned(f"{name} was not published: {error}") from error
    return message._replace(body=((), signed, embed))


def _arguments(name: str, args: Any, kwargs: Any) -> Mapping[str, Any]:
    """Return the named arguments; like any job's, they may be the one positional argument."""
    if not args:
        return dict(kwargs or {})
    if len(args) == 1 and isinstance(args[0], dict) and not kwargs:
        return args[0]
    raise InvalidPayload(
        f"{name} takes only named arguments, got {len(args)} positional ones. Give each by name: "
        "with --kwargs of `celery call`, or as kwargs of beat's entry"
    )
