"""`taskyard sign`.

Sign the arguments of an operator task, which any Celery client can then send.
"""

from __future__ import annotations

import json as codec
from typing import Annotated, Any

import typer

from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.control.sign_message import sign_task
from taskyard.errors import InvalidPayload, UnknownJobType
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.payload import read_payload
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(
    task: Annotated[str, typer.Argument(help="The operator task: taskyard.ops.replay.")],
    kwargs: Annotated[
        str, typer.Option(help="Its named arguments: a JSON object, @FILE, or - for stdin.")
    ],
    json: Json = False,
) -> None:
    """Sign the arguments of an operator task.

    Prints the named arguments with the credential among them, one JSON object, for `celery call
    --kwargs` of any Celery app. They are valid once, for 10 minutes (TASKYARD_CREDENTIAL_TTL_S).
    """
    if task not in OPERATOR_TASKS:
        raise UnknownJobType(
            f"{task[:80]!r} is not an operator task; known: {', '.join(OPERATOR_TASKS)}"
        )
    arguments: Any = read_payload(kwargs)
    if not isinstance(arguments, dict):
        raise InvalidPayload(
            f"expected --kwargs to be a JSON object of all named arguments, got "
            f"{type(arguments).__name__}"
        )
    settings = find_target(quiet=json).settings
    # One line of JSON, with or without `--json`, so that a shell can pass it on.
    typer.echo(codec.dumps(sign_task(settings, task, arguments)))
