"""The one table of Celery's control commands: what a worker does with each.

docs/control-commands.md shows it; a test compares both with the commands that Celery has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from taskyard.access import Action
from taskyard.access.broadcast_calls import WHOAMI

__all__ = ["COMMANDS", "ControlCommand", "Rule", "verb_of"]


class Rule(StrEnum):
    """What a worker does with a command.

    `FREE`: what Celery does, for every sender. `AUDITED`: what Celery does, with two rows in the
    audit log. `MAPPED`: an operator's verb on our jobs, and what Celery does on all other tasks.
    `SIGNED`: a command of Taskyard that always needs a credential.
    """

    FREE = "free"
    AUDITED = "audited"
    MAPPED = "mapped"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class ControlCommand:
    """The rule of a command; `verb` is the action in the audit log and in the table of rights.

    `ends_attempts`: the verb is `ABORT_REQUEST`, also without the argument `terminate`.
    """

    rule: Rule
    verb: Action | None = None
    ends_attempts: bool = False


_FREE: Final = ControlCommand(Rule.FREE)
_CANCELS: Final = ControlCommand(Rule.MAPPED, Action.CANCEL_REQUEST)


def _audited(verb: Action) -> ControlCommand:
    return ControlCommand(Rule.AUDITED, verb)


COMMANDS: Final[Mapping[str, ControlCommand]] = {
    # They end jobs.
    "revoke": _CANCELS,
    "revoke_by_stamped_headers": _CANCELS,
    "terminate": ControlCommand(Rule.MAPPED, Action.ABORT_REQUEST, ends_attempts=True),
    # They change what a worker does.
    "add_consumer": _audited(Action.FLOWER_ADD_CONSUMER),
    "cancel_consumer": _audited(Action.FLOWER_CANCEL_CONSUMER),
    "autoscale": _audited(Action.FLOWER_AUTOSCALE_POOL),
    "pool_grow": _audited(Action.FLOWER_GROW_POOL),
    "pool_shrink": _audited(Action.FLOWER_SHRINK_POOL),
    "pool_restart": _audited(Action.FLOWER_RESTART_POOL),
    "rate_limit": _audited(Action.FLOWER_SET_RATE_LIMIT),
    "time_limit": _audited(Action.FLOWER_SET_TIME_LIMIT),
    "shutdown": _audited(Action.FLOWER_SHUTDOWN_WORKER),
    # They are what workers and monitors need of each other.
    "disable_events": _FREE,
    "election": _FREE,
    "enable_events": _FREE,
    "heartbeat": _FREE,
    "hello": _FREE,
    # They only read.
    "active": _FREE,
    "active_queues": _FREE,
    "clock": _FREE,
    "conf": _FREE,
    "memdump": _FREE,
    "memsample": _FREE,
    "objgraph": _FREE,
    "ping": _FREE,
    "query_task": _FREE,
    "registered": _FREE,
    "report": _FREE,
    "reserved": _FREE,
    "revoked": _FREE,
    "scheduled": _FREE,
    "stats": _FREE,
    # Taskyard's own.
    WHOAMI: ControlCommand(Rule.SIGNED, Action.WHOAMI),
}
"""The commands by name. An app's own commands are not in it; they are free."""


def verb_of(name: str, arguments: Mapping[str, Any]) -> Action | None:
    """Return the action of a command that is audited or mapped; None for every other one."""
    command = COMMANDS.get(name, _FREE)
    if command.rule is Rule.MAPPED and (command.ends_attempts or arguments.get("terminate")):
        return Action.ABORT_REQUEST
    return command.verb if command.rule in (Rule.MAPPED, Rule.AUDITED) else None
