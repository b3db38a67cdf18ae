"""Create the table of the gate that closes after a restore; allow the action that opens it."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"

_GATE = """
CREATE TABLE restore_gate (
    namespace text PRIMARY KEY,
    token uuid NOT NULL,
    beat bigint NOT NULL,
    beaten_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

_ACTIONS = (
    "manual_reroute",
    "cancel_request",
    "abort_request",
    "controlled_replay",
    "controlled_retry",
    "force_complete",
    "delete_dead_letter",
)


def upgrade() -> None:
    """Create the table and allow the action."""
    op.get_bind().exec_driver_sql(_GATE)
    _allow((*_ACTIONS, "accept_restore"), checked=True)


def downgrade() -> None:
    """Drop the table; rows that name the action stay, since the audit log is append-only."""
    op.drop_table("restore_gate")
    _allow(_ACTIONS, checked=False)


def _allow(actions: tuple[str, ...], *, checked: bool) -> None:
    listed = ", ".join(f"'{action}'" for action in actions)
    validity = "" if checked else " NOT VALID"
    op.get_bind().exec_driver_sql(
        "ALTER TABLE operator_audit_log DROP CONSTRAINT operator_audit_log_action, "
        "ADD CONSTRAINT operator_audit_log_action "
        f"CHECK (action_type IN ({listed})){validity}"
    )
