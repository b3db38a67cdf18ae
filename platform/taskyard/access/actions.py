"""Every action that is permitted and audited; the database holds the same list as a CHECK."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Action", "Scope"]


class Action(StrEnum):
    """An action that an operator can take.

    The values are the `action_type` of audit rows. Reading masked lists is not an action: every
    role may read the lists, within its queues and domains.
    """

    # Jobs and dead letters.
    MANUAL_REROUTE = "manual_reroute"
    CANCEL_REQUEST = "cancel_request"
    ABORT_REQUEST = "abort_request"
    CONTROLLED_REPLAY = "controlled_replay"
    CONTROLLED_RETRY = "controlled_retry"
    FORCE_COMPLETE = "force_complete"
    REVIEW_DEAD_LETTER = "review_dead_letter"
    DELETE_DEAD_LETTER = "delete_dead_letter"
    UNDELETE_DEAD_LETTER = "undelete_dead_letter"
    EXECUTE_PLAN = "execute_plan"
    CANCEL_PLAN = "cancel_plan"
    READ_PAYLOAD = "read_payload"
    ERASE_PAYLOAD = "erase_payload"
    # Queues, switches and settings.
    PAUSE_QUEUE = "pause_queue"
    RESUME_QUEUE = "resume_queue"
    PURGE_QUEUE = "purge_queue"
    SET_LIMIT = "set_limit"
    ENGAGE_KILL_SWITCH = "engage_kill_switch"
    RELEASE_KILL_SWITCH = "release_kill_switch"
    SET_SHEDDING = "set_shedding"
    RESET_BREAKER = "reset_breaker"
    DRAIN_WORKER = "drain_worker"
    START_REMEDIATION = "start_remediation"
    STOP_REMEDIATION = "stop_remediation"
    CHANGE_CONFIG = "change_config"
    ACCEPT_RESTORE = "accept_restore"
    # Access itself.
    WHOAMI = "whoami"
    CREATE_TOKEN = "create_token"  # noqa: S105 - an action's name
    ROTATE_TOKEN = "rotate_token"  # noqa: S105
    REVOKE_TOKEN = "revoke_token"  # noqa: S105
    GRANT_USER = "grant_user"
    REVOKE_USER = "revoke_user"
    CREATE_KEY = "create_key"
    RETIRE_KEY = "retire_key"
    EXPORT_AUDIT = "export_audit"
    # What Flower can change in a fleet by itself.
    FLOWER_PUBLISH_TASK = "flower_publish_task"
    FLOWER_GROW_POOL = "flower_grow_pool"
    FLOWER_SHRINK_POOL = "flower_shrink_pool"
    FLOWER_AUTOSCALE_POOL = "flower_autoscale_pool"
    FLOWER_ADD_CONSUMER = "flower_add_consumer"
    FLOWER_CANCEL_CONSUMER = "flower_cancel_consumer"
    FLOWER_SET_TIME_LIMIT = "flower_set_time_limit"
    FLOWER_SET_RATE_LIMIT = "flower_set_rate_limit"
    FLOWER_RESTART_POOL = "flower_restart_pool"
    FLOWER_SHUTDOWN_WORKER = "flower_shutdown_worker"


class Scope(StrEnum):
    """What an action affects.

    This decides whether an identity that is limited to queues or domains may take the action.
    `QUEUE`: a job, a dead letter or a queue; such an identity may act within its limits. `FLEET`:
    more than one queue; such an identity may not act. `SELF`: only the caller; the limits do not
    matter.
    """

    QUEUE = "queue"
    FLEET = "fleet"
    SELF = "self"
