"""Operator tasks: verbs that a signed message requests, on pool `ops`.

Every worker imports this module, also one without the extra `ops`: code that needs Postgres is
imported when a message comes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.errors import (
    CodedError,
    CredentialRefused,
    InvalidPayload,
    MissingSetting,
    NotFound,
    NotPermitted,
    Refused,
    SchemaMismatch,
    ServerRefused,
    ServerUnreachable,
)
from taskyard.jobs import JobContext
from taskyard.jobs.handler_registry import job
from taskyard.settings import load

# No cycle: the desk needs the extra `ops`, which most workers lack.
if TYPE_CHECKING:
    from taskyard.ops.operator_context import MessageDesk

__all__ = ["NOT_CONFIGURED", "NOT_PERMITTED", "REFUSED", "replay_letter"]

NOT_PERMITTED: Final = "not_permitted"
REFUSED: Final = "refused"
NOT_CONFIGURED: Final = "not_configured"
_TEMPORARY: Final = "temporary_failure"


@job(
    REPLAY_TASK,
    queue="ops",
    time_limit_s=60,
    policy={
        "max_retries": 5,
        "backoff_strategy": "exponential",
        "base_delay_ms": 1000,
        "max_delay_ms": 30_000,
        "retry_on_errors": [_TEMPORARY],
    },
)
def replay_letter(payload: Any, context: JobContext) -> dict[str, Any]:
    """Replay a dead letter for the signer of this message; return what the audit log says of it.

    Raises `CodedError`: `not_permitted`, `refused`, `not_configured` where this worker lacks
    Postgres or the extra `ops`, or `temporary_failure` during an outage. None of these is
    `validation_error`: the mirror counts such a letter as a message that no handler saw.
    """
    arguments: Mapping[str, Any] = payload if isinstance(payload, dict) else {}
    try:
        return _desk(os.getpid()).replay(arguments, context)
    except CredentialRefused as error:
        raise CodedError(NOT_PERMITTED, str(error), details={"fault": error.code}) from error
    except NotPermitted as error:
        raise CodedError(NOT_PERMITTED, str(error)) from error
    except (InvalidPayload, Refused, NotFound) as error:
        raise CodedError(REFUSED, str(error)) from error
    except (ServerUnreachable, ServerRefused, SchemaMismatch) as error:
        raise CodedError(_TEMPORARY, str(error)) from error
    except MissingSetting as error:
        raise CodedError(NOT_CONFIGURED, f"this worker has no Postgres: {error}") from error
    except ModuleNotFoundError as error:
        raise CodedError(
            NOT_CONFIGURED,
            f"{error.name} is not installed in this worker. Run: pip install 'taskyard[ops]'",
        ) from error


@cache
def _desk(pid: int) -> MessageDesk:
    """Return the connections of this process: a forked child opens its own."""
    from taskyard.ops.operator_context import MessageDesk  # noqa: PLC0415 - extra `ops`

    return MessageDesk(load().settings)
