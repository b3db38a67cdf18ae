"""The sealer: what is committed is sealed once, also while others write, end or begin."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, make_url, text

from servers import Servers, client_programs
from support.audit import count_of, entry, sealed, sealer, with_triggers, without_triggers, write
from support.databases import new_database
from taskyard import audit
from taskyard.audit import Head, HeadFile, Kind, Report, Sealer, exported, given_heads, verify
from taskyard.audit import sealer as module_of_sealer
from taskyard.audit.seal_chain import LOCK_SQL, Seal
from taskyard.audit.sealer import EVERY_S
from taskyard.database import migrate, opened
from taskyard.errors import InvalidPayload, ServerUnreachable

EVERYTHING = "SELECT count(*) FROM operator_audit_log"
SEALED = "SELECT count(*) FROM audit_seals, unnest(row_ids)"


@pytest.fixture
def log(servers: Servers) -> Iterator[Engine]:
    """A migrated database of one test's own: what one test commits stays in its log."""
    url = new_database(servers)
    migrate(url)
    with opened(url) as engine:
        yield engine


def check_whole(log: Engine, *heads: Head) -> Report:
    """Everything is sealed once, and verified."""
    report = verify(log, heads)
    assert report.findings == []
    assert (report.rows, report.unsealed) == (count_of(log, EVERYTHING), 0)
    assert count_of(log, SEALED) == report.rows
    return report


def test_what_is_committed_is_sealed_and_the_next_seal_follows_from_it(log: Engine) -> None:
    write(log, 3)
    first = sealed(log)
    write(log, 2)
    last = sealed(log)

    report = check_whole(log, first, last)

    assert (report.rows, report.seals, report.heads) == (5, 2, 2)
    assert report.head == last
    assert last.seq == 2


def test_without_new_rows_no_seal_is_made_and_no_head_exported(log: Engine) -> None:
    heads: list[Seal] = []
    one = sealer(log, heads)
    write(log)

    assert [one.run_once() for _ in range(3)] == [1, 0, 0]
    assert [head.seq for head in heads] == [1]


def test_rows_of_a_long_transaction_are_sealed_after_higher_ones(log: Engine) -> None:
    one = sealer(log)
    with log.connect() as slow:
        audit.write(slow, entry(reason="The long transaction wrote first"))
        write(log, 3)
        assert one.run_once() == 3
        write(log, 3)
        assert one.run_once() == 3
        slow.commit()
    assert one.run_once() == 1

    check_whole(log)


def test_a_long_transaction_elsewhere_does_not_hold_up_the_seals(log: Engine) -> None:
    one = sealer(log)
    with log.connect() as slow:
        slow.execute(text("SELECT pg_current_xact_id()"))
        for _ in range(3):
            write(log, 2)
            assert one.run_once() == 2
        slow.rollback()
    write(log)
    assert one.run_once() == 1

    check_whole(log)


def test_ids_that_were_rolled_back_leave_no_hole(log: Engine) -> None:
    for number in range(6):
        with log.connect() as connection:
            audit.write(connection, entry())
            connection.commit() if number % 2 else connection.rollback()
    sealed(log)

    assert check_whole(log).rows == 3


def test_more_rows_than_a_seal_takes_are_sealed_in_one_pass(log: Engine) -> None:
    copy = (
        "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, identity_via, "
        "reason, outcome) SELECT gen_random_uuid(), 'whoami', 'x', 'local', 'r', 'applied' "
        "FROM generate_series(1, :n)"
    )
    with log.begin() as connection:
        connection.execute(text(copy), {"n": 2100})
    one = sealer(log)
    assert one.run_once() == 2100
    with log.begin() as connection:
        connection.execute(text(copy), {"n": 1000})
    write(log, 1)
    assert one.run_once() == 1001

    assert check_whole(log).seals == 5


def test_rows_from_before_the_chain_are_sealed(servers: Servers) -> None:
    url = new_database(servers)
    migrate(url, "0004")
    with opened(url) as old, old.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
                "identity_via, reason, outcome, performed_at) SELECT gen_random_uuid(), "
                "'cancel_request', 'x', 'local', 'An old row', 'applied', "
                "now() - n * interval '1 day' FROM generate_series(1, 1200) AS n"
            )
        )
    migrate(url)
    with opened(url) as log:
        write(log)
        assert check_sealed(log) == 1201


def check_sealed(log: Engine) -> int:
    head = sealed(log)
    return check_whole(log, head).rows


def test_sealers_side_by_side_make_one_chain(log: Engine) -> None:
    stop = threading.Event()

    def seal() -> int:
        own, rows = sealer(log), 0
        while not stop.is_set():
            rows += own.run_once()
        return rows + own.run_once()

    with ThreadPoolExecutor(6) as pool:
        sealing = [pool.submit(seal) for _ in range(3)]
        for writing in [pool.submit(write, log, 40) for _ in range(3)]:
            writing.result()
        stop.set()
        rows = sum(each.result() for each in sealing)
    rows += sealer(log).run_once()

    assert rows == 120
    check_whole(log)


class Killed(BaseException):
    """Stands for the end of the process: nothing below may catch it."""


@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute", "commit"])
def test_a_sealer_that_ends_between_any_two_steps_leaves_a_whole_chain(
    log: Engine, name: str
) -> None:
    write(log, 2)
    heads = [sealed(log)]
    step, ended = 0, False
    while not ended:
        write(log)
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > step:  # noqa: B023 - it is called in this round
                raise Killed

        event.listen(log, name, count)
        try:
            sealer(log).run_once()
            ended = True
        except (Killed, ServerUnreachable):  # the engine names what a statement raises
            step += 1
        finally:
            event.remove(log, name, count)
    assert step >= 1

    heads.append(sealed(log))
    check_whole(log, *heads)


def test_a_head_that_was_not_exported_is_exported_by_the_next_sealer(log: Engine) -> None:
    def killed(_: Seal) -> None:
        raise Killed

    write(log)
    with pytest.raises(Killed):
        Sealer(log, killed).run_once()
    heads: list[Seal] = []
    assert sealer(log, heads).run_once() == 0

    assert [head.seq for head in heads] == [1]


def test_a_chain_that_lost_what_was_exported_is_reported_and_goes_on(
    log: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    one = sealer(log)
    write(log, 2)
    one.run_once()
    write(log)
    one.run_once()
    with log.begin() as owner:
        without_triggers(owner)
        owner.execute(text("DELETE FROM audit_seals WHERE seq = 2"))
    write(log)

    assert one.run_once() == 2
    assert [vars(record)["action"] for record in caplog.records] == ["audit_chain_changed"]
    assert "taskyard audit verify --head 2:" in caplog.text
    check_whole(log)


def test_a_database_that_was_restored_on_other_servers_is_sealed_on(
    servers: Servers, log: Engine, tmp_path: Path
) -> None:
    for _ in range(300):  # its transaction ids are ahead of the new servers'
        with log.begin() as connection:
            connection.execute(text("SELECT pg_current_xact_id()"))
    write(log, 5)
    first = sealed(log)
    write(log, 3, reason="These were not sealed before the dump")
    source = log.url.render_as_string(hide_password=False)
    with Servers(tmp_path / "other") as others:
        target = new_database(others)
        move(source, target)
        with opened(target) as restored:
            with restored.begin() as connection:
                without_triggers(connection)
                connection.execute(
                    text("UPDATE operator_audit_log SET transaction_id = '4000000000' WHERE id > 5")
                )
            write(restored, 2, reason="These came after the restore")
            one = sealer(restored)
            assert one.run_once() == 5
            write(restored, 2)
            assert one.run_once() == 2
            assert one.run_once() == 0
            last = sealed(restored)

            report = check_whole(restored, first, last)

    assert report.rows == 12
    assert "a restore" in report.notes[0]


def move(source: str, target: str) -> None:
    """Dump a database and restore it, as an administrator would."""
    folder = client_programs("pg_dump", "psql")
    dump = subprocess.run(
        [folder / "pg_dump", "--no-owner", plain(source)], check=True, capture_output=True
    )
    subprocess.run(
        [folder / "psql", "--quiet", "--set=ON_ERROR_STOP=1", plain(target)],
        check=True,
        capture_output=True,
        input=dump.stdout,
    )


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_the_log_line_and_the_file_hold_the_head(
    log: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "heads"
    file = HeadFile(path)
    one = Sealer(log, lambda seal: exported(seal, file), file.last())
    with caplog.at_level("INFO"):
        write(log)
        one.run_once()
        path.write_bytes(path.read_bytes()[:-80])  # a kill in the middle of the line
        write(log)
        one.run_once()
        write(log)
        one.run_once()

    third = file.last()
    assert third is not None
    assert str(third) in caplog.text
    assert [head.seq for head in given_heads([str(path)])] == [2, 3]
    logged = tmp_path / "relay.log"
    logged.write_text(caplog.text)
    heads = given_heads([str(logged)])
    assert [head.seq for head in heads] == [1, 2, 3]
    check_whole(log, *heads, *given_heads([str(third), third.hash.hex()]))


def test_a_log_holds_no_heads_but_the_relays(
    log: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        write(log)
        Sealer(log, lambda seal: exported(seal, None)).run_once()
    true = caplog.messages[-1]
    false = true.rpartition(":")[0] + ":" + "ab" * 32
    logged = tmp_path / "relay.log"
    lines = [
        f"relay-1  | INFO {true}",
        json.dumps({"level": "INFO", "message": true}),
        # What clients choose is in the log too: ids of jobs, names of types.
        f"INFO the request to cancel job 1:{'ab' * 32} is applied",
        f"INFO job {false} is replayed as generation 1",
        f'INFO job "head": "1:{"ab" * 32}" became a dead letter',
        json.dumps({"level": "INFO", "job_id": f"1:{'ab' * 32}"}),
    ]
    logged.write_text("\n".join(lines))
    heads = given_heads([str(logged)])
    assert len(heads) == 2
    check_whole(log, *heads)


def test_a_head_that_cannot_be_written_does_not_stop_the_sealer(
    log: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = HeadFile(tmp_path / "no" / "folder")
    write(log)

    assert Sealer(log, lambda seal: exported(seal, file)).run_once() == 1
    assert "Correct the path in TASKYARD_AUDIT_HEAD_FILE" in caplog.text


@pytest.mark.parametrize("word", ["12:ab", "no-such-file", ""])
def test_what_is_no_head_and_no_file_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match=r"expected a head \(SEQ:HASH, or the hash alone\)"):
        given_heads([word and str(tmp_path / word)])


def test_the_sealer_runs_until_it_is_stopped(log: Engine) -> None:
    assert EVERY_S > 1
    stop, heads = threading.Event(), []

    def export(seal: Seal) -> None:
        heads.append(seal)
        stop.set()

    write(log)
    Sealer(log, export).run(stop)

    assert [head.seq for head in heads] == [1]


def test_a_row_that_claims_a_transaction_of_the_future_is_sealed_once(log: Engine) -> None:
    one = sealer(log)
    write(log)
    one.run_once()
    with log.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
                "identity_via, reason, outcome, transaction_id) VALUES (gen_random_uuid(), "
                "'whoami', 'x', 'local', 'r', 'applied', '9000000000')"
            )
        )
    assert [one.run_once() for _ in range(3)] == [1, 0, 0]
    write(log, 2)
    assert one.run_once() == 2
    assert sealer(log).run_once() == 0
    check_whole(log)


def test_after_a_failover_rows_with_ids_that_were_given_before_are_sealed(
    log: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sealer(log)
    write(log)
    one.run_once()
    for _ in range(20):  # transactions that the promoted server never had
        with log.begin() as connection:
            connection.execute(text("SELECT pg_current_xact_id()"))
    one.run_once()
    with log.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
                "identity_via, reason, outcome, transaction_id) SELECT gen_random_uuid(), "
                "'whoami', 'x', 'local', 'r', 'applied', max(next_transaction) + 3 FROM audit_seals"
            )
        )
    assert one.run_once() == 0
    monkeypatch.setattr(module_of_sealer, "_TIMELINE", text("SELECT '00000002'"))

    assert one.run_once() == 1
    check_whole(log)


def test_kinds_of_findings_have_a_meaning_each() -> None:
    assert set(audit.MEANINGS) == set(Kind)


def test_a_seal_that_is_made_up_keeps_no_later_row_from_being_sealed(log: Engine) -> None:
    write(log, 2)
    head = sealed(log)
    with log.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_seals (seq, form, cluster, sealed_at, next_transaction, "
                "row_ids, row_hashes, last_id, prev_hash, hash) VALUES "
                "(2, 1, 'x', now(), 1, '{}', '', 1000000000, '', '')"
            )
        )
    write(log)
    one = sealer(log)
    assert one.run_once() == 1
    write(log)
    assert one.run_once() == 1

    found = verify(log, [head])
    assert set(found.counts) == {Kind.SEAL_CHANGED, Kind.CHAIN_BROKEN}
    assert (found.rows, found.unsealed, found.heads) == (4, 0, 1)


def test_a_sealer_that_others_keep_from_sealing_warns_of_rows_that_wait(
    log: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Any role, also the reader, can hold the lock; it says nothing while rows are young."""
    write(log, 1)
    sealed(log)
    write(log, 2, age_days=1)
    one = sealer(log)
    with log.begin() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_SQL})"))
        assert [one.run_once(), one.run_once()] == [0, 0]
    assert one.run_once() == 2
    with log.begin() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_SQL})"))
        write(log, 1)
        assert one.run_once() == 0

    assert [vars(record)["action"] for record in caplog.records] == ["audit_not_sealed"]
    assert "the oldest for 86400 s" in caplog.text.replace("86401", "86400")


def test_a_seal_before_the_chain_keeps_no_row_from_being_sealed(log: Engine) -> None:
    write(log, 2)
    with log.begin() as connection:
        without_triggers(connection)
        connection.execute(
            text(
                "INSERT INTO audit_seals (seq, form, cluster, sealed_at, next_transaction, "
                "row_ids, row_hashes, last_id, prev_hash, hash) VALUES "
                "(-1, 1, 'x', now(), 9000000000, '{1,2,3}', '', 3, '', '')"
            )
        )
        with_triggers(connection)
    one = sealer(log)
    assert one.run_once() == 2
    write(log)
    assert one.run_once() == 1

    found = verify(log, [])
    assert set(found.counts) == {Kind.CHAIN_BROKEN, Kind.SEALED_TWICE}
    assert (found.rows, found.unsealed) == (3, 0)
