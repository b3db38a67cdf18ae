"""`taskyard sign`: sign the arguments of an operator task or of a control command.

Any Celery client can then send them.
"""

from __future__ import annotations

import json as codec
from typing import Annotated, Any, Final

import typer

from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.control.sign_message import sign_command, sign_task
from taskyard.engine.control_command_table import COMMANDS, verb_of
from taskyard.errors import InvalidPayload, UnknownJobType
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.payload import read_payload
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]

_SIGNABLE: Final = tuple(name for name in COMMANDS if verb_of(name, {}) is not None)


def command(
    task: Annotated[
        str,
        typer.Argument(
            help="The operator task, taskyard.ops.replay, or a control command such as revoke."
        ),
    ],
    kwargs: Annotated[
        str, typer.Option(help="Its named arguments: a JSON object, @FILE, or - for stdin.")
    ],
    json: Json = False,
) -> None:
    """Sign the arguments of an operator task or a control command.

    Prints the named arguments with the credential among them, one JSON object: for `celery call
    --kwargs` of any Celery app, or for `app.control.broadcast(COMMAND, arguments=...)`. They are
    valid once, for 10 minutes (TASKYARD_CREDENTIAL_TTL_S).
    """
    if task not in OPERATOR_TASKS and task not in _SIGNABLE:
        raise UnknownJobType(
            f"{task[:80]!r} is neither an operator task nor a control command that can be signed; "
            f"known: {', '.join((*OPERATOR_TASKS, *_SIGNABLE))}"
        )
    arguments: Any = read_payload(kwargs)
    if not isinstance(arguments, dict):
        raise InvalidPayload(
            f"expected --kwargs to be a JSON object of all named arguments, got "
            f"{type(arguments).__name__}"
        )
    settings = find_target(quiet=json).settings
    # One line of JSON, with or without `--json`, so that a shell can pass it on.
    sign = sign_task if task in OPERATOR_TASKS else sign_command
    typer.echo(codec.dumps(sign(settings, task, arguments)))
