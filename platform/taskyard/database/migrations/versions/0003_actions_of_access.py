"""Allow more actions in the audit log: of roles, switches, settings, tokens, keys and Flower."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0003"
down_revision = "0002"

_BEFORE = (
    "manual_reroute",
    "cancel_request",
    "abort_request",
    "controlled_replay",
    "controlled_retry",
    "force_complete",
    "delete_dead_letter",
    "accept_restore",
)
_NEW = (
    "review_dead_letter",
    "undelete_dead_letter",
    "execute_plan",
    "cancel_plan",
    "read_payload",
    "erase_payload",
    "pause_queue",
    "resume_queue",
    "purge_queue",
    "set_limit",
    "engage_kill_switch",
    "release_kill_switch",
    "set_shedding",
    "reset_breaker",
    "drain_worker",
    "start_remediation",
    "stop_remediation",
    "change_config",
    "whoami",
    "create_token",
    "rotate_token",
    "revoke_token",
    "grant_user",
    "revoke_user",
    "create_key",
    "retire_key",
    "export_audit",
    "flower_publish_task",
    "flower_grow_pool",
    "flower_shrink_pool",
    "flower_autoscale_pool",
    "flower_add_consumer",
    "flower_cancel_consumer",
    "flower_set_time_limit",
    "flower_set_rate_limit",
    "flower_restart_pool",
    "flower_shutdown_worker",
)


def upgrade() -> None:
    """Allow the new actions."""
    _allow((*_BEFORE, *_NEW), checked=True)


def downgrade() -> None:
    """Refuse the new actions; rows that name them stay, since the audit log is append-only."""
    _allow(_BEFORE, checked=False)


def _allow(actions: tuple[str, ...], *, checked: bool) -> None:
    listed = ", ".join(f"'{action}'" for action in actions)
    validity = "" if checked else " NOT VALID"
    op.get_bind().exec_driver_sql(
        "ALTER TABLE operator_audit_log DROP CONSTRAINT operator_audit_log_action, "
        "ADD CONSTRAINT operator_audit_log_action "
        f"CHECK (action_type IN ({listed})){validity}"
    )
