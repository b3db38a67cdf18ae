"""Create functions of the tables' owner that create and drop the weekly partitions.

A process that calls these functions needs no right to create or drop a table. The functions refuse
to drop rows that are younger than a day. Each process checks its own settings, but the functions
check every caller.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0009"
down_revision = "0008"

# The search_path is fixed, so that no object of a caller is taken for one of ours: pg_catalog comes
# first without being named, what is created goes to the first that is named, pg_temp is last.
_HEAD = """
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
"""
_CREATE = """
CREATE FUNCTION taskyard_create_partitions(at timestamptz, ahead interval) RETURNS SETOF text
{head} AS $$
DECLARE
    parent text; ranged text; week timestamptz; part text; low text; high text; held text;
BEGIN
    IF at IS NULL OR ahead IS NULL OR ahead > interval '5 weeks'
       OR at NOT BETWEEN timestamptz '2000-01-01' AND clock_timestamp() + interval '5 weeks' THEN
        RAISE EXCEPTION 'partitions are created from the year 2000 to 5 weeks from now, '
            'and 5 weeks at once, not for % and % ahead', at, ahead
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(8386110886424703604);
    FOR parent, ranged IN VALUES
        ('dead_letter_queue', 'decided_at'), ('job_ledger', 'epoch'), ('job_events', 'epoch')
    LOOP
        week := date_trunc('week', at - interval '1 week');
        WHILE week <= at + ahead LOOP
            part := parent || '_p' || to_char(week, 'YYYYMMDD');
            IF NOT EXISTS (
                SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = parent::regclass AND relname = part
            ) THEN
                low := to_char(week, 'YYYY-MM-DD') || ' 00:00:00+00';
                high := to_char(week + interval '7 days', 'YYYY-MM-DD') || ' 00:00:00+00';
                IF ranged = 'epoch' THEN
                    low := (extract(epoch FROM low::timestamptz) * 1000000)::bigint::text;
                    high := (extract(epoch FROM high::timestamptz) * 1000000)::bigint::text;
                END IF;
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
                -- A range cannot be attached while the default partition holds rows of it.
                EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L '
                    'RETURNING *) INSERT INTO %I SELECT * FROM moved',
                    parent || '_default', ranged, low, ranged, high, part);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                    parent, part, low, high);
                RETURN NEXT part;
            END IF;
            week := week + interval '7 days';
        END LOOP;
    END LOOP;
END $$;
"""
_DROP = """
CREATE FUNCTION taskyard_drop_partitions(
    parent text, cutoff timestamptz,
    OUT weeks text[], OUT gone bigint, OUT open_letters bigint, OUT kept bigint)
{head} AS $$
DECLARE
    aged text; part text; is_open text := 'false'; few bigint; few_open bigint;
BEGIN
    aged := CASE parent WHEN 'dead_letter_queue' THEN 'mirrored_at'
        WHEN 'job_ledger' THEN 'updated_at' WHEN 'job_events' THEN 'at' END;
    IF aged IS NULL THEN
        RAISE EXCEPTION '% has no partitions', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cutoff IS NULL OR cutoff > clock_timestamp() - interval '1 day' THEN
        RAISE EXCEPTION 'what is younger than a day is not dropped, and % is', cutoff
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- With an older snapshot, rows that were committed since would be dropped unseen.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'partitions are dropped in a transaction of READ COMMITTED, not of %',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF parent = 'dead_letter_queue' THEN
        is_open := $open$status IN ('pending', 'manual_review')$open$;
    END IF;
    PERFORM pg_advisory_xact_lock(8386110886424703604);
    weeks := '{{}}'; gone := 0; open_letters := 0; kept := 0;
    FOR part IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = parent::regclass AND relname ~ '_p[0-9]{{8}}$'
          AND to_timestamp(right(relname, 8), 'YYYYMMDD') + interval '7 days' <= cutoff
        ORDER BY relname
    LOOP
        -- Detached first: from here on it gets no new rows, and its rows fit the default partition.
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, part);
        EXECUTE format('INSERT INTO %I SELECT * FROM %I WHERE %I >= $1', parent, part, aged)
            USING cutoff;
        GET DIAGNOSTICS few = ROW_COUNT;
        kept := kept + few;
        EXECUTE format('SELECT count(*), count(*) FILTER (WHERE %s) FROM %I WHERE %I < $1',
            is_open, part, aged) INTO few, few_open USING cutoff;
        gone := gone + few; open_letters := open_letters + few_open;
        EXECUTE format('DROP TABLE %I', part);
        weeks := weeks || part;
    END LOOP;
    EXECUTE format('WITH gone AS (DELETE FROM %I WHERE %I < $1 RETURNING *) '
        'SELECT count(*), count(*) FILTER (WHERE %s) FROM gone',
        parent || '_default', aged, is_open) INTO few, few_open USING cutoff;
    gone := gone + few; open_letters := open_letters + few_open;
END $$;
"""
_SIGNATURES = (
    "taskyard_create_partitions(timestamptz, interval)",
    "taskyard_drop_partitions(text, timestamptz)",
)


def upgrade() -> None:
    """Create the functions, which only the owner may call.

    Every other role needs a grant that names the function.
    """
    connection = op.get_bind()
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    for statements in (_CREATE, _DROP):
        head = _HEAD.format(schema=schema)
        made = statements.format(head=head)
        connection.exec_driver_sql(made.replace("%", "%%"))
    for signature in _SIGNATURES:
        connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC")


def downgrade() -> None:
    """Drop the functions."""
    for signature in _SIGNATURES:
        op.get_bind().exec_driver_sql(f"DROP FUNCTION {signature}")
