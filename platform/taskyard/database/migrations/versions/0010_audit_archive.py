"""Create the one function that may remove archived audit rows, and number the seals.

The function belongs to the tables' owner. A new seal has the number after the last seal, so a role
that may append to the seals cannot use up the numbers, and cannot put a seal before the chain.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0010"
down_revision = "0009"

_SIGNATURE = "taskyard_remove_archived_audit(bigint)"

# The setting says that the function below is at work. Anybody may set it, but only the owner is
# listened to, who could switch the trigger off as well.
_TRIGGER = """
CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('taskyard.removes_archived_audit', true) = 'on'
        AND EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = TG_RELID
                    AND pg_catalog.pg_get_userbyid(relowner) = current_user) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '{table} is append-only: % is refused for everyone', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
"""
# Not ALWAYS: a restore of the data alone (pg_restore --disable-triggers) inserts in any order.
_NEXT = """
CREATE FUNCTION audit_seals_next() RETURNS trigger
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE
    next bigint := (SELECT greatest(max(seq), 0) + 1 FROM audit_seals);
BEGIN
    IF NEW.seq IS DISTINCT FROM next THEN
        RAISE EXCEPTION 'the next seal of the audit log has the number %, not %', next, NEW.seq
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_seals_next BEFORE INSERT ON audit_seals
    FOR EACH ROW EXECUTE FUNCTION audit_seals_next();
"""
_TRIGGER_BEFORE = """
CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '{table} is append-only: % is refused for everyone', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
"""
_REMOVE = """
CREATE FUNCTION taskyard_remove_archived_audit(through bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp
SET lock_timeout = '10s' AS $$
DECLARE
    removed bigint; ids bigint[];
    youngest constant timestamptz := clock_timestamp() - interval '30 days';
BEGIN
    -- Each statement has its own snapshot: without the lock, a seal that is committed after the
    -- checks would name rows that were not checked.
    LOCK TABLE audit_seals IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (
        SELECT FROM audit_seals WHERE archived_through = through AND seq > through
    ) THEN
        RAISE EXCEPTION 'no seal says that the audit log is archived up to seal %', through
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (
        SELECT FROM audit_seals
        WHERE seq <= through AND sealed_at > youngest
    ) THEN
        RAISE EXCEPTION 'what was sealed within the last 30 days stays, and seal % was', through
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    ids := ARRAY(SELECT unnest(row_ids) FROM audit_seals WHERE seq <= through);
    -- Whoever may seal may make up a seal and its time, but not the time of a row that is there.
    IF EXISTS (
        SELECT FROM operator_audit_log
        WHERE id = ANY(ids) AND performed_at > youngest
    ) THEN
        RAISE EXCEPTION 'what was audited within the last 30 days stays, and a row of the seals up '
            'to % was', through USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM set_config('taskyard.removes_archived_audit', 'on', true);
    -- A seal may name rows that are committed only now, so the time counts here as well.
    DELETE FROM operator_audit_log WHERE id = ANY(ids) AND performed_at <= youngest;
    GET DIAGNOSTICS removed = ROW_COUNT;
    DELETE FROM audit_seals WHERE seq <= through;
    PERFORM set_config('taskyard.removes_archived_audit', 'off', true);
    RETURN removed;
END $$;
REVOKE EXECUTE ON FUNCTION taskyard_remove_archived_audit(bigint) FROM PUBLIC;
CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL;
"""
_TABLES = ("operator_audit_log", "audit_seals")


def upgrade() -> None:
    """Create the function, whose deletions the triggers allow, and the trigger on new seals."""
    connection = op.get_bind()
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    parts = [_TRIGGER.format(table=table) for table in _TABLES]
    for statements in (*parts, _NEXT.format(schema=schema), _REMOVE.format(schema=schema)):
        connection.exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    """Drop the function; the triggers refuse every deletion again."""
    connection = op.get_bind()
    op.drop_index("outbox_done", "outbox")
    connection.exec_driver_sql(f"DROP FUNCTION {_SIGNATURE}")
    connection.exec_driver_sql("DROP TRIGGER audit_seals_next ON audit_seals")
    connection.exec_driver_sql("DROP FUNCTION audit_seals_next()")
    for table in _TABLES:
        connection.exec_driver_sql(_TRIGGER_BEFORE.format(table=table).replace("%", "%%"))
