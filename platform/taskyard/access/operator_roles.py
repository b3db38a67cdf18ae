"""Roles, and the one table of what each may do. docs/security.md shows it; a test compares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from taskyard.access.actions import Action, Scope

__all__ = ["RIGHTS", "Right", "Role"]


class Role(StrEnum):
    """A role; each role may do everything that the roles before it in this list may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Return whether this role may do everything that `other` may."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Right:
    """The lowest role that may take an action, and what the action affects.

    `granted`: a lower role may take the action too, if its token or grant names the action.
    """

    role: Role
    scope: Scope
    granted: bool = False


_VIEWER: Final = Right(Role.VIEWER, Scope.SELF)
_OPERATOR: Final = Right(Role.OPERATOR, Scope.QUEUE)
_OPERATOR_OF_FLEET: Final = Right(Role.OPERATOR, Scope.FLEET)
_ADMIN: Final = Right(Role.ADMIN, Scope.QUEUE)
_ADMIN_OF_FLEET: Final = Right(Role.ADMIN, Scope.FLEET)
_KILL_SWITCH: Final = Right(Role.ADMIN, Scope.FLEET, granted=True)

RIGHTS: Final[Mapping[Action, Right]] = {
    Action.MANUAL_REROUTE: _OPERATOR,
    Action.CANCEL_REQUEST: _OPERATOR,
    Action.ABORT_REQUEST: _OPERATOR,
    Action.CONTROLLED_REPLAY: _OPERATOR,
    Action.CONTROLLED_RETRY: _OPERATOR,
    Action.FORCE_COMPLETE: _OPERATOR,
    Action.REVIEW_DEAD_LETTER: _OPERATOR,
    Action.DELETE_DEAD_LETTER: _OPERATOR,
    Action.UNDELETE_DEAD_LETTER: _OPERATOR,
    Action.EXECUTE_PLAN: _OPERATOR,
    Action.CANCEL_PLAN: _OPERATOR,
    # A payload may contain data that its operators must not see, so an operator needs a grant by
    # name.
    Action.READ_PAYLOAD: Right(Role.ADMIN, Scope.QUEUE, granted=True),
    Action.ERASE_PAYLOAD: _ADMIN,
    Action.PAUSE_QUEUE: _OPERATOR,
    Action.RESUME_QUEUE: _OPERATOR,
    # What a purge removes cannot be restored.
    Action.PURGE_QUEUE: _ADMIN,
    Action.SET_LIMIT: _OPERATOR,
    # It stops the work of every service. An operator on call gets both by name: whoever stops
    # everything by mistake at night must be able to start it again.
    Action.ENGAGE_KILL_SWITCH: _KILL_SWITCH,
    Action.RELEASE_KILL_SWITCH: _KILL_SWITCH,
    Action.SET_SHEDDING: _OPERATOR_OF_FLEET,
    Action.RESET_BREAKER: _OPERATOR_OF_FLEET,
    Action.DRAIN_WORKER: _OPERATOR_OF_FLEET,
    Action.START_REMEDIATION: _OPERATOR_OF_FLEET,
    Action.STOP_REMEDIATION: _OPERATOR_OF_FLEET,
    Action.CHANGE_CONFIG: _ADMIN_OF_FLEET,
    Action.ACCEPT_RESTORE: _ADMIN_OF_FLEET,
    Action.WHOAMI: _VIEWER,
    Action.CREATE_TOKEN: _ADMIN_OF_FLEET,
    Action.ROTATE_TOKEN: _ADMIN_OF_FLEET,
    Action.REVOKE_TOKEN: _ADMIN_OF_FLEET,
    Action.GRANT_USER: _ADMIN_OF_FLEET,
    Action.REVOKE_USER: _ADMIN_OF_FLEET,
    Action.CREATE_KEY: _ADMIN_OF_FLEET,
    Action.RETIRE_KEY: _ADMIN_OF_FLEET,
    Action.EXPORT_AUDIT: _ADMIN_OF_FLEET,
    # A task that Flower publishes can run any code that the workers know.
    Action.FLOWER_PUBLISH_TASK: _ADMIN_OF_FLEET,
    Action.FLOWER_GROW_POOL: _OPERATOR_OF_FLEET,
    Action.FLOWER_SHRINK_POOL: _OPERATOR_OF_FLEET,
    Action.FLOWER_AUTOSCALE_POOL: _OPERATOR_OF_FLEET,
    Action.FLOWER_ADD_CONSUMER: _OPERATOR,
    Action.FLOWER_CANCEL_CONSUMER: _OPERATOR,
    Action.FLOWER_SET_TIME_LIMIT: _ADMIN_OF_FLEET,
    Action.FLOWER_SET_RATE_LIMIT: _OPERATOR_OF_FLEET,
    Action.FLOWER_RESTART_POOL: _ADMIN_OF_FLEET,
    Action.FLOWER_SHUTDOWN_WORKER: _ADMIN_OF_FLEET,
}
